//! A guest of the NAT: raw frames, or smoltcp's stack on them.

use super::*;
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer},
    time::Instant as Time,
    wire::{
        EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpRepr, Ipv4Address, Ipv4Packet, Ipv6Address,
    },
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Guest {
    pub(super) net: UserNet,
    interface: Option<Interface>,
    pub(super) sockets: SocketSet<'static>,
    began: Instant,
    offloads: Offloads,
    /// The longest TCP payload that has come.
    pub(super) longest: usize,
}

impl Guest {
    pub(super) fn new(options: &UserNetOptions) -> Self {
        Self {
            net: UserNet::new(options).unwrap(),
            interface: None,
            sockets: SocketSet::new(Vec::new()),
            began: Instant::now(),
            offloads: Offloads::default(),
            longest: 0,
        }
    }

    /// A guest with a stack, at the usual addresses.
    pub(super) fn with_stack(options: &UserNetOptions, offloads: Offloads) -> Self {
        let mut guest = Self::new(options);
        guest.offloads = offloads;
        guest.net.set_guest_offloads(offloads);
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(MAC.0)));
        let mut interface = Interface::new(config, &mut Nic(&mut guest), Time::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::v4(10, 0, 2, 15), 24)).unwrap();
            addresses.push(IpCidr::new(IpAddress::v6(0xfec0, 0, 0, 0, 0, 0, 0, 15), 64)).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(Ipv4Address::new(10, 0, 2, 2)).unwrap();
        let router = Ipv6Address::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
        interface.routes_mut().add_default_ipv6_route(router).unwrap();
        guest.interface = Some(interface);
        guest
    }

    /// Sends a frame.
    pub(super) fn send(&mut self, frame: &[u8]) {
        self.net.send(&FrameMeta::default(), &mut frame.to_vec());
    }

    /// Sends an IP packet, an IPv4 one in fragments if it is long; checksums of its payload are the caller's.
    pub(super) fn send_ip(&mut self, ip: &IpRepr, payload: &[u8]) {
        let v4 = ip.src_addr().version() == smoltcp::wire::IpVersion::Ipv4;
        let room = if v4 { 1480 } else { usize::MAX };
        for (index, piece) in payload.chunks(room).enumerate() {
            let mut frame = vec![0; 14 + ip.header_len() + piece.len()];
            frame[..6].copy_from_slice(&address::GATEWAY_MAC.0);
            frame[6..12].copy_from_slice(&MAC.0);
            frame[12..14].copy_from_slice(if v4 { &[8, 0] } else { &[0x86, 0xdd] });
            ip.emit(&mut frame[14..], &ChecksumCapabilities::default());
            frame[14 + ip.header_len()..].copy_from_slice(piece);
            if payload.len() > room {
                let mut header = Ipv4Packet::new_unchecked(&mut frame[14..]);
                header.set_total_len(20 + piece.len() as u16);
                header.set_dont_frag(false);
                header.set_more_frags((index + 1) * room < payload.len());
                header.set_frag_offset((index * room) as u16);
                header.fill_checksum();
            }
            self.send(&frame);
        }
    }

    /// Sends a UDP datagram.
    pub(super) fn send_udp(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let ip = IpRepr::new(from.ip().into(), to.ip().into(), IpProtocol::Udp, 8 + data.len(), 64);
        let mut udp = vec![0; 8 + data.len()];
        udp[..2].copy_from_slice(&from.port().to_be_bytes());
        udp[2..4].copy_from_slice(&to.port().to_be_bytes());
        udp[4..6].copy_from_slice(&(8 + data.len() as u16).to_be_bytes());
        udp[8..].copy_from_slice(data);
        UdpPacket::new_unchecked(&mut udp[..]).fill_checksum(&from.ip().into(), &to.ip().into());
        self.send_ip(&ip, &udp);
    }

    /// Lets the network work until a frame comes that `wanted` takes.
    pub(super) fn frame<T>(&mut self, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
        let start = Instant::now();
        let mut frame = Vec::new();
        loop {
            self.net.poll(false);
            while self.net.receive(&mut frame).is_some() {
                if let Some(found) = wanted(&frame) {
                    return found;
                }
            }
            assert!(start.elapsed() < PATIENCE, "no such frame came");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// All frames that come within a short time.
    pub(super) fn frames(&mut self) -> Vec<Vec<u8>> {
        let (start, mut frames, mut frame) = (Instant::now(), Vec::new(), Vec::new());
        while start.elapsed() < Duration::from_millis(30) {
            self.net.poll(false);
            while self.net.receive(&mut frame).is_some() {
                frames.push(frame.clone());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        frames
    }

    /// Takes the next UDP datagram: from, to, data.
    pub(super) fn udp(&mut self) -> (SocketAddr, SocketAddr, Vec<u8>) {
        self.frame(|frame| {
            let packet = Packet::parse(&frame[14..])?;
            assert!(packet.is_intact(&FrameMeta::default()));
            let udp =
                UdpPacket::new_checked(packet.payload).ok().filter(|_| packet.protocol == IpProtocol::Udp)?;
            let ends =
                (SocketAddr::new(packet.from, udp.src_port()), SocketAddr::new(packet.to, udp.dst_port()));
            Some((ends.0, ends.1, udp.payload().to_vec()))
        })
    }

    /// Lets stack and network work once.
    pub(super) fn turn(&mut self) {
        self.net.poll(false);
        let Some(mut interface) = self.interface.take() else { return };
        let mut sockets = std::mem::replace(&mut self.sockets, SocketSet::new(Vec::new()));
        let now = Time::from_micros(self.began.elapsed().as_micros() as i64);
        interface.poll(now, &mut Nic(self), &mut sockets);
        self.sockets = sockets;
        self.interface = Some(interface);
        self.net.poll(false);
    }

    /// Lets both work until `done`.
    pub(super) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            self.turn();
            assert!(start.elapsed() < PATIENCE, "it never came to this: {what}");
            std::thread::yield_now();
        }
    }

    pub(super) fn add_socket(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 128 << 10]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        self.sockets.add(socket)
    }

    /// Begins a connection from `port`.
    pub(super) fn connect(&mut self, to: SocketAddr, port: u16) -> SocketHandle {
        let handle = self.add_socket();
        let context = self.interface.as_mut().unwrap().context();
        let remote = (IpAddress::from(to.ip()), to.port());
        self.sockets.get_mut::<Socket<'_>>(handle).connect(context, remote, port).unwrap();
        handle
    }

    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }
}

/// smoltcp's view of the guest's card.
struct Nic<'a>(&'a mut Guest);

impl Device for Nic<'_> {
    type RxToken<'a>
        = Frame
    where
        Self: 'a;
    type TxToken<'a>
        = Wire<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Time) -> Option<(Frame, Wire<'_>)> {
        let mut frame = Vec::new();
        self.0.net.receive(&mut frame)?;
        self.0.longest = self.0.longest.max(frame.len());
        Some((Frame(frame), Wire(&mut self.0.net)))
    }

    fn transmit(&mut self, _: Time) -> Option<Wire<'_>> {
        Some(Wire(&mut self.0.net))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        if self.0.offloads.checksum {
            let mut sums = ChecksumCapabilities::default();
            sums.tcp = smoltcp::phy::Checksum::Tx;
            capabilities.checksum = sums;
        }
        capabilities
    }
}

struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Wire<'a>(&'a mut UserNet);

impl TxToken for Wire<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.send(&FrameMeta::default(), &mut frame);
        result
    }
}
