//! Servers on the host's loopback that the guest talks to: HTTP, a sink for bytes, a name server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result};

/// What the name server says of every name.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
/// Bytes written at a time.
const BLOCK_BYTES: usize = 1 << 16;

/// The addresses of all servers, which run until the program ends.
pub(crate) struct Servers {
    /// `GET /N` gets N bytes.
    pub(crate) http: SocketAddr,
    /// The same over IPv6; none where the host has no IPv6 loopback.
    pub(crate) http_v6: Option<SocketAddr>,
    /// Takes everything, then says how many bytes it was.
    pub(crate) sink: SocketAddr,
    pub(crate) dns: SocketAddr,
}

impl Servers {
    /// Starts them all.
    pub(crate) fn start() -> Result<Self> {
        let http_v6 = serve("[::1]:0", http).ok();
        let dns = UdpSocket::bind("127.0.0.1:0").context("cannot open a UDP port")?;
        let servers = Self {
            http: serve("127.0.0.1:0", http)?,
            http_v6,
            sink: serve("127.0.0.1:0", sink)?,
            dns: dns.local_addr()?,
        };
        thread::spawn(move || answer_names(&dns));
        Ok(servers)
    }
}

/// Serves each connection on a thread of its own.
fn serve(address: &str, with: fn(TcpStream) -> std::io::Result<()>) -> Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that leaves early is the test's to notice.
            thread::spawn(move || with(stream));
        }
    });
    Ok(address)
}

/// The bytes of a file of any length: the same at the same place.
pub(crate) fn content(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

fn http(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = BufReader::new(stream.try_clone()?).lines();
    let first = request.next().transpose()?.unwrap_or_default();
    // The rest of the request, up to an empty line.
    for line in request {
        if line?.is_empty() {
            break;
        }
    }
    let len = first.split(' ').nth(1).and_then(|path| path.trim_start_matches('/').parse::<usize>().ok());
    let Some(len) = len else { return write!(stream, "HTTP/1.0 404 Not Found\r\n\r\n") };
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n")?;
    // The pattern repeats every 16 MiB; one block of it in memory is enough for speed.
    let block = content(0, BLOCK_BYTES);
    let mut at = 0;
    while at < len {
        let part = BLOCK_BYTES.min(len - at);
        match at < 1 << 24 {
            true => stream.write_all(&content(at, part))?,
            false => stream.write_all(&block[..part])?,
        }
        at += part;
    }
    Ok(())
}

fn sink(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut total, mut block) = (0, vec![0; BLOCK_BYTES]);
    loop {
        match stream.read(&mut block)? {
            0 => return writeln!(stream, "{total} bytes"),
            len => total += len,
        }
    }
}

/// Answers questions for addresses (RFC 1035, 4), whatever the name.
fn answer_names(socket: &UdpSocket) {
    let mut message = [0; 1500];
    while let Ok((len, peer)) = socket.recv_from(&mut message) {
        if let Some(answer) = answer(&message[..len]) {
            let _ = socket.send_to(&answer, peer);
        }
    }
}

fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let mut at = 12;
    while *question.get(at)? != 0 {
        at += usize::from(question[at]) + 1;
    }
    let end = at + 5;
    let kind = question.get(at + 1..at + 3)?;
    let asked = question.get(12..end)?;
    let is_address = kind == [0, 1];
    // A recursive answer with one question, and one record if it is for an IPv4 address.
    let mut answer =
        [&question[..2], &[0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0], asked].concat();
    if is_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(ADDRESS.octets());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_serve() -> Result<()> {
        let servers = Servers::start()?;
        let mut stream = TcpStream::connect(servers.http)?;
        write!(stream, "GET /100000 HTTP/1.0\r\n\r\n")?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        assert!(all.ends_with(&content(0, 100_000)) && all.starts_with(b"HTTP/1.0 200"));
        let mut stream = TcpStream::connect(servers.sink)?;
        stream.write_all(&[7; 12_345])?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        assert_eq!(text, "12345 bytes\n");
        Ok(())
    }

    #[test]
    fn names_are_answered() {
        let question = |kind| {
            [&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 2, b'b', b'c', 0, 0, kind, 0, 1][..]].concat()
        };
        let answer_to = |kind| answer(&question(kind)).unwrap();
        assert!(answer_to(1).ends_with(&ADDRESS.octets()) && answer_to(1).starts_with(&[7, 7, 0x81, 0x80]));
        assert_eq!(answer_to(28).len(), question(28).len());
        assert_eq!(answer(&[0; 12]), None);
        assert_eq!(answer(b"short"), None);
    }
}
