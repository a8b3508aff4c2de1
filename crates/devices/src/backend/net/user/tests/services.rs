//! DHCP, ARP, neighbour discovery, router advertisement, echoes, UDP and name service.

use super::*;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        DHCP_CLIENT_PORT, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, Icmpv4Message,
        Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpRepr, NdiscRepr,
    },
};
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A DHCP answer: type, address, router, name servers, to which IP address.
type Answer = (DhcpMessageType, Ipv4Addr, Option<Ipv4Addr>, Option<Vec<Ipv4Addr>>, IpAddr);

fn dhcp(guest: &mut Guest, kind: DhcpMessageType, mac: [u8; 6], wanted: Option<Ipv4Addr>) -> Answer {
    let request = DhcpRepr {
        message_type: kind,
        transaction_id: 0x1234_5678,
        secs: 0,
        client_hardware_address: EthernetAddress(mac),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: wanted,
        client_identifier: Some(EthernetAddress(mac)),
        server_identifier: None,
        parameter_request_list: Some(&[1, 3, 6]),
        dns_servers: None,
        max_size: Some(1500),
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut message = vec![0; request.buffer_len()];
    request.emit(&mut DhcpPacket::new_unchecked(&mut message[..])).unwrap();
    guest.send_udp(at("0.0.0.0:68"), at("255.255.255.255:67"), &message);
    let (from, to, answer) = guest.udp();
    assert_eq!((from, to.port()), (at("10.0.2.2:67"), DHCP_CLIENT_PORT));
    let packet = DhcpPacket::new_checked(&answer[..]).unwrap();
    let answer = DhcpRepr::parse(&packet).unwrap();
    assert_eq!((answer.transaction_id, answer.client_hardware_address.0), (0x1234_5678, mac));
    let servers = answer.dns_servers.map(|list| list.iter().copied().collect());
    (answer.message_type, answer.your_ip, answer.router, servers, to.ip())
}

#[test]
fn cards_get_leases() {
    let mut guest = Guest::new(&open());
    let lease = Ipv4Addr::new(10, 0, 2, 15);
    let full = |kind, lease: Ipv4Addr| {
        (kind, lease, Some(address::GATEWAY_V4), Some(vec![address::DNS_V4]), IpAddr::from(lease))
    };
    use DhcpMessageType::{Ack, Discover, Nak, Offer, Request};
    assert_eq!(dhcp(&mut guest, Discover, MAC.0, None), full(Offer, lease));
    assert_eq!(dhcp(&mut guest, Request, MAC.0, Some(lease)), full(Ack, lease));
    let wrong = dhcp(&mut guest, Request, MAC.0, Some(Ipv4Addr::new(192, 168, 0, 5)));
    assert_eq!((wrong.0, wrong.4), (Nak, Ipv4Addr::BROADCAST.into()));
    let second = Ipv4Addr::new(10, 0, 2, 16);
    assert_eq!(dhcp(&mut guest, Request, [2, 0, 0, 0, 0, 7], Some(second)), full(Ack, second));
    assert_eq!(dhcp(&mut guest, Discover, MAC.0, None), full(Offer, lease));
    // Cards without end get addresses that end.
    let leases: Vec<_> = (0..238u32)
        .map(|i| dhcp(&mut guest, Discover, [2, 1, 0, 0, (i >> 8) as u8, i as u8], None).1.octets()[3])
        .collect();
    assert_eq!((leases[0], leases[237]), (17, 254));
    let options = UserNetOptions { restrict: true, ..open() };
    let restricted = dhcp(&mut Guest::new(&options), Discover, MAC.0, None);
    assert_eq!((restricted.1, restricted.2, restricted.3), (lease, None, None));
}

#[test]
fn the_gateway_answers_arp_and_echoes() {
    let mut guest = Guest::new(&open());
    let arp = |target: [u8; 4]| {
        let head =
            [&[0xff; 6][..], &MAC.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &MAC.0, &[10, 0, 2, 15]].concat();
        [&head[..], &[0; 6], &target].concat()
    };
    for target in [[10, 0, 2, 2], [10, 0, 2, 3]] {
        guest.send(&arp(target));
        let answer = guest.frame(|frame| (frame[12..14] == [8, 6]).then(|| frame.to_vec()));
        assert_eq!((&answer[..6], &answer[20..22], &answer[28..32]), (&MAC.0[..], &[0, 2][..], &target[..]));
        assert_eq!(answer[22..28], address::GATEWAY_MAC.0);
    }
    for nobody in [[10, 0, 2, 15], [10, 0, 2, 77], [192, 168, 0, 1]] {
        guest.send(&arp(nobody));
    }
    assert!(guest.frames().is_empty());
    let data = [7; 5000]; // comes back in fragments
    for size in [0, 56, 1400, 5000] {
        let echo = Icmpv4Repr::EchoRequest { ident: 9, seq_no: size as u16, data: &data[..size] };
        let mut message = vec![0; echo.buffer_len()];
        echo.emit(&mut Icmpv4Packet::new_unchecked(&mut message[..]), &ChecksumCapabilities::default());
        let (from, to) = (Ipv4Addr::new(10, 0, 2, 15).into(), address::GATEWAY_V4.into());
        guest.send_ip(&IpRepr::new(from, to, IpProtocol::Icmp, message.len(), 64), &message);
        let mut whole = Vec::new();
        guest.frame(|frame| {
            let packet = Packet::parse(&frame[14..])?;
            whole.extend_from_slice(packet.payload);
            (whole.len() == message.len()).then_some(())
        });
        let reply = Icmpv4Packet::new_checked(&whole[..]).unwrap();
        assert!(reply.verify_checksum());
        assert_eq!((reply.msg_type(), reply.echo_seq_no()), (Icmpv4Message::EchoReply, size as u16));
        assert_eq!(reply.data(), &data[..size]);
    }
}

#[test]
fn ipv6_stations_find_their_router() {
    let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
    let send = |guest: &mut Guest, to: Ipv6Addr, repr: Icmpv6Repr<'_>| {
        let mut message = vec![0; repr.buffer_len()];
        repr.emit(
            &own,
            &to,
            &mut Icmpv6Packet::new_unchecked(&mut message[..]),
            &ChecksumCapabilities::default(),
        );
        guest.send_ip(&IpRepr::new(own.into(), to.into(), IpProtocol::Icmpv6, message.len(), 255), &message);
    };
    let answer = |guest: &mut Guest, kind: u8| {
        guest.frame(|frame| {
            let packet = Packet::parse(&frame[14..])?;
            assert!(packet.is_intact(&FrameMeta::default()));
            (packet.payload[0] == kind).then(|| (packet.from, packet.payload.to_vec()))
        })
    };
    let mut guest = Guest::new(&open());
    send(
        &mut guest,
        "ff02::2".parse().unwrap(),
        Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: None }),
    );
    let (from, advert) = answer(&mut guest, 134);
    assert_eq!(from, IpAddr::from(address::ROUTER_V6));
    let packet = Icmpv6Packet::new_checked(&advert[..]).unwrap();
    let Ok(NdiscRepr::RouterAdvert { prefix_info: Some(prefix), .. }) = NdiscRepr::parse(&packet) else {
        panic!()
    };
    assert_eq!((prefix.prefix, prefix.prefix_len), (address::V6_PREFIX, 64));
    assert!(advert.ends_with(&address::DNS_V6.octets()));
    for target in [address::GATEWAY_V6, address::DNS_V6, address::ROUTER_V6] {
        let solicit = NdiscRepr::NeighborSolicit { target_addr: target, lladdr: None };
        send(&mut guest, "ff02::1:ff00:2".parse().unwrap(), Icmpv6Repr::Ndisc(solicit));
        assert_eq!(answer(&mut guest, 136).0, IpAddr::from(target));
    }
    send(&mut guest, address::GATEWAY_V6, Icmpv6Repr::EchoRequest { ident: 1, seq_no: 2, data: b"ping" });
    let (from, reply) = answer(&mut guest, 129);
    assert_eq!((from, &reply[4..]), (IpAddr::from(address::GATEWAY_V6), &b"\0\x01\0\x02ping"[..]));
    let mut restricted = Guest::new(&UserNetOptions { restrict: true, ..open() });
    send(
        &mut restricted,
        "ff02::2".parse().unwrap(),
        Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: None }),
    );
    assert!(restricted.frames().is_empty());
}

