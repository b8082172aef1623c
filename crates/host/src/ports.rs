//! Published ports: `[ADDRESS:]HOST:GUEST`.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use api::PortPrint;
use model::PortMap;

use crate::failure::{Failure, Result};

/// Reads a published port. Without an address it is loopback only.
pub fn parse_port(text: &str) -> Result<PortMap> {
    let bad = || {
        Failure::new(
            "usage",
            format!("{text:?} is not a published port"),
            "write [ADDRESS:]HOST:GUEST, for example 8080:80 or 0.0.0.0:8080:80",
        )
    };
    let text_ports = text.strip_suffix("/tcp").unwrap_or(text);
    let (rest, guest) = text_ports.rsplit_once(':').ok_or_else(bad)?;
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => {
            let address = address.trim_start_matches('[').trim_end_matches(']');
            (address.parse().map_err(|_| bad())?, host)
        }
        None => (IpAddr::V4(Ipv4Addr::LOCALHOST), rest),
    };
    let guest_port = guest.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
    Ok(PortMap { address, host_port: host.parse().map_err(|_| bad())?, guest_port })
}

/// Gives every port that asked for a free one (host port 0) a number, and makes sure that the
/// others are free now.
pub fn settle(ports: &[PortMap]) -> Result<Vec<PortMap>> {
    // All are held until all are settled, so that two of them never get the same number.
    let mut held = Vec::with_capacity(ports.len());
    let mut settled = Vec::with_capacity(ports.len());
    for port in ports {
        let listener = TcpListener::bind((port.address, port.host_port))
            .map_err(|error| not_published(port, &error))?;
        settled.push(PortMap { host_port: listener.local_addr()?.port(), ..port.clone() });
        held.push(listener);
    }
    Ok(settled)
}

/// The same ports, but any free ones in the place of those that somebody else has taken meanwhile.
pub fn free(ports: &[PortMap]) -> Vec<PortMap> {
    let mut ports = ports.to_vec();
    for port in &mut ports {
        if settle(std::slice::from_ref(port)).is_err() {
            port.host_port = 0;
        }
    }
    ports
}

/// Why a port cannot be had: the network knows more than the operating system's error.
fn not_published(port: &PortMap, error: &std::io::Error) -> Failure {
    let guest = port.guest_port;
    let another = format!("choose another with -p HOST:{guest}, or -p 0:{guest} for a free one");
    match network::require_free(port.address, port.host_port) {
        Err(error @ network::NetworkError::PortTaken { .. }) => {
            Failure::new("network", error.to_string(), another)
        }
        Err(error) => error.into(),
        Ok(()) => Failure::new(
            "network",
            format!("port {}:{} cannot be published: {error}", port.address, port.host_port),
            another,
        ),
    }
}

/// The wire form.
pub fn print(ports: &[PortMap]) -> Vec<PortPrint> {
    ports
        .iter()
        .map(|port| PortPrint {
            address: port.address.to_string(),
            host_port: port.host_port,
            guest_port: port.guest_port,
        })
        .collect()
}

/// From the wire form; what cannot be read is left out.
pub fn read(ports: &[PortPrint]) -> Vec<PortMap> {
    ports
        .iter()
        .filter_map(|port| {
            Some(PortMap {
                address: port.address.parse().ok()?,
                host_port: port.host_port,
                guest_port: port.guest_port,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let check = |text: &str, expected: (&str, u16, u16)| {
            let port = parse_port(text).unwrap();
            assert_eq!(
                (port.address.to_string().as_str(), port.host_port, port.guest_port),
                expected
            );
        };
        check("8080:80", ("127.0.0.1", 8080, 80));
        check("0:80/tcp", ("127.0.0.1", 0, 80));
        check("0.0.0.0:8080:80", ("0.0.0.0", 8080, 80));
        check("[::1]:8080:80", ("::1", 8080, 80));
        for bad in ["", "80", "a:80", "80:0", "80:b", "1:2:3:4", "70000:80"] {
            assert_eq!(parse_port(bad).unwrap_err().kind, "usage", "{bad}");
        }
    }

    #[test]
    fn a_taken_port_is_refused_and_free_ones_differ() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let taken_map = parse_port(&format!("{port}:80")).unwrap();
        let refused = settle(&[taken_map]).unwrap_err();
        assert_eq!(refused.kind, "network");
        assert!(refused.message.contains(&format!("(pid {})", std::process::id())), "{refused}");
        let free = parse_port("0:80").unwrap();
        let settled = settle(&[free.clone(), free]).unwrap();
        assert_ne!(settled[0].host_port, settled[1].host_port);
    }
}
