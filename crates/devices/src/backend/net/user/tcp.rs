//! TCP: each connection of the guest ends in a smoltcp socket here, which continues it over a socket of the host.
//!
//! Every connection has a socket set of its own, so a packet costs the same however many there are. The guest's SYN is
//! answered when the host has connected. Data waits in bounded buffers on the way: a side that does not take it slows
//! the other one down.

mod connection;

use self::connection::{Connection, Fate, Key};
use super::{
    address::{Destination, apparent, destination},
    event::{Kind, token},
    icmp::{Reason, unreachable},
    outbox::{Outbox, endpoint},
    packet::Packet,
    resolver::Resolver,
};
use isomer_core::guest_warn;
use mio::{Interest, Registry, event::Event, net::TcpStream};
use smoltcp::{
    iface::{Config, Interface, SocketSet},
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken},
    time::Instant as Time,
    wire::{HardwareAddress, TcpPacket},
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    time::{Duration, Instant},
};

/// Connections at the same time, at most.
pub(super) const MAX_CONNECTIONS: usize = 2048;
/// Of these, such that the host has not connected yet.
const MAX_CONNECTING: usize = 512;
/// How long the host has to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// A connection that has something to send but cannot is looked at again so soon.
const RETRY: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(10);

/// All TCP traffic.
pub(super) struct Tcp {
    interface: Interface,
    connections: HashMap<usize, Connection>,
    by_key: HashMap<Key, usize>,
    timers: BinaryHeap<Reverse<(Time, usize)>>,
    /// To be looked at.
    dirty: Vec<usize>,
    /// To be looked at when the guest has room.
    blocked: Vec<usize>,
    connecting: usize,
    next_id: usize,
    began: Instant,
    mtu: u16,
}

impl std::fmt::Debug for Tcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tcp({} connections)", self.connections.len())
    }
}

impl Tcp {
    pub(super) fn new(out: &mut Outbox, mtu: u16) -> Self {
        let began = Instant::now();
        Self {
            interface: interface(out, mtu),
            connections: HashMap::new(),
            by_key: HashMap::new(),
            timers: BinaryHeap::new(),
            dirty: Vec::new(),
            blocked: Vec::new(),
            connecting: 0,
            next_id: 0,
            began,
            mtu,
        }
    }

    /// The guest takes other offloads from now on.
    pub(super) fn renew(&mut self, out: &mut Outbox) {
        self.interface = interface(out, self.mtu);
    }

