//! Ethernet frames of a guest: one of each kind that user-mode networking looks into, and a tether that keeps what a
//! fuzzer makes of them on the host's loopback.

use std::net::Ipv6Addr;

/// The guest's card.
pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
/// The discard service, which hardly any host has.
const PORT: [u8; 2] = [0, 9];
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 15);

fn ethernet(kind: [u8; 2], rest: &[u8]) -> Vec<u8> {
    [&GATEWAY_MAC[..], &MAC, &kind, rest].concat()
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len() as u16).to_be_bytes();
    let rest = [0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2];
    let mut frame = ethernet([8, 0], &[&[0x45, 0][..], &len, &rest, payload].concat());
    seal(&mut frame);
    frame
}

fn ipv6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16).to_be_bytes();
    let head =
        [&[0x60, 0, 0, 0][..], &len, &[protocol, 255], &GUEST_V6.octets(), &GATEWAY_V6.octets()].concat();
    ethernet([0x86, 0xdd], &[&head[..], payload].concat())
}

/// One frame of each kind.
pub fn frames() -> Vec<Vec<u8>> {
    let tcp = |flags: u8, seq: u8| {
        let ports = [0x9c, 0x40, PORT[0], PORT[1]];
        [&ports[..], &[0, 0, 0, seq, 0, 0, 0, 0, 0x60, flags, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4]].concat()
    };
    let udp = [0x13, 0x88, PORT[0], PORT[1], 0, 12, 0, 0, b'h', b'e', b'l', b'o'];
    let mut dhcp = [vec![0, 68, 0, 67, 1, 0, 0, 0, 1, 1, 6, 0], vec![0; 244]].concat();
    dhcp[36..42].copy_from_slice(&MAC);
    dhcp[244..252].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    let solicit = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &GATEWAY_V6.octets(), &[1, 1], &MAC].concat();
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &MAC, &[10, 0, 2, 15], &[0; 6], &[10, 0, 2, 2]].concat();
    vec![
        ethernet([8, 6], &arp),
        ipv4(6, &tcp(2, 1)),
        ipv4(6, &tcp(0x10, 2)),
        ipv4(6, &tcp(1, 2)),
        ipv4(17, &udp),
        ipv4(17, &dhcp),
        ipv4(1, &[8, 0, 0, 0, 0, 1, 0, 1, b'x']),
        ipv6(6, &tcp(2, 1)),
        ipv6(17, &udp),
        ipv6(58, &solicit),
        ipv6(58, &[133, 0, 0, 0, 0, 0, 0, 0]),
        ipv6(58, &[128, 0, 0, 0, 0, 1, 0, 1]),
    ]
}

/// Makes the gateway's port 9 the destination of whatever has one, and an IPv4 header's sum right.
pub fn tether(frame: &mut [u8]) {
    let (ipv6, header) = match frame.get(12..15) {
        Some(&[0x08, 0x00, first]) if first >> 4 == 4 => (false, usize::from(first & 15) * 4),
        Some(&[0x86, 0xdd, first]) if first >> 4 == 6 => (true, 40),
        // No packet, and so without a destination.
        _ => return,
    };
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = frame.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    match ipv6 {
        true => put(38, &GATEWAY_V6.octets()),
        false => put(30, &[10, 0, 2, 2]),
    }
    put(14 + header + 2, &PORT);
    if !ipv6 {
        seal(frame);
    }
}

fn seal(frame: &mut [u8]) {
    let Some(header) = frame.get_mut(14..).and_then(|packet| {
        let len = usize::from(packet.first()? & 15) * 4;
        packet.get_mut(..len).filter(|header| header.len() >= 20)
    }) else {
        return;
    };
    header[10..12].fill(0);
    let sum =
        header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}