#[test]
fn datagrams_and_questions_are_answered() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let mut guest = Guest::new(&UserNetOptions { dns: server.local_addr().ok(), ..open() });
    let from = at("10.0.2.15:5000");
    for to in [SocketAddr::new(address::GATEWAY_V4.into(), port), SocketAddr::new(address::DNS_V4.into(), 53)]
    {
        for len in [1, 1400, 9000] {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            guest.send_udp(from, to, &data);
            let mut buffer = [0; 10_000];
            let (got, peer) = server.recv_from(&mut buffer).unwrap();
            assert!(buffer[..got] == data);
            server.send_to(&data, peer).unwrap();
            if len <= 1400 {
                assert_eq!(guest.udp(), (to, from, data));
                continue;
            }
            // Longer than the network takes: in fragments, with the sum over all of them.
            let mut whole = Vec::new();
            guest.frame(|frame| {
                let packet = Packet::parse(&frame[14..])?;
                assert!(packet.fragment && frame.len() <= 1514);
                whole.extend_from_slice(packet.payload);
                (whole.len() == 8 + len).then_some(())
            });
            let udp = UdpPacket::new_checked(&whole[..]).unwrap();
            assert!(udp.verify_checksum(&to.ip().into(), &from.ip().into()));
            assert_eq!(udp.payload(), data);
        }
    }
    // A stranger's datagram does not reach the guest.
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    guest.send_udp(from, SocketAddr::new(address::GATEWAY_V4.into(), port), b"x");
    let (_, outside) = server.recv_from(&mut [0; 16]).unwrap();
    stranger.send_to(b"y", outside).unwrap();
    assert!(guest.frames().is_empty());
}

