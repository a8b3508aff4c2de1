//! Virtio SCSI host (Virtio 1.3, 5.6): targets with one logical unit each, commands on threads of their own.

use super::{
    Activation, Chain, SharedQueue, VirtioDevice, device_type,
    workers::{Serve, Workers},
};
use crate::{
    backend::{
        BlockBackend,
        guest_buffers::{read_disk, write_disk},
    },
    scsi::{CDB_BYTES, Failure, Sense, Transfer, Unit, UnitKind, status},
};
use isomer_core::StateError;
use serde::{Deserialize, Serialize};
use std::{
    io,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// Descriptors in a queue.
const QUEUE_SIZE: u16 = 256;
/// Queues besides those for commands.
const CONTROL: usize = 0;
const EVENT: usize = 1;
const FIRST_REQUEST: usize = 2;
/// Request queues, at most.
const MAX_REQUEST_QUEUES: u16 = 16;
/// Threads of all request queues together; a queue has two at least and four at most.
const THREADS: usize = 8;
/// Targets a host has, at most.
pub const MAX_TARGETS: usize = 64;
/// Sectors of 512 bytes in one command: 32 MiB.
const MAX_SECTORS: u32 = 0xffff;
/// Bytes of sense data and of a command, unless the driver chooses others.
const SENSE_SIZE: u32 = 96;
const CDB_SIZE: u32 = 32;
/// Where those are in the configuration, whose length this is.
const SENSE_SIZE_AT: u64 = 20;
const CDB_SIZE_AT: u64 = 24;
const CONFIG_BYTES: usize = 36;
/// Sizes a driver may choose.
const MAX_CHOSEN: u32 = 256;

/// Bytes of a request before the command: unit, tag, attributes.
const HEAD_BYTES: u64 = 19;
/// Bytes of an answer before the sense data.
const ANSWER_BYTES: u64 = 12;

/// Response codes (5.6.6.1.1).
mod response {
    pub(super) const OK: u8 = 0;
    pub(super) const OVERRUN: u8 = 1;
    pub(super) const BAD_TARGET: u8 = 3;
    pub(super) const FUNCTION_REJECTED: u8 = 11;
}

/// The host: what its threads share.
#[derive(Debug)]
struct Host {
    units: Vec<Unit>,
    sense_size: AtomicU32,
    cdb_size: AtomicU32,
}

impl Host {
    fn sizes(&self) -> (u64, u64) {
        let sense = self.sense_size.load(Ordering::Acquire);
        let cdb = self.cdb_size.load(Ordering::Acquire);
        (HEAD_BYTES + u64::from(cdb), ANSWER_BYTES + u64::from(sense))
    }

    /// The target and whether its one unit is meant; `None`: no such target.
    fn unit(&self, lun: [u8; 8]) -> Option<(&Unit, bool)> {
        if lun[0] != 1 {
            return None;
        }
        let number = u16::from(lun[2] & 0x3f) << 8 | u16::from(lun[3]);
        self.units.get(usize::from(lun[1])).map(|unit| (unit, number == 0))
    }
}

/// The device.
#[derive(Debug)]
pub struct VirtioScsi {
    host: Arc<Host>,
    queue_sizes: Vec<u16>,
    /// By queue; the event queue has none.
    workers: Vec<Option<Workers>>,
}

/// What the guest can observe besides the transport's state.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct ScsiState {
    sense_size: u32,
    cdb_size: u32,
    /// To be found again: length in blocks, read-only, CD-ROM.
    units: Vec<(u64, bool, bool)>,
}

impl VirtioScsi {
    /// A host with a target for each of `units` (at most [`MAX_TARGETS`]), numbered from 0.
    pub fn new(mut units: Vec<Unit>, queues: u16) -> Self {
        units.truncate(MAX_TARGETS);
        let (sense_size, cdb_size) = (AtomicU32::new(SENSE_SIZE), AtomicU32::new(CDB_SIZE));
        let queues = FIRST_REQUEST + usize::from(queues.clamp(1, MAX_REQUEST_QUEUES));
        let host = Arc::new(Host { units, sense_size, cdb_size });
        Self { host, queue_sizes: vec![QUEUE_SIZE; queues], workers: Vec::new() }
    }

    fn config(&self) -> [u8; CONFIG_BYTES] {
        let mut config = [0; CONFIG_BYTES];
        let words = [
            (self.queue_sizes.len() - FIRST_REQUEST) as u32,
            u32::from(QUEUE_SIZE) - 2,
            MAX_SECTORS,
            u32::from(QUEUE_SIZE),
            16,
            self.host.sense_size.load(Ordering::Acquire),
            self.host.cdb_size.load(Ordering::Acquire),
            // No channels but one; the highest target in the upper half.
            (MAX_TARGETS as u32 - 1) << 16,
            0,
        ];
        for (at, word) in words.iter().enumerate() {
            config[4 * at..4 * at + 4].copy_from_slice(&word.to_le_bytes());
        }
        config
    }

