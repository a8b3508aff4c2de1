//! The guest's network: who has which address, and where on the host a guest's destination is.
//!
//! The addresses are those of QEMU's user networking, so that instructions written for it hold.

use crate::backend::net::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The Ethernet address of everything that is not the guest.
pub(super) const GATEWAY_MAC: MacAddr = MacAddr([0x52, 0x55, 0x0a, 0x00, 0x02, 0x02]);

/// The first three bytes of all IPv4 addresses here.
const V4_NETWORK: [u8; 3] = [10, 0, 2];
pub(super) const V4_MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// The gateway, which stands for the host itself.
pub const GATEWAY_V4: Ipv4Addr = v4(2);
/// The name server.
pub const DNS_V4: Ipv4Addr = v4(3);
/// What the first card gets by DHCP; published ports lead to it.
pub const GUEST_V4: Ipv4Addr = v4(15);
const BROADCAST_V4: Ipv4Addr = v4(255);

/// The prefix that guests make their IPv6 addresses with, /64.
pub(super) const V6_PREFIX: Ipv6Addr = v6(0);
/// The gateway, which stands for the host itself.
pub const GATEWAY_V6: Ipv6Addr = v6(2);
/// The name server.
pub const DNS_V6: Ipv6Addr = v6(3);
/// The gateway's link-local address, from which it advertises itself.
pub(super) const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// A host of the network.
pub(super) const fn v4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(V4_NETWORK[0], V4_NETWORK[1], V4_NETWORK[2], host)
}

const fn v6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, host)
}

/// Is it an address of the guest's network?
pub(super) fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == V4_NETWORK,
        IpAddr::V6(address) => address.segments()[..4] == V6_PREFIX.segments()[..4] || is_link_local(address),
    }
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// Is it an address that the gateway itself has?
pub(super) fn is_ours(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address == GATEWAY_V4 || address == DNS_V4,
        IpAddr::V6(address) => [GATEWAY_V6, DNS_V6, ROUTER_V6].contains(&address),
    }
}

/// May a packet of a guest come from this address? Anything that is one station's and not one of ours.
pub(super) fn is_guest(address: IpAddr) -> bool {
    !is_ours(address)
        && match address {
            IpAddr::V4(address) => {
                !(address.is_unspecified()
                    || address.is_multicast()
                    || address.is_broadcast()
                    || address.is_loopback())
                    && address != BROADCAST_V4
            }
            IpAddr::V6(address) => {
                !(address.is_unspecified() || address.is_multicast() || address.is_loopback())
                    && address.to_ipv4_mapped().is_none()
            }
        }
}

/// What a guest's destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// This address of the host's network.
    Host(SocketAddr),
    /// A resolver of the host.
    Resolver,
    /// No such station; the guest should be told.
    Unreachable,
    /// Nothing that travels through a gateway: broadcasts, groups, addresses that mean this station.
    Nowhere,
}

/// Where on the host what a guest sends to `to` goes.
pub(super) fn destination(to: SocketAddr) -> Destination {
    let host = |address: IpAddr| Destination::Host(SocketAddr::new(address, to.port()));
    match to.ip() {
        IpAddr::V4(GATEWAY_V4) => host(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(GATEWAY_V6) => host(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(DNS_V4) | IpAddr::V6(DNS_V6) => match to.port() {
            53 => Destination::Resolver,
            _ => Destination::Unreachable,
        },
        IpAddr::V4(address) if address == BROADCAST_V4 => Destination::Nowhere,
        address if is_local(address) => match address {
            IpAddr::V6(address) if is_link_local(address) => Destination::Nowhere,
            _ => Destination::Unreachable,
        },
        // 0/8 and 127/8 mean this station, 240/4 nobody.
        IpAddr::V4(address) if matches!(address.octets()[0], 0 | 127 | 240..) || address.is_multicast() => {
            Destination::Nowhere
        }
        // Mapped and compatible addresses would reach IPv4 stations, this host's loopback among them, past the rules above.
        IpAddr::V6(address)
            if address.is_multicast() || address.segments()[..5] == [0; 5] || address.is_unspecified() =>
        {
            Destination::Nowhere
        }
        address => host(address),
    }
}

/// As whom a station of the host's network appears to the guest: its own processes are the gateway's.
/// `None`: it has no address of the guest's kind.
pub(super) fn apparent(peer: SocketAddr, ipv6: bool) -> SocketAddr {
    let gateway = |port| match ipv6 {
        true => SocketAddr::new(GATEWAY_V6.into(), port),
        false => SocketAddr::new(GATEWAY_V4.into(), port),
    };
    let address = peer.ip().to_canonical();
    if address.is_loopback() || address.is_ipv6() != ipv6 || is_local(address) || !is_guest(address) {
        return gateway(peer.port());
    }
    SocketAddr::new(address, peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> Destination {
        destination(text.parse().unwrap())
    }

    #[test]
    fn destinations_are_translated() {
        let host = |text: &str| Destination::Host(text.parse().unwrap());
        assert_eq!(to("10.0.2.2:80"), host("127.0.0.1:80"));
        assert_eq!(to("[fec0::2]:80"), host("[::1]:80"));
        assert_eq!(to("192.0.2.1:443"), host("192.0.2.1:443"));
        assert_eq!(to("[2001:db8::1]:443"), host("[2001:db8::1]:443"));
        assert_eq!((to("10.0.2.3:53"), to("[fec0::3]:53")), (Destination::Resolver, Destination::Resolver));
        for unreachable in ["10.0.2.3:80", "10.0.2.99:1", "10.0.2.15:1", "[fec0::3]:80", "[fec0::9]:1"] {
            assert_eq!(to(unreachable), Destination::Unreachable, "{unreachable}");
        }
        for nowhere in [
            "127.0.0.1:22",
            "0.0.0.0:1",
            "10.0.2.255:1",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "[::1]:22",
            "[::]:1",
            "[::ffff:127.0.0.1]:22",
            "[::127.0.0.1]:22",
            "[ff02::1]:1",
            "[fe80::2]:22",
            "[fe80::1234]:1",
        ] {
            assert_eq!(to(nowhere), Destination::Nowhere, "{nowhere}");
        }
    }

    #[test]
    fn peers_appear_as_stations_the_guest_can_answer() {
        let as_v4 = |peer: &str| apparent(peer.parse().unwrap(), false).to_string();
        assert_eq!(as_v4("127.0.0.1:5000"), "10.0.2.2:5000");
        assert_eq!(as_v4("[::1]:5000"), "10.0.2.2:5000");
        assert_eq!(as_v4("[::ffff:192.0.2.7]:5000"), "192.0.2.7:5000");
        assert_eq!(as_v4("10.0.2.15:5000"), "10.0.2.2:5000");
        assert_eq!(apparent("[2001:db8::7]:1".parse().unwrap(), true).to_string(), "[2001:db8::7]:1");
        assert_eq!(apparent("192.0.2.7:1".parse().unwrap(), true).to_string(), "[fec0::2]:1");
    }

    #[test]
    fn only_stations_can_be_guests() {
        let is_guest = |text: &str| is_guest(text.parse().unwrap());
        assert!(is_guest("10.0.2.15") && is_guest("192.168.7.7") && is_guest("fe80::1234"));
        for not in [
            "10.0.2.2",
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "10.0.2.255",
            "fec0::2",
            "fe80::2",
            "::",
            "::1",
            "ff02::1",
        ] {
            assert!(!is_guest(not), "{not}");
        }
    }
}
