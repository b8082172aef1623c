//! `s3-server FOLDER BUCKET [ADDRESS]`: serves a folder as S3 until standard input ends.

use std::io::Read;
use std::path::Path;

use s3_server::{ACCESS_KEY, S3Server, SECRET_KEY};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(bucket)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: s3-server FOLDER BUCKET [ADDRESS]");
        std::process::exit(2);
    };
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let server = S3Server::start(Path::new(&folder), &[&bucket], &address)?;
    println!("AWS_ENDPOINT_URL={}", server.endpoint());
    println!("AWS_ACCESS_KEY_ID={ACCESS_KEY}");
    println!("AWS_SECRET_ACCESS_KEY={SECRET_KEY}");
    println!("AWS_REGION=us-east-1");
    // Whoever started us ends us by closing the pipe, also when it dies.
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    Ok(())
}
