//! One TCP connection: a smoltcp socket towards the guest, a socket of the host, and what is between them.

use super::{Reason, endpoint, unreachable};
use crate::backend::net::user::outbox::Outbox;
use mio::net::TcpStream;
use smoltcp::{
    iface::{SocketHandle, SocketSet},
    socket::tcp::{Socket, SocketBuffer, State},
    time::{Duration, Instant as Time},
    wire::{IpEndpoint, IpListenEndpoint},
};
use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    time::Instant,
};

/// Bytes kept in each direction, by how many connections there are already: few get much, many still get some.
const BUFFERS: [(usize, usize); 3] = [(64, 512 << 10), (512, 128 << 10), (usize::MAX, 32 << 10)];
/// How long the guest may leave data or a probe without an answer.
const SILENCE_LIMIT: Duration = Duration::from_secs(300);
/// How often a guest that has nothing to say is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a guest has to take a connection to a published port.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Bytes of the guest's request that are kept for an error message.
const KEPT_BYTES: usize = 128;

/// Who talks to whom, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) guest: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    GoesOn,
    Over,
}

/// The host has not connected yet.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) since: Instant,
    /// It took too long.
    pub(super) late: bool,
    /// The beginning of the guest's request.
    request: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sockets: SocketSet<'static>,
    handle: SocketHandle,
    pub(super) host: TcpStream,
    pub(super) key: Key,
    pub(super) connecting: Option<Connecting>,
    /// The host's socket may have data, or room: not looked at since its last event.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// It waits in the list of connections to look at.
    pub(super) dirty: bool,
    /// When it is looked at anyway.
    pub(super) timer: Option<Time>,
    /// The host's side has sent everything, and the guest will be told.
    host_ended: bool,
    /// The guest's side has sent everything, and so the host's socket.
    guest_ended: bool,
    /// The guest's end was seen on the wire.
    guest_finished: bool,
    /// The host's socket failed.
    broken: bool,
}