    /// Resets all connections: the guest knows them no more.
    pub(super) fn clear(&mut self) {
        self.connections.values().for_each(Connection::reset_host);
        self.connections.clear();
        self.by_key.clear();
        self.timers.clear();
        self.dirty.clear();
        self.blocked.clear();
        self.connecting = 0;
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    fn time(&self, now: Instant) -> Time {
        Time::from_micros(now.duration_since(self.began).as_micros() as i64)
    }

    /// A segment of the guest. `open`: it may open connections.
    pub(super) fn packet(
        &mut self,
        out: &mut Outbox,
        registry: &Registry,
        resolver: &mut Resolver,
        packet: &Packet<'_>,
        open: bool,
        now: Instant,
    ) {
        let Ok(segment) = TcpPacket::new_checked(packet.payload) else { return };
        let key = Key {
            guest: SocketAddr::new(packet.from, segment.src_port()),
            remote: SocketAddr::new(packet.to, segment.dst_port()),
        };
        let opens = segment.syn() && !segment.ack() && !segment.rst();
        let time = self.time(now);
        if let Some(&id) = self.by_key.get(&key) {
            match self.connections.get_mut(&id) {
                // The guest is done with the old one and uses its port again.
                Some(old) if opens && old.is_over() => self.remove(id),
                Some(connection) => {
                    feed(&mut self.interface, time, out, &mut connection.sockets, packet);
                    return mark(&mut self.dirty, id, connection);
                }
                None => (),
            }
        }
        if !opens {
            return self.refuse(out, packet, time);
        }
        let host = match destination(key.remote) {
            Destination::Nowhere => return,
            _ if !open => return self.refuse(out, packet, time),
            Destination::Host(host) => host,
            Destination::Resolver => resolver.server(now),
            Destination::Unreachable => return unreachable(out, packet.whole, Reason::Host),
        };
        if self.connections.len() >= MAX_CONNECTIONS {
            guest_warn!("the guest has {MAX_CONNECTIONS} connections and is refused more");
            return self.refuse(out, packet, time);
        }
        if self.connecting >= MAX_CONNECTING {
            // The guest will try again.
            return guest_warn!(
                "{MAX_CONNECTING} connections of the guest are being made; others have to wait"
            );
        }
        if let Err(error) = self.connect(out, registry, packet, key, host, now) {
            guest_warn!("no connection from the guest to {}: {error}", key.remote);
            match Reason::of(&error) {
                Reason::Port => self.refuse(out, packet, time),
                reason => unreachable(out, packet.whole, reason),
            }
        }
    }

    /// Answers a segment that belongs to no connection with a reset.
    fn refuse(&mut self, out: &mut Outbox, packet: &Packet<'_>, time: Time) {
        feed(&mut self.interface, time, out, &mut SocketSet::new(Vec::new()), packet);
    }

    /// The guest asked for a connection: has the host make one. The guest gets its answer when that is done.
    fn connect(
        &mut self,
        out: &mut Outbox,
        registry: &Registry,
        packet: &Packet<'_>,
        key: Key,
        host: SocketAddr,
        now: Instant,
    ) -> io::Result<()> {
        let stream = TcpStream::connect(host)?;
        let time = self.time(now);
        let mut connection = Connection::new(stream, key, self.connections.len(), Some((now, packet.whole)));
        if !connection.listen() {
            return Ok(());
        }
        feed(&mut self.interface, time, out, &mut connection.sockets, packet);
        if !connection.was_asked() {
            // Not a request that a socket takes, such as one from port 0.
            return Ok(());
        }
        self.connecting += 1;
        self.add(registry, connection)
    }

    /// A station of the host's network connected to a published port, which leads to `guest`.
    pub(super) fn accept(
        &mut self,
        registry: &Registry,
        stream: TcpStream,
        peer: SocketAddr,
        guest: SocketAddr,
    ) -> io::Result<()> {
        let key = Key { guest, remote: apparent(peer, guest.is_ipv6()) };
        let mut connection = Connection::new(stream, key, self.connections.len(), None);
        if self.by_key.contains_key(&key) || !connection.call(self.interface.context()) {
            // Two stations that appear as the same one to the guest, at the same port.
            connection.reset_host();
            return Ok(());
        }
        self.add(registry, connection)
    }

    fn add(&mut self, registry: &Registry, mut connection: Connection) -> io::Result<()> {
        let id = self.next_id;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = registry.register(&mut connection.host, token(Kind::Tcp, id), interest);
        if registered.is_err() && connection.connecting.is_some() {
            self.connecting -= 1;
        }
        registered?;
        self.next_id += 1;
        self.by_key.insert(connection.key, id);
        mark(&mut self.dirty, id, &mut connection);
        self.connections.insert(id, connection);
        Ok(())
    }

    fn remove(&mut self, id: usize) {
        if let Some(connection) = self.connections.remove(&id) {
            self.by_key.remove(&connection.key);
            self.connecting -= usize::from(connection.connecting.is_some());
        }
    }

    /// Something happened to a host socket.
    pub(super) fn event(&mut self, id: usize, event: &Event) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            connection.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
            mark(&mut self.dirty, id, connection);
        }
    }

    /// Must [`Self::work`] be called at once?
    pub(super) fn has_work(&self, out: &Outbox) -> bool {
        !self.dirty.is_empty() || (!self.blocked.is_empty() && out.has_room())
    }

    /// When it must be called at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let Reverse((time, _)) = self.timers.peek()?;
        self.began.checked_add(Duration::from_micros(time.total_micros().max(0) as u64))
    }

    /// Moves what can be moved on every connection that something happened to.
    pub(super) fn work(&mut self, out: &mut Outbox, now: Instant) {
        let time = self.time(now);
        while let Some(&Reverse((due, id))) = self.timers.peek()
            && due <= time
        {
            self.timers.pop();
            if let Some(connection) = self.connections.get_mut(&id)
                && connection.timer == Some(due)
            {
                connection.timer = None;
                mark(&mut self.dirty, id, connection);
            }
        }
        if out.has_room() {
            for id in std::mem::take(&mut self.blocked) {
                if let Some(connection) = self.connections.get_mut(&id) {
                    mark(&mut self.dirty, id, connection);
                }
            }
        }
        for id in std::mem::take(&mut self.dirty) {
            self.serve(out, id, time);
        }
    }

    fn serve(&mut self, out: &mut Outbox, id: usize, time: Time) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.dirty = false;
        let was_connecting = connection.connecting.is_some();
        let fate = connection.settle(out);
        self.connecting -= usize::from(was_connecting && connection.connecting.is_none());
        if fate == Fate::Over {
            return self.remove(id);
        }
        let mut cable = Cable { input: None, out, mtu: self.mtu, exhausted: false };
        loop {
            let moved = connection.exchange();
            while self.interface.poll_egress(time, &mut cable, &mut connection.sockets)
                == smoltcp::iface::PollResult::SocketStateChanged
            {}
            if !moved {
                break;
            }
        }
        let exhausted = cable.exhausted;
        if connection.fate(exhausted) == Fate::Over {
            return self.remove(id);
        }
        if exhausted {
            self.blocked.push(id);
            return;
        }
        if connection.connecting.is_some() {
            // The host's event is waited for, or the limit on it.
            return;
        }
        if let Some(due) = self.interface.poll_at(time, &connection.sockets) {
            // What should have been done by now and was not is tried again, but not at once for ever.
            let due = due.max(time + RETRY);
            if connection.timer.is_none_or(|timer| due < timer) {
                connection.timer = Some(due);
                self.timers.push(Reverse((due, id)));
            }
        }
    }

    /// Gives up connections that the host does not make in time.
    pub(super) fn sweep(&mut self, now: Instant) {
        for (&id, connection) in &mut self.connections {
            if let Some(connecting) = &mut connection.connecting
                && now.duration_since(connecting.since) >= CONNECT_LIMIT
            {
                connecting.late = true;
                mark(&mut self.dirty, id, connection);
            }
        }
    }
}