#[test]
fn published_datagrams_reach_the_guest_and_are_answered() {
    for restrict in [false, true] {
        let publish = vec!["0:53/udp".parse().unwrap()];
        let mut guest = Guest::new(&UserNetOptions { publish, restrict, ..open() });
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.send_to(b"question", guest.net.published()[0].host).unwrap();
        let (from, to, data) = guest.udp();
        let seen = SocketAddr::new(address::GATEWAY_V4.into(), client.local_addr().unwrap().port());
        assert_eq!((from, to, &data[..]), (seen, at("10.0.2.15:53"), &b"question"[..]));
        guest.send_udp(to, from, b"answer");
        let mut buffer = [0; 16];
        let (len, peer) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], peer), (&b"answer"[..], guest.net.published()[0].host));
    }
}

#[test]
fn what_cannot_arrive_is_answered_with_the_reason() {
    let reason = |guest: &mut Guest, to: &str| {
        guest.send_udp(at("10.0.2.15:5000"), at(to), b"hello");
        guest.frame(|frame| {
            let packet = Packet::parse(&frame[14..])?;
            let message = Icmpv4Packet::new_checked(packet.payload).ok()?;
            assert!(message.verify_checksum() && packet.protocol == IpProtocol::Icmp);
            Some((packet.payload[0], packet.payload[1]))
        })
    };
    assert_eq!(reason(&mut Guest::new(&open()), "10.0.2.99:1000"), (3, 1));
    let mut restricted = Guest::new(&UserNetOptions { restrict: true, ..open() });
    assert_eq!(reason(&mut restricted, "192.0.2.1:1000"), (3, 13));
    assert_eq!(reason(&mut restricted, "10.0.2.3:53"), (3, 13));
    let mut guest = Guest::new(&open());
    for nowhere in ["127.0.0.1:53", "224.0.0.1:5353", "255.255.255.255:1", "10.0.2.255:1"] {
        guest.send_udp(at("10.0.2.15:5000"), at(nowhere), b"hello");
    }
    // Not with somebody else's name either.
    for source in ["10.0.2.2:1", "127.0.0.1:1", "224.0.0.1:1"] {
        guest.send_udp(at(source), at("10.0.2.99:1"), b"hello");
    }
    assert!(guest.frames().is_empty());
}
