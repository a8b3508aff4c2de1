//! Virtio block device (Virtio 1.3, 5.2): configuration, features, and some worker threads a queue.
//!
//! vCPUs only wake workers; everything that may wait for the host happens in [`request`] on a worker.

mod request;

pub use request::BlkStats;

use super::{
    Activation, Chain, SharedQueue, VirtioDevice, device_type,
    workers::{Serve, Workers},
};
use crate::backend::BlockBackend;
use isomer_core::StateError;
use request::{Disk, ID_BYTES};
use serde::{Deserialize, Serialize};
use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};

/// Threads of all queues together, where each has a fair share; a queue has two at least and four at most.
const THREADS: usize = 8;
/// Queues a device may have, at most.
pub const MAX_QUEUES: u16 = 16;
/// Descriptors in a queue.
const QUEUE_SIZE: u16 = 256;
/// Data segments in a request: a queue's worth, without header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes in a logical block.
const BLOCK_BYTES: u32 = 512;
/// log2 of logical blocks in a physical one: hosts write 4 KiB at least.
const PHYSICAL_BLOCK_EXP: u8 = 3;
/// Sectors in one discard or write-zeroes segment: 2 GiB.
pub(super) const MAX_RANGE_SECTORS: u32 = 1 << 22;
/// Segments in one discard or write-zeroes request.
pub(super) const MAX_RANGES: u32 = 16;
/// Sectors that a discard should be aligned to: 4 KiB, what file systems give back.
const DISCARD_ALIGNMENT_SECTORS: u32 = 8;
/// Bytes of `struct virtio_blk_config` up to the end of the write-zeroes fields.
const CONFIG_BYTES: usize = 60;
/// Offset of `writeback` in it.
const WRITEBACK: u64 = 32;

/// How a disk presents itself.
#[derive(Clone, Debug)]
pub struct BlkOptions {
    /// What GET_ID answers; the first 20 bytes count.
    pub serial: String,
    /// Request queues, 1 to [`MAX_QUEUES`]; the number of vCPUs is a good one.
    pub queues: u16,
}

impl Default for BlkOptions {
    fn default() -> Self {
        Self { serial: String::new(), queues: 1 }
    }
}

/// The device.
#[derive(Debug)]
pub struct VirtioBlk {
    disk: Arc<Disk>,
    queue_sizes: Vec<u16>,
    workers: Vec<Workers>,
    /// CONFIG_WCE was negotiated: the driver's choice of cache mode counts.
    cache_mode_chosen: bool,
    /// The `writeback` field.
    writeback: bool,
}

/// What the guest can observe besides the transport's state.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct BlkState {
    writeback: bool,
    /// To be found again in the disk of the machine that continues.
    sectors: u64,
    read_only: bool,
}

impl VirtioBlk {
    /// A disk on `backend`.
    pub fn new(backend: Arc<dyn BlockBackend>, options: &BlkOptions) -> Self {
        let mut id = [0; ID_BYTES];
        let serial = options.serial.as_bytes();
        let len = serial.len().min(ID_BYTES);
        id[..len].copy_from_slice(&serial[..len]);
        let queue_sizes = vec![QUEUE_SIZE; usize::from(options.queues.clamp(1, MAX_QUEUES))];
        let disk = Arc::new(Disk {
            sectors: backend.sectors(),
            read_only: backend.read_only(),
            backend,
            id,
            write_through: AtomicBool::new(false),
            stats: BlkStats::default(),
        });
        Self { disk, queue_sizes, workers: Vec::new(), cache_mode_chosen: false, writeback: true }
    }

    /// Counts of what the guest did; they go on through resets.
    pub fn stats(&self) -> &BlkStats {
        &self.disk.stats
    }

    /// The configuration as the driver sees it (Virtio 1.3, 5.2.4).
    fn config(&self) -> [u8; CONFIG_BYTES] {
        let mut config = [0; CONFIG_BYTES];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.disk.sectors.to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        put(20, &BLOCK_BYTES.to_le_bytes());
        put(24, &[PHYSICAL_BLOCK_EXP]);
        put(26, &(1u16 << PHYSICAL_BLOCK_EXP).to_le_bytes());
        put(WRITEBACK as usize, &[self.writeback.into()]);
        put(34, &(self.queue_sizes.len() as u16).to_le_bytes());
        if !self.disk.read_only {
            put(36, &MAX_RANGE_SECTORS.to_le_bytes());
            put(40, &MAX_RANGES.to_le_bytes());
            put(44, &DISCARD_ALIGNMENT_SECTORS.to_le_bytes());
            put(48, &MAX_RANGE_SECTORS.to_le_bytes());
            put(52, &MAX_RANGES.to_le_bytes());
            put(56, &[1]); // write_zeroes_may_unmap
        }
        config
    }

