//! The networks whose forwarded headers are believed.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// `trusted_proxies` of the table. An IPv4 network also holds its addresses in IPv6 form, as a
/// listener on `[::]` sees them, and the other way round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Box<[IpNet]>);

impl TrustedProxies {
    /// From the table's networks.
    #[must_use]
    pub fn new(networks: &[IpNet]) -> Self {
        TrustedProxies(networks.iter().map(|&network| canonical(network)).collect())
    }

    /// Whether an address is in one of them.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }
}

/// `::ffff:10.0.0.0/104` as `10.0.0.0/8`.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped: Option<(_, u8)> =
        Ipv6Addr::to_ipv4_mapped(&v6.addr()).zip(v6.prefix_len().checked_sub(96));
    match mapped.map(|(ip, length)| Ipv4Net::new(ip, length)) {
        Some(Ok(v4)) => IpNet::V4(v4),
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(networks: &[&str], ip: &str, expected: bool) {
        let networks: Vec<IpNet> = networks.iter().map(|n| n.parse().unwrap()).collect();
        let trusted = TrustedProxies::new(&networks);
        assert_eq!(trusted.contains(ip.parse().unwrap()), expected, "{ip} in {networks:?}");
    }

    #[test]
    fn an_address_is_trusted_when_a_network_holds_it() {
        check(&["10.0.0.0/8", "fd00::/8"], "10.1.2.3", true);
        check(&["10.0.0.0/8", "fd00::/8"], "fd12::1", true);
        check(&["10.0.0.0/8", "fd00::/8"], "11.0.0.1", false);
        check(&["127.0.0.1/32"], "127.0.0.2", false);
        check(&[], "127.0.0.1", false);
    }

    #[test]
    fn ipv4_in_ipv6_form_is_ipv4() {
        check(&["10.0.0.0/8"], "::ffff:10.1.2.3", true);
        check(&["::ffff:10.0.0.0/104"], "10.1.2.3", true);
        check(&["::ffff:10.0.0.0/104"], "::ffff:11.1.2.3", false);
        check(&["::/0"], "2001:db8::1", true);
    }
}
