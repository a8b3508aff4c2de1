//! Virtio entropy device (Virtio 1.3, 5.4): one queue of buffers that the host's random generator fills.

use super::{Activation, SharedQueue, VirtioDevice, device_type};
use isomer_core::StateError;
use std::{io::Write, sync::PoisonError};

/// Most bytes given for one request; a driver that wants more asks again.
const MAX_REQUEST_BYTES: u64 = 64 << 10;
/// Bytes fetched from the host at a time.
const BLOCK_BYTES: usize = 4096;

/// The device: stateless, and as random as the host kernel's generator.
#[derive(Debug, Default)]
pub struct VirtioRng {
    requests: Option<SharedQueue>,
}

impl VirtioRng {
    /// An entropy device.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Fills `out`'s writable part from the host, up to the limit.
fn fill(out: &mut super::Chain) -> std::io::Result<()> {
    let mut block = [0; BLOCK_BYTES];
    let mut left = out.writable_len().min(MAX_REQUEST_BYTES) as usize;
    while left != 0 {
        let part = &mut block[..left.min(BLOCK_BYTES)];
        let count = rustix::io::retry_on_intr(|| {
            rustix::rand::getrandom(&mut *part, rustix::rand::GetRandomFlags::empty())
        })?;
        out.write_all(&part[..count])?;
        left -= count;
    }
    Ok(())
}

impl VirtioDevice for VirtioRng {
    const NAME: &'static str = "virtio-rng";
    const VERSION: u32 = 1;
    type State = ();

    fn device_type(&self) -> u32 {
        device_type::ENTROPY
    }
    fn features(&self) -> u64 {
        0
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[8]
    }

    fn activate(&mut self, activation: Activation) {
        self.requests = activation.queues.into_iter().next();
    }

    fn notify(&mut self, _queue: u16) {
        let Some(queue) = &self.requests else { return };
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        // Ends: each request costs the guest a vCPU's work to make available again.
        while let Some(mut chain) = queue.pop() {
            if let Err(error) = fill(&mut chain) {
                queue.fail(&format_args!("the host's random generator failed: {error}"));
                break;
            }
            let written = chain.written();
            queue.push(chain, written);
            queue.signal();
        }
    }

    fn reset(&mut self) {
        self.requests = None;
    }
    fn save(&self) {}
    fn restore(&mut self, (): ()) -> Result<(), StateError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::testing::{Guest, Part};

    #[test]
    fn fills_what_is_asked_up_to_the_limit() {
        let mut guest = Guest::mmio(VirtioRng::new());
        guest.start(u64::MAX);
        let first = guest.request(0, &[Part::In(100), Part::In(28)]);
        let second = guest.request(0, &[Part::In(128)]);
        assert_eq!((first.len(), second.len()), (128, 128));
        assert_ne!(first, second);
        assert_eq!(guest.request(0, &[Part::In(1 << 20)]).len() as u64, MAX_REQUEST_BYTES);
        assert_eq!(guest.request(0, &[Part::Out(b"nothing to write to")]).len(), 0);
    }
}