    fn units(&self) -> Vec<(u64, bool, bool)> {
        let units = self.host.units.iter();
        units.map(|unit| (unit.blocks(), unit.read_only(), unit.kind() == UnitKind::Cdrom)).collect()
    }

    fn set_sizes(&self, sense: u32, cdb: u32) {
        self.host.sense_size.store(sense, Ordering::Release);
        self.host.cdb_size.store(cdb, Ordering::Release);
    }
}

/// One thread of a queue.
struct Worker {
    queue: SharedQueue,
    host: Arc<Host>,
    control: bool,
}

impl Serve for Worker {
    fn taken(&mut self, _chain: &Chain) -> bool {
        !self.control
    }

    fn serve(&mut self, chain: Chain) -> Option<(Chain, u32)> {
        let written = if self.control { control(&chain) } else { command(&self.host, &chain) };
        match written {
            Ok(written) => Some((chain, written)),
            Err(broken) => {
                self.queue.lock().unwrap_or_else(PoisonError::into_inner).fail(&broken);
                None
            }
        }
    }
}

/// Task management and event requests (5.6.6.2): commands are done before they could be aborted, and nothing happens.
fn control(chain: &Chain) -> io::Result<u32> {
    let mut kind = [0; 4];
    if chain.read_at(0, &mut kind)? < kind.len() {
        return Err(io::Error::other("a control request is too short"));
    }
    let answer: &[u8] = match u32::from_le_bytes(kind) {
        0 => &[response::OK],
        1 | 2 => &[0, 0, 0, 0, response::OK],
        _ => &[response::FUNCTION_REJECTED],
    };
    if (chain.writable_len() as usize) < answer.len() {
        return Err(io::Error::other("a control request has no room for its answer"));
    }
    chain.write_at(0, answer).map(|count| count as u32)
}

/// The data of a request in its chain.
struct ChainData<'a> {
    chain: &'a Chain,
    out_at: u64,
    in_at: u64,
}

impl Transfer for ChainData<'_> {
    fn out_len(&self) -> u64 {
        self.chain.readable_len().saturating_sub(self.out_at)
    }

    fn in_len(&self) -> u64 {
        self.chain.writable_len().saturating_sub(self.in_at)
    }

    fn take(&self, into: &mut [u8]) -> io::Result<()> {
        match self.chain.read_at(self.out_at, into)? == into.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.chain.write_at(self.in_at, bytes).map(|_| ())
    }

    fn read_disk(&mut self, disk: &dyn BlockBackend, offset: u64, len: u64) -> io::Result<()> {
        let (memory, segments) = (self.chain.memory(), self.chain.writable_segments());
        read_disk(disk, offset, memory, segments, self.in_at..self.in_at + len)
    }

    fn write_disk(&self, disk: &dyn BlockBackend, offset: u64, len: u64) -> io::Result<()> {
        let (memory, segments) = (self.chain.memory(), self.chain.readable_segments());
        write_disk(disk, offset, memory, segments, self.out_at..self.out_at + len)
    }
}

/// Carries out a command and writes its answer; returns how much of the writable part is to be believed.
fn command(host: &Host, chain: &Chain) -> io::Result<u32> {
    let (out_at, in_at) = host.sizes();
    if chain.readable_len() < out_at || chain.writable_len() < in_at {
        return Err(io::Error::other("a SCSI request is too short"));
    }
    let mut head = [0; HEAD_BYTES as usize];
    chain.read_at(0, &mut head)?;
    let mut cdb = [0; CDB_BYTES];
    let cdb_len = (out_at - HEAD_BYTES).min(CDB_BYTES as u64) as usize;
    chain.read_at(HEAD_BYTES, &mut cdb[..cdb_len])?;
    let mut data = ChainData { chain, out_at, in_at };
    let asked = data.out_len() + data.in_len();
    let lun = std::array::from_fn(|at| head[at]);
    let mut moved = 0;
    let (code, state, sense) = match host.unit(lun) {
        None => (response::BAD_TARGET, status::GOOD, None),
        Some((unit, meant)) => match run(unit, meant, &cdb, &mut data) {
            Ok(count) => {
                moved = count;
                (response::OK, status::GOOD, None)
            }
            Err(Failure::Overrun) => (response::OVERRUN, status::GOOD, None),
            Err(Failure::Check(sense)) => (response::OK, status::CHECK_CONDITION, Some(sense.fixed())),
        },
    };
    let room = (in_at - ANSWER_BYTES) as usize;
    let mut answer = vec![0; in_at as usize];
    if let Some(sense) = sense {
        let len = sense.len().min(room);
        answer[..4].copy_from_slice(&(len as u32).to_le_bytes());
        answer[12..12 + len].copy_from_slice(&sense[..len]);
    }
    answer[4..8].copy_from_slice(&(asked.saturating_sub(moved) as u32).to_le_bytes());
    (answer[10], answer[11]) = (state, code);
    chain.write_at(0, &answer)?;
    let data_in = if data.in_len() > 0 { moved } else { 0 };
    Ok(u32::try_from(in_at + data_in).unwrap_or(u32::MAX))
}

