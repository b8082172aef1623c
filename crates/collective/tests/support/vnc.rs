//! A small VNC viewer (RFB 3.8, RFC 6143): looks at a screen, raw pixels only.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What a screen shows.
#[derive(PartialEq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// Four bytes a pixel, row by row.
    pub pixels: Vec<u8>,
}

impl Picture {
    pub fn is_as_large_as(&self, other: &Self) -> bool {
        (self.width, self.height) == (other.width, other.height)
    }

    /// How many pixels differ from those of the other picture.
    pub fn differs_by(&self, other: &Self) -> usize {
        assert!(self.is_as_large_as(other));
        self.pixels.chunks(4).zip(other.pixels.chunks(4)).filter(|(a, b)| a != b).count()
    }
}

/// Connects as a viewer; gives the screen's size too.
fn connect(address: &str) -> (TcpStream, u16, u16) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(&take::<12>(&mut stream), b"RFB 003.008\n");
    stream.write_all(b"RFB 003.008\n").unwrap();
    let [kinds] = take::<1>(&mut stream);
    let mut offered = vec![0; usize::from(kinds)];
    stream.read_exact(&mut offered).unwrap();
    assert!(offered.contains(&1), "it lets nobody in without a password: {offered:?}");
    stream.write_all(&[1]).unwrap();
    assert_eq!(take::<4>(&mut stream), [0; 4], "it refused");
    stream.write_all(&[1]).unwrap(); // shared
    let [w1, w0, h1, h0] = take::<4>(&mut stream);
    let format = take::<16>(&mut stream);
    assert_eq!(format[0], 32, "bits of a pixel");
    let name = u32::from_be_bytes(take::<4>(&mut stream));
    stream.read_exact(&mut vec![0; name as usize]).unwrap();
    (stream, u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]))
}

/// Says that the viewer's window has this size (SetDesktopSize); whether the card tells its guest.
pub fn ask_for(address: &str, width: u16, height: u16) -> bool {
    let (mut stream, ..) = connect(address);
    let ([w1, w0], [h1, h0]) = (width.to_be_bytes(), height.to_be_bytes());
    stream.write_all(&[2, 0, 0, 1, 0xff, 0xff, 0xfe, 0xcc]).unwrap(); // ExtendedDesktopSize: -308
    stream.write_all(&[251, 0, w1, w0, h1, h0, 1, 0]).unwrap();
    stream.write_all(&[0, 0, 0, 0, 0, 0, 0, 0, w1, w0, h1, h0, 0, 0, 0, 0]).unwrap(); // one screen
    loop {
        assert_eq!(take::<4>(&mut stream), [0, 0, 0, 1], "an update of one rectangle");
        let header = take::<12>(&mut stream);
        assert_eq!(header[8..], [0xff, 0xff, 0xfe, 0xcc], "the encoding");
        let [screens, ..] = take::<4>(&mut stream);
        stream.read_exact(&mut vec![0; 16 * usize::from(screens)]).unwrap();
        // It says what it has first, then the answer: 4, forwarded.
        if header[1] == 1 {
            return header[3] == 4;
        }
    }
}

/// Connects, asks for the whole screen once, and leaves.
pub fn look(address: &str) -> Picture {
    let (mut stream, width, height) = connect(address);
    let ([w1, w0], [h1, h0]) = (width.to_be_bytes(), height.to_be_bytes());
    stream.write_all(&[2, 0, 0, 1, 0, 0, 0, 0]).unwrap(); // raw only
    stream.write_all(&[3, 0, 0, 0, 0, 0, w1, w0, h1, h0]).unwrap(); // all of it

    let (width, height) = (usize::from(width), usize::from(height));
    let mut picture = Picture { width, height, pixels: vec![0; width * height * 4] };
    assert_eq!(take::<1>(&mut stream), [0], "a framebuffer update");
    let [_, n1, n0] = take::<3>(&mut stream);
    for _ in 0..u16::from_be_bytes([n1, n0]) {
        let header = take::<12>(&mut stream);
        let at = |i: usize| usize::from(u16::from_be_bytes([header[i], header[i + 1]]));
        let (x, y, w, h) = (at(0), at(2), at(4), at(6));
        assert_eq!(header[8..], [0; 4], "the encoding");
        for row in y..y + h {
            let start = (row * width + x) * 4;
            stream.read_exact(&mut picture.pixels[start..start + w * 4]).unwrap();
        }
    }
    picture
}

fn take<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}
