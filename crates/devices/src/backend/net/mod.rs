//! What a network card asks of its host side, and why a network could not be set up.

mod checksum;
pub mod mac;
pub mod tap;
pub mod user;
pub(crate) mod vnet_header;

use miette::Diagnostic;
use std::{fmt::Debug, io, net::SocketAddr, sync::Arc};

pub use mac::MacAddr;
pub use tap::Tap;
pub use user::{Publish, Transport, UserNet, UserNetOptions};

/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER_BYTES: usize = 14;
/// The longest frame: an Ethernet header and the longest IP packet, which segmentation offload makes possible.
pub const MAX_FRAME_BYTES: usize = ETHERNET_HEADER_BYTES + 65_535;

/// Work on frames that the side that sends them may leave to the side that takes them (Virtio 1.3, 5.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// TCP's and UDP's checksums.
    pub checksum: bool,
    /// Cutting TCP over IPv4 into segments.
    pub tso4: bool,
    /// Cutting TCP over IPv6 into segments.
    pub tso6: bool,
}

/// The state of a frame's TCP or UDP checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Complete; whoever cares checks it.
    #[default]
    Complete,
    /// Of the pseudo header only: the sum over the bytes from `start` on belongs `offset` bytes after `start`.
    Partial {
        /// Where the sum starts, in bytes from the frame's start.
        start: u16,
        /// Where it is put, in bytes from `start`.
        offset: u16,
    },
    /// Found to be right.
    Valid,
}

/// How a frame that holds more than one TCP segment is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// TCP over IPv6, not over IPv4.
    pub ipv6: bool,
    /// Bytes of data in each segment.
    pub size: u16,
    /// Bytes of headers that every segment repeats.
    pub header_len: u16,
    /// The first segment alone carries congestion window reduced.
    pub ecn: bool,
}

/// What is left to do on a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameMeta {
    /// The checksum.
    pub checksum: Checksum,
    /// Segmentation.
    pub segmentation: Option<Segmentation>,
}

/// Ends a backend's wait; from any thread.
pub type NetWaker = Arc<mio::Waker>;

/// The far end of a network card's cable. One thread at a time uses it.
pub trait NetBackend: Send + Debug {
    /// What it takes over from the guest.
    fn offloads(&self) -> Offloads;
    /// The largest IP packet that travels whole, in bytes.
    fn mtu(&self) -> u16;
    /// Ends [`Self::poll`]'s wait.
    fn waker(&self) -> NetWaker;
    /// What the guest's driver takes over: holds for frames that [`Self::receive`] yields from now on.
    fn set_guest_offloads(&mut self, offloads: Offloads);
    /// The guest's driver is gone: forget what belongs to its session.
    fn reset(&mut self);
    /// Takes a frame from the guest, which can hold anything. Never waits; what cannot be sent is dropped.
    fn send(&mut self, meta: &FrameMeta, frame: &mut [u8]);
    /// Moves what can be moved. With `wait`, first sleeps until there is something to move, a timer is due, or the
    /// waker is used. A wait must not end for frames that [`Self::receive`] would yield: the guest has no room then.
    fn poll(&mut self, wait: bool);
    /// The next frame for the guest, in place of `frame`'s contents.
    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<FrameMeta>;
}

/// Why a network could not be set up.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[non_exhaustive]
pub enum NetError {
    /// A port of the host is taken, or may not be opened.
    #[error("cannot publish the guest's port {guest_port} at {host} ({transport}): {source}")]
    #[diagnostic(
        code(isomer::net::publish),
        help("choose another host port; ports below 1024 usually need privileges")
    )]
    Publish {
        /// The host's address and port.
        host: SocketAddr,
        /// The guest's port.
        guest_port: u16,
        /// Of which protocol.
        transport: Transport,
        /// The host's answer.
        source: io::Error,
    },
    /// A tap cannot be opened.
    #[error("cannot {what} for tap {name}: {source}")]
    #[diagnostic(
        code(isomer::net::tap),
        help(
            "a tap is made once by root: ip tuntap add dev {name} mode tap user $USER; ip link set {name} up; \
             user networking (--net user) needs no privileges"
        )
    )]
    Tap {
        /// The interface.
        name: String,
        /// What was tried.
        what: &'static str,
        /// The host's answer.
        source: io::Error,
    },
    /// The host refuses a descriptor or the like.
    #[error("the host refuses {what}: {source}")]
    #[diagnostic(code(isomer::net::host), help("raise the limit on open files (ulimit -n)"))]
    Host {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
}
