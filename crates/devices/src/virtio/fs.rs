//! Virtio file system device (Virtio 1.3, 5.11): a host directory, served by a FUSE server within this process.
//!
//! vCPUs only wake threads; everything that may wait for the host happens in [`server`] on one of them. There is no
//! DAX window and no notification queue: the guest's cache is its own, and [`Freshness`] says for how long.

mod abi;
mod answer;
mod lock_queue;
mod server;

pub(super) use answer::dirent_kind;
pub use server::Freshness;

use super::{
    Activation, Chain, SharedQueue, VirtioDevice, device_type,
    workers::{Serve, Workers},
};
use crate::backend::share::Share;
use isomer_core::StateError;
use lock_queue::LockQueue;
use serde::{Deserialize, Serialize};
use server::{Scratch, Server};
use std::{sync::Arc, time::Duration};

/// Bytes of a tag, which need no zero byte at their end.
pub const TAG_BYTES: usize = 36;
/// Request queues a device may have, at most.
pub const MAX_QUEUES: u16 = 8;
/// Descriptors in a queue: a request of 1 MiB has 256 pages and some headers.
const QUEUE_SIZE: u16 = 1024;
/// Descriptors in the high-priority queue, which carries FORGET.
const HIPRIO_SIZE: u16 = 128;
/// Threads of a request queue, so that an fsync does not hold a lookup back.
const THREADS: usize = 2;

/// How a share presents itself.
#[derive(Clone, Debug)]
pub struct FsOptions {
    /// What the guest mounts it by; the first 36 bytes count.
    pub tag: String,
    /// Request queues, 1 to [`MAX_QUEUES`]; the number of vCPUs is a good one.
    pub queues: u16,
    /// How long the guest may trust what it was told.
    pub freshness: Freshness,
    /// Locks reach the host. A guest's process that waits for one cannot be killed until it has it.
    pub host_locks: bool,
}

impl Freshness {
    /// Nothing is trusted: each use of a name or attribute asks the host.
    pub const NONE: Self = Self { entry: Duration::ZERO, attr: Duration::ZERO, keep_data: false };
    /// A second; a file that is opened is looked at anew.
    pub const SECOND: Self =
        Self { entry: Duration::from_secs(1), attr: Duration::from_secs(1), keep_data: false };
    /// Only the guest changes anything.
    pub const ALWAYS: Self =
        Self { entry: Duration::from_secs(86_400), attr: Duration::from_secs(86_400), keep_data: true };
}

impl Default for FsOptions {
    fn default() -> Self {
        Self { tag: "share".into(), queues: 1, freshness: Freshness::SECOND, host_locks: false }
    }
}

/// The device.
#[derive(Debug)]
pub struct VirtioFs {
    server: Arc<Server>,
    tag: [u8; TAG_BYTES],
    queue_sizes: Vec<u16>,
    workers: Vec<Workers>,
    /// There while the device is active and locks reach the host.
    locks: Option<Arc<LockQueue>>,
    host_locks: bool,
}

/// What the guest can observe besides the transport's state.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsState {
    tag: Vec<u8>,
    /// The guest holds numbers of files.
    mounted: bool,
}

impl VirtioFs {
    /// A device on `share`.
    pub fn new(share: Arc<Share>, options: &FsOptions) -> Self {
        let mut tag = [0; TAG_BYTES];
        let len = options.tag.len().min(TAG_BYTES);
        tag[..len].copy_from_slice(&options.tag.as_bytes()[..len]);
        let mut queue_sizes = vec![HIPRIO_SIZE];
        queue_sizes.resize(1 + usize::from(options.queues.clamp(1, MAX_QUEUES)), QUEUE_SIZE);
        let server = Arc::new(Server::new(share, options.freshness, options.host_locks));
        Self { server, tag, queue_sizes, workers: Vec::new(), locks: None, host_locks: options.host_locks }
    }

    /// The directory behind it.
    pub fn share(&self) -> &Share {
        self.server.share()
    }
}

/// One thread's view of the server.
struct Worker {
    server: Arc<Server>,
    queue: SharedQueue,
    locks: Option<Arc<LockQueue>>,
    scratch: Scratch,
}

impl Serve for Worker {
    fn taken(&mut self, chain: &Chain) -> bool {
        Server::operation(chain).is_some_and(Server::may_wait)
    }

    fn serve(&mut self, chain: Chain) -> Option<(Chain, u32)> {
        match self.server.serve(&chain, &mut self.scratch) {
            Ok(written) => Some((chain, written)),
            Err(lock) => self.locks.as_ref()?.add(self.queue.clone(), chain, lock),
        }
    }
}

impl VirtioDevice for VirtioFs {
    const NAME: &'static str = "virtio-fs";
    const VERSION: u32 = 1;
    type State = FsState;

    fn device_type(&self) -> u32 {
        device_type::FILE_SYSTEM
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, buf: &mut [u8]) {
        let mut config = [0; TAG_BYTES + 4];
        config[..TAG_BYTES].copy_from_slice(&self.tag);
        config[TAG_BYTES..].copy_from_slice(&(self.queue_sizes.len() as u32 - 1).to_le_bytes());
        super::copy_config(&config, offset, buf);
    }

    fn activate(&mut self, activation: Activation) {
        if self.host_locks {
            match LockQueue::start(self.server.clone()) {
                Ok(locks) => self.locks = Some(locks),
                Err(error) => {
                    tracing::error!("no thread for a share's locks: {error}");
                    activation.interrupt.needs_reset();
                    return;
                }
            }
        }
        for (index, queue) in activation.queues.iter().enumerate() {
            let threads = if index == 0 { 1 } else { THREADS };
            let worker = || Worker {
                server: self.server.clone(),
                queue: queue.clone(),
                locks: self.locks.clone(),
                scratch: Scratch::default(),
            };
            match Workers::start("share", queue, (0..threads).map(|_| worker())) {
                Ok(workers) => self.workers.push(workers),
                Err(error) => {
                    tracing::error!("no thread for a share's queue: {error}");
                    activation.interrupt.needs_reset();
                    break;
                }
            }
        }
    }

    fn notify(&mut self, queue: u16) {
        if let Some(workers) = self.workers.get(usize::from(queue)) {
            workers.kick();
        }
    }

    fn reset(&mut self) {
        self.workers.clear();
        if let Some(locks) = self.locks.take() {
            locks.stop();
        }
        self.server.forget_guest();
    }

    fn quiesce(&mut self) {
        self.workers.iter().for_each(Workers::ask_to_park);
        self.workers.iter().for_each(Workers::wait_parked);
        if let Some(locks) = &self.locks {
            locks.give_up();
        }
    }

    fn resume(&mut self) {
        self.workers.iter().for_each(Workers::unpark);
    }

    fn save(&self) -> FsState {
        FsState { tag: self.tag.to_vec(), mounted: self.server.is_mounted() }
    }

    fn restore(&mut self, state: FsState) -> Result<(), StateError> {
        let refuse = |why: &str| Err(StateError::Damaged { device: Self::NAME, why: why.into() });
        if state.tag != self.tag {
            return refuse("it was another share");
        }
        // The guest's numbers and open files are this process's descriptors.
        if state.mounted {
            return refuse(
                "the guest has the share mounted, and what it has open cannot be saved: unmount it first",
            );
        }
        Ok(())
    }
}

impl Drop for VirtioFs {
    fn drop(&mut self) {
        // Its thread holds the server, and this the thread.
        if let Some(locks) = self.locks.take() {
            locks.stop();
        }
    }
}

#[cfg(test)]
mod tests;
