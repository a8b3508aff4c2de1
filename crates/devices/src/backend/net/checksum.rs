//! Internet checksums of frames (RFC 1071): finishing what a sender left undone, or leaving it to the guest.

use super::{Checksum, ETHERNET_HEADER_BYTES, FrameMeta, Offloads};
use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, checksum};

/// The ones' complement sum of `data`, folded.
fn sum(data: &[u8]) -> u16 {
    checksum::data(data)
}

/// Where an IP protocol has its checksum, if it has one over a pseudo header.
fn field(protocol: IpProtocol) -> Option<usize> {
    match protocol {
        IpProtocol::Tcp => Some(16),
        IpProtocol::Udp => Some(6),
        IpProtocol::Icmpv6 => Some(2),
        _ => None,
    }
}

/// Finishes a partial checksum; `false` if the frame has no such bytes.
pub(super) fn complete(frame: &mut [u8], start: u16, offset: u16) -> bool {
    let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
    let Some(covered) = frame.get(start..).filter(|_| at + 2 <= frame.len()) else { return false };
    // The field holds the pseudo header's sum, which counts along.
    let value = match !sum(covered) {
        // Zero would mean "none" in UDP; both are zero in ones' complement.
        0 => 0xffff,
        value => value,
    };
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    true
}

/// Fills all checksums of a frame whose sender wrote none, as far as the guest does not do it itself. The frame holds
/// an IP packet without extension headers, of our own making.
pub(super) fn seal(frame: &mut [u8], guest: Offloads) -> FrameMeta {
    let packet = &mut frame[ETHERNET_HEADER_BYTES..];
    let (header, protocol, source, destination) = match packet[0] >> 4 {
        4 => {
            let mut ip = Ipv4Packet::new_unchecked(&mut *packet);
            ip.fill_checksum();
            let (header, protocol) = (usize::from(ip.header_len()), ip.next_header());
            if ip.more_frags() || ip.frag_offset() != 0 {
                // Cut after it was sealed.
                return FrameMeta::default();
            }
            (header, protocol, IpAddress::from(ip.src_addr()), IpAddress::from(ip.dst_addr()))
        }
        _ => {
            let ip = Ipv6Packet::new_unchecked(&*packet);
            (ip.header_len(), ip.next_header(), ip.src_addr().into(), ip.dst_addr().into())
        }
    };
    let payload = &mut packet[header..];
    if protocol == IpProtocol::Icmp {
        payload[2..4].fill(0);
        let value = !sum(payload);
        payload[2..4].copy_from_slice(&value.to_be_bytes());
    }
    let Some(at) = field(protocol) else { return FrameMeta::default() };
    let pseudo = checksum::pseudo_header(&source, &destination, protocol, payload.len() as u32);
    payload[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    let (start, offset) = ((ETHERNET_HEADER_BYTES + header) as u16, at as u16);
    if guest.checksum && protocol != IpProtocol::Icmpv6 {
        return FrameMeta { checksum: Checksum::Partial { start, offset }, segmentation: None };
    }
    complete(frame, start, offset);
    FrameMeta::default()
}

/// Is the checksum of a TCP, UDP or ICMPv6 payload right?
pub(super) fn is_right(
    protocol: IpProtocol,
    source: &IpAddress,
    destination: &IpAddress,
    payload: &[u8],
) -> bool {
    let pseudo = checksum::pseudo_header(source, destination, protocol, payload.len() as u32);
    checksum::combine(&[pseudo, sum(payload)]) == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::{
        phy::ChecksumCapabilities,
        wire::{IpRepr, UdpPacket},
    };

    fn udp_frame(ipv6: bool, payload: &[u8]) -> Vec<u8> {
        let (source, destination) = match ipv6 {
            true => (IpAddress::v6(0xfec0, 0, 0, 0, 0, 0, 0, 2), IpAddress::v6(0xfec0, 0, 0, 0, 0, 0, 0, 15)),
            false => (IpAddress::v4(10, 0, 2, 2), IpAddress::v4(10, 0, 2, 15)),
        };
        let ip = IpRepr::new(source, destination, IpProtocol::Udp, 8 + payload.len(), 64);
        let mut frame = vec![0; ETHERNET_HEADER_BYTES + ip.buffer_len()];
        ip.emit(&mut frame[ETHERNET_HEADER_BYTES..], &ChecksumCapabilities::ignored());
        let start = ETHERNET_HEADER_BYTES + ip.header_len();
        let mut udp = UdpPacket::new_unchecked(&mut frame[start..]);
        udp.set_src_port(53);
        udp.set_dst_port(1234);
        udp.set_len(8 + payload.len() as u16);
        udp.payload_mut().copy_from_slice(payload);
        frame
    }

    #[test]
    fn sums_are_right_whoever_finishes_them() {
        for ipv6 in [false, true] {
            for payload in [&b"odd"[..], b"even", b"", &[0; 100]] {
                let mut whole = udp_frame(ipv6, payload);
                assert_eq!(seal(&mut whole, Offloads::default()), FrameMeta::default());
                let mut left = udp_frame(ipv6, payload);
                let meta = seal(&mut left, Offloads { checksum: true, ..Offloads::default() });
                let Checksum::Partial { start, offset } = meta.checksum else { panic!("{meta:?}") };
                assert_ne!(whole, left);
                assert!(complete(&mut left, start, offset));
                assert_eq!(whole, left);
                let packet = &whole[ETHERNET_HEADER_BYTES..];
                let (source, destination): (IpAddress, IpAddress) = match ipv6 {
                    true => {
                        let ip = Ipv6Packet::new_checked(packet).unwrap();
                        (ip.src_addr().into(), ip.dst_addr().into())
                    }
                    false => {
                        let ip = Ipv4Packet::new_checked(packet).unwrap();
                        assert!(ip.verify_checksum());
                        (ip.src_addr().into(), ip.dst_addr().into())
                    }
                };
                let packet = &packet[if ipv6 { 40 } else { 20 }..];
                let udp = UdpPacket::new_checked(packet).unwrap();
                assert!(udp.verify_checksum(&source, &destination));
                assert!(is_right(IpProtocol::Udp, &source, &destination, packet));
                assert!(!is_right(IpProtocol::Tcp, &source, &destination, packet));
            }
        }
    }

    #[test]
    fn wild_places_are_refused() {
        let mut frame = vec![0; 60];
        for (start, offset) in [(60, 0), (59, 0), (34, 25), (u16::MAX, u16::MAX), (0, 59)] {
            assert!(!complete(&mut frame, start, offset), "{start} {offset}");
        }
        assert!(complete(&mut frame, 34, 24));
    }
}
