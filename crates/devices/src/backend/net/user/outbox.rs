//! Frames for the guest, a bounded number of them, and the stations of the guest they are for.

use super::address::GATEWAY_MAC;
use crate::backend::net::{ETHERNET_HEADER_BYTES, FrameMeta, MacAddr, Offloads, Segmentation, checksum};
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        EthernetProtocol, IpAddress, IpProtocol, IpRepr, Ipv4Packet, TcpPacket, UDP_HEADER_LEN, UdpPacket,
    },
};
use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
};

/// Frames that wait for the guest, at most. What comes with flow control stops before; the rest is dropped.
const MAX_FRAMES: usize = 512;
/// Their bytes, at most.
const MAX_BYTES: usize = 4 << 20;
/// Room that flow-controlled traffic leaves to the rest.
const RESERVED_FRAMES: usize = 256;
/// Buffers kept for later frames.
const MAX_SPARE: usize = 64;
/// Stations of the guest that are remembered.
const MAX_STATIONS: usize = 256;

/// Frames on their way to the guest.
#[derive(Debug)]
pub(super) struct Outbox {
    frames: VecDeque<(FrameMeta, Vec<u8>)>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
    pub(super) guest: Offloads,
    mtu: usize,
    /// The card's own address: that of every station that has not been heard of.
    card: MacAddr,
    stations: HashMap<IpAddr, MacAddr>,
    next_ident: u16,
}

