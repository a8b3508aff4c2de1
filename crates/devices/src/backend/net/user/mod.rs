//! User-mode networking: a small network of the guest's own, translated to sockets of the host, without privileges.
//!
//! The guest finds a DHCP server and a gateway at 10.0.2.2, which is also the host's loopback, a name server at
//! 10.0.2.3, and an IPv6 router that advertises `fec0::/64`. Everything runs on the thread of the network card:
//! [`NetBackend::send`] takes the guest's frames apart, [`NetBackend::poll`] waits for the host's sockets and moves
//! what they have. Tables, buffers and queues have limits; what goes beyond them is refused or lost, as in a network.

pub mod address;
mod dhcp;
mod event;
mod icmp;
mod link;
mod outbox;
mod packet;
mod publish;
mod reassembly;
mod resolver;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use self::{
    dhcp::Dhcp,
    event::{Kind, meaning, token},
    icmp::Pings,
    outbox::Outbox,
    packet::Packet,
    publish::Listeners,
    reassembly::Reassembly,
    resolver::Resolver,
    tcp::Tcp,
    udp::Udp,
};
use super::{ETHERNET_HEADER_BYTES, FrameMeta, MacAddr, NetBackend, NetError, NetWaker, Offloads};
use mio::{Events, Poll};
use smoltcp::wire::{DHCP_SERVER_PORT, IpProtocol, UdpPacket};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

pub use publish::{Publish, Transport};

/// The largest IP packet of the guest's network, in bytes.
const MTU: u16 = 1500;
/// How often tables are looked through for what is no longer used.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Host events taken in one go.
const EVENTS: usize = 256;
/// Descriptors that are asked of the host, as far as it lets us: one for each connection.
const DESCRIPTORS: u64 = 8192;

/// What the guest's network is like.
#[derive(Clone, Debug, Default)]
pub struct UserNetOptions {
    /// The card's address.
    pub mac: MacAddr,
    /// The guest reaches nobody: neither the host nor what is behind it. Published ports work.
    pub restrict: bool,
    /// The name server behind 10.0.2.3, in place of the host's.
    pub dns: Option<SocketAddr>,
    /// Published ports.
    pub publish: Vec<Publish>,
}

/// The NAT.
#[derive(Debug)]
pub struct UserNet {
    poll: Poll,
    events: Events,
    waker: NetWaker,
    restrict: bool,
    out: Outbox,
    dhcp: Dhcp,
    resolver: Resolver,
    tcp: Tcp,
    udp: Udp,
    pings: Pings,
    reassembly: Reassembly,
    listeners: Listeners,
    published: Vec<Publish>,
    swept: Instant,
}

impl UserNet {
    /// Sets the network up and opens published ports.
    pub fn new(options: &UserNetOptions) -> Result<Self, NetError> {
        let refused = |what| move |source| NetError::Host { what, source };
        raise_descriptor_limit();
        let poll = Poll::new().map_err(refused("an event queue"))?;
        let waker = mio::Waker::new(poll.registry(), token(Kind::Waker, 0))
            .map_err(refused("an event descriptor"))?;
        let mut out = Outbox::new(options.mac, MTU);
        let mut net = Self {
            tcp: Tcp::new(&mut out, MTU),
            poll,
            events: Events::with_capacity(EVENTS),
            waker: Arc::new(waker),
            restrict: options.restrict,
            out,
            dhcp: Dhcp::default(),
            resolver: Resolver::new(options.dns),
            udp: Udp::new(),
            pings: Pings::default(),
            reassembly: Reassembly::default(),
            listeners: Listeners::default(),
            published: Vec::new(),
            swept: Instant::now(),
        };
        for publish in &options.publish {
            let host = net.publish(publish)?;
            net.published.push(Publish { host, ..*publish });
        }
        Ok(net)
    }

    fn publish(&mut self, publish: &Publish) -> Result<SocketAddr, NetError> {
        let registry = self.poll.registry();
        if publish.transport == Transport::Tcp {
            return self.listeners.open(registry, publish);
        }
        let socket = publish.bind()?;
        let address = socket.local_addr();
        let opened = self.udp.publish(registry, socket, publish.guest());
        let refused = |source| NetError::Host { what: "to watch a socket", source };
        opened.and(address).map_err(refused)
    }

    /// Published ports, and where the host chose to put those at port 0.
    pub fn published(&self) -> &[Publish] {
        &self.published
    }

    /// Connections over TCP at present.
    pub fn connections(&self) -> usize {
        self.tcp.len()
    }

