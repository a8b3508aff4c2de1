//! A hostile guest: frames of any content, whole or damaged, never harm the network.

use super::*;
use crate::backend::net::{Checksum, Segmentation};
use proptest::prelude::*;

/// Frames of each kind that the network looks into, destined so that nothing leaves the host's loopback.
fn seeds() -> Vec<Vec<u8>> {
    let ethernet = |kind: [u8; 2], rest: &[u8]| [&address::GATEWAY_MAC.0[..], &MAC.0, &kind, rest].concat();
    let ipv4 = |protocol: u8, payload: &[u8]| {
        let len = 20 + payload.len() as u16;
        let mut header = [
            &[0x45, 0][..],
            &len.to_be_bytes(),
            &[0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2],
        ]
        .concat();
        smoltcp::wire::Ipv4Packet::new_unchecked(&mut header[..]).fill_checksum();
        ethernet([8, 0], &[&header[..], payload].concat())
    };
    let ipv6 = |protocol: u8, payload: &[u8]| {
        let (own, gateway) = ("fec0::f".parse::<std::net::Ipv6Addr>().unwrap(), address::GATEWAY_V6);
        let len = (payload.len() as u16).to_be_bytes();
        let header =
            [&[0x60, 0, 0, 0][..], &len, &[protocol, 255], &own.octets(), &gateway.octets()].concat();
        ethernet([0x86, 0xdd], &[&header[..], payload].concat())
    };
    let syn = [0x9c, 0x40, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4];
    let udp = [0x13, 0x88, 0, 9, 0, 12, 0, 0, b'h', b'e', b'l', b'o'];
    let mut dhcp = vec![0; 248];
    dhcp[..4].copy_from_slice(&[1, 1, 6, 0]);
    dhcp[28..34].copy_from_slice(&MAC.0);
    dhcp[236..244].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    let dhcp = [&[0, 68, 0, 67, 1, 0, 0, 0][..], &dhcp].concat();
    let solicit = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &address::GATEWAY_V6.octets(), &[1, 1], &MAC.0].concat();
    vec![
        ethernet(
            [8, 6],
            &[&[0, 1, 8, 0, 6, 4, 0, 1][..], &MAC.0, &[10, 0, 2, 15], &[0; 6], &[10, 0, 2, 2]].concat(),
        ),
        ipv4(6, &syn),
        ipv4(17, &udp),
        ipv4(17, &dhcp),
        ipv4(1, &[8, 0, 0, 0, 0, 1, 0, 1, b'x']),
        ipv6(6, &syn),
        ipv6(17, &udp),
        ipv6(58, &solicit),
        ipv6(58, &[133, 0, 0, 0, 0, 0, 0, 0]),
        ipv6(58, &[128, 0, 0, 0, 0, 1, 0, 1]),
    ]
}

fn meta() -> impl Strategy<Value = FrameMeta> {
    let checksum = prop_oneof![
        Just(Checksum::Complete),
        (any::<u16>(), any::<u16>()).prop_map(|(start, offset)| Checksum::Partial { start, offset }),
        Just(Checksum::Partial { start: 34, offset: 16 }),
    ];
    let segmentation = proptest::option::of(
        (any::<bool>(), any::<u16>(), any::<u16>(), any::<bool>())
            .prop_map(|(ipv6, size, header_len, ecn)| Segmentation { ipv6, size, header_len, ecn }),
    );
    (checksum, segmentation).prop_map(|(checksum, segmentation)| FrameMeta { checksum, segmentation })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_frames_are_survived(
        frames in proptest::collection::vec(
            (0..12usize, proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4), any::<u16>(), meta()),
            1..30,
        ),
        restrict in any::<bool>(),
        offload in any::<bool>(),
    ) {
        // Ports of the loopback that may exist are of no interest: the damage rarely leaves port 9 alone, and what
        // listens there gets an empty connection at worst.
        let mut net = UserNet::new(&UserNetOptions { restrict, dns: Some("127.0.0.1:9".parse().unwrap()), ..open() }).unwrap();
        net.set_guest_offloads(Offloads { checksum: offload, tso4: offload, tso6: offload });
        let seeds = seeds();
        for (seed, damage, cut, meta) in frames {
            let mut frame = seeds.get(seed).cloned().unwrap_or_else(|| vec![cut as u8; usize::from(cut) % 3000]);
            for (at, value) in damage {
                // Addresses stay: nothing is sent to strangers.
                let at = at % frame.len().max(1);
                if !(26..54).contains(&at) && at < frame.len() {
                    frame[at] = value;
                }
            }
            if cut % 4 == 0 {
                frame.truncate(usize::from(cut) % (frame.len() + 1));
            }
            net.send(&meta, &mut frame);
            net.poll(false);
        }
        let mut frame = Vec::new();
        while net.receive(&mut frame).is_some() {
            prop_assert!(frame.len() >= 42 && frame[6..12] == address::GATEWAY_MAC.0);
        }
    }
}

#[test]
fn floods_are_bounded() {
    let mut guest = Guest::new(&open());
    let closed = {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    let to = SocketAddr::new(address::GATEWAY_V4.into(), closed);
    // More ports than are kept, more answers than fit.
    for port in 1..=5000 {
        guest.send_udp(SocketAddr::new(Ipv4Addr::new(10, 0, 2, 15).into(), port), to, b"x");
        guest.send_udp(
            SocketAddr::new(Ipv4Addr::new(10, 0, 2, 15).into(), port),
            "10.0.2.99:1".parse().unwrap(),
            b"x",
        );
    }
    let mut frames = 0;
    let mut frame = Vec::new();
    while guest.net.receive(&mut frame).is_some() {
        frames += 1;
    }
    assert!((1..=512).contains(&frames), "{frames}");
}

use std::net::Ipv4Addr;