impl Outbox {
    pub(super) fn new(card: MacAddr, mtu: u16) -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            spare: Vec::new(),
            guest: Offloads::default(),
            mtu: mtu.into(),
            card,
            stations: HashMap::new(),
            next_ident: 1,
        }
    }

    /// Forgets frames and stations.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
        self.stations.clear();
    }

    /// May flow-controlled traffic go on?
    pub(super) fn has_room(&self) -> bool {
        self.frames.len() < MAX_FRAMES - RESERVED_FRAMES && self.bytes < MAX_BYTES / 2
    }

    /// A station of the guest was heard from.
    pub(super) fn learn(&mut self, address: IpAddr, mac: MacAddr) {
        if mac.is_multicast()
            || (self.stations.len() >= MAX_STATIONS && !self.stations.contains_key(&address))
        {
            return;
        }
        self.stations.insert(address, mac);
    }

    fn station(&self, address: IpAddr) -> MacAddr {
        match address {
            IpAddr::V4(v4) if v4.is_broadcast() => MacAddr::BROADCAST,
            IpAddr::V6(v6) if v6.is_multicast() => {
                let [.., a, b, c, d] = v6.octets();
                MacAddr([0x33, 0x33, a, b, c, d])
            }
            _ => self.stations.get(&address).copied().unwrap_or(self.card),
        }
    }

    /// A zeroed frame with room for an IP packet of `len` bytes.
    pub(super) fn buffer(&mut self, len: usize) -> Vec<u8> {
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.clear();
        frame.resize(ETHERNET_HEADER_BYTES + len, 0);
        frame
    }

    fn keep(&mut self, frame: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(frame);
        }
    }

    /// Queues a frame as it is.
    pub(super) fn push(&mut self, meta: FrameMeta, frame: Vec<u8>) {
        if self.frames.len() >= MAX_FRAMES || self.bytes + frame.len() > MAX_BYTES {
            self.keep(frame);
            return;
        }
        self.bytes += frame.len();
        self.frames.push_back((meta, frame));
    }

    /// Writes an Ethernet header.
    pub(super) fn address(frame: &mut [u8], to: MacAddr, protocol: EthernetProtocol) {
        frame[..6].copy_from_slice(&to.0);
        frame[6..12].copy_from_slice(&GATEWAY_MAC.0);
        frame[12..14].copy_from_slice(&u16::from(protocol).to_be_bytes());
    }

    /// Queues a TCP packet of our own making that stands behind room for an Ethernet header, to be cut into pieces with
    /// `segment` bytes of data if that is given.
    pub(super) fn push_tcp(&mut self, frame: Vec<u8>, to: IpAddr, segment: Option<u16>) {
        self.push_ip(frame, to, self.guest, segment);
    }

    /// Queues an IP packet. Only what is long is left to the guest: programs that read raw packets, such as DHCP
    /// clients, do not all expect checksums that are still to be made.
    fn push_ip(&mut self, mut frame: Vec<u8>, to: IpAddr, guest: Offloads, segment: Option<u16>) {
        let protocol = if to.is_ipv6() { EthernetProtocol::Ipv6 } else { EthernetProtocol::Ipv4 };
        Self::address(&mut frame, self.station(to), protocol);
        let mut meta = checksum::seal(&mut frame, guest);
        meta.segmentation = segment.and_then(|size| segmentation(&frame, size));
        self.push(meta, frame);
    }

    /// Queues a UDP datagram, in fragments if it is longer than the guest's network takes.
    pub(super) fn push_udp(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let len = UDP_HEADER_LEN + data.len();
        let ip = IpRepr::new(from.ip().into(), to.ip().into(), IpProtocol::Udp, len, 64);
        let Ok(udp_len) = u16::try_from(len) else { return };
        if ip.buffer_len() > usize::from(u16::MAX) {
            return;
        }
        let mut frame = self.buffer(ip.buffer_len());
        let packet = &mut frame[ETHERNET_HEADER_BYTES..];
        ip.emit(&mut *packet, &ChecksumCapabilities::ignored());
        let mut udp = UdpPacket::new_unchecked(&mut packet[ip.header_len()..]);
        udp.set_src_port(from.port());
        udp.set_dst_port(to.port());
        udp.set_len(udp_len);
        udp.payload_mut().copy_from_slice(data);
        if ip.buffer_len() <= self.mtu {
            self.push_ip(frame, to.ip(), Offloads::default(), None);
        } else {
            self.push_fragments(frame, to.ip());
        }
    }

    /// Queues an ICMP message whose checksum is still missing. `hop_limit` is 255 in neighbour discovery.
    pub(super) fn push_icmp(&mut self, from: IpAddr, to: IpAddr, hop_limit: u8, message: &[u8]) {
        let protocol = if to.is_ipv6() { IpProtocol::Icmpv6 } else { IpProtocol::Icmp };
        let ip = IpRepr::new(from.into(), to.into(), protocol, message.len(), hop_limit);
        let mut frame = self.buffer(ip.buffer_len());
        let packet = &mut frame[ETHERNET_HEADER_BYTES..];
        ip.emit(&mut *packet, &ChecksumCapabilities::ignored());
        packet[ip.header_len()..].copy_from_slice(message);
        if ip.buffer_len() <= self.mtu {
            self.push_ip(frame, to, Offloads::default(), None);
        } else {
            self.push_fragments(frame, to);
        }
    }

    /// Cuts an IPv4 packet (RFC 791, 3.2). Datagrams over IPv6 that are longer than the MTU are dropped.
    fn push_fragments(&mut self, mut frame: Vec<u8>, to: IpAddr) {
        if to.is_ipv6() {
            self.keep(frame);
            return;
        }
        // The checksum covers the whole datagram.
        checksum::seal(&mut frame, Offloads::default());
        let header = usize::from(Ipv4Packet::new_unchecked(&frame[ETHERNET_HEADER_BYTES..]).header_len());
        let (head, data) = frame.split_at(ETHERNET_HEADER_BYTES + header);
        let room = (self.mtu - header) / 8 * 8;
        let ident = self.next_ident;
        self.next_ident = self.next_ident.wrapping_add(1);
        let pieces = data.len().div_ceil(room);
        for (index, piece) in data.chunks(room).enumerate() {
            let mut fragment = self.buffer(header + piece.len());
            fragment[..head.len()].copy_from_slice(head);
            fragment[head.len()..].copy_from_slice(piece);
            let mut ip = Ipv4Packet::new_unchecked(&mut fragment[ETHERNET_HEADER_BYTES..]);
            ip.set_total_len((header + piece.len()) as u16);
            ip.set_ident(ident);
            ip.set_dont_frag(false);
            ip.set_more_frags(index + 1 < pieces);
            ip.set_frag_offset((index * room) as u16);
            self.push_ip(fragment, to, Offloads::default(), None);
        }
        self.keep(frame);
    }

    /// The next frame, in place of `frame`'s contents.
    pub(super) fn pop(&mut self, frame: &mut Vec<u8>) -> Option<FrameMeta> {
        let (meta, mut next) = self.frames.pop_front()?;
        self.bytes -= next.len();
        std::mem::swap(frame, &mut next);
        self.keep(next);
        Some(meta)
    }
}

/// What the guest needs to cut a TCP frame of ours.
fn segmentation(frame: &[u8], size: u16) -> Option<Segmentation> {
    let packet = &frame[ETHERNET_HEADER_BYTES..];
    let ipv6 = packet[0] >> 4 == 6;
    let ip_header = if ipv6 { 40 } else { usize::from(packet[0] & 15) * 4 };
    let tcp_header = usize::from(TcpPacket::new_checked(&packet[ip_header..]).ok()?.header_len());
    let header_len = ETHERNET_HEADER_BYTES + ip_header + tcp_header;
    let needed = frame.len() > header_len + usize::from(size);
    needed.then_some(Segmentation { ipv6, size, header_len: header_len as u16, ecn: false })
}

/// An address as smoltcp has it.
pub(super) fn endpoint(address: SocketAddr) -> (IpAddress, u16) {
    (address.ip().into(), address.port())
}
