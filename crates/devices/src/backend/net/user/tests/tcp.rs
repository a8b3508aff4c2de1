//! Connections: data, ends, resets, refusals, back-pressure, many at once.

use super::*;
use smoltcp::socket::tcp::State;
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};

const ALL: Offloads = Offloads { checksum: true, tso4: true, tso6: true };

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

fn listener(address: &str) -> (TcpListener, u16) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn gateway(port: u16) -> SocketAddr {
    SocketAddr::new(address::GATEWAY_V4.into(), port)
}

/// Sends all of `data` and takes all that comes until the other end says it was all.
fn talk(guest: &mut Guest, handle: smoltcp::iface::SocketHandle, data: &[u8]) -> Vec<u8> {
    let (mut sent, mut got, mut closed) = (0, Vec::new(), false);
    guest.until("both have said everything", |guest| {
        let socket = guest.socket(handle);
        if sent < data.len() && socket.can_send() {
            sent += socket.send_slice(&data[sent..]).unwrap();
        } else if sent == data.len() && socket.may_send() && !closed {
            closed = true;
            socket.close();
        }
        while socket.can_recv() {
            socket.recv(|some| (some.len(), got.extend_from_slice(some))).unwrap();
        }
        closed && matches!(socket.state(), State::TimeWait | State::Closed)
    });
    got
}

/// The server reads until the end, and only then answers: half-closed connections work in both families, with and
/// without offloads.
#[test]
fn data_and_ends_arrive_in_both_directions() {
    for (address, gateway) in [("127.0.0.1", "10.0.2.2"), ("::1", "fec0::2")] {
        for offloads in [Offloads::default(), ALL] {
            let (listener, port) = listener(address);
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut data = Vec::new();
                stream.read_to_end(&mut data).unwrap();
                data.reverse();
                stream.write_all(&data).unwrap();
                data.len()
            });
            let mut guest = Guest::with_stack(&open(), offloads);
            let data = pattern(3 << 20);
            let handle = guest.connect(SocketAddr::new(gateway.parse().unwrap(), port), 40_000);
            let mut got = talk(&mut guest, handle, &data);
            assert_eq!(server.join().unwrap(), data.len());
            got.reverse();
            assert!(got == data, "{} bytes of {}", got.len(), data.len());
            // Long segments are made for those that take them only, and over IPv4.
            let long = offloads.tso4 && address == "127.0.0.1";
            assert_eq!(guest.longest > 1514, long, "{}", guest.longest);
            guest.until("it is forgotten", |guest| guest.net.connections() == 0);
        }
    }
}

#[test]
fn refusals_reach_the_guest() {
    let mut guest = Guest::with_stack(&open(), Offloads::default());
    let (closed, port) = listener("127.0.0.1");
    drop(closed);
    let handle = guest.connect(gateway(port), 40_000);
    guest.until("it is refused", |guest| guest.socket(handle).state() == State::Closed);
    guest.until("it is forgotten", |guest| guest.net.connections() == 0);
}

