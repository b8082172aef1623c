//! Is a host port free, and if not, who has it?
//!
//! The answer is of this moment: between the look and the real listener somebody else can take
//! the port. The listener's own failure is then reported by whoever starts it; looking first is
//! for the message, which an operator can act on.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::MetadataExt;

use crate::NetworkError;

/// Processes and sockets looked at to find a port's owner: a bound, for hosts with very many.
const LOOKED_AT_MAX: usize = 200_000;

/// Fails unless a listener could be opened at `address:port` by an unprivileged process.
pub fn require_free(address: IpAddr, port: u16) -> Result<(), NetworkError> {
    if port == 0 {
        return Err(NetworkError::PortZero);
    }
    // The process that will listen has no privileges, whoever we are.
    let first_free = first_unprivileged_port();
    if port < first_free {
        return Err(NetworkError::PortPrivileged { port, first_free });
    }
    match TcpListener::bind((address, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            Err(NetworkError::PortTaken { address, port, owner: owner_of(port) })
        }
        Err(error) => Err(NetworkError::Unusable { address, port, detail: error.to_string() }),
    }
}

fn first_unprivileged_port() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}

/// The process that listens on TCP `port`, when this user may see it.
fn owner_of(port: u16) -> Option<String> {
    let inodes: Vec<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let mut looked_at = 0;
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(fds) = fs::read_dir(process.path().join("fd")) else { continue };
        for fd in fds.flatten() {
            looked_at += 1;
            if looked_at > LOOKED_AT_MAX {
                return None;
            }
            if fs::metadata(fd.path()).is_ok_and(|m| inodes.contains(&m.ino()))
                && fs::read_link(fd.path())
                    .is_ok_and(|l| l.to_string_lossy().starts_with("socket:"))
            {
                let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some(format!("{} (pid {pid})", command.trim()));
            }
        }
    }
    None
}

/// Socket inodes that listen on `port`, from the text of `/proc/net/tcp` (see proc(5)).
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let port = format!("{port:04X}");
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        (local_port == port && *fields.get(3)? == LISTEN).then(|| fields.get(9)?.parse().ok())?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_taken_port_names_its_owner() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = require_free(Ipv4Addr::LOCALHOST.into(), port).unwrap_err();
        let me = std::process::id();
        assert!(error.to_string().contains(&format!("(pid {me})")), "{error}");
        assert!(error.hint().contains("-p "), "{}", error.hint());
        drop(listener);
        require_free(Ipv4Addr::LOCALHOST.into(), port).unwrap();
    }

    #[test]
    fn ports_that_cannot_work_are_refused() {
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert!(matches!(require_free(local, 0), Err(NetworkError::PortZero)));
        let elsewhere = IpAddr::from([192, 0, 2, 1]);
        assert!(matches!(require_free(elsewhere, 40_000), Err(NetworkError::Unusable { .. })));
    }

    #[test]
    fn the_kernels_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x\n\
            1: 0100007F:1F90 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x\n\
            garbage\n";
        assert_eq!(listening_inodes(table, 8080), [4711]);
        assert_eq!(listening_inodes(table, 80), [] as [u64; 0]);
    }
}
