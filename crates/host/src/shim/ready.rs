//! Is the guest ready for its user? As its maker says: a port that answers, a line on the console,
//! or the guest agent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::Ready;

use super::guest::Guest;
use super::shared::Shared;
use crate::failure::{Failure, Result};

/// What a check needs to know of the machine.
pub struct ReadyCheck {
    pub ready: Ready,
    /// Where the guest's port of a port check is published; none: it has an address of its own.
    pub port: Option<SocketAddr>,
    /// The console's log, and how long it was when this start began.
    pub console: PathBuf,
    pub console_offset: u64,
    /// Whether the guest continued from memory: what it said on the console, it said before.
    pub continued: bool,
    pub guest: Arc<Guest>,
    /// Where it is said what a volume cannot have.
    pub shared: Arc<Shared>,
}

/// Between two tries.
const PERIOD: Duration = Duration::from_millis(20);

/// How long a guest may wait for a page that is damaged before its user is told: a broken read may
/// pass, and another host may have the page.
const DAMAGED_MAX: Duration = Duration::from_secs(5);

impl ReadyCheck {
    /// Waits until the guest is ready.
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        let deadline = ambient::now() + timeout;
        let mut damaged_since = None;
        loop {
            if self.passes() {
                return Ok(());
            }
            let stall = self.shared.stall();
            match stall.as_ref().filter(|stall| stall.kind == "damaged") {
                None => damaged_since = None,
                Some(stall) => {
                    let since = *damaged_since.get_or_insert_with(ambient::now);
                    // More waiting mends nothing: somebody has to.
                    if since.elapsed() >= DAMAGED_MAX {
                        return Err(Failure::new(
                            "not_ready",
                            format!("it waits: {}", stall.message),
                            format!("{}; it goes on by itself when that is mended", stall.hint),
                        ));
                    }
                }
            }
            if self.guest.has_ended() {
                return Err(Failure::new(
                    "hypervisor",
                    "it ended before it was ready",
                    "`collective logs NAME` shows its console",
                ));
            }
            if ambient::now() >= deadline {
                let waits = stall.map_or(String::new(), |why| format!("; it waits: {why}"));
                let (within, what) = (timeout.as_secs(), self.what());
                return Err(Failure::new(
                    "not_ready",
                    format!("it was not ready within {within} s ({what}){waits}"),
                    "it goes on running: `collective logs NAME` shows its console; --timeout waits longer",
                ));
            }
            std::thread::sleep(PERIOD);
        }
    }

    fn what(&self) -> String {
        match &self.ready {
            Ready::Started => "its CPUs run".to_owned(),
            Ready::Port(port) => format!("its port {port} has to answer"),
            Ready::Http { port, path } => format!("its port {port} has to have the page {path}"),
            Ready::Console(text) => format!("its console has to say {text:?}"),
            Ready::Agent => "its agent has to answer".to_owned(),
        }
    }

    fn passes(&self) -> bool {
        match &self.ready {
            Ready::Started => true,
            Ready::Port(port) => match self.port {
                Some(published) => answers(published),
                None => self.guest.listens(*port),
            },
            Ready::Http { port, path } => match self.port {
                // First whether somebody is there at all: a connection that was made before the
                // guest had a network may hang for long.
                Some(published) => answers(published) && has_page(published, path),
                // No way leads there from here.
                None => self.guest.listens(*port),
            },
            Ready::Console(_) if self.continued => true,
            Ready::Console(text) => console_says(&self.console, self.console_offset, text),
            Ready::Agent => self.guest.ping(),
        }
    }
}

/// Whether something in the guest answers at this published port.
///
/// User-mode networking accepts every connection at once and only then tries the guest, so that a
/// connection proves nothing: the guest has to send a byte, of its own accord or to a request.
fn answers(address: SocketAddr) -> bool {
    let try_it = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        // Long enough for a slow guest's first answer, short enough to try again when the guest
        // had no network yet and the connection hangs.
        stream.set_read_timeout(Some(Duration::from_millis(1500)))?;
        stream.set_write_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(b"HEAD / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        Ok(stream.read(&mut [0; 1])? == 1)
    };
    try_it().unwrap_or(false)
}

/// A page may take so long: a guest whose code comes over a slow line should not be asked again and
/// again meanwhile.
const PAGE_MAX: Duration = Duration::from_secs(10);

/// Whether a web server in the guest, at this published port, has a page: it sends it, or says where
/// it is.
fn has_page(address: SocketAddr, path: &str) -> bool {
    let try_it = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(PAGE_MAX))?;
        stream.set_write_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let mut line = [0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut line)?;
        let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9', b' ', status, tens, ones] =
            line
        else {
            return Ok(false);
        };
        Ok(matches!(status, b'2' | b'3') && tens.is_ascii_digit() && ones.is_ascii_digit())
    };
    try_it().unwrap_or(false)
}

/// Most of a console's log that is searched, bytes.
const CONSOLE_BYTES_MAX: u64 = 1 << 20;

fn console_says(log: &Path, offset: u64, text: &str) -> bool {
    use std::io::{Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(log)?;
        let end = file.metadata()?.len();
        let start = offset.max(end.saturating_sub(CONSOLE_BYTES_MAX)).min(end);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(CONSOLE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().is_ok_and(|bytes| {
        text.is_empty() || bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_searched_from_this_start_on() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        assert!(!console_says(&log, 0, "READY"));
        std::fs::write(&log, "READY of the start before\nhello\n").unwrap();
        assert!(console_says(&log, 0, "READY"));
        assert!(!console_says(&log, 6, "READY"));
        assert!(console_says(&log, 6, "hello"));
    }

    #[test]
    fn only_a_byte_from_the_guest_is_an_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            drop(listener.accept().unwrap());
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"H").unwrap();
        });
        assert!(!answers(address), "it closed without a word");
        assert!(answers(address));
        server.join().unwrap();
        assert!(!answers(address), "nobody listens");
    }

    #[test]
    fn a_page_is_there_when_its_server_says_so() {
        use std::io::BufRead;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let lines = [
            ("HTTP/1.1 200 OK\r\n\r\nhello", true),
            ("HTTP/1.0 302 Found\r\nLocation: /login\r\n\r\n", true),
            ("HTTP/1.1 204 \r\n\r\n", true),
            ("HTTP/1.1 404 Not Found\r\n\r\n", false),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", false),
            ("HTTP/1.1 2xx what\r\n\r\n", false),
            ("SSH-2.0-OpenSSH_9.2p1\r\n", false),
            ("HTTP/1", false),
            ("", false),
        ];
        let server = std::thread::spawn(move || {
            for (answer, _) in lines {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = String::new();
                std::io::BufReader::new(&stream).read_line(&mut asked).unwrap();
                assert_eq!(asked, "GET /api/state?short HTTP/1.0\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        for (answer, is_there) in lines {
            assert_eq!(has_page(address, "/api/state?short"), is_there, "{answer:?}");
        }
        server.join().unwrap();
        assert!(!has_page(address, "/"), "nobody listens");
    }
}