fn mark(dirty: &mut Vec<usize>, id: usize, connection: &mut Connection) {
    if !std::mem::replace(&mut connection.dirty, true) {
        dirty.push(id);
    }
}

/// Hands a packet of the guest to the stack; an answer that cannot wait goes out at once.
fn feed(
    interface: &mut Interface,
    time: Time,
    out: &mut Outbox,
    sockets: &mut SocketSet<'static>,
    packet: &Packet<'_>,
) {
    let mut cable = Cable { input: Some(packet.whole), out, mtu: u16::MAX, exhausted: false };
    interface.poll_ingress_single(time, &mut cable, sockets);
}

fn interface(out: &mut Outbox, mtu: u16) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    let mut seed = [0; 8];
    // Sequence numbers must not be guessed; without the host's generator, the time has to do.
    if rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        seed = (now.as_nanos() as u64).to_ne_bytes();
    }
    config.random_seed = u64::from_ne_bytes(seed);
    let mut cable = Cable { input: None, out, mtu, exhausted: false };
    let mut interface = Interface::new(config, &mut cable, Time::ZERO);
    // It speaks for every station.
    interface.set_any_ip(true);
    interface
}

/// smoltcp's view of the way to the guest.
struct Cable<'a> {
    input: Option<&'a [u8]>,
    out: &'a mut Outbox,
    mtu: u16,
    /// Something was not sent because the guest has no room.
    exhausted: bool,
}

impl Device for Cable<'_> {
    type RxToken<'a>
        = Input<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Output<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Time) -> Option<(Input<'_>, Output<'_>)> {
        let input = self.input.take()?;
        Some((Input(input), Output { out: self.out, segment: None }))
    }

    fn transmit(&mut self, _: Time) -> Option<Output<'_>> {
        if !self.out.has_room() {
            self.exhausted = true;
            return None;
        }
        Some(Output { out: self.out, segment: None })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu.into();
        // All are checked before and written after.
        capabilities.checksum = ChecksumCapabilities::ignored();
        // Not over IPv6: smoltcp 0.14 drops every packet there that is longer than the MTU, offloaded or not.
        let longest = NonZeroUsize::new(usize::from(u16::MAX));
        capabilities.segmentation.tcpv4 = longest.filter(|_| self.out.guest.tso4);
        capabilities
    }
}

struct Input<'a>(&'a [u8]);

impl RxToken for Input<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Output<'a> {
    out: &'a mut Outbox,
    segment: Option<u16>,
}

impl TxToken for Output<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = self.out.buffer(len);
        let packet = &mut frame[crate::backend::net::ETHERNET_HEADER_BYTES..];
        let result = f(packet);
        let to = match packet.first().map(|first| first >> 4) {
            Some(4) => packet.get(16..20).and_then(|to| <[u8; 4]>::try_from(to).ok()).map(IpAddr::from),
            _ => packet.get(24..40).and_then(|to| <[u8; 16]>::try_from(to).ok()).map(IpAddr::from),
        };
        if let Some(to) = to {
            self.out.push_tcp(frame, to, self.segment);
        }
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size.map(std::num::NonZero::get);
    }
}
