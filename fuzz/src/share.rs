//! A client of the file servers behind virtio-fs and virtio-9p that sends any requests, well framed or not, and a
//! directory for them with something outside that must not change.

use crate::{
    input::Input,
    virtio::{RAM, ram},
};
use isomer_core::{Device, Gpa, GuestMemory, IrqLine};
use isomer_devices::{
    backend::share::{Share, ShareOptions},
    virtio::{VirtioDevice, mmio::VirtioMmio},
};
use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// Places of the one ring used, and of a request and its answer.
const DESCRIPTORS: u64 = RAM;
const DRIVER_AREA: u64 = RAM + 0x1000;
const DEVICE_AREA: u64 = RAM + 0x1800;
const REQUEST: u64 = RAM + 0x8000;
const ANSWER: u64 = RAM + 0x1_8000;
/// Most bytes of a request, and of an answer.
const MOST_BYTES: usize = 0x1_0000;
/// Descriptors of the ring.
const RING: u64 = 8;
/// A request not answered by then hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The shared directory, and what is beside it.
pub struct Playground {
    dir: tempfile::TempDir,
}

/// What the file outside holds.
const SECRET: &[u8] = b"outside";

impl Playground {
    /// A directory with a file, a directory, and links that lead out of it.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("the host has a temporary directory");
        let inside = dir.path().join("in");
        fs::create_dir_all(inside.join("d")).expect("it can be written to");
        fs::write(dir.path().join("out"), SECRET).expect("it can be written to");
        fs::write(inside.join("f"), b"inside").expect("it can be written to");
        symlink("../out", inside.join("l")).expect("it can be written to");
        symlink("..", inside.join("up")).expect("it can be written to");
        Self { dir }
    }

    fn inside(&self) -> PathBuf {
        self.dir.path().join("in")
    }

    /// The directory, shared.
    pub fn share(&self) -> Arc<Share> {
        Arc::new(Share::open(&self.inside(), &ShareOptions::default()).expect("it can be shared"))
    }

    /// Panics if anything outside has changed.
    pub fn check(&self) {
        assert_eq!(
            fs::read(self.dir.path().join("out")).ok().as_deref(),
            Some(SECRET),
            "the file outside changed"
        );
        let names = fs::read_dir(self.dir.path()).expect("it is still there").count();
        assert_eq!(names, 2, "something was made outside");
    }
}

impl Default for Playground {
    fn default() -> Self {
        Self::new()
    }
}

/// A driver that is set up on queue `queue` of a device.
pub struct Client<V: VirtioDevice> {
    device: VirtioMmio<V>,
    memory: GuestMemory,
    queue: u64,
    sent: u16,
}

impl<V: VirtioDevice> Client<V> {
    /// Sets the device up.
    pub fn new(device: V, queue: u64) -> Self {
        let memory = ram();
        let mut client = Self {
            device: VirtioMmio::new(device, memory.clone(), IrqLine::unconnected()),
            memory,
            queue,
            sent: 0,
        };
        client.set(0x70, 3);
        // VERSION_1 and nothing else.
        for (half, features) in [(0, 0), (1, 1)] {
            client.set(0x24, half);
            client.set(0x20, features);
        }
        client.set(0x70, 11);
        client.set(0x30, queue);
        client.set(0x38, RING);
        for (register, address) in [(0x80, DESCRIPTORS), (0x90, DRIVER_AREA), (0xa0, DEVICE_AREA)] {
            client.set(register, address);
            client.set(register + 4, 0);
        }
        client.set(0x44, 1);
        client.set(0x70, 15);
        client
    }

    fn set(&mut self, register: u64, value: u64) {
        Device::write(&mut self.device, 0, register, 4, value);
    }

    /// Sends `request` with `room` bytes for the answer, and waits for it; returns what was written of it.
    pub fn call(&mut self, request: &[u8], room: usize) -> Vec<u8> {
        let request = &request[..request.len().min(MOST_BYTES)];
        let room = room.min(MOST_BYTES);
        self.memory.write(Gpa(REQUEST), request).expect("requests are in RAM");
        // Buffers must not be empty, so an empty part is left out.
        let parts = [(REQUEST, request.len(), 0u128), (ANSWER, room, 2)];
        let parts: Vec<_> = parts.into_iter().filter(|&(_, len, _)| len != 0).collect();
        if parts.is_empty() {
            return Vec::new();
        }
        for (index, &(at, len, flags)) in parts.iter().enumerate() {
            let next = u128::from(index + 1 < parts.len());
            let descriptor =
                u128::from(at) | (len as u128) << 64 | (flags | next) << 96 | (index as u128 + 1) << 112;
            let place = Gpa(DESCRIPTORS + 16 * index as u64);
            self.memory.write(place, &descriptor.to_le_bytes()).expect("the table is in RAM");
        }
        let slot = u64::from(self.sent) % RING;
        self.memory.write(Gpa(DRIVER_AREA + 4 + 2 * slot), &[0, 0]).expect("the ring is in RAM");
        self.sent = self.sent.wrapping_add(1);
        self.memory.write(Gpa(DRIVER_AREA + 2), &self.sent.to_le_bytes()).expect("the ring is in RAM");
        self.set(0x50, self.queue);
        let start = Instant::now();
        while self.word::<2>(DEVICE_AREA + 2) != self.sent.to_le_bytes() {
            assert!(start.elapsed() < PATIENCE, "a request is not answered");
            std::hint::spin_loop();
        }
        let written = u32::from_le_bytes(self.word::<4>(DEVICE_AREA + 4 + 8 * slot + 4)) as usize;
        assert!(written <= room, "{written} bytes were written to {room}");
        let mut answer = vec![0; written];
        self.memory.read(Gpa(ANSWER), &mut answer).expect("answers are in RAM");
        answer
    }

    fn word<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read(Gpa(at), &mut bytes).expect("the ring is in RAM");
        bytes
    }
}

/// A name: one that exists, one that leads out, or any bytes.
pub fn name<'a>(input: &mut Input<'a>) -> &'a [u8] {
    const NAMES: [&[u8]; 12] =
        [b"f", b"d", b"l", b"up", b"new", b"other", b".", b"..", b"../out", b"/etc/passwd", b"", b"d/x"];
    match input.u8() {
        known if usize::from(known) < NAMES.len() * 16 => NAMES[usize::from(known) % NAMES.len()],
        len => input.take(usize::from(len)),
    }
}
