//! The controller as a driver sees it, and as a hostile one does.

use super::*;
use crate::{
    backend::{Image, ImageFormat, ImageOptions},
    conformance,
};
use isomer_core::Gpa;
use proptest::prelude::*;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const RAM: u64 = 1 << 20;
/// Where the driver has its queues and data: pages of guest memory.
const ADMIN_SQ: u64 = 0x1000;
const ADMIN_CQ: u64 = 0x2000;
const IO_SQ: u64 = 0x3000;
const IO_CQ: u64 = 0x4000;
const DATA: u64 = 0x1_0000;
const ENTRIES: u16 = 16;

fn disk(dir: &TempDir, bytes: u64, read_only: bool) -> Arc<dyn BlockBackend> {
    let path = dir.path().join("disk.img");
    if !path.exists() {
        Image::create(&path, ImageFormat::Qcow2, bytes, None).unwrap();
    }
    Arc::new(Image::open(&path, &ImageOptions { read_only, ..ImageOptions::default() }).unwrap())
}

/// A driver with one I/O queue.
struct Driver {
    device: Nvme,
    memory: GuestMemory,
    /// Tail of the submission, head and phase of the completion queue, by number.
    places: [(u16, u16, bool); 2],
    next_id: u16,
}

impl Driver {
    fn new(disk: Arc<dyn BlockBackend>) -> Self {
        let memory = GuestMemory::new(&[(Gpa(0), RAM)]).unwrap();
        let options = NvmeOptions { serial: "isomer-0".into(), number: 0 };
        let mut device = Nvme::new(disk, &options, memory.clone(), None);
        device.config_write(4, 2, 6);
        Self { device, memory, places: [(0, 0, true); 2], next_id: 1 }
    }

    fn set(&mut self, offset: u64, value: u32) {
        Device::write(&mut self.device, 0, offset, 4, value.into());
    }

    fn get(&mut self, offset: u64) -> u32 {
        Device::read(&mut self.device, 0, offset, 4) as u32
    }

    fn enable(&mut self) {
        let entries = u32::from(ENTRIES) - 1;
        self.set(reg::AQA, entries << 16 | entries);
        self.set(reg::ASQ, ADMIN_SQ as u32);
        self.set(reg::ACQ, ADMIN_CQ as u32);
        self.set(reg::CC, 0x0046_0001);
        assert_eq!(self.get(reg::CSTS), CSTS_READY);
        self.places = [(0, 0, true); 2];
        self.memory.write(Gpa(ADMIN_CQ), &[0; 0x1000]).unwrap();
        self.memory.write(Gpa(IO_CQ), &[0; 0x1000]).unwrap();
    }

    fn start(&mut self) {
        self.enable();
        let size = u32::from(ENTRIES - 1) << 16 | 1;
        assert_eq!(self.admin(admin_op::CREATE_CQ, 0, IO_CQ, 0, [size, 3, 0]).0, 0);
        assert_eq!(self.admin(admin_op::CREATE_SQ, 0, IO_SQ, 0, [size, 1 << 16 | 1, 0]).0, 0);
    }

    fn post(&mut self, queue: usize, words: [u32; 16]) {
        let base = [ADMIN_SQ, IO_SQ][queue];
        let tail = self.places[queue].0;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.memory.write(Gpa(base + u64::from(tail) * 64), &bytes).unwrap();
        self.places[queue].0 = (tail + 1) % ENTRIES;
    }

    fn kick(&mut self, queue: usize) {
        let tail = self.places[queue].0.into();
        self.set(0x1000 + 8 * queue as u64, tail);
    }