fn run(unit: &Unit, meant: bool, cdb: &[u8; CDB_BYTES], data: &mut ChainData<'_>) -> Result<u64, Failure> {
    const INQUIRY: u8 = 0x12;
    const REPORT_LUNS: u8 = 0xa0;
    match (meant, cdb[0]) {
        (true, _) | (false, REPORT_LUNS) => unit.execute(cdb, data),
        (false, INQUIRY) => {
            // Nothing is there, and nothing can be.
            let len = data.in_len().min(36);
            let mut nothing = [0; 36];
            (nothing[0], nothing[4]) = (0x7f, 31);
            data.put(&nothing[..len as usize])?;
            Ok(len)
        }
        (false, _) => Err(Sense::NO_UNIT.into()),
    }
}

impl VirtioDevice for VirtioScsi {
    const NAME: &'static str = "virtio-scsi";
    const VERSION: u32 = 1;
    type State = ScsiState;

    fn device_type(&self) -> u32 {
        device_type::SCSI
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, buf: &mut [u8]) {
        super::copy_config(&self.config(), offset, buf);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let Some(value) = data.first_chunk().map(|word| u32::from_le_bytes(*word)) else { return };
        // Requests in hand have the sizes of before: only a device that is not live can be told others.
        if value > MAX_CHOSEN || !self.workers.is_empty() {
            return;
        }
        match offset {
            SENSE_SIZE_AT => self.host.sense_size.store(value, Ordering::Release),
            CDB_SIZE_AT => self.host.cdb_size.store(value, Ordering::Release),
            _ => {}
        }
    }

    fn activate(&mut self, activation: Activation) {
        let requests = activation.queues.len().saturating_sub(FIRST_REQUEST).max(1);
        for (index, queue) in activation.queues.iter().enumerate() {
            let threads = match index {
                EVENT => {
                    self.workers.push(None);
                    continue;
                }
                CONTROL => 1,
                _ => (THREADS / requests).clamp(2, 4),
            };
            let control = index == CONTROL;
            let worker = || Worker { queue: queue.clone(), host: self.host.clone(), control };
            match Workers::start("scsi", queue, (0..threads).map(|_| worker())) {
                Ok(workers) => self.workers.push(Some(workers)),
                Err(error) => {
                    tracing::error!("no thread for a SCSI queue: {error}");
                    activation.interrupt.needs_reset();
                    break;
                }
            }
        }
    }

    fn notify(&mut self, queue: u16) {
        if let Some(Some(workers)) = self.workers.get(usize::from(queue)) {
            workers.kick();
        }
    }

    fn reset(&mut self) {
        self.workers.clear();
        self.set_sizes(SENSE_SIZE, CDB_SIZE);
    }

    fn quiesce(&mut self) {
        self.workers.iter().flatten().for_each(Workers::ask_to_park);
        self.workers.iter().flatten().for_each(Workers::wait_parked);
    }

    fn resume(&mut self) {
        self.workers.iter().flatten().for_each(Workers::unpark);
    }

    fn save(&self) -> ScsiState {
        ScsiState {
            sense_size: self.host.sense_size.load(Ordering::Acquire),
            cdb_size: self.host.cdb_size.load(Ordering::Acquire),
            units: self.units(),
        }
    }

    fn restore(&mut self, state: ScsiState) -> Result<(), StateError> {
        let damaged = |why: &str| Err(StateError::Damaged { device: Self::NAME, why: why.into() });
        if state.units != self.units() {
            return damaged("its disks were others");
        }
        if state.sense_size > MAX_CHOSEN || state.cdb_size > MAX_CHOSEN {
            return damaged("sizes that no driver could have chosen");
        }
        self.set_sizes(state.sense_size, state.cdb_size);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
