//! A socket with a time by which all that is done with it has to be done: a timeout of the operating
//! system is for each read, and who sends a byte now and then would never meet it.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::TcpStream;

use ambient::{Duration, Instant};

pub struct Timed {
    socket: TcpStream,
    by: Instant,
}

impl Timed {
    /// Has so long from now on.
    pub fn new(socket: TcpStream, within: Duration) -> Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self { socket, by: ambient::now() + within })
    }

    /// Has so long from now on.
    pub fn within(&mut self, within: Duration) {
        self.by = ambient::now() + within;
    }

    fn left(&self) -> Result<Option<Duration>> {
        let left = self.by.saturating_duration_since(ambient::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buf)
    }
}

impl Write for Timed {
    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(buf)
    }

    fn flush(&mut self) -> Result<()> {
        self.socket.flush()
    }
}

/// Whether time was over. (A socket whose timeout is over says that it would block.)
pub fn is_over(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}
