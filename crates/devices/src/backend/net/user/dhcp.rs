//! The DHCP server (RFC 2131): a lease for each card, by its Ethernet address.

use super::{
    address::{DNS_V4, GATEWAY_V4, GUEST_V4, V4_MASK, v4},
    outbox::Outbox,
};
use crate::backend::net::MacAddr;
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// How long a lease is, in seconds.
const LEASE_S: u32 = 86_400;
/// Leases, at most: from the guest's address to the last before the broadcast.
const MAX_LEASES: usize = 240;
/// The option with the MTU (RFC 2132, 5.1).
const OPTION_MTU: u8 = 26;
/// Bytes a DHCP message has at least (RFC 1542, 2.1).
const MIN_BYTES: usize = 300;

/// The server and its leases, in the order they were given.
#[derive(Debug, Default)]
pub(super) struct Dhcp {
    leases: Vec<MacAddr>,
}

impl Dhcp {
    /// Forgets all leases.
    pub(super) fn clear(&mut self) {
        self.leases.clear();
    }

    /// The address for a card, which it keeps.
    fn lease(&mut self, mac: MacAddr) -> Option<Ipv4Addr> {
        let index = match self.leases.iter().position(|known| *known == mac) {
            Some(index) => index,
            None if self.leases.len() < MAX_LEASES => {
                self.leases.push(mac);
                self.leases.len() - 1
            }
            None => return None,
        };
        Some(v4(GUEST_V4.octets()[3] + index as u8))
    }

    /// Answers a client's message. `open`: the guest may go further than this server.
    pub(super) fn serve(&mut self, out: &mut Outbox, message: &[u8], mtu: u16, open: bool) {
        let Ok(packet) = DhcpPacket::new_checked(message) else { return };
        let Ok(request) = DhcpRepr::parse(&packet) else { return };
        let client = MacAddr(request.client_hardware_address.0);
        if client.is_multicast() || request.server_identifier.is_some_and(|server| server != GATEWAY_V4) {
            return;
        }
        let kind = match request.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request => DhcpMessageType::Ack,
            DhcpMessageType::Inform => DhcpMessageType::Ack,
            _ => return,
        };
        let Some(address) = self.lease(client) else { return };
        let wanted = request.requested_ip.unwrap_or(request.client_ip);
        let refused = request.message_type == DhcpMessageType::Request && wanted != address;
        let inform = request.message_type == DhcpMessageType::Inform;
        let mut answer = bare(&request, if refused { DhcpMessageType::Nak } else { kind });
        let mtu = mtu.to_be_bytes();
        let options = [DhcpOption { kind: OPTION_MTU, data: &mtu }];
        if !refused {
            answer.your_ip = if inform { Ipv4Addr::UNSPECIFIED } else { address };
            answer.client_ip = request.client_ip;
            answer.lease_duration = (!inform).then_some(LEASE_S);
            answer.subnet_mask = Some(V4_MASK);
            answer.router = open.then_some(GATEWAY_V4);
            answer.dns_servers = open.then(|| [DNS_V4].into_iter().collect());
            answer.additional_options = &options;
            out.learn(address.into(), client);
        }
        let mut message = vec![0; answer.buffer_len().max(MIN_BYTES)];
        if answer.emit(&mut DhcpPacket::new_unchecked(&mut message[..])).is_err() {
            return;
        }
        // A client without an address hears what goes to its card, or to all (RFC 2131, 4.1).
        let to = match request.client_ip {
            ip if ip.is_unspecified() && (refused || request.broadcast) => Ipv4Addr::BROADCAST,
            ip if ip.is_unspecified() => address,
            _ if refused => Ipv4Addr::BROADCAST,
            ip => ip,
        };
        let from = SocketAddr::new(IpAddr::V4(GATEWAY_V4), DHCP_SERVER_PORT);
        out.push_udp(from, SocketAddr::new(to.into(), DHCP_CLIENT_PORT), &message);
    }
}

/// An answer that says nothing yet.
fn bare<'a>(request: &DhcpRepr<'_>, kind: DhcpMessageType) -> DhcpRepr<'a> {
    DhcpRepr {
        message_type: kind,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: EthernetAddress(request.client_hardware_address.0),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY_V4),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}
