//! Published ports: what the host's stations reach the guest by.

use super::{
    address::GUEST_V4,
    event::{Kind, token},
    tcp::{MAX_CONNECTIONS, Tcp},
};
use crate::backend::net::NetError;
use isomer_core::guest_warn;
use mio::{
    Interest, Registry,
    net::{TcpListener, UdpSocket},
};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Tcp { "tcp" } else { "udp" })
    }
}

/// A port of the guest that stations of the host's network reach: `[ADDRESS:]HOSTPORT:GUESTPORT[/udp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where the host listens. Port 0 lets the host choose.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
    /// Of which protocol.
    pub transport: Transport,
}

impl FromStr for Publish {
    type Err = String;

    /// Without an address, only the host itself reaches the port.
    fn from_str(text: &str) -> Result<Self, String> {
        const SHAPE: &str =
            "write [ADDRESS:]HOSTPORT:GUESTPORT[/udp], as in 8022:22, 0.0.0.0:8080:80 or [::1]:5353:53/udp";
        let (ports, transport) = match text.rsplit_once('/') {
            None => (text, Transport::Tcp),
            Some((ports, "tcp")) => (ports, Transport::Tcp),
            Some((ports, "udp")) => (ports, Transport::Udp),
            Some((_, other)) => return Err(format!("`{other}` is not a protocol: use tcp or udp")),
        };
        let (host, guest) = ports.rsplit_once(':').ok_or(SHAPE)?;
        let port = |word: &str| match word.bytes().all(|b| b.is_ascii_digit()) {
            true => word.parse::<u16>().map_err(|_| format!("`{word}` is not a port: {SHAPE}")),
            false => Err(format!("`{word}` is not a port: {SHAPE}")),
        };
        let guest_port = port(guest)?;
        let host = match host.rsplit_once(':') {
            None => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port(host)?),
            Some((address, host_port)) => {
                let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let address: IpAddr = match bare {
                    Some(v6) => IpAddr::V6(v6.parse().map_err(|_| format!("`{v6}` is not an IPv6 address"))?),
                    None => IpAddr::V4(
                        address.parse().map_err(|_| format!("`{address}` is not an address: {SHAPE}"))?,
                    ),
                };
                SocketAddr::new(address, port(host_port)?)
            }
        };
        match guest_port {
            0 => Err("the guest has no port 0".into()),
            _ => Ok(Self { host, guest_port, transport }),
        }
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.transport == Transport::Udp { "/udp" } else { "" };
        write!(f, "{}:{}{suffix}", self.host, self.guest_port)
    }
}

impl Publish {
    /// Where connections and datagrams go.
    pub(super) fn guest(&self) -> SocketAddr {
        SocketAddr::new(GUEST_V4.into(), self.guest_port)
    }

    fn error(&self, source: io::Error) -> NetError {
        NetError::Publish { host: self.host, guest_port: self.guest_port, transport: self.transport, source }
    }

    /// Opens a UDP port.
    pub(super) fn bind(&self) -> Result<UdpSocket, NetError> {
        UdpSocket::bind(self.host).map_err(|error| self.error(error))
    }
}

/// A published TCP port.
#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    guest: SocketAddr,
    /// Somebody may be waiting.
    ready: bool,
}

/// All published TCP ports.
#[derive(Debug, Default)]
pub(super) struct Listeners(Vec<Listener>);

impl Listeners {
    /// Opens a port; where it turned out to be.
    pub(super) fn open(&mut self, registry: &Registry, publish: &Publish) -> Result<SocketAddr, NetError> {
        let error = |source| publish.error(source);
        let mut socket = TcpListener::bind(publish.host).map_err(error)?;
        let address = socket.local_addr().map_err(error)?;
        let token = token(Kind::Listener, self.0.len());
        registry.register(&mut socket, token, Interest::READABLE).map_err(error)?;
        self.0.push(Listener { socket, guest: publish.guest(), ready: false });
        Ok(address)
    }

    /// Somebody knocks.
    pub(super) fn ready(&mut self, id: usize) {
        if let Some(listener) = self.0.get_mut(id) {
            listener.ready = true;
        }
    }

    /// Is somebody waiting whom there is room for?
    pub(super) fn has_work(&self, tcp: &Tcp) -> bool {
        tcp.len() < MAX_CONNECTIONS && self.0.iter().any(|listener| listener.ready)
    }

    /// Lets them in; who finds no room waits outside, in the host's queue.
    pub(super) fn work(&mut self, registry: &Registry, tcp: &mut Tcp) {
        for listener in &mut self.0 {
            while listener.ready && tcp.len() < MAX_CONNECTIONS {
                match listener.socket.accept() {
                    Ok((stream, peer)) => {
                        if let Err(error) = tcp.accept(registry, stream, peer, listener.guest) {
                            guest_warn!("a connection to a published port was dropped: {error}");
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                    Err(error) => {
                        listener.ready = false;
                        if error.kind() != io::ErrorKind::WouldBlock {
                            // Out of descriptors, or the peer has left: the next knock is answered again.
                            guest_warn!("cannot accept at a published port: {error}");
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_written() {
        for (text, shown) in [
            ("8022:22", "127.0.0.1:8022:22"),
            ("8022:22/tcp", "127.0.0.1:8022:22"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80"),
            ("[::1]:5353:53/udp", "[::1]:5353:53/udp"),
            ("0:80", "127.0.0.1:0:80"),
        ] {
            let publish: Publish = text.parse().unwrap();
            assert_eq!(publish.to_string(), shown);
            assert_eq!(shown.parse(), Ok(publish));
        }
        for wrong in [
            "",
            "22",
            ":22",
            "8022:",
            "8022:0",
            "65536:22",
            "8022:22/sctp",
            "host:8022:22",
            "::1:8022:22",
            "+1:22",
            "8022:22:",
            "[::1:8022:22",
            "[1.2.3.4]:1:1",
        ] {
            assert!(wrong.parse::<Publish>().is_err(), "{wrong}");
        }
    }
}