impl Connection {
    /// A connection over `host` that has not begun; `count` others exist. `request`: the guest wants it.
    pub(super) fn new(host: TcpStream, key: Key, count: usize, request: Option<(Instant, &[u8])>) -> Self {
        let bytes = BUFFERS.iter().find(|(below, _)| count < *below).map_or(0, |&(_, bytes)| bytes);
        let buffer = || SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(), buffer());
        // Data is passed on as it comes; whoever sends it has already collected it.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let connecting = request.map(|(since, packet)| {
            let request = packet[..packet.len().min(KEPT_BYTES)].to_vec();
            Connecting { since, late: false, request }
        });
        // Segments of the guest go out as they come.
        let _ = host.set_nodelay(true);
        let connected = connecting.is_none();
        Self {
            sockets,
            handle,
            host,
            key,
            connecting,
            readable: connected,
            writable: connected,
            dirty: false,
            timer: None,
            host_ended: false,
            guest_ended: false,
            guest_finished: false,
            broken: false,
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Waits for the guest's request, and leaves it unanswered; `false`: there can be no such connection.
    pub(super) fn listen(&mut self) -> bool {
        let (addr, port) = endpoint(self.key.remote);
        let socket = self.socket();
        socket.pause_synack(true);
        socket.listen(IpListenEndpoint { addr: Some(addr), port }).is_ok()
    }

    /// Has the guest's request come?
    pub(super) fn was_asked(&self) -> bool {
        self.sockets.get::<Socket<'_>>(self.handle).state() == State::SynReceived
    }

    /// Asks the guest for a connection; `false`: there can be no such connection.
    pub(super) fn call(&mut self, context: &mut smoltcp::iface::Context) -> bool {
        let (guest, port) = endpoint(self.key.guest);
        let (remote, remote_port) = endpoint(self.key.remote);
        let socket = self.socket();
        socket.set_timeout(Some(ANSWER_LIMIT));
        let from = IpListenEndpoint { addr: Some(remote), port: remote_port };
        socket.connect(context, IpEndpoint::new(guest, port), from).is_ok()
    }

    /// Both sides said all they had to, or one of them is gone.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.sockets.get::<Socket<'_>>(self.handle).state(), State::TimeWait | State::Closed)
    }

    /// Has the host's peer see a reset and not an end, when the connection is dropped.
    pub(super) fn reset_host(&self) {
        let _ = socket2::SockRef::from(&self.host).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Looks whether the host has connected; tells the guest if it never will.
    pub(super) fn settle(&mut self, out: &mut Outbox) -> Fate {
        let Some(connecting) = &self.connecting else { return Fate::GoesOn };
        let error = match self.host.take_error() {
            Ok(None) if connecting.late => Some(io::ErrorKind::TimedOut.into()),
            Ok(None) if !self.writable => return Fate::GoesOn,
            Ok(None) => match self.host.peer_addr() {
                Ok(_) => None,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    self.writable = false;
                    return Fate::GoesOn;
                }
                Err(error) => Some(error),
            },
            Ok(Some(error)) | Err(error) => Some(error),
        };
        match error.as_ref().map(Reason::of) {
            None => {
                self.readable = true;
                let socket = self.socket();
                socket.pause_synack(false);
                socket.set_timeout(Some(SILENCE_LIMIT));
                socket.set_keep_alive(Some(KEEP_ALIVE));
            }
            // The guest's program is told that nobody listens.
            Some(Reason::Port) => self.fail(),
            Some(reason) => {
                unreachable(out, &connecting.request, reason);
                return Fate::Over;
            }
        }
        self.connecting = None;
        Fate::GoesOn
    }

    /// The host's side broke: the guest gets a reset.
    fn fail(&mut self) {
        self.broken = true;
        self.socket().abort();
    }

    /// Moves data both ways and passes ends on; was there anything?
    pub(super) fn exchange(&mut self) -> bool {
        if self.connecting.is_some() || self.broken {
            return false;
        }
        match self.move_to_host().and_then(|some| Ok(self.move_to_guest()? || some)) {
            Ok(moved) => moved,
            Err(_) => {
                self.fail();
                false
            }
        }
    }

    fn move_to_host(&mut self) -> io::Result<bool> {
        let mut moved = false;
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while self.writable && socket.can_recv() {
            let host = &mut self.host;
            let taken = socket.recv(|data| match host.write(data) {
                Ok(len) => (len, Ok(len)),
                Err(error) => (0, Err(error)),
            });
            match taken {
                Ok(Ok(_)) => moved = true,
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => (),
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        let state = socket.state();
        self.guest_finished |=
            matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if self.guest_finished && socket.recv_queue() == 0 && !self.guest_ended {
            self.guest_ended = true;
            match self.host.shutdown(Shutdown::Write) {
                Err(error) if error.kind() != io::ErrorKind::NotConnected => return Err(error),
                _ => moved = true,
            }
        }
        Ok(moved)
    }

    fn move_to_guest(&mut self) -> io::Result<bool> {
        let mut moved = false;
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        if socket.state() == State::Established && socket.timeout() == Some(ANSWER_LIMIT) {
            // The guest has taken a connection to a published port.
            socket.set_timeout(Some(SILENCE_LIMIT));
            socket.set_keep_alive(Some(KEEP_ALIVE));
        }
        while self.readable && !self.host_ended && socket.can_send() {
            let host = &mut self.host;
            let taken = socket.send(|room| match host.read(room) {
                Ok(len) => (len, Ok(len)),
                Err(error) => (0, Err(error)),
            });
            match taken {
                Ok(Ok(0)) => {
                    self.host_ended = true;
                    socket.close();
                    moved = true;
                }
                Ok(Ok(_)) => moved = true,
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => (),
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(moved)
    }

    /// Does the connection go on? `exhausted`: there is something the guest has not been sent yet.
    pub(super) fn fate(&mut self, exhausted: bool) -> Fate {
        let (broken, finished, ended) = (self.broken, self.guest_finished, self.guest_ended);
        let socket = self.socket();
        match socket.state() {
            // The reset is still to be sent.
            State::Closed if broken && exhausted => Fate::GoesOn,
            // The guest has heard the end; what it said before is still on its way to the host.
            State::Closed if !broken && finished && !ended => Fate::GoesOn,
            State::Closed => {
                if !(broken || finished && self.host_ended) {
                    self.reset_host();
                }
                Fate::Over
            }
            // The guest has an acknowledgement of its end. Nothing can get lost on this cable, so nobody waits.
            State::TimeWait if ended && !exhausted => Fate::Over,
            _ => Fate::GoesOn,
        }
    }
}
