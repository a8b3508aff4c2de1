//! UDP: one socket of the host for each port of the guest that sends, and one for each published port.
//!
//! Answers are taken from stations that were written to only (address-dependent filtering, RFC 4787, 5); a published
//! port takes everybody's.

use super::{
    address::{Destination, apparent, destination},
    event::{Kind, token},
    icmp::{Reason, unreachable},
    outbox::Outbox,
    packet::Packet,
    resolver::Resolver,
};
use isomer_core::guest_warn;
use mio::{Interest, Registry, net::UdpSocket};
use smoltcp::wire::{UDP_HEADER_LEN, UdpPacket};
use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

/// Ports of the guest in use at the same time, at most; beyond, the one that was idle longest goes.
const MAX_FLOWS: usize = 1024;
/// Stations one port of the guest talks to, at most.
const MAX_PEERS: usize = 512;
/// How long a port stays open without traffic (RFC 4787, REQ-5).
const IDLE: Duration = Duration::from_secs(120);
/// The same where only a name server was asked.
const IDLE_DNS: Duration = Duration::from_secs(15);
/// How long a name server has time before another is asked.
const DNS_PATIENCE: Duration = Duration::from_secs(3);
/// Datagrams taken from one socket before others have their turn.
const BURST: usize = 64;

/// Stations that a port of the guest talks to: addresses on the host's network, and as whom the guest knows them.
#[derive(Debug, Default)]
struct Peers {
    seen: HashMap<SocketAddr, SocketAddr>,
    host: HashMap<SocketAddr, SocketAddr>,
}

impl Peers {
    fn add(&mut self, host: SocketAddr, seen: SocketAddr) {
        if self.seen.len() >= MAX_PEERS && !self.seen.contains_key(&host) {
            // Whoever talks to so many does not wait for all of them.
            *self = Self::default();
        }
        self.seen.insert(host, seen);
        self.host.insert(seen, host);
    }
}

#[derive(Debug)]
struct Flow {
    socket: UdpSocket,
    guest: SocketAddr,
    peers: Peers,
    used: Instant,
    published: bool,
    /// Asked name servers only.
    dns_only: bool,
    /// A question to a name server that has no answer yet.
    asked: Option<Instant>,
    /// There may be datagrams to take.
    ready: bool,
}

/// All UDP traffic.
#[derive(Debug)]
pub(super) struct Udp {
    flows: HashMap<usize, Flow>,
    /// Sockets for what the guest sends by itself.
    by_guest: HashMap<SocketAddr, usize>,
    /// Published ports of the guest.
    published: HashMap<SocketAddr, Vec<usize>>,
    ready: Vec<usize>,
    next_id: usize,
    buffer: Vec<u8>,
}

impl Udp {
    pub(super) fn new() -> Self {
        Self {
            flows: HashMap::new(),
            by_guest: HashMap::new(),
            published: HashMap::new(),
            ready: Vec::new(),
            next_id: 0,
            buffer: vec![0; 65_536],
        }
    }

    /// Forgets everything but published ports.
    pub(super) fn clear(&mut self) {
        self.flows.retain(|_, flow| {
            flow.peers = Peers::default();
            flow.published
        });
        self.by_guest.clear();
    }

    /// Opens a published port: what arrives at `socket` goes to `guest`.
    pub(super) fn publish(
        &mut self,
        registry: &Registry,
        socket: UdpSocket,
        guest: SocketAddr,
    ) -> io::Result<()> {
        let id = self.add(registry, socket, guest, true, Instant::now())?;
        self.published.entry(guest).or_default().push(id);
        Ok(())
    }

    fn add(
        &mut self,
        registry: &Registry,
        mut socket: UdpSocket,
        guest: SocketAddr,
        published: bool,
        now: Instant,
    ) -> io::Result<usize> {
        let id = self.next_id;
        registry.register(&mut socket, token(Kind::Udp, id), Interest::READABLE)?;
        self.next_id += 1;
        let peers = Peers::default();
        let flow =
            Flow { socket, guest, peers, used: now, published, dns_only: true, asked: None, ready: false };
        self.flows.insert(id, flow);
        Ok(id)
    }

