//! `network`: bridges of this host that instances can be plugged into.

use api::NetworkPrint;
use host::Failure;
use model::Name;

use super::open;
use crate::cli::{Global, Networks};
use crate::print;

pub fn execute(global: &Global, verb: Option<&Networks>) -> Result<(), Failure> {
    let mut host = open(global)?;
    let name = |text: &str| {
        Name::new(text)
            .map_err(|e| Failure::new("usage", e.to_string(), "for example `lan`, or `office`"))
    };
    match verb {
        Some(Networks::Add { name: text, bridge }) => host.add_network(&name(text)?, bridge)?,
        Some(Networks::Remove { name: text }) => host.remove_network(&name(text)?)?,
        None => {}
    }
    let networks = host.networks();
    print::result(global, &networks, || {
        if global.quiet {
            return networks.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join("\n");
        }
        let row = |network: &NetworkPrint| {
            let bridge = network.bridge.clone().unwrap_or_else(|| "-".to_owned());
            vec![network.name.clone(), bridge, network.state.clone()]
        };
        print::table(&["NAME", "BRIDGE", "STATE"], networks.iter().map(row))
    });
    Ok(())
}