    /// Tells the workers whether a write is complete only when it is on stable storage.
    fn set_cache_mode(&self, flush_negotiated: bool) {
        let writeback = if self.cache_mode_chosen { self.writeback } else { flush_negotiated };
        self.disk.write_through.store(!writeback, Ordering::Release);
    }
}

/// One thread of a queue.
struct Worker {
    queue: SharedQueue,
    disk: Arc<Disk>,
}

impl Serve for Worker {
    fn taken(&mut self, _chain: &Chain) -> bool {
        true
    }

    fn serve(&mut self, mut chain: Chain) -> Option<(Chain, u32)> {
        match request::serve(&self.disk, &mut chain) {
            Ok(written) => Some((chain, written)),
            Err(broken) => {
                self.queue.lock().unwrap_or_else(PoisonError::into_inner).fail(&broken);
                None
            }
        }
    }
}

impl VirtioDevice for VirtioBlk {
    const NAME: &'static str = "virtio-blk";
    const VERSION: u32 = 1;
    type State = BlkState;

    fn device_type(&self) -> u32 {
        device_type::BLOCK
    }

    fn features(&self) -> u64 {
        let always = [
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_BLK_F_CONFIG_WCE,
        ];
        let by_access: &[u32] = match self.disk.read_only {
            true => &[VIRTIO_BLK_F_RO],
            false => &[VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES],
        };
        let several = (self.queue_sizes.len() > 1).then_some(&VIRTIO_BLK_F_MQ);
        always.iter().chain(by_access).chain(several).fold(0, |bits, bit| bits | 1 << bit)
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, buf: &mut [u8]) {
        let config = self.config();
        super::copy_config(&config, offset, buf);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if offset == WRITEBACK
            && self.cache_mode_chosen
            && let Some(value) = data.first()
        {
            self.writeback = *value != 0;
            self.set_cache_mode(true);
        }
    }

    fn activate(&mut self, activation: Activation) {
        let negotiated = |bit: u32| activation.features & 1 << bit != 0;
        self.cache_mode_chosen = negotiated(VIRTIO_BLK_F_CONFIG_WCE);
        self.set_cache_mode(negotiated(VIRTIO_BLK_F_FLUSH));
        let threads = (THREADS / activation.queues.len().max(1)).clamp(2, 4);
        for queue in &activation.queues {
            let worker = || Worker { queue: queue.clone(), disk: self.disk.clone() };
            match Workers::start("disk", queue, (0..threads).map(|_| worker())) {
                Ok(worker) => self.workers.push(worker),
                Err(error) => {
                    tracing::error!("no thread for a disk queue: {error}");
                    activation.interrupt.needs_reset();
                    break;
                }
            }
        }
    }

    fn notify(&mut self, queue: u16) {
        if let Some(worker) = self.workers.get(usize::from(queue)) {
            worker.kick();
        }
    }

    fn reset(&mut self) {
        self.workers.clear();
        (self.cache_mode_chosen, self.writeback) = (false, true);
    }

    fn quiesce(&mut self) {
        self.workers.iter().for_each(Workers::ask_to_park);
        self.workers.iter().for_each(Workers::wait_parked);
    }

    fn resume(&mut self) {
        self.workers.iter().for_each(Workers::unpark);
    }

    fn save(&self) -> BlkState {
        BlkState { writeback: self.writeback, sectors: self.disk.sectors, read_only: self.disk.read_only }
    }

    fn restore(&mut self, state: BlkState) -> Result<(), StateError> {
        let disk = &self.disk;
        if (state.sectors, state.read_only) != (disk.sectors, disk.read_only) {
            let kind = |read_only| if read_only { "read-only" } else { "writable" };
            let (was, is) = (kind(state.read_only), kind(disk.read_only));
            let why = format!(
                "its disk had {} sectors and was {was}, this one has {} and is {is}",
                state.sectors, disk.sectors
            );
            return Err(StateError::Damaged { device: Self::NAME, why });
        }
        self.writeback = state.writeback;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