    /// The next answer: status, result, command. Waits for it.
    fn answer(&mut self, queue: usize) -> (u16, u32, u16) {
        let start = Instant::now();
        loop {
            if let Some(answer) = self.try_answer(queue) {
                return answer;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "no answer");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn try_answer(&mut self, queue: usize) -> Option<(u16, u32, u16)> {
        let (_, head, phase) = self.places[queue];
        let at = Gpa([ADMIN_CQ, IO_CQ][queue] + u64::from(head) * 16);
        let mut raw = [0; 16];
        self.memory.read(at, &mut raw).unwrap();
        let word = |n: usize| u32::from_le_bytes(raw[4 * n..4 * n + 4].try_into().unwrap());
        if (word(3) >> 16 & 1 != 0) != phase {
            return None;
        }
        let head = (head + 1) % ENTRIES;
        (self.places[queue].1, self.places[queue].2) = (head, phase ^ (head == 0));
        self.set(0x1000 + 8 * queue as u64 + 4, head.into());
        Some(((word(3) >> 17) as u16, word(0), word(3) as u16))
    }

    fn submit(
        &mut self,
        queue: usize,
        op: u8,
        ns: u32,
        (prp1, prp2): (u64, u64),
        rest: [u32; 3],
    ) -> (u16, u32) {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let mut words = [0; 16];
        words[0] = u32::from(op) | u32::from(id) << 16;
        words[1] = ns;
        (words[6], words[7]) = (prp1 as u32, (prp1 >> 32) as u32);
        (words[8], words[9]) = (prp2 as u32, (prp2 >> 32) as u32);
        words[10..13].copy_from_slice(&rest);
        self.post(queue, words);
        self.kick(queue);
        let (status, result, answered) = self.answer(queue);
        assert_eq!(answered, id);
        (status & 0x3fff, result)
    }

    fn admin(&mut self, op: u8, ns: u32, prp1: u64, prp2: u64, rest: [u32; 3]) -> (u16, u32) {
        self.submit(0, op, ns, (prp1, prp2), rest)
    }

    /// An I/O command about `count` blocks from `lba`, with its data at [`DATA`] page by page.
    fn io(&mut self, op: u8, lba: u64, count: u32, flags: u32) -> u16 {
        let pages = u64::from(count * 512).div_ceil(prp::PAGE);
        let prp2 = match pages {
            0 | 1 => 0,
            2 => DATA + prp::PAGE,
            _ => {
                let list: Vec<u8> = (1..pages).flat_map(|n| (DATA + n * prp::PAGE).to_le_bytes()).collect();
                self.memory.write(Gpa(0x8000), &list).unwrap();
                0x8000
            }
        };
        let rest = [lba as u32, (lba >> 32) as u32, (count - 1) | flags];
        self.submit(1, op, 1, (DATA, prp2), rest).0
    }

    fn data(&self, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read(Gpa(DATA), &mut data).unwrap();
        data
    }
}

use spec::{admin as admin_op, nvm};

#[test]
fn a_driver_finds_and_uses_a_disk() {
    let dir = TempDir::new().unwrap();
    let mut driver = Driver::new(disk(&dir, 4 << 20, false));
    assert_eq!(driver.get(reg::VS), VERSION);
    assert_eq!(driver.get(reg::CAP) & 0xffff, 1023);
    driver.start();
    assert_eq!(driver.admin(admin_op::IDENTIFY, 0, DATA, 0, [1, 0, 0]).0, 0);
    let identity = driver.data(4096);
    assert_eq!(&identity[4..24], b"isomer-0            ");
    assert_eq!((identity[77], identity[512], identity[513], identity[516]), (7, 0x66, 0x44, 1));
    assert_eq!(driver.admin(admin_op::IDENTIFY, 1, DATA, 0, [0, 0, 0]).0, 0);
    assert_eq!(driver.data(8), (8192_u64).to_le_bytes());
    assert_eq!(driver.data(131)[130], 9);
    assert_eq!(driver.admin(admin_op::IDENTIFY, 0, DATA, 0, [2, 0, 0]).0, 0);
    assert_eq!(driver.data(8), [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(driver.admin(admin_op::IDENTIFY, 1, DATA, 0, [3, 0, 0]).0, 0);
    assert_eq!(driver.data(2), [3, 16]);
    assert_eq!(driver.admin(admin_op::SET_FEATURES, 0, 0, 0, [7, 0xffff_ffff, 0]), (0, 15 << 16 | 15));
    assert_eq!(driver.admin(admin_op::GET_LOG_PAGE, u32::MAX, DATA, 0, [2 | 127 << 16, 0, 0]).0, 0);
    assert_eq!(driver.data(4), [0, 44, 1, 100]);
    // A page and a half, and as much as one command may move.
    for count in [1, 8, 12, 16, 1024] {
        let len = count as usize * 512;
        let data: Vec<u8> = (0..len).map(|at| (at * 7 + at / 512) as u8 ^ count as u8).collect();
        driver.memory.write(Gpa(DATA), &data).unwrap();
        assert_eq!(driver.io(nvm::WRITE, 100, count, 0), 0, "{count}");
        driver.memory.write(Gpa(DATA), &vec![0; len]).unwrap();
        assert_eq!(driver.io(nvm::READ, 100, count, 0), 0, "{count}");
        assert!(driver.data(len) == data, "{count} blocks");
    }
    assert_eq!(driver.submit(1, nvm::FLUSH, u32::MAX, (0, 0), [0; 3]).0, 0);
    assert_eq!(driver.io(nvm::WRITE, 0, 1, 1 << 30), 0);
    assert_eq!(driver.io(nvm::WRITE_ZEROES, 100, 500, 1 << 25), 0);
    assert_eq!(driver.io(nvm::READ, 100, 8, 0), 0);
    assert_eq!(driver.data(4096), [0; 4096]);
    let range = [0, 0, 0, 0, 128, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    driver.memory.write(Gpa(DATA), &range).unwrap();
    assert_eq!(driver.submit(1, nvm::DATASET_MANAGEMENT, 1, (DATA, 0), [0, 4, 0]).0, 0);
}

#[test]
fn interrupts_stand_until_answers_are_taken() {
    let dir = TempDir::new().unwrap();
    let mut driver = Driver::new(disk(&dir, 1 << 20, false));
    driver.start();
    let intx = driver.device.config.intx().clone();
    assert!(!intx.is_asserted());
    let mut words = [0; 16];
    words[0] = nvm::FLUSH.into();
    words[1] = 1;
    driver.post(1, words);
    driver.kick(1);
    let start = Instant::now();
    while !intx.is_asserted() {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    driver.set(reg::INTMS, 1);
    assert!(!intx.is_asserted());
    driver.set(reg::INTMC, 1);
    assert!(intx.is_asserted());
    driver.answer(1);
    assert!(!intx.is_asserted());
}

#[test]
fn wrong_commands_are_refused() {
    let dir = TempDir::new().unwrap();
    let mut driver = Driver::new(disk(&dir, 1 << 20, false));
    driver.start();
    let refused = |status: Status| status.0 & 0x3fff;
    assert_eq!(driver.io(nvm::READ, 2048, 1, 0), refused(Status::LBA_OUT_OF_RANGE));
    assert_eq!(driver.io(nvm::READ, u64::MAX, 1, 0), refused(Status::LBA_OUT_OF_RANGE));
    assert_eq!(driver.io(nvm::READ, 0, 1025, 0), refused(Status::INVALID_FIELD));
    assert_eq!(driver.io(0x77, 0, 1, 0), refused(Status::INVALID_OPCODE));
    let (read, flush) = (nvm::READ, nvm::FLUSH);
    for (op, namespace, prps, rest, status) in [
        (read, 2, (DATA, 0), [0; 3], Status::INVALID_NAMESPACE),
        (read, u32::MAX, (DATA, 0), [0; 3], Status::INVALID_NAMESPACE),
        (flush, 7, (0, 0), [0; 3], Status::INVALID_NAMESPACE),
        (read, 1, (DATA + 1, 0), [0; 3], Status::INVALID_PRP_OFFSET),
        (read, 1, (RAM - 100, RAM), [0; 3], Status::TRANSFER_ERROR),
        (read, 1, (u64::MAX - 3, 0), [0; 3], Status::TRANSFER_ERROR),
        (read, 1, (DATA, DATA + 8), [0, 0, 15], Status::INVALID_PRP_OFFSET),
        (read, 1, (DATA, 0xdead_0000_0000), [0, 0, 15], Status::TRANSFER_ERROR),
        (read, 1, (DATA, 0xdead_0000_0000), [0, 0, 99], Status::TRANSFER_ERROR),
        (read, 1, (DATA, 3), [0, 0, 99], Status::INVALID_PRP_OFFSET),
    ] {
        assert_eq!(driver.submit(1, op, namespace, prps, rest).0, refused(status), "{op} {prps:x?}");
    }
    let size = 15 << 16 | 2;
    for (op, prp, rest, status) in [
        (admin_op::CREATE_CQ, IO_CQ, [size, 0, 0], Status::INVALID_FIELD),
        (admin_op::CREATE_CQ, IO_CQ + 8, [size, 1, 0], Status::INVALID_PRP_OFFSET),
        (admin_op::CREATE_CQ, RAM, [size, 1, 0], Status::INVALID_FIELD),
        (admin_op::CREATE_CQ, IO_CQ, [2, 1, 0], Status::INVALID_QUEUE_SIZE),
        (admin_op::CREATE_CQ, IO_CQ, [0xffff_0002, 1, 0], Status::INVALID_QUEUE_SIZE),
        (admin_op::CREATE_CQ, IO_CQ, [15 << 16, 1, 0], Status::INVALID_QUEUE),
        (admin_op::CREATE_CQ, IO_CQ, [15 << 16 | 1, 1, 0], Status::INVALID_QUEUE),
        (admin_op::CREATE_CQ, IO_CQ, [15 << 16 | 99, 1, 0], Status::INVALID_QUEUE),
        (admin_op::CREATE_CQ, IO_CQ, [size, 1 << 16 | 1, 0], Status::INVALID_VECTOR),
        (admin_op::CREATE_SQ, IO_SQ, [size, 5 << 16 | 1, 0], Status::INVALID_CQ),
        (admin_op::CREATE_SQ, IO_SQ, [size, 1, 0], Status::INVALID_CQ),
        (admin_op::DELETE_SQ, 0, [0, 0, 0], Status::INVALID_QUEUE),
        (admin_op::DELETE_SQ, 0, [5, 0, 0], Status::INVALID_QUEUE),
        (admin_op::DELETE_CQ, 0, [1, 0, 0], Status::INVALID_QUEUE_DELETION),
        (admin_op::GET_LOG_PAGE, DATA, [0x70, 0, 0], Status::INVALID_LOG_PAGE),
        (admin_op::GET_LOG_PAGE, DATA, [0xffff_0002, 0xffff, 0], Status::INVALID_FIELD),
        (admin_op::SET_FEATURES, 0, [0x99, 0, 0], Status::INVALID_FIELD),
        (admin_op::IDENTIFY, DATA, [0x99, 0, 0], Status::INVALID_FIELD),
        (0x7f, 0, [0; 3], Status::INVALID_OPCODE),
    ] {
        assert_eq!(driver.admin(op, 0, prp, 0, rest).0, refused(status), "{op:#x} {rest:x?}");
    }
    assert_eq!(driver.admin(admin_op::DELETE_SQ, 0, 0, 0, [1, 0, 0]).0, 0);
    assert_eq!(driver.admin(admin_op::DELETE_CQ, 0, 0, 0, [1, 0, 0]).0, 0);
    // Doorbells of queues that are gone, and impossible values.
    driver.set(0x1008, 3);
    driver.set(0x100c, 3);
    driver.set(0x1000, 99);
    driver.set(0x1004, 5);
    assert_eq!(driver.admin(admin_op::ABORT, 0, 0, 0, [0; 3]), (0, 1));
}

#[test]
fn events_are_held_and_more_refused() {
    let dir = TempDir::new().unwrap();
    let mut driver = Driver::new(disk(&dir, 1 << 20, false));
    driver.start();
    for id in 0..6 {
        let mut words = [0; 16];
        words[0] = u32::from(admin_op::EVENT_REQUEST) | (100 + id) << 16;
        driver.post(0, words);
    }
    driver.kick(0);
    for _ in 0..2 {
        let (status, _, id) = driver.answer(0);
        assert_eq!(status & 0x3fff, Status::TOO_MANY_EVENT_REQUESTS.0 & 0x3fff);
        assert!(id >= 100);
    }
    assert_eq!(driver.admin(admin_op::ABORT, 0, 0, 0, [0; 3]).0, 0);
}

#[test]
fn a_read_only_disk_refuses_changes() {
    let dir = TempDir::new().unwrap();
    drop(disk(&dir, 1 << 20, false));
    let mut driver = Driver::new(disk(&dir, 0, true));
    driver.start();
    let protected = Status::WRITE_PROTECTED.0 & 0x3fff;
    assert_eq!(driver.io(nvm::WRITE, 0, 1, 0), protected);
    assert_eq!(driver.io(nvm::WRITE_ZEROES, 0, 1, 0), protected);
    assert_eq!(driver.submit(1, nvm::DATASET_MANAGEMENT, 1, (DATA, 0), [0, 4, 0]).0, protected);
    assert_eq!(driver.io(nvm::READ, 0, 1, 0), 0);
}

#[test]
fn many_commands_share_a_short_queue() {
    let dir = TempDir::new().unwrap();
    let mut driver = Driver::new(disk(&dir, 4 << 20, false));
    driver.start();
    let (mut sent, mut answered) = (0_u32, 0);
    while answered < 500 {
        while sent < 500 && sent - answered < u32::from(ENTRIES) - 1 {
            let mut words = [0; 16];
            words[0] = u32::from(nvm::WRITE) | sent << 16;
            (words[1], words[6], words[10]) = (1, DATA as u32, sent % 100);
            driver.post(1, words);
            sent += 1;
        }
        driver.kick(1);
        assert_eq!(driver.answer(1).0, 0);
        answered += 1;
    }
}

#[test]
fn an_impossible_start_is_fatal_until_reset() {
    let dir = TempDir::new().unwrap();
    let mut driver = Driver::new(disk(&dir, 1 << 20, false));
    driver.set(reg::AQA, 0x000f_000f);
    driver.set(reg::ASQ, RAM as u32);
    driver.set(reg::ACQ, ADMIN_CQ as u32);
    driver.set(reg::CC, 0x0046_0001);
    assert_eq!(driver.get(reg::CSTS), CSTS_FATAL);
    driver.set(reg::CC, 0);
    assert_eq!(driver.get(reg::CSTS), 0);
    driver.start();
    driver.set(reg::CC, 0x0046_4001);
    assert_eq!(driver.get(reg::CSTS), CSTS_READY | CSTS_SHUTDOWN_DONE);
}

#[test]
fn a_controller_goes_on_elsewhere() {
    let dir = TempDir::new().unwrap();
    let disk = disk(&dir, 1 << 20, false);
    let mut driver = Driver::new(disk.clone());
    driver.start();
    driver.memory.write(Gpa(DATA), &[7; 512]).unwrap();
    assert_eq!(driver.io(nvm::WRITE, 5, 1, 0), 0);
    driver.device.quiesce();
    let state = Device::save(&driver.device);
    let options = NvmeOptions { serial: "isomer-0".into(), number: 0 };
    let mut device = Nvme::new(disk, &options, driver.memory.clone(), None);
    Device::restore(&mut device, state).unwrap();
    Device::resume(&mut device);
    driver.device = device;
    driver.memory.write(Gpa(DATA), &[0; 512]).unwrap();
    assert_eq!(driver.io(nvm::READ, 5, 1, 0), 0);
    assert_eq!(driver.data(512), [7; 512]);
}

#[derive(Debug)]
struct NoDisk;

impl BlockBackend for NoDisk {
    fn size_bytes(&self) -> u64 {
        1 << 20
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read_vectored(&self, _: u64, _: crate::backend::block::IoVectorMut<'_>) -> std::io::Result<()> {
        Err(std::io::Error::other("bad sector"))
    }
    fn write_vectored(&self, _: u64, _: crate::backend::block::IoVector<'_>) -> std::io::Result<()> {
        Err(std::io::ErrorKind::StorageFull.into())
    }
    fn flush(&self) -> std::io::Result<()> {
        Err(std::io::Error::other("bad disk"))
    }
    fn discard(&self, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn failures_of_the_host_reach_the_driver() {
    let mut driver = Driver::new(Arc::new(NoDisk));
    driver.start();
    assert_eq!(driver.io(nvm::READ, 0, 1, 0), Status::UNRECOVERED_READ.0);
    assert_eq!(driver.io(nvm::WRITE, 0, 1, 0), Status::CAPACITY_EXCEEDED.0);
    assert_eq!(driver.submit(1, nvm::FLUSH, 1, (0, 0), [0; 3]).0, Status::WRITE_FAULT.0);
}

fn fresh() -> Nvme {
    let memory = GuestMemory::new(&[(Gpa(0), RAM)]).unwrap();
    Nvme::new(Arc::new(NoDisk), &NvmeOptions::default(), memory, None)
}

crate::device_conformance!(
    contract,
    fresh(),
    conformance::Options { windows: &[BAR_BYTES], ..conformance::Options::default() }
);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is in the queues, every command that is taken is answered or held, and the controller can be reset.
    #[test]
    fn hostile_commands_are_survived(
        commands in prop::collection::vec(
            (0usize..2, prop::sample::select(vec![0u8, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x7f]), any::<[u32; 16]>(), 0u8..4),
            1..14,
        ),
    ) {
        let dir = TempDir::new().unwrap();
        let mut driver = Driver::new(disk(&dir, 1 << 20, false));
        driver.start();
        for (queue, op, mut words, tame) in commands {
            words[0] = words[0] & 0xffff_0000 | u32::from(op);
            if tame > 0 {
                words[1] = 1;
                (words[6], words[7], words[9]) = (words[6] % (RAM as u32 / 4) * 4, 0, 0);
                words[8] %= RAM as u32;
                (words[10], words[11], words[12]) = (words[10] % 4096, u32::from(tame) & 1, words[12] & 0x4000_03ff);
            }
            driver.post(queue, words);
        }
        driver.kick(0);
        driver.kick(1);
        std::thread::sleep(Duration::from_millis(2));
        driver.set(reg::CC, 0);
        prop_assert_eq!(driver.get(reg::CSTS), 0);
        driver.start();
        prop_assert_eq!(driver.io(nvm::READ, 0, 1, 0), 0);
    }
}
