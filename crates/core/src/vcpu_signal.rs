//! How the rest of the machine gets a vCPU's attention: interrupt lines, kicks, and sleep.

use crate::irq::IrqSink;
use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Shared between one vCPU's thread and everybody who may interrupt it.
///
/// `lines` holds level-sensitive interrupt inputs by the guest's own numbering (riscv64: the bit numbers of `mip`).
/// `attention` is what an engine polls at block boundaries: non-zero means "look at lines, mailboxes and requests".
#[derive(Debug, Default)]
pub struct VcpuSignal {
    lines: AtomicU64,
    attention: AtomicU32,
    asleep: Mutex<bool>,
    wake: Condvar,
}

impl VcpuSignal {
    /// The interrupt inputs that are high now, a bit each.
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Acquire)
    }

    /// Drives input `line` (0..64); kicks the vCPU when it rises.
    pub fn set_line(&self, line: u32, level: bool) {
        let bit = 1u64.checked_shl(line).unwrap_or(0);
        if level {
            if self.lines.fetch_or(bit, Ordering::SeqCst) & bit == 0 {
                self.kick();
            }
        } else {
            self.lines.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// The flag engines poll. Cleared by [`Self::take_attention`] only.
    pub fn attention(&self) -> &AtomicU32 {
        &self.attention
    }

    /// Clears the flag; the caller looks at everything afterwards.
    pub fn take_attention(&self) -> bool {
        // Reading is cheaper than swapping, and almost always enough.
        self.attention.load(Ordering::Relaxed) != 0 && self.attention.swap(0, Ordering::SeqCst) != 0
    }

    /// Makes the vCPU leave translated code at its next poll, and wakes it if it sleeps.
    pub fn kick(&self) {
        self.attention.store(1, Ordering::SeqCst);
        // The lock orders this against `sleep`'s last check, so no wake-up is lost.
        if *self.asleep.lock().unwrap_or_else(PoisonError::into_inner) {
            self.wake.notify_one();
        }
    }

    /// Sleeps until kicked or for `timeout`, whichever is first; at once if attention is already asked for.
    pub fn sleep(&self, timeout: Option<Duration>) {
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if self.attention.load(Ordering::SeqCst) != 0 {
            return;
        }
        *asleep = true;
        let mut asleep = match timeout {
            Some(limit) => self.wake.wait_timeout(asleep, limit).unwrap_or_else(PoisonError::into_inner).0,
            None => self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner),
        };
        *asleep = false;
    }
}

impl IrqSink for VcpuSignal {
    fn set_level(&self, line: u32, level: bool) {
        self.set_line(line, level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, time::Instant};

    #[test]
    fn a_kick_before_sleep_is_not_lost() {
        let vcpu = VcpuSignal::default();
        vcpu.kick();
        vcpu.sleep(None);
        assert!(vcpu.take_attention());
    }

    #[test]
    fn a_rising_line_wakes_the_sleeper() {
        let vcpu = Arc::new(VcpuSignal::default());
        let other = vcpu.clone();
        let thread = std::thread::spawn(move || other.sleep(Some(Duration::from_secs(20))));
        let start = Instant::now();
        std::thread::sleep(Duration::from_millis(5));
        vcpu.set_line(9, true);
        thread.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!(vcpu.lines(), 1 << 9);
        vcpu.set_line(9, false);
        vcpu.set_line(200, true); // out of range: ignored
        assert_eq!(vcpu.lines(), 0);
    }
}
