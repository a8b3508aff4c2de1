//! ICMP (RFC 792, RFC 4443): echoes, answered by the gateway itself or sent on through the host's unprivileged ping
//! sockets, and the messages that tell the guest why something did not arrive.

use super::{
    address::{Destination, GATEWAY_V4, ROUTER_V6, destination, is_ours},
    event::{Kind, token},
    outbox::Outbox,
    packet::Packet,
};
use isomer_core::guest_warn;
use mio::{Interest, Registry, unix::SourceFd};
use rustix::io::Errno;
use smoltcp::wire::IpProtocol;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::HashMap,
    io::Read,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

/// Programs of the guest that ping at the same time, at most.
const MAX_FLOWS: usize = 64;
/// How long answers are waited for after the last request.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes of an echo message before its data.
const HEADER_BYTES: usize = 8;
/// Message types: echo request and reply.
const ECHO_V4: (u8, u8) = (8, 0);
const ECHO_V6: (u8, u8) = (128, 129);

/// Why a packet of the guest did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// No way to the network.
    Network,
    /// No such station.
    Host,
    /// Nobody listens.
    Port,
    /// Not allowed.
    Prohibited,
}

impl Reason {
    fn code(self, ipv6: bool) -> u8 {
        match (self, ipv6) {
            (Self::Network, _) => 0,
            (Self::Host, false) => 1,
            (Self::Port, false) => 3,
            (Self::Prohibited, false) => 13,
            (Self::Prohibited, true) => 1,
            (Self::Host, true) => 3,
            (Self::Port, true) => 4,
        }
    }

    /// What the host's error means.
    pub(super) fn of(error: &std::io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::NETUNREACH | Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => Self::Network,
            Some(Errno::ACCESS | Errno::PERM) => Self::Prohibited,
            Some(Errno::CONNREFUSED) => Self::Port,
            _ => Self::Host,
        }
    }
}

/// Tells the guest that the packet which starts with `original` did not arrive.
pub(super) fn unreachable(out: &mut Outbox, original: &[u8], reason: Reason) {
    let Some(packet) = addresses(original) else { return };
    let (from, kept) = match packet.to.is_ipv6() {
        false => (IpAddr::from(GATEWAY_V4), usize::from(original[0] & 15) * 4 + 8),
        // As much as fits into the smallest packet that every IPv6 network takes.
        true => (IpAddr::from(ROUTER_V6), 1280 - 40 - HEADER_BYTES),
    };
    let kind = if packet.to.is_ipv6() { 1 } else { 3 };
    let mut message = vec![kind, reason.code(packet.to.is_ipv6()), 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&original[..kept.min(original.len())]);
    out.push_icmp(from, packet.from, 64, &message);
}

struct Addresses {
    from: IpAddr,
    to: IpAddr,
}

fn addresses(packet: &[u8]) -> Option<Addresses> {
    let v4 = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let v6 = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
    match packet.first()? >> 4 {
        4 => Some(Addresses { from: v4(12)?, to: v4(16)? }),
        6 => Some(Addresses { from: v6(8)?, to: v6(24)? }),
        _ => None,
    }
}

/// A program of the guest that pings.
#[derive(Debug)]
struct Flow {
    socket: Socket,
    guest: IpAddr,
    ident: u16,
    used: Instant,
    /// As whom the pinged station appears.
    remote: IpAddr,
}

/// Echoes that went out to the host's network.
#[derive(Debug, Default)]
pub(super) struct Pings {
    flows: HashMap<usize, Flow>,
    next_id: usize,
}

