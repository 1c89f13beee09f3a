//! IP networks: who may tell a listener where a request came from.

use std::collections::HashSet;
use std::str::FromStr;

use ipnet::IpNet;

use super::error::At;
use super::names::quote;
use super::reader::{Item, Reading};

/// A list of networks, not empty, each given once.
pub(super) fn networks(item: &Item<'_>, if_empty: &str, reading: &mut Reading) -> Option<Vec<IpNet>> {
    let mut seen = HashSet::new();
    item.filled_list(if_empty, reading, |item, reading| {
        let text = item.text(reading)?;
        let network = network(&text, reading)?;
        if !seen.insert(network) {
            reading.faults.add(&text.spot, format!("{} is given twice", quote(&text.value)));
        }
        Some(network)
    })
}

fn network(text: &At<String>, reading: &mut Reading) -> Option<IpNet> {
    let mut refuse = |why: String, hint: &str| reading.faults.add_with_hint(&text.spot, format!("{} {why}", quote(&text.value)), hint);
    let Ok(network) = IpNet::from_str(&text.value) else {
        refuse("is no IP network".to_owned(), "write it as 10.0.0.0/8 or 2001:db8::/32; a single address as 10.0.0.5/32");
        return None;
    };
    if network.prefix_len() == 0 {
        refuse(
            "is every address: whoever connects would be believed".to_owned(),
            "name the addresses of the load balancers or proxies alone",
        );
        return None;
    }
    if network.addr() != network.network() {
        refuse(format!("has bits set beyond its prefix; the network is {}", network.trunc()), "a single address is written as 10.0.0.5/32");
        return None;
    }
    Some(network)
}
