//! Address resolution and router advertisement: ARP (RFC 826), neighbour discovery (RFC 4861, RFC 8106).

use super::{
    address::{DNS_V4, DNS_V6, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, ROUTER_V6, V6_PREFIX, is_guest},
    outbox::Outbox,
    packet::Packet,
};
use crate::backend::net::{ETHERNET_HEADER_BYTES, FrameMeta, MacAddr};
use smoltcp::{
    time::Duration,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol, Icmpv6Packet,
        NdiscNeighborFlags, NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags,
    },
};
use std::net::{IpAddr, Ipv6Addr};

/// How long a guest may use the router and the prefix without hearing of them again.
const LIFETIME: Duration = Duration::from_secs(86_400);
/// The most a router's lifetime can be, in seconds.
const ROUTER_LIFETIME: Duration = Duration::from_secs(9000);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The hop limit that shows that a message never passed a router.
const NEIGHBOUR_HOPS: u8 = 255;

/// Answers an ARP packet.
pub(super) fn arp(out: &mut Outbox, packet: &[u8]) {
    let Ok(packet) = ArpPacket::new_checked(packet) else { return };
    let Ok(ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    }) = ArpRepr::parse(&packet)
    else {
        return;
    };
    let sender = MacAddr(source_hardware_addr.0);
    if is_guest(source_protocol_addr.into()) {
        out.learn(source_protocol_addr.into(), sender);
    }
    let ours = target_protocol_addr == GATEWAY_V4 || target_protocol_addr == DNS_V4;
    if operation != ArpOperation::Request || !ours || sender.is_multicast() {
        return;
    }
    let answer = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(GATEWAY_MAC.0),
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    let mut frame = out.buffer(answer.buffer_len());
    Outbox::address(&mut frame, sender, EthernetProtocol::Arp);
    answer.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET_HEADER_BYTES..]));
    out.push(FrameMeta::default(), frame);
}

/// Answers neighbour and router solicitations; `sender` is who sent the frame. `dns`: the guest may ask our server.
pub(super) fn neighbour(out: &mut Outbox, packet: &Packet<'_>, sender: MacAddr, dns: bool) {
    let IpAddr::V6(from) = packet.from else { return };
    // Only an unmistakable neighbour counts (RFC 4861, 7.1.1).
    if packet.whole[7] != NEIGHBOUR_HOPS {
        return;
    }
    let Ok(message) = Icmpv6Packet::new_checked(packet.payload) else { return };
    match NdiscRepr::parse(&message) {
        Ok(NdiscRepr::NeighborSolicit { target_addr, .. }) => {
            if is_guest(from.into()) {
                out.learn(from.into(), sender);
            }
            if [GATEWAY_V6, DNS_V6, ROUTER_V6].contains(&target_addr) {
                advertise_neighbour(out, target_addr, from);
            }
        }
        Ok(NdiscRepr::RouterSolicit { .. }) => advertise_router(out, dns),
        _ => (),
    }
}

fn advertise_neighbour(out: &mut Outbox, target: Ipv6Addr, asker: Ipv6Addr) {
    // Who has no address yet asks whether it may have one of ours.
    let (to, solicited) = match asker.is_unspecified() {
        true => (ALL_NODES, NdiscNeighborFlags::empty()),
        false => (asker, NdiscNeighborFlags::SOLICITED),
    };
    let router = if target == ROUTER_V6 { NdiscNeighborFlags::ROUTER } else { NdiscNeighborFlags::empty() };
    let advert = NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE | solicited | router,
        target_addr: target,
        lladdr: Some(EthernetAddress(GATEWAY_MAC.0).into()),
    };
    let mut message = vec![0; advert.buffer_len()];
    advert.emit(&mut Icmpv6Packet::new_unchecked(&mut message[..]));
    out.push_icmp(target.into(), to.into(), NEIGHBOUR_HOPS, &message);
}

/// Tells all stations of the router, the prefix to make addresses with, and the name server.
pub(super) fn advertise_router(out: &mut Outbox, dns: bool) {
    let advert = NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: ROUTER_LIFETIME,
        reachable_time: Duration::ZERO,
        retrans_time: Duration::ZERO,
        lladdr: Some(EthernetAddress(GATEWAY_MAC.0).into()),
        mtu: None,
        prefix_info: Some(NdiscPrefixInformation {
            prefix_len: 64,
            flags: NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF,
            valid_lifetime: LIFETIME,
            preferred_lifetime: LIFETIME,
            prefix: V6_PREFIX,
        }),
    };
    let mut message = vec![0; advert.buffer_len()];
    advert.emit(&mut Icmpv6Packet::new_unchecked(&mut message[..]));
    if dns {
        // Recursive DNS server (RFC 8106, 5.1): type 25, three units of eight bytes.
        message.extend_from_slice(&[25, 3, 0, 0]);
        message.extend_from_slice(&(LIFETIME.secs() as u32).to_be_bytes());
        message.extend_from_slice(&DNS_V6.octets());
    }
    out.push_icmp(ROUTER_V6.into(), ALL_NODES.into(), NEIGHBOUR_HOPS, &message);
}
