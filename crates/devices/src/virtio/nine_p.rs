//! Virtio 9P transport (device type 9; Linux, `include/uapi/linux/virtio_9p.h`): a host directory, served by a
//! 9P2000.L server within this process.
//!
//! vCPUs only wake threads. The one queue is served by several, so that an fsync does not hold a read back.

mod abi;
mod fid;
mod server;

use super::{
    Activation, Chain, VirtioDevice, device_type,
    workers::{Serve, Workers},
};
use crate::backend::share::Share;
use isomer_core::StateError;
use serde::{Deserialize, Serialize};
use server::{Scratch, Server};
use std::sync::Arc;

/// The configuration holds a tag.
const F_MOUNT_TAG: u64 = 1;
/// Longest tag, in bytes.
pub const TAG_BYTES: usize = 255;
/// Descriptors in the queue; Linux's driver asks for 128 pages at once.
const QUEUE_SIZE: u16 = 256;
/// Threads of the queue.
const THREADS: usize = 4;

/// The device.
#[derive(Debug)]
pub struct Virtio9p {
    server: Arc<Server>,
    tag: Vec<u8>,
    workers: Option<Workers>,
}

/// What the guest can observe besides the transport's state.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NinePState {
    tag: Vec<u8>,
    /// A client has agreed on a version: it may hold fids.
    mounted: bool,
}

impl Virtio9p {
    /// A device on `share`, which the guest mounts by `tag`; the first 255 bytes of that count.
    pub fn new(share: Arc<Share>, tag: &str) -> Self {
        let tag = tag.as_bytes()[..tag.len().min(TAG_BYTES)].to_vec();
        Self { server: Arc::new(Server::new(share)), tag, workers: None }
    }

    /// The directory behind it.
    pub fn share(&self) -> &Share {
        self.server.share()
    }
}

/// One thread's view of the server.
struct Worker {
    server: Arc<Server>,
    scratch: Scratch,
    /// Type and tag of the request in hand.
    current: Option<(u8, u16)>,
}

impl Serve for Worker {
    fn taken(&mut self, chain: &Chain) -> bool {
        self.current = Server::kind_and_tag(chain);
        self.current.is_some_and(|(kind, tag)| {
            self.server.begin(kind, tag);
            Server::may_wait(kind)
        })
    }

    fn serve(&mut self, chain: Chain) -> Option<(Chain, u32)> {
        let written = self.server.serve(&chain, &mut self.scratch);
        Some((chain, written))
    }

    fn answered(&mut self) {
        if let Some((kind, tag)) = self.current.take() {
            self.server.end(kind, tag);
        }
    }
}

impl VirtioDevice for Virtio9p {
    const NAME: &'static str = "virtio-9p";
    const VERSION: u32 = 1;
    type State = NinePState;

    fn device_type(&self) -> u32 {
        device_type::NINE_P
    }

    fn features(&self) -> u64 {
        F_MOUNT_TAG
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, buf: &mut [u8]) {
        let config = [&(self.tag.len() as u16).to_le_bytes()[..], &self.tag].concat();
        super::copy_config(&config, offset, buf);
    }

    fn activate(&mut self, activation: Activation) {
        let Some(queue) = activation.queues.first() else { return };
        let worker = || Worker { server: self.server.clone(), scratch: Scratch::default(), current: None };
        match Workers::start("share", queue, (0..THREADS).map(|_| worker())) {
            Ok(workers) => self.workers = Some(workers),
            Err(error) => {
                tracing::error!("no thread for a share's queue: {error}");
                activation.interrupt.needs_reset();
            }
        }
    }

    fn notify(&mut self, _queue: u16) {
        if let Some(workers) = &self.workers {
            workers.kick();
        }
    }

    fn reset(&mut self) {
        self.workers = None;
        self.server.forget_client();
    }

    fn quiesce(&mut self) {
        if let Some(workers) = &self.workers {
            workers.ask_to_park();
            workers.wait_parked();
        }
    }

    fn resume(&mut self) {
        if let Some(workers) = &self.workers {
            workers.unpark();
        }
    }

    fn save(&self) -> NinePState {
        NinePState { tag: self.tag.clone(), mounted: self.server.is_mounted() }
    }

    fn restore(&mut self, state: NinePState) -> Result<(), StateError> {
        let refuse = |why: &str| Err(StateError::Damaged { device: Self::NAME, why: why.into() });
        if state.tag != self.tag {
            return refuse("it was another share");
        }
        // The guest's fids are this process's descriptors.
        if state.mounted {
            return refuse(
                "the guest has the share mounted, and what it has open cannot be saved: unmount it first",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