impl Pings {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.flows.clear();
    }

    /// Does nobody ping?
    pub(super) fn is_idle(&self) -> bool {
        self.flows.is_empty()
    }

    /// A message of the guest that is no neighbour discovery. `open`: it may go further than the gateway.
    pub(super) fn message(
        &mut self,
        out: &mut Outbox,
        registry: &Registry,
        packet: &Packet<'_>,
        open: bool,
        now: Instant,
    ) {
        let ipv6 = packet.protocol == IpProtocol::Icmpv6;
        let (request, reply) = if ipv6 { ECHO_V6 } else { ECHO_V4 };
        let data = packet.payload;
        if data.len() < HEADER_BYTES || data[0] != request || data[1] != 0 {
            return;
        }
        if is_ours(packet.to) {
            let mut answer = data.to_vec();
            (answer[0], answer[2], answer[3]) = (reply, 0, 0);
            out.push_icmp(packet.to, packet.from, 64, &answer);
            return;
        }
        if !open {
            return unreachable(out, packet.whole, Reason::Prohibited);
        }
        let to = match destination(SocketAddr::new(packet.to, 0)) {
            Destination::Host(to) => to,
            Destination::Unreachable | Destination::Resolver => {
                return unreachable(out, packet.whole, Reason::Host);
            }
            Destination::Nowhere => return,
        };
        match self.send(registry, packet, to, now) {
            Ok(()) => (),
            // Full buffers lose pings, as networks do.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => (),
            Err(error) => {
                guest_warn!("the guest's ping to {} was not sent: {error}", packet.to);
                unreachable(out, packet.whole, Reason::of(&error));
            }
        }
    }

    fn send(
        &mut self,
        registry: &Registry,
        packet: &Packet<'_>,
        to: SocketAddr,
        now: Instant,
    ) -> std::io::Result<()> {
        let ident = u16::from_be_bytes([packet.payload[4], packet.payload[5]]);
        let known = |flow: &Flow| (flow.guest, flow.ident, flow.remote) == (packet.from, ident, packet.to);
        let id = match self.flows.iter().find(|(_, flow)| known(flow)) {
            Some((&id, _)) => id,
            None => {
                let id = self.next_id;
                let flow = open(packet, ident, now)?;
                registry.register(
                    &mut SourceFd(&flow.socket.as_raw_fd()),
                    token(Kind::Ping, id),
                    Interest::READABLE,
                )?;
                if self.flows.len() >= MAX_FLOWS
                    && let Some(oldest) =
                        self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(&id, _)| id)
                {
                    self.flows.remove(&oldest);
                }
                self.next_id += 1;
                self.flows.insert(id, flow);
                id
            }
        };
        let Some(flow) = self.flows.get_mut(&id) else { return Ok(()) };
        flow.used = now;
        // The host puts an identifier of its own into the message, and the checksum.
        flow.socket.send_to(packet.payload, &to.into()).map(|_| ())
    }

    /// Answers have come.
    pub(super) fn ready(&mut self, out: &mut Outbox, id: usize) {
        let Some(flow) = self.flows.get(&id) else { return };
        let mut message = vec![0; 65_536];
        let (_, reply) = if flow.guest.is_ipv6() { ECHO_V6 } else { ECHO_V4 };
        // Few, so that a flood does not hold up the rest; what is left is lost.
        for _ in 0..64 {
            let Ok(len) = (&flow.socket).read(&mut message) else { return };
            let message = &mut message[..len];
            if message.len() >= HEADER_BYTES && message[0] == reply {
                message[4..6].copy_from_slice(&flow.ident.to_be_bytes());
                message[2..4].fill(0);
                out.push_icmp(flow.remote, flow.guest, 64, message);
            }
        }
    }

    /// Lets go of what is no longer used.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.flows.retain(|_, flow| now.duration_since(flow.used) < IDLE);
    }
}

fn open(packet: &Packet<'_>, ident: u16, now: Instant) -> std::io::Result<Flow> {
    let (domain, protocol) = match packet.to.is_ipv6() {
        true => (Domain::IPV6, Protocol::ICMPV6),
        false => (Domain::IPV4, Protocol::ICMPV4),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(Flow { socket, guest: packet.from, ident, used: now, remote: packet.to })
}
