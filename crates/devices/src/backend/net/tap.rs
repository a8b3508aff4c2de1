//! A tap interface of the host: the guest's frames go to the host's network stack (Linux,
//! `Documentation/networking/tuntap.rst`). Opening one needs CAP_NET_ADMIN, or an interface that was made for the user.
#![allow(unsafe_code)]

use super::{
    ETHERNET_HEADER_BYTES, FrameMeta, MAX_FRAME_BYTES, NetBackend, NetError, NetWaker, Offloads, vnet_header,
};
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    ioctl::{IntegerSetter, Setter, Updater, ioctl, opcode},
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

/// The device that taps are opened through.
const CLONE_DEVICE: &str = "/dev/net/tun";
/// The longest name of an interface, in bytes, without the NUL that ends it.
const MAX_NAME_BYTES: usize = 15;
const WAKER: Token = Token(0);
const TAP: Token = Token(1);
/// The MTU of interfaces that nobody changed.
const MTU: u16 = 1500;

/// Of `linux/if_tun.h`.
mod tun {
    pub(super) const IFF_TAP: u16 = 0x0002;
    pub(super) const IFF_NO_PI: u16 = 0x1000;
    pub(super) const IFF_VNET_HDR: u16 = 0x4000;
    pub(super) const F_CSUM: usize = 1;
    pub(super) const F_TSO4: usize = 2;
    pub(super) const F_TSO6: usize = 4;
}

const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETOFFLOAD: rustix::ioctl::Opcode = opcode::write::<u32>(b'T', 208);
const TUNSETVNETHDRSZ: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 216);

/// `struct ifreq`, as TUNSETIFF has it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Request {
    name: [u8; MAX_NAME_BYTES + 1],
    flags: u16,
    rest: [u8; 22],
}

/// A tap.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    poll: Poll,
    waker: NetWaker,
    /// There may be frames: the interface was not found empty since its last event.
    ready: bool,
    buffer: Vec<u8>,
}

impl Tap {
    /// Opens the interface `name`; the host makes it if there is none and it may.
    pub fn open(name: &str) -> Result<Self, NetError> {
        let refused = |what: &'static str| {
            let name = name.to_owned();
            move |source: io::Error| NetError::Tap { name, what, source }
        };
        if name.is_empty()
            || name.len() > MAX_NAME_BYTES
            || name.bytes().any(|byte| byte == 0 || byte == b'/')
        {
            return Err(refused("name an interface so")(Errno::INVAL.into()));
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(CLONE_DEVICE, flags, Mode::empty())
            .map_err(|e| refused("open /dev/net/tun")(e.into()))?;
        attach(&fd, name).map_err(|e| refused("attach to the interface")(e.into()))?;
        let poll = Poll::new().map_err(refused("make an event queue"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(refused("make an event descriptor"))?;
        let source = &mut SourceFd(&fd.as_raw_fd());
        poll.registry().register(source, TAP, Interest::READABLE).map_err(refused("watch the interface"))?;
        Ok(Self {
            fd,
            poll,
            waker: Arc::new(waker),
            ready: true,
            buffer: vec![0; vnet_header::BYTES + MAX_FRAME_BYTES],
        })
    }
}

fn attach(fd: &OwnedFd, name: &str) -> Result<(), Errno> {
    let mut request = Request {
        name: [0; MAX_NAME_BYTES + 1],
        flags: tun::IFF_TAP | tun::IFF_NO_PI | tun::IFF_VNET_HDR,
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which `Request` has the size and layout of.
    unsafe { ioctl(fd, Updater::<TUNSETIFF, Request>::new(&mut request))? };
    // SAFETY: TUNSETVNETHDRSZ reads an `int`.
    unsafe { ioctl(fd, Setter::<TUNSETVNETHDRSZ, i32>::new(vnet_header::BYTES as i32)) }
}

impl NetBackend for Tap {
    fn offloads(&self) -> Offloads {
        Offloads { checksum: true, tso4: true, tso6: true }
    }

    fn mtu(&self) -> u16 {
        MTU
    }

    fn waker(&self) -> NetWaker {
        self.waker.clone()
    }

    fn set_guest_offloads(&mut self, offloads: Offloads) {
        let flags =
            [(offloads.checksum, tun::F_CSUM), (offloads.tso4, tun::F_TSO4), (offloads.tso6, tun::F_TSO6)];
        let flags = flags.iter().filter(|(taken, _)| *taken).fold(0, |bits, (_, bit)| bits | bit);
        // SAFETY: TUNSETOFFLOAD takes its flags as the argument itself.
        let set = unsafe { ioctl(&self.fd, IntegerSetter::<TUNSETOFFLOAD>::new_usize(flags)) };
        if let Err(error) = set {
            tracing::error!("the tap does not take offloads {flags:#x}: {error}");
        }
    }

    fn reset(&mut self) {
        self.set_guest_offloads(Offloads::default());
    }

    fn send(&mut self, meta: &FrameMeta, frame: &mut [u8]) {
        let header = vnet_header::write(meta, 0);
        let parts = [io::IoSlice::new(&header), io::IoSlice::new(frame)];
        // An interface that is full, down, or finds fault with a frame loses it, as cables do.
        let _ = rustix::io::writev(&self.fd, &parts);
    }

    fn poll(&mut self, wait: bool) {
        let timeout = if wait { None } else { Some(Duration::ZERO) };
        let mut events = Events::with_capacity(4);
        if let Err(error) = self.poll.poll(&mut events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!("the tap's event queue failed: {error}");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.ready |= events.iter().any(|event| event.token() == TAP);
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<FrameMeta> {
        while self.ready {
            match rustix::io::read(&self.fd, &mut self.buffer[..]) {
                Ok(len) if len >= vnet_header::BYTES + ETHERNET_HEADER_BYTES => {
                    let (header, data) = self.buffer[..len].split_at(vnet_header::BYTES);
                    let header = header.try_into().ok()?;
                    // What the host's stack leaves undone is what the guest takes, so this is not refused.
                    let Some(meta) = vnet_header::read(header, data.len()) else { continue };
                    frame.clear();
                    frame.extend_from_slice(data);
                    return Some(meta);
                }
                Ok(_) | Err(Errno::INTR) => (),
                // Empty, or gone.
                Err(_) => self.ready = false,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_is_told() {
        for name in ["", "a-name-too-long-for-it", "a/b"] {
            let error = Tap::open(name).unwrap_err();
            assert!(matches!(error, NetError::Tap { .. }), "{error}");
        }
        // Without privileges, or without the device, there is an error and not a tap that does nothing.
        if let Err(error) = Tap::open("isomer-test0") {
            assert!(error.to_string().contains("isomer-test0"), "{error}");
        }
    }

    #[test]
    fn a_request_is_an_ifreq() {
        assert_eq!(size_of::<Request>(), 40);
    }
}
