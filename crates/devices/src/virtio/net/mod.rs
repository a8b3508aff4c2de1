//! Virtio network card (Virtio 1.3, 5.1): configuration, features, the control queue, and one worker thread that
//! carries frames between the driver's queues and the far end of the cable.
//!
//! One worker serves all queue pairs, because a cable has one end; several pairs let the guest's CPUs work side by
//! side. VLAN filtering, hash reports and receive-side scaling are not offered.

mod control;
mod filter;
mod worker;

use super::{Activation, SharedQueue, VirtioDevice, device_type};
use crate::backend::net::{MacAddr, NetBackend, Offloads};
use filter::Filter;
use isomer_core::StateError;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, PoisonError, atomic::AtomicU64};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX,
    VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};
use worker::Worker;

/// Queue pairs a card may have, at most.
pub const MAX_PAIRS: u16 = 8;
/// Descriptors in a queue.
const QUEUE_SIZE: u16 = 256;
/// Bytes of `struct virtio_net_config` up to the end of `mtu`.
const CONFIG_BYTES: usize = 12;
/// Offloads the driver can switch at run time (5.1.6.5.6).
const CTRL_OFFLOADS: u64 =
    1 << VIRTIO_NET_F_GUEST_CSUM | 1 << VIRTIO_NET_F_GUEST_TSO4 | 1 << VIRTIO_NET_F_GUEST_TSO6;

/// How a card presents itself.
#[derive(Clone, Copy, Debug)]
pub struct NetOptions {
    /// Its address.
    pub mac: MacAddr,
    /// Queue pairs, 1 to [`MAX_PAIRS`]; the number of vCPUs is a good one.
    pub pairs: u16,
}

/// What went over a card, and what did not. The guest's point of view.
#[derive(Debug, Default)]
pub struct NetStats {
    /// Frames the guest sent.
    pub sent: AtomicU64,
    /// Bytes of them.
    pub sent_bytes: AtomicU64,
    /// Frames the guest received.
    pub received: AtomicU64,
    /// Bytes of them.
    pub received_bytes: AtomicU64,
    /// Frames of the guest that were malformed.
    pub send_errors: AtomicU64,
    /// Frames for the guest that its buffers were too short for, or that it did not want.
    pub receive_drops: AtomicU64,
}

/// What the driver agreed to, as far as it matters later.
#[derive(Clone, Copy, Debug, Default)]
struct Negotiated {
    features: u64,
    multi_queue: bool,
    max_pairs: u16,
}

/// The device.
#[derive(Debug)]
pub struct VirtioNet {
    mac: MacAddr,
    mtu: u16,
    max_pairs: u16,
    host: Offloads,
    queue_sizes: Vec<u16>,
    /// Absent while the worker has it.
    backend: Option<Box<dyn NetBackend>>,
    worker: Option<Worker>,
    control: Option<(u16, SharedQueue)>,
    negotiated: Negotiated,
    settings: NetState,
    /// `settings` come from a saved machine: the next activation keeps them.
    restored: bool,
    stats: Arc<NetStats>,
}

/// What the guest can observe besides the transport's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetState {
    filter: Filter,
    pairs: u16,
    /// Offloads of the guest, as feature bits.
    offloads: u64,
    /// To be found again in the card of the machine that continues.
    mtu: u16,
    max_pairs: u16,
}

impl VirtioNet {
    /// A card whose cable leads to `backend`.
    pub fn new(backend: Box<dyn NetBackend>, options: &NetOptions) -> Self {
        let max_pairs = options.pairs.clamp(1, MAX_PAIRS);
        let (mtu, host) = (backend.mtu(), backend.offloads());
        let filter = Filter::new(options.mac);
        Self {
            mac: options.mac,
            mtu,
            max_pairs,
            host,
            queue_sizes: vec![QUEUE_SIZE; usize::from(max_pairs) * 2 + 1],
            backend: Some(backend),
            worker: None,
            control: None,
            negotiated: Negotiated::default(),
            settings: NetState { filter, pairs: 1, offloads: 0, mtu, max_pairs },
            restored: false,
            stats: Arc::default(),
        }
    }

    /// Counts of what went over the card; they go on through resets.
    pub fn stats(&self) -> &Arc<NetStats> {
        &self.stats
    }

    /// The configuration as the driver sees it (5.1.4).
    fn config(&self) -> [u8; CONFIG_BYTES] {
        let mut config = [0; CONFIG_BYTES];
        config[..6].copy_from_slice(&self.settings.filter.mac);
        config[6..8].copy_from_slice(&(VIRTIO_NET_S_LINK_UP as u16).to_le_bytes());
        config[8..10].copy_from_slice(&self.max_pairs.to_le_bytes());
        config[10..12].copy_from_slice(&self.mtu.to_le_bytes());
        config
    }

    fn serve_control(&mut self) {
        let Some((_, queue)) = &self.control else { return };
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        // Ends: each command costs the guest a vCPU's work to make available.
        while let Some(mut chain) = queue.pop() {
            let mut settings = control::Settings {
                filter: &mut self.settings.filter,
                pairs: &mut self.settings.pairs,
                offloads: &mut self.settings.offloads,
                negotiated: self.negotiated,
            };
            let answered = control::serve(&mut settings, &mut chain);
            // Before the driver hears of it, so that what it receives then is what it asked for.
            self.worker.iter().for_each(|worker| worker.configure(&self.settings));
            match answered {
                Some(written) => queue.push(chain, written),
                None => {
                    queue.fail(&"a control command has no room for its answer");
                    break;
                }
            }
        }
        queue.signal();
    }
}