#[test]
fn resets_travel_both_ways() {
    let (listener, port) = listener("127.0.0.1");
    let mut guest = Guest::with_stack(&open(), Offloads::default());
    // The host's program gives up.
    let handle = guest.connect(gateway(port), 40_000);
    let (stream, _) = accept(&mut guest, &listener);
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    guest.until("the guest is told", |guest| guest.socket(handle).state() == State::Closed);
    // The guest's does.
    let handle = guest.connect(gateway(port), 40_001);
    let (mut stream, _) = accept(&mut guest, &listener);
    guest.until("it is established", |guest| guest.socket(handle).may_send());
    guest.socket(handle).abort();
    let mut result = Ok(1);
    guest.until("the host is told", |_| {
        result = stream.read(&mut [0; 16]);
        !matches!(&result, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    });
    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    guest.until("both are forgotten", |guest| guest.net.connections() == 0);
}

/// Accepts while the guest runs; the stream does not block.
fn accept(guest: &mut Guest, listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    guest.until("the host accepts", |_| {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (stream, peer) = accepted.unwrap();
    stream.set_nonblocking(true).unwrap();
    (stream, peer)
}

#[test]
fn who_does_not_read_slows_the_sender_down() {
    let (listener, port) = listener("127.0.0.1");
    let mut guest = Guest::with_stack(&open(), Offloads::default());
    let handle = guest.connect(gateway(port), 40_000);
    let (mut stream, _) = accept(&mut guest, &listener);
    guest.until("it is established", |guest| guest.socket(handle).may_send());
    // The host's program reads nothing: the guest can send a few megabytes at most.
    let (mut sent, mut stuck) = (0, Instant::now());
    guest.until("nothing moves", |guest| {
        let socket = guest.socket(handle);
        if socket.can_send() {
            let some = socket
                .send(|room| {
                    room.fill(7);
                    (room.len(), room.len())
                })
                .unwrap();
            (sent, stuck) = (sent + some, Instant::now());
        }
        stuck.elapsed() > Duration::from_millis(300)
    });
    assert!(sent < 32 << 20, "{sent}");
    guest.socket(handle).close();
    let (mut got, mut buffer, mut ended) = (0, vec![0; 1 << 16], false);
    guest.until("the host has all of it", |_| {
        match stream.read(&mut buffer) {
            Ok(0) => ended = true,
            Ok(len) => got += len,
            Err(_) => (),
        }
        ended
    });
    assert_eq!(got, sent);
    // The guest's program reads nothing: the same for the host.
    let (mut sent, mut stuck) = (0, Instant::now());
    guest.until("nothing moves", |_| {
        if let Ok(len) = stream.write(&buffer) {
            (sent, stuck) = (sent + len, Instant::now());
        }
        stuck.elapsed() > Duration::from_millis(300)
    });
    assert!(sent < 32 << 20, "{sent}");
    stream.shutdown(Shutdown::Write).unwrap();
    let mut got = 0;
    guest.until("the guest has all of it", |guest| {
        let socket = guest.socket(handle);
        while socket.can_recv() {
            got += socket.recv(|some| (some.len(), some.len())).unwrap();
        }
        !socket.may_recv()
    });
    assert_eq!(got, sent);
}

#[test]
fn published_ports_lead_to_the_guest() {
    let publish = vec!["0:80".parse().unwrap(), "[::1]:0:80".parse().unwrap()];
    for restrict in [false, true] {
        let options = UserNetOptions { publish: publish.clone(), restrict, ..open() };
        let mut guest = Guest::with_stack(&options, Offloads::default());
        for publish in guest.net.published().to_vec() {
            assert_ne!(publish.host.port(), 0);
            let handle = guest.add_socket();
            guest.socket(handle).listen(80).unwrap();
            let client = thread::spawn(move || {
                let mut stream = TcpStream::connect(publish.host).unwrap();
                stream.write_all(b"question").unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            });
            assert_eq!(talk(&mut guest, handle, b"answer"), b"question");
            let remote = guest.socket(handle).remote_endpoint();
            assert!(remote.is_none_or(|remote| remote.addr == address::GATEWAY_V4.into()));
            guest.until("it is forgotten", |guest| guest.net.connections() == 0);
            assert_eq!(client.join().unwrap(), "answer");
        }
        // Nobody listens: the client is reset, not kept waiting.
        let host = guest.net.published()[0].host;
        let client = thread::spawn(move || TcpStream::connect(host).unwrap().read(&mut [0; 1]));
        guest.until("it is refused", |_| client.is_finished());
        assert_eq!(client.join().unwrap().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let publish = Publish { host: taken.local_addr().unwrap(), guest_port: 80, transport: Transport::Tcp };
    let error = UserNet::new(&UserNetOptions { publish: vec![publish], ..open() }).unwrap_err();
    assert!(matches!(error, NetError::Publish { .. }), "{error}");
}

#[test]
fn five_hundred_connections_at_once() {
    const COUNT: u16 = 500;
    let (listener, port) = listener("127.0.0.1");
    let server = thread::spawn(move || {
        // All of them are open before the first is answered.
        let streams: Vec<_> = (0..COUNT).map(|_| listener.accept().unwrap().0).collect();
        for mut stream in streams {
            let mut number = [0; 2];
            stream.read_exact(&mut number).unwrap();
            stream.write_all(&[number, number].concat()).unwrap();
        }
    });
    let mut guest = Guest::with_stack(&open(), Offloads::default());
    let handles: Vec<_> = (0..COUNT).map(|i| guest.connect(gateway(port), 20_000 + i)).collect();
    for (number, &handle) in handles.iter().enumerate() {
        guest.until("it is established", |guest| guest.socket(handle).can_send());
        guest.socket(handle).send_slice(&(number as u16).to_be_bytes()).unwrap();
    }
    assert_eq!(guest.net.connections(), usize::from(COUNT));
    for (number, &handle) in handles.iter().enumerate() {
        guest.until("it is answered", |guest| guest.socket(handle).recv_queue() == 4);
        let number = (number as u16).to_be_bytes();
        let answer = guest.socket(handle).recv(|data| (data.len(), data.to_vec())).unwrap();
        assert_eq!(answer, [number, number].concat());
        guest.socket(handle).close();
    }
    server.join().unwrap();
    guest.until("all are forgotten", |guest| guest.net.connections() == 0);
}

#[test]
fn a_restricted_guest_reaches_nobody() {
    let (listener, port) = listener("127.0.0.1");
    listener.set_nonblocking(true).unwrap();
    let mut guest = Guest::with_stack(&UserNetOptions { restrict: true, ..open() }, Offloads::default());
    let handle = guest.connect(gateway(port), 40_000);
    guest.until("it is refused", |guest| guest.socket(handle).state() == State::Closed);
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_card_reset_ends_connections() {
    let (listener, port) = listener("127.0.0.1");
    let mut guest = Guest::with_stack(&open(), Offloads::default());
    let handle = guest.connect(gateway(port), 40_000);
    let (mut stream, _) = accept(&mut guest, &listener);
    guest.until("it is established", |guest| guest.socket(handle).may_send());
    guest.net.reset();
    assert_eq!(guest.net.connections(), 0);
    stream.set_nonblocking(false).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    // The guest, if it still has it, is told when it says something.
    guest.socket(handle).send_slice(b"hello").unwrap();
    guest.until("it is told", |guest| guest.socket(handle).state() == State::Closed);
}