    /// A datagram of the guest. `open`: it may start conversations.
    pub(super) fn packet(
        &mut self,
        out: &mut Outbox,
        registry: &Registry,
        resolver: &mut Resolver,
        packet: &Packet<'_>,
        open: bool,
        now: Instant,
    ) {
        let Ok(udp) = UdpPacket::new_checked(packet.payload) else { return };
        let guest = SocketAddr::new(packet.from, udp.src_port());
        let to = SocketAddr::new(packet.to, udp.dst_port());
        if to.port() == 0 || guest.port() == 0 {
            return;
        }
        if let Some((id, host)) = self.published_peer(guest, to) {
            return self.send(out, id, packet, host, to, now);
        }
        if !open {
            return unreachable(out, packet.whole, Reason::Prohibited);
        }
        let (host, dns) = match destination(to) {
            Destination::Host(host) => (host, false),
            Destination::Resolver => (resolver.server(now), true),
            Destination::Unreachable => return unreachable(out, packet.whole, Reason::Host),
            Destination::Nowhere => return,
        };
        let known = self.by_guest.get(&guest).copied();
        let id = match known.filter(|id| self.flows.get(id).is_some_and(|flow| fits(flow, host))) {
            Some(id) => id,
            None => match self.open(registry, guest, host, now) {
                Ok(id) => id,
                Err(error) => {
                    guest_warn!("no UDP socket for the guest's port {}: {error}", guest.port());
                    return unreachable(out, packet.whole, Reason::of(&error));
                }
            },
        };
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.dns_only &= dns;
            if dns {
                flow.asked.get_or_insert(now);
            }
        }
        self.send(out, id, packet, host, to, now);
    }

    /// The published port at which the station that the guest knows as `seen` asked, and its address.
    fn published_peer(&self, guest: SocketAddr, seen: SocketAddr) -> Option<(usize, SocketAddr)> {
        let asked_at = |&id: &usize| Some((id, *self.flows.get(&id)?.peers.host.get(&seen)?));
        self.published.get(&guest)?.iter().find_map(asked_at)
    }

    /// A socket for a port of the guest that has none, or none of the family that `host` is of.
    fn open(
        &mut self,
        registry: &Registry,
        guest: SocketAddr,
        host: SocketAddr,
        now: Instant,
    ) -> io::Result<usize> {
        let outgoing = self.flows.iter().filter(|(_, flow)| !flow.published);
        if self.flows.len() >= MAX_FLOWS
            && let Some(oldest) = outgoing.min_by_key(|(_, flow)| flow.used).map(|(&id, _)| id)
        {
            self.remove(oldest);
        }
        let any = match host {
            SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        if let Some(&old) = self.by_guest.get(&guest) {
            self.remove(old);
        }
        let id = self.add(registry, UdpSocket::bind(any)?, guest, false, now)?;
        self.by_guest.insert(guest, id);
        Ok(id)
    }

    fn remove(&mut self, id: usize) {
        if let Some(flow) = self.flows.remove(&id)
            && self.by_guest.get(&flow.guest) == Some(&id)
        {
            self.by_guest.remove(&flow.guest);
        }
    }

    /// Sends a datagram of the guest to `host`, which the guest knows as `seen`.
    fn send(
        &mut self,
        out: &mut Outbox,
        id: usize,
        packet: &Packet<'_>,
        host: SocketAddr,
        seen: SocketAddr,
        now: Instant,
    ) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let Ok(udp) = UdpPacket::new_checked(packet.payload) else { return };
        flow.used = now;
        flow.peers.add(host, seen);
        match flow.socket.send_to(udp.payload(), host) {
            Ok(_) => (),
            // A full buffer loses datagrams, as networks do.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) => unreachable(out, packet.whole, Reason::of(&error)),
        }
    }

    /// Datagrams have come.
    pub(super) fn ready(&mut self, id: usize) {
        if let Some(flow) = self.flows.get_mut(&id)
            && !std::mem::replace(&mut flow.ready, true)
        {
            self.ready.push(id);
        }
    }

    /// Is there something to take?
    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Is no port of the guest in use?
    pub(super) fn is_idle(&self) -> bool {
        self.flows.values().all(|flow| flow.published)
    }

    /// Takes what has come, as long as the guest has room.
    pub(super) fn work(&mut self, out: &mut Outbox, now: Instant) {
        for id in std::mem::take(&mut self.ready) {
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            let more = take(flow, &mut self.buffer, out, now);
            flow.ready = more;
            if more {
                self.ready.push(id);
            }
        }
    }

    /// Closes what is no longer used, and leaves a name server that does not answer.
    pub(super) fn sweep(&mut self, now: Instant, resolver: &mut Resolver) {
        let idle = |flow: &Flow| now.duration_since(flow.used);
        let limit = |flow: &Flow| if flow.dns_only { IDLE_DNS } else { IDLE };
        let gone = self.flows.iter().filter(|(_, flow)| !flow.published && idle(flow) >= limit(flow));
        for id in gone.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.remove(id);
        }
        let mut silent = false;
        for flow in self.flows.values_mut() {
            if flow.asked.is_some_and(|asked| now.duration_since(asked) >= DNS_PATIENCE) {
                (flow.asked, silent) = (None, true);
            }
        }
        if silent {
            resolver.next();
        }
    }
}

/// Can the flow's socket send to `host`?
fn fits(flow: &Flow, host: SocketAddr) -> bool {
    flow.socket.local_addr().is_ok_and(|local| local.is_ipv6() == host.is_ipv6())
}

/// Takes datagrams from a socket; are there more?
fn take(flow: &mut Flow, buffer: &mut [u8], out: &mut Outbox, now: Instant) -> bool {
    for _ in 0..BURST {
        if !out.has_room() {
            return true;
        }
        let (len, peer) = match flow.socket.recv_from(buffer) {
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            // An error of an earlier datagram; the next may be fine.
            Err(_) => continue,
        };
        let seen = match flow.peers.seen.get(&peer) {
            Some(&seen) => seen,
            None if flow.published => {
                let seen = apparent(peer, flow.guest.is_ipv6());
                flow.peers.add(peer, seen);
                seen
            }
            None => continue,
        };
        flow.used = now;
        flow.asked = None;
        if len <= usize::from(u16::MAX) - UDP_HEADER_LEN {
            out.push_udp(seen, flow.guest, &buffer[..len]);
        }
    }
    true
}