/// What the guest takes over, by its feature bits: segments without checksums cannot be left to it.
fn guest_offloads(bits: u64) -> Offloads {
    let has = |bit: u32| bits & 1 << bit != 0;
    let checksum = has(VIRTIO_NET_F_GUEST_CSUM);
    Offloads {
        checksum,
        tso4: checksum && has(VIRTIO_NET_F_GUEST_TSO4),
        tso6: checksum && has(VIRTIO_NET_F_GUEST_TSO6),
    }
}

impl VirtioDevice for VirtioNet {
    const NAME: &'static str = "virtio-net";
    const VERSION: u32 = 1;
    type State = NetState;

    fn device_type(&self) -> u32 {
        device_type::NET
    }

    fn features(&self) -> u64 {
        let always = [
            VIRTIO_NET_F_MAC,
            VIRTIO_NET_F_STATUS,
            VIRTIO_NET_F_MTU,
            VIRTIO_NET_F_MRG_RXBUF,
            VIRTIO_NET_F_GUEST_CSUM,
            VIRTIO_NET_F_GUEST_TSO4,
            VIRTIO_NET_F_GUEST_TSO6,
            VIRTIO_NET_F_CTRL_VQ,
            VIRTIO_NET_F_CTRL_RX,
            VIRTIO_NET_F_CTRL_RX_EXTRA,
            VIRTIO_NET_F_CTRL_MAC_ADDR,
            VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
        ];
        let host = [
            (self.host.checksum, VIRTIO_NET_F_CSUM),
            (self.host.checksum && self.host.tso4, VIRTIO_NET_F_HOST_TSO4),
            (self.host.checksum && self.host.tso6, VIRTIO_NET_F_HOST_TSO6),
            (self.max_pairs > 1, VIRTIO_NET_F_MQ),
        ];
        let host = host.iter().filter(|(offered, _)| *offered).map(|(_, bit)| bit);
        always.iter().chain(host).fold(0, |bits, bit| bits | 1 << bit)
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, buf: &mut [u8]) {
        let config = self.config();
        super::copy_config(&config, offset, buf);
    }

    fn activate(&mut self, activation: Activation) {
        let features = activation.features;
        let multi_queue = features & 1 << VIRTIO_NET_F_MQ != 0;
        let max_pairs = if multi_queue { self.max_pairs } else { 1 };
        self.negotiated = Negotiated { features, multi_queue, max_pairs };
        let offloads = features & CTRL_OFFLOADS;
        match std::mem::take(&mut self.restored) {
            true => self.settings.offloads &= offloads,
            false => self.settings.offloads = offloads,
        }
        self.settings.pairs = self.settings.pairs.min(max_pairs);
        let mut queues = activation.queues;
        // Behind the last pair that was negotiated (5.1.2).
        let index = 2 * max_pairs;
        if features & 1 << VIRTIO_NET_F_CTRL_VQ != 0 {
            self.control = queues.get(usize::from(index)).map(|queue| (index, queue.clone()));
        }
        queues.truncate(index.into());
        let Some(backend) = self.backend.take() else { return };
        let mergeable = features & 1 << VIRTIO_NET_F_MRG_RXBUF != 0;
        match Worker::start(backend, queues, mergeable, &self.settings, self.stats.clone()) {
            Ok(worker) => self.worker = Some(worker),
            Err((backend, error)) => {
                tracing::error!("no thread for a network card: {error}");
                self.backend = backend;
                activation.interrupt.needs_reset();
            }
        }
    }

    fn notify(&mut self, queue: u16) {
        match &self.control {
            Some((index, _)) if *index == queue => self.serve_control(),
            _ => self.worker.iter().for_each(Worker::kick),
        }
    }

    fn reset(&mut self) {
        if let Some(mut backend) = self.worker.take().and_then(Worker::stop) {
            backend.reset();
            self.backend = Some(backend);
        }
        self.control = None;
        self.negotiated = Negotiated::default();
        self.settings =
            NetState { filter: Filter::new(self.mac), pairs: 1, offloads: 0, ..self.settings.clone() };
        self.restored = false;
    }

    fn quiesce(&mut self) {
        self.worker.iter().for_each(Worker::park);
    }

    fn resume(&mut self) {
        self.worker.iter().for_each(Worker::unpark);
    }

    fn save(&self) -> NetState {
        self.settings.clone()
    }

    fn restore(&mut self, state: NetState) -> Result<(), StateError> {
        let damaged = |why: String| Err(StateError::Damaged { device: Self::NAME, why });
        if (state.mtu, state.max_pairs) != (self.mtu, self.max_pairs) {
            return damaged(format!(
                "its card had {} queue pairs and packets of {} bytes, this one has {} and {}",
                state.max_pairs, state.mtu, self.max_pairs, self.mtu
            ));
        }
        if !(1..=self.max_pairs).contains(&state.pairs)
            || state.offloads & !CTRL_OFFLOADS != 0
            || !state.filter.is_sound()
        {
            return damaged("its receive settings are none that a driver can make".into());
        }
        self.settings = state;
        self.restored = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
