//! Hosts with networks of their own, behind one switch: namespaces of this machine.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where frames go that nobody gets.
const NOBODY: &str = "02:c0:00:00:ff:ff";

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

    /// The same, where hosts have addresses and know each other's cards, so that they can be cut off
    /// from each other.
    pub fn of_neighbours(hosts: &[&str]) -> Self {
        let lan = Self::of(hosts);
        for host in hosts {
            let (inside, card) = (lan.namespace(host), lan.card(host));
            ip(&["-n", &inside, "link", "set", "br0", "address", &card]);
            let address = format!("{}/24", lan.address(host));
            ip(&["-n", &inside, "address", "add", &address, "dev", "br0"]);
        }
        for one in hosts {
            hosts.iter().filter(|other| *other != one).for_each(|other| lan.heal(one, other));
        }
        lan
    }

    fn number(&self, host: &str) -> u8 {
        let at = self.hosts.iter().position(|known| known == host).expect("a host of this switch");
        10 + at as u8
    }

    fn card(&self, host: &str) -> String {
        format!("02:c0:00:00:00:{:02x}", self.number(host))
    }

    /// Of a host among neighbours.
    pub fn address(&self, host: &str) -> Ipv4Addr {
        Ipv4Addr::new(10, 231, 79, self.number(host))
    }

    /// From now on nothing that these send to each other arrives, and neither is told: their frames go to
    /// a card that nobody has.
    pub fn cut(&self, one: &str, other: &str) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// From now on nothing arrives that one of them sends to the other.
    pub fn cut_one_way(&self, sender: &str, receiver: &str) {
        self.tell(sender, receiver, NOBODY);
    }

    /// What they send arrives again.
    pub fn heal(&self, one: &str, other: &str) {
        self.tell(one, other, &self.card(other));
        self.tell(other, one, &self.card(one));
    }

    /// From now on what this host sends goes no faster.
    pub fn slow(&self, host: &str, rate: &str) {
        let shaped = ["root", "tbf", "rate", rate, "burst", "32kb", "latency", "300ms"];
        self.shape(host, &[&["replace"][..], &["dev", "eth0"], &shaped].concat());
    }

    /// It goes as fast as it can again.
    pub fn quick(&self, host: &str) {
        self.shape(host, &["del", "dev", "eth0", "root"]);
    }

    fn shape(&self, host: &str, words: &[&str]) {
        let namespace = self.namespace(host);
        let status = Command::new("tc").args(["-n", &namespace, "qdisc"]).args(words).status();
        assert!(status.unwrap().success(), "tc {words:?}");
    }

    fn tell(&self, host: &str, of: &str, card: &str) {
        let (inside, address) = (self.namespace(host), self.address(of).to_string());
        let neighbour = ["-n", &inside, "neighbour", "replace", &address];
        ip(&[&neighbour[..], &["lladdr", card, "dev", "br0", "nud", "permanent"]].concat());
    }

    /// The words that begin a command of a host's.
    pub fn entrance(&self, host: &str) -> [String; 4] {
        ["ip", "netns", "exec", &self.namespace(host)].map(str::to_owned)
    }

    /// Does something on a host's network; threads that this starts stay there.
    pub fn inside<T: Send>(&self, host: &str, act: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.namespace(host))).unwrap();
        let act = move || {
            // A thread's own: it ends here, what it opened stays there.
            let network = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&file),
                Some(network),
            )
            .unwrap();
            act()
        };
        std::thread::scope(|scope| scope.spawn(act).join().unwrap())
    }

    /// Of all hosts, for a world whose hosts are to be there.
    pub fn entrances(&self) -> BTreeMap<String, Vec<OsString>> {
        let enter =
            |host: &String| (host.clone(), self.entrance(host).map(OsString::from).to_vec());
        self.hosts.iter().map(enter).collect()
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
        self.inside("", || {
            let ends = Instant::now() + Duration::from_secs(30);
            loop {
                match TcpStream::connect_timeout(&to, Duration::from_secs(2)) {
                    Ok(connected) => return connected,
                    Err(error) => assert!(Instant::now() < ends, "it cannot be reached: {error}"),
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        })
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
