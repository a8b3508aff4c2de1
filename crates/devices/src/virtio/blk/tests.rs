//! Tests of the block device, through a transport, on images and on failing backends.

use super::*;
use crate::{
    backend::{
        Image, ImageFormat, ImageOptions,
        block::{IoVector, IoVectorMut},
    },
    virtio::{
        mmio::VirtioMmio,
        testing::{Guest, Part, Registers},
    },
};
use isomer_core::Device;
use proptest::prelude::*;
use std::{
    io,
    sync::{Condvar, Mutex, atomic::AtomicU32},
    time::Duration,
};
use tempfile::TempDir;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

type Machine = Guest<VirtioMmio<VirtioBlk>>;

fn image(dir: &TempDir, format: ImageFormat, bytes: u64, read_only: bool) -> Arc<dyn BlockBackend> {
    let path = dir.path().join("disk.img");
    if !path.exists() {
        Image::create(&path, format, bytes, None).unwrap();
    }
    Arc::new(Image::open(&path, &ImageOptions { read_only, ..ImageOptions::default() }).unwrap())
}

fn machine(backend: Arc<dyn BlockBackend>, queues: u16) -> Machine {
    let mut guest = Guest::mmio(VirtioBlk::new(
        backend,
        &BlkOptions { serial: "serial-0123456789abcdef".into(), queues },
    ));
    guest.start(u64::MAX);
    guest
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

fn status(guest: &mut Machine, parts: &[Part<'_>]) -> u8 {
    *guest.request(0, parts).last().unwrap()
}

fn write(guest: &mut Machine, sector: u64, data: &[u8]) -> u8 {
    status(guest, &[Part::Out(&header(1, sector)), Part::Out(data), Part::In(1)])
}

fn read(guest: &mut Machine, sector: u64, len: u32) -> (Vec<u8>, u8) {
    let mut data = guest.request(0, &[Part::Out(&header(0, sector)), Part::In(len), Part::In(1)]);
    let status = data.pop().unwrap();
    (data, status)
}

#[test]
fn data_survives_a_restart_in_both_formats() {
    for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
        let dir = TempDir::new().unwrap();
        let mut guest = machine(image(&dir, format, 8 << 20, false), 1);
        let data: Vec<u8> = (0..65536u32).map(|i| (i * 7 + i / 512) as u8).collect();
        assert_eq!(write(&mut guest, 100, &data), OK);
        assert_eq!(status(&mut guest, &[Part::Out(&header(4, 0)), Part::In(1)]), OK);
        assert_eq!(read(&mut guest, 100, 65536), (data.clone(), OK));
        drop(guest);
        let mut guest = machine(image(&dir, format, 0, true), 1);
        assert_eq!(read(&mut guest, 100, 65536), (data, OK));
        assert_eq!(write(&mut guest, 0, &[1; 512]), IOERR);
        assert_eq!(read(&mut guest, 0, 512), (vec![0; 512], OK));
    }
}

#[test]
fn framing_is_free() {
    let dir = TempDir::new().unwrap();
    let mut guest = machine(image(&dir, ImageFormat::Raw, 1 << 20, false), 1);
    // Header and data in odd pieces; the status shares a buffer with data (Virtio 1.3, 2.7.4.1).
    let all = [header(1, 3), vec![0xa5; 1024]].concat();
    let parts = [Part::Out(&all[..5]), Part::Out(&all[5..40]), Part::Out(&all[40..]), Part::In(1)];
    assert_eq!(status(&mut guest, &parts), OK);
    let got = guest.request(0, &[Part::Out(&header(0, 3)), Part::In(7), Part::In(1018)]);
    assert_eq!(got, [vec![0xa5; 1024], vec![OK]].concat());
    let posted = guest.post_indirect(0, &[Part::Out(&header(0, 4)), Part::In(512), Part::In(1)]);
    guest.kick(0);
    assert_eq!(guest.wait_used(0), (posted.head, 513));
    assert_eq!(guest.received(&posted)[..512], [0xa5; 512]);
}

#[test]
fn configuration_describes_the_disk() {
    let dir = TempDir::new().unwrap();
    let mut guest = machine(image(&dir, ImageFormat::Raw, 1 << 20, false), 4);
    assert_eq!(guest.device.config(0, 8), 2048);
    assert_eq!(guest.device.config(12, 4), 254);
    assert_eq!(guest.device.config(20, 4), 512);
    assert_eq!(guest.device.config(34, 2), 4);
    assert_eq!(guest.device.config(36, 4), u64::from(MAX_RANGE_SECTORS));
    assert_eq!(guest.device.config(32, 1), 1);
    assert_eq!(guest.device.config(60, 4), 0);
    for bit in [2, 6, 9, 10, 11, 12, 13, 14] {
        assert_ne!(guest.features & 1 << bit, 0, "feature {bit}");
    }
    assert_eq!(guest.features & 1 << 5, 0);
    let id = guest.request(0, &[Part::Out(&header(8, 0)), Part::In(20), Part::In(1)]);
    assert_eq!(&id[..20], b"serial-0123456789abc");
    let id = guest.request(0, &[Part::Out(&header(8, 0)), Part::In(6), Part::In(1)]);
    assert_eq!(id, b"serial\0");
    drop(guest);
    let mut guest = machine(image(&dir, ImageFormat::Raw, 0, true), 1);
    assert_eq!((guest.features >> 5 & 1, guest.features >> 13 & 3), (1, 0));
    assert_eq!(guest.device.config(36, 4), 0);
}

#[test]
fn ranges_are_discarded_and_zeroed() {
    let dir = TempDir::new().unwrap();
    let mut guest = machine(image(&dir, ImageFormat::Qcow2, 1 << 20, false), 1);
    assert_eq!(write(&mut guest, 0, &[7; 128 << 10]), OK);
    let send = |guest: &mut Machine, kind, list: &[u8]| {
        status(guest, &[Part::Out(&header(kind, 0)), Part::Out(list), Part::In(1)])
    };
    let two = [range(8, 2, 0), range(16, 1, 1)].concat();
    assert_eq!(send(&mut guest, 13, &two), OK);
    assert_eq!(read(&mut guest, 7, 2048), ([vec![7; 512], vec![0; 1024], vec![7; 512]].concat(), OK));
    assert_eq!(read(&mut guest, 16, 1024), ([vec![0; 512], vec![7; 512]].concat(), OK));
    assert_eq!(send(&mut guest, 11, &range(128, 128, 0)), OK);
    assert_eq!(send(&mut guest, 11, &range(0, 1, 1)), UNSUPP); // unmap is for write-zeroes only
    assert_eq!(send(&mut guest, 13, &range(0, 1, 2)), UNSUPP);
    assert_eq!(send(&mut guest, 13, &range(2047, 2, 0)), IOERR);
    assert_eq!(send(&mut guest, 13, &range(u64::MAX, 2, 0)), IOERR);
    assert_eq!(send(&mut guest, 13, &range(0, u32::MAX, 0)), IOERR);
    assert_eq!(send(&mut guest, 13, &[]), IOERR);
    assert_eq!(send(&mut guest, 13, &[0; 15]), IOERR);
    assert_eq!(send(&mut guest, 13, &[0; 16 * 17]), IOERR);
    assert_eq!(read(&mut guest, 0, 512), (vec![7; 512], OK)); // refused requests changed nothing
}

#[test]
fn wrong_requests_get_their_status() {
    let dir = TempDir::new().unwrap();
    let mut guest = machine(image(&dir, ImageFormat::Raw, 1 << 20, false), 1);
    assert_eq!(read(&mut guest, 2048, 512).1, IOERR);
    assert_eq!(read(&mut guest, 2047, 1024).1, IOERR);
    assert_eq!(read(&mut guest, u64::MAX, 512), (vec![0; 512], IOERR));
    assert_eq!(read(&mut guest, 0, 511).1, IOERR);
    assert_eq!(read(&mut guest, 2048, 0).1, OK); // nothing, at the end
    assert_eq!(write(&mut guest, 2047, &[1; 1024]), IOERR);
    assert_eq!(write(&mut guest, 0, &[1; 100]), IOERR);
    assert_eq!(status(&mut guest, &[Part::Out(&header(99, 0)), Part::In(1)]), UNSUPP);
    assert_eq!(status(&mut guest, &[Part::Out(&header(1, 0)[..15]), Part::In(1)]), IOERR);
    assert_eq!(status(&mut guest, &[Part::In(1)]), IOERR);
    assert_eq!(guest.device.status() & 64, 0);
    // No room for a status: the queue is broken, and a reset mends it.
    guest.post(0, &[Part::Out(&header(1, 0)), Part::Out(&[1; 512])]);
    guest.kick(0);
    wait_until(|| guest.device.status() & 64 != 0);
    assert_eq!(guest.used(0), None);
    guest.start(u64::MAX);
    assert_eq!(read(&mut guest, 0, 512), (vec![0; 512], OK));
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A disk that can be made to fail or to wait.
#[derive(Debug, Default)]
struct Odd {
    fail: AtomicBool,
    flushes: AtomicU32,
    held: Mutex<bool>,
    released: Condvar,
}

impl Odd {
    fn hold(&self, hold: bool) {
        *self.held.lock().unwrap() = hold;
        self.released.notify_all();
    }
    fn outcome(&self) -> io::Result<()> {
        drop(self.released.wait_while(self.held.lock().unwrap(), |held| *held).unwrap());
        if self.fail.load(Ordering::SeqCst) { Err(io::Error::other("bad sector")) } else { Ok(()) }
    }
}

impl BlockBackend for Odd {
    fn size_bytes(&self) -> u64 {
        1 << 20
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read_vectored(&self, _offset: u64, mut buffers: IoVectorMut<'_>) -> io::Result<()> {
        buffers.fill(0xdd);
        self.outcome()
    }
    fn write_vectored(&self, _offset: u64, _buffers: IoVector<'_>) -> io::Result<()> {
        self.outcome()
    }
    fn flush(&self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.outcome()
    }
    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        self.outcome()
    }
    fn write_zeroes(&self, _offset: u64, _len: u64, _unmap: bool) -> io::Result<()> {
        self.outcome()
    }
}

#[test]
fn host_errors_reach_the_guest_as_ioerr() {
    let odd = Arc::new(Odd::default());
    let mut guest = machine(odd.clone(), 1);
    odd.fail.store(true, Ordering::SeqCst);
    assert_eq!(read(&mut guest, 0, 512), (vec![0; 512], IOERR)); // no leftovers of what failed
    assert_eq!(write(&mut guest, 0, &[1; 512]), IOERR);
    assert_eq!(status(&mut guest, &[Part::Out(&header(4, 0)), Part::In(1)]), IOERR);
    assert_eq!(
        status(&mut guest, &[Part::Out(&header(11, 0)), Part::Out(&range(0, 1, 0)), Part::In(1)]),
        IOERR
    );
    odd.fail.store(false, Ordering::SeqCst);
    assert_eq!(read(&mut guest, 0, 512).1, OK);
}

#[test]
fn without_a_write_cache_every_write_is_flushed() {
    let odd = Arc::new(Odd::default());
    let flushes = || odd.flushes.swap(0, Ordering::SeqCst);
    let mut guest = machine(odd.clone(), 1);
    write(&mut guest, 0, &[1; 512]);
    assert_eq!(flushes(), 0);
    guest.device.set_config(32, 1, 0);
    write(&mut guest, 0, &[1; 512]);
    assert_eq!((flushes(), guest.device.config(32, 1)), (1, 0));
    guest.start(!(1 << 9 | 1 << 11)); // neither FLUSH nor CONFIG_WCE
    write(&mut guest, 0, &[1; 512]);
    assert_eq!((flushes(), guest.device.config(32, 1)), (1, 1));
    guest.start(!(1 << 11));
    write(&mut guest, 0, &[1; 512]);
    guest.device.set_config(32, 1, 0); // not negotiated: ignored
    write(&mut guest, 0, &[1; 512]);
    assert_eq!((flushes(), guest.device.config(32, 1)), (0, 1));
}

#[test]
fn quiescing_finishes_what_is_in_hand_and_leaves_the_rest() {
    let odd = Arc::new(Odd::default());
    let mut guest = machine(odd.clone(), 2);
    odd.hold(true);
    // More than there are threads.
    for queue in [0, 1].repeat(10) {
        guest.post(queue, &[Part::Out(&header(0, 0)), Part::In(512), Part::In(1)]);
    }
    guest.kick(0);
    guest.kick(1);
    std::thread::sleep(Duration::from_millis(20));
    let released = odd.clone();
    let releaser = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        released.hold(false);
    });
    guest.device.quiesce();
    releaser.join().unwrap();
    let done = |guest: &mut Machine| {
        [0, 1].into_iter().map(|queue| std::iter::from_fn(|| guest.used(queue)).count()).sum::<usize>()
    };
    let finished = done(&mut guest);
    assert!((2..20).contains(&finished), "{finished} were in hand");
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(done(&mut guest), 0, "a parked device works");
    let fresh = Arc::new(Odd::default());
    let other = Guest::mmio(VirtioBlk::new(fresh, &BlkOptions { serial: String::new(), queues: 2 }));
    let mut guest = guest.migrate(other);
    let mut left = 20 - finished;
    wait_until(|| {
        left -= done(&mut guest);
        left == 0
    });
    assert_eq!(read(&mut guest, 0, 512), (vec![0xdd; 512], OK));
}

