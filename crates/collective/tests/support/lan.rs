//! Hosts with networks of their own, behind one switch: namespaces of this machine.
#![allow(dead_code)]

use std::ffi::OsString;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::support::{World, eventually};

/// A switch called `br0` in a namespace of its own, and hosts whose bridges `br0` are plugged into it.
pub struct Lan {
    tag: String,
    hosts: Vec<String>,
}

impl Lan {
    /// The switch has the address 10.231.79.1, the hosts none.
    pub fn of(hosts: &[&str]) -> Self {
        let lan = Self {
            tag: format!("ct{}", std::process::id()),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        };
        let switch = lan.namespace("");
        lan.make_namespace("");
        ip(&["-n", &switch, "address", "add", "10.231.79.1/24", "dev", "br0"]);
        for host in hosts {
            let inside = lan.namespace(host);
            lan.make_namespace(host);
            let cable = format!("to{host}");
            let end = ["peer", "name", "eth0", "netns", &inside];
            let begin = ["link", "add", &cable, "netns", &switch, "type", "veth"];
            ip(&[&begin[..], &end].concat());
            ip(&["-n", &switch, "link", "set", &cable, "master", "br0", "up"]);
            ip(&["-n", &inside, "link", "set", "eth0", "master", "br0", "up"]);
        }
        lan
    }

    /// The world with its hosts there.
    pub fn around(&self, world: World) -> World {
        let enter = |host: &String| {
            let words = ["ip", "netns", "exec", &self.namespace(host)].map(OsString::from);
            (host.clone(), words.to_vec())
        };
        world.entered_by(self.hosts.iter().map(enter).collect())
    }

    fn make_namespace(&self, host: &str) {
        let name = self.namespace(host);
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        ip(&["-n", &name, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &name, "link", "set", "br0", "up"]);
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}{host}", self.tag)
    }

    /// The devices of a host.
    pub fn devices(&self, host: &str) -> String {
        ip(&["-n", &self.namespace(host), "-o", "link"])
    }

    /// Opens a connection from the switch.
    pub fn connect(&self, to: SocketAddr) -> TcpStream {
        let file = File::open(format!("/run/netns/{}", self.namespace(""))).unwrap();
        let connected = std::thread::spawn(move || {
            // A thread's own: it ends here, what it opened stays there.
            let network = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&file),
                Some(network),
            )
            .unwrap();
            let mut connected = None;
            eventually(Duration::from_secs(30), "it can be reached", || {
                connected = TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok();
                connected.is_some()
            });
            connected.unwrap()
        });
        connected.join().unwrap()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in self.hosts.iter().map(String::as_str).chain([""]) {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(host)]).status();
        }
    }
}

fn ip(words: &[&str]) -> String {
    let out = Command::new("ip").args(words).output().expect("ip (iproute2) can be started");
    assert!(out.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