    fn ip(&mut self, meta: &FrameMeta, bytes: &[u8], sender: MacAddr) {
        let Some(packet) = Packet::parse(bytes).filter(|packet| packet.is_intact(meta)) else { return };
        let (now, open) = (Instant::now(), !self.restrict);
        // A station without an address asks for one, or whether one is free.
        if is_dhcp(&packet) {
            let Ok(udp) = UdpPacket::new_checked(packet.payload) else { return };
            return self.dhcp.serve(&mut self.out, udp.payload(), MTU, open);
        }
        if packet.protocol == IpProtocol::Icmpv6 && is_neighbour_discovery(packet.payload) {
            // In a network that leads nowhere there is no router.
            if open || packet.payload[0] == 135 {
                link::neighbour(&mut self.out, &packet, sender, open);
            }
            return;
        }
        if !address::is_guest(packet.from) {
            return;
        }
        if packet.fragment {
            // What comes out is no fragment.
            if let Some(whole) = self.reassembly.add(&packet, now) {
                self.ip(&FrameMeta::default(), &whole, sender);
            }
            return;
        }
        self.out.learn(packet.from, sender);
        let (out, registry) = (&mut self.out, self.poll.registry());
        match packet.protocol {
            IpProtocol::Tcp => self.tcp.packet(out, registry, &mut self.resolver, &packet, open, now),
            IpProtocol::Udp => self.udp.packet(out, registry, &mut self.resolver, &packet, open, now),
            IpProtocol::Icmp | IpProtocol::Icmpv6 => self.pings.message(out, registry, &packet, open, now),
            _ => (),
        }
    }

    /// How long nothing has to be done unless something happens.
    fn patience(&self, now: Instant) -> Option<Duration> {
        let work = self.tcp.has_work(&self.out)
            || (self.udp.has_work() && self.out.has_room())
            || self.listeners.has_work(&self.tcp);
        if work {
            return Some(Duration::ZERO);
        }
        let sweep = (self.tcp.len() != 0
            || !self.udp.is_idle()
            || !self.pings.is_idle()
            || !self.reassembly.is_idle())
        .then(|| self.swept + SWEEP_INTERVAL);
        let due = [self.tcp.deadline(), sweep].into_iter().flatten().min()?;
        Some(due.saturating_duration_since(now))
    }

    fn sweep(&mut self, now: Instant) {
        if now.duration_since(self.swept) >= SWEEP_INTERVAL {
            self.swept = now;
            self.tcp.sweep(now);
            self.udp.sweep(now, &mut self.resolver);
            self.pings.sweep(now);
            self.reassembly.sweep(now);
        }
    }
}

fn is_dhcp(packet: &Packet<'_>) -> bool {
    let to_server = packet.protocol == IpProtocol::Udp
        && packet.payload.get(2..4) == Some(&DHCP_SERVER_PORT.to_be_bytes())
        && !packet.fragment;
    to_server
        && match packet.to {
            IpAddr::V4(to) => to.is_broadcast() || to == address::GATEWAY_V4,
            IpAddr::V6(_) => false,
        }
}

/// Solicitations, advertisements and redirects (RFC 4861, 4).
fn is_neighbour_discovery(message: &[u8]) -> bool {
    matches!(message.first(), Some(133..=137))
}

/// Lets this process have a descriptor for each connection where the host allows it.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < wanted) {
        // Not allowed: then there are fewer connections.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}

impl NetBackend for UserNet {
    fn offloads(&self) -> Offloads {
        Offloads { checksum: true, tso4: true, tso6: true }
    }

    fn mtu(&self) -> u16 {
        MTU
    }

    fn waker(&self) -> NetWaker {
        self.waker.clone()
    }

    fn set_guest_offloads(&mut self, offloads: Offloads) {
        self.out.guest = offloads;
        self.tcp.renew(&mut self.out);
    }

    fn reset(&mut self) {
        self.tcp.clear();
        self.udp.clear();
        self.pings.clear();
        self.reassembly.clear();
        self.dhcp.clear();
        self.out.clear();
    }

    fn send(&mut self, meta: &FrameMeta, frame: &mut [u8]) {
        if frame.len() < ETHERNET_HEADER_BYTES {
            return;
        }
        let (header, packet) = frame.split_at(ETHERNET_HEADER_BYTES);
        let Some(sender) = MacAddr::from_bytes(&header[6..12]).filter(|mac| !mac.is_multicast()) else {
            return;
        };
        match u16::from_be_bytes([header[12], header[13]]) {
            0x0806 => link::arp(&mut self.out, packet),
            0x0800 if packet.first().is_some_and(|first| first >> 4 == 4) => self.ip(meta, packet, sender),
            0x86dd if packet.first().is_some_and(|first| first >> 4 == 6) => self.ip(meta, packet, sender),
            _ => (),
        }
    }

    fn poll(&mut self, wait: bool) {
        let timeout = if wait { self.patience(Instant::now()) } else { Some(Duration::ZERO) };
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            tracing::error!("the network's event queue failed: {error}");
            // Not to fail as fast as possible for ever.
            std::thread::sleep(Duration::from_millis(100));
        }
        for event in &self.events {
            match meaning(event.token()) {
                Some((Kind::Tcp, id)) => self.tcp.event(id, event),
                Some((Kind::Udp, id)) => self.udp.ready(id),
                Some((Kind::Ping, id)) => self.pings.ready(&mut self.out, id),
                Some((Kind::Listener, id)) => self.listeners.ready(id),
                Some((Kind::Waker, _)) | None => (),
            }
        }
        let now = Instant::now();
        self.sweep(now);
        self.listeners.work(self.poll.registry(), &mut self.tcp);
        self.tcp.work(&mut self.out, now);
        self.udp.work(&mut self.out, now);
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<FrameMeta> {
        self.out.pop(frame)
    }
}