#[test]
fn a_state_of_another_disk_is_refused() {
    let dir = TempDir::new().unwrap();
    let device = VirtioBlk::new(image(&dir, ImageFormat::Raw, 1 << 20, false), &BlkOptions::default());
    let mut other = VirtioBlk::new(Arc::new(Odd::default()), &BlkOptions::default());
    let state = device.save();
    other.restore(BlkState { writeback: false, ..state }).unwrap();
    assert!(!other.save().writeback);
    assert!(other.restore(BlkState { sectors: 1, ..device.save() }).is_err());
    assert!(other.restore(BlkState { read_only: true, ..device.save() }).is_err());
    assert_eq!(other.save(), BlkState { writeback: false, ..device.save() });
}

#[test]
fn many_requests_on_many_queues_all_come_back() {
    let dir = TempDir::new().unwrap();
    let mut guest = machine(image(&dir, ImageFormat::Qcow2, 8 << 20, false), 4);
    for round in 0..20u64 {
        for queue in 0..4usize {
            for slot in 0..16u64 {
                let sector = (queue as u64 * 16 + slot) * 8 + round;
                let data = [(round * 64 + slot) as u8 ^ queue as u8; 512];
                guest.post(queue, &[Part::Out(&header(1, sector)), Part::Out(&data), Part::In(1)]);
            }
            guest.kick(queue);
        }
        for queue in 0..4 {
            (0..16).for_each(|_| assert_eq!(guest.wait_used(queue).1, 1));
        }
    }
    assert!(guest.wire.level());
    for queue in 0..4u64 {
        for slot in 0..16u64 {
            let last = (queue * 16 + slot) * 8 + 19;
            assert_eq!(read(&mut guest, last, 512).0[0], (19 * 64 + slot) as u8 ^ queue as u8);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a driver posts, each chain comes back with a status, or the device asks for a reset; then it works again.
    #[test]
    fn hostile_chains_are_answered(
        chains in prop::collection::vec(
            (
                prop::sample::select(vec![0u32, 1, 4, 8, 11, 13, 5, u32::MAX]),
                prop_oneof![0u64..64, any::<u64>()],
                prop::collection::vec((any::<bool>(), prop_oneof![0u32..40, 500u32..520, Just(4096u32)]), 0..6),
                prop_oneof![Just(16usize), 0usize..16],
            ),
            1..12,
        ),
    ) {
        let dir = TempDir::new().unwrap();
        let mut guest = machine(image(&dir, ImageFormat::Qcow2, 32 << 10, false), 1);
        for (kind, sector, shape, header_len) in chains {
            let head = header(kind, sector);
            let bytes = vec![0x11; 4096];
            let mut parts = vec![Part::Out(&head[..header_len])];
            parts.extend(shape.iter().filter(|(out, _)| *out).map(|(_, len)| Part::Out(&bytes[..*len as usize])));
            parts.extend(shape.iter().filter(|(out, _)| !*out).map(|(_, len)| Part::In(*len)));
            let posted = guest.post(0, &parts);
            guest.kick(0);
            let mut used = None;
            wait_until(|| {
                used = guest.used(0);
                used.is_some() || guest.device.status() & 64 != 0
            });
            match used {
                Some((head, written)) => {
                    prop_assert_eq!(head, posted.head);
                    let answer = guest.received(&posted);
                    prop_assert_eq!(written as usize, answer.len());
                    prop_assert!(answer.last().is_some_and(|status| *status <= UNSUPP));
                }
                None => {
                    prop_assert_eq!(posted.writable.iter().map(|(_, len)| len).sum::<u32>(), 0);
                    guest.start(u64::MAX);
                }
            }
        }
        prop_assert_eq!(read(&mut guest, 0, 512).1, OK);
    }
}
