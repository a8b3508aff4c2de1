//! Host ends of character devices (serial ports, consoles): where bytes go, and how they arrive.
//!
//! Output is a [`CharOutput`] the device is given. Input goes the other way round: whoever reads the host's
//! side calls the device's own `receive`, which takes what it has room for; an [`InputWaker`] tells the
//! reader when there is room again.

use std::{
    collections::VecDeque,
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Where a character device's output goes. Called with a lock of the device held, often one byte at a time.
pub trait CharOutput: Send {
    /// Takes all of `bytes`; what the host refuses is dropped, never reported to the guest.
    fn write(&mut self, bytes: &[u8]);

    /// Takes what there is room for without waiting, and returns how much; for devices that can hold the rest back.
    /// After a short count, the callback of [`Self::on_room`] is called once there is room again.
    fn offer(&mut self, bytes: &[u8]) -> usize {
        self.write(bytes);
        bytes.len()
    }

    /// Sets what to call when there is room after a short [`Self::offer`]. Called without any lock of the output held.
    fn on_room(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        let _ = wake;
    }

    /// Waits until everything written has reached the host, as far and as fast as the host lets it.
    fn flush(&mut self) {}
}

impl<T: CharOutput + ?Sized> CharOutput for Box<T> {
    fn write(&mut self, bytes: &[u8]) {
        (**self).write(bytes);
    }
    fn offer(&mut self, bytes: &[u8]) -> usize {
        (**self).offer(bytes)
    }
    fn on_room(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        (**self).on_room(wake);
    }
    fn flush(&mut self) {
        (**self).flush();
    }
}

/// A device as somebody who brings it input sees it.
pub trait CharInput: Send + Sync {
    /// Takes what it has room for, and returns how much.
    fn receive(&self, bytes: &[u8]) -> usize;
    /// Nothing will follow.
    fn end_of_input(&self) {}
}

impl<F: Fn(&[u8]) -> usize + Send + Sync> CharInput for F {
    fn receive(&self, bytes: &[u8]) -> usize {
        self(bytes)
    }
}

/// Tells whoever brings input that the device has room again. Cheap to clone and to call, from any thread.
#[derive(Clone, Debug)]
pub struct InputWaker(Arc<OwnedFd>);

impl InputWaker {
    /// A new one, backed by an event descriptor.
    pub fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// There is room.
    pub fn wake(&self) {
        // Fails only when the counter is full, and then the sleeper is awake anyway.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Forgets wake-ups so far.
    pub(super) fn clear(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0u8; 8]);
    }
}

impl AsFd for InputWaker {
    /// Readable while a wake-up is pending.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Output that goes nowhere.
#[derive(Debug, Default)]
pub struct Discard;

impl CharOutput for Discard {
    fn write(&mut self, _bytes: &[u8]) {}
}

/// Output copied to several places (the terminal and a log); as slow as the slowest.
pub struct Tee(pub Vec<Box<dyn CharOutput>>);

impl CharOutput for Tee {
    fn write(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|output| output.write(bytes));
    }
    fn flush(&mut self) {
        self.0.iter_mut().for_each(|output| output.flush());
    }
}

impl fmt::Debug for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tee({})", self.0.len())
    }
}

/// Output kept in memory, the newest `limit_bytes` of it: for `logs`, and for tests that wait for a prompt.
/// Clones share the contents.
#[derive(Clone, Debug)]
pub struct Capture(Arc<CaptureShared>);

#[derive(Debug)]
struct CaptureShared {
    bytes: Mutex<VecDeque<u8>>,
    grown: Condvar,
    limit_bytes: usize,
}

impl Capture {
    /// An empty one.
    pub fn new(limit_bytes: usize) -> Self {
        Self(Arc::new(CaptureShared { bytes: Mutex::default(), grown: Condvar::new(), limit_bytes }))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().iter().copied().collect()
    }

    /// What is kept, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Waits until `text` is among what is kept; `false` after `timeout`.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut bytes = self.lock();
        loop {
            let found = bytes.make_contiguous().windows(text.len().max(1)).any(|w| w == text.as_bytes());
            if found || text.is_empty() {
                return true;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            bytes = self.0.grown.wait_timeout(bytes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl CharOutput for Capture {
    fn write(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(self.0.limit_bytes)..];
        let mut all = self.lock();
        let excess = (all.len() + kept.len()).saturating_sub(self.0.limit_bytes);
        all.drain(..excess);
        all.extend(kept);
        drop(all);
        self.0.grown.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_keeps_the_newest() {
        let capture = Capture::new(8);
        let mut output = capture.clone();
        output.write(b"abcdef");
        output.write(b"ghij");
        assert_eq!(capture.text(), "cdefghij");
        output.write(b"0123456789");
        assert_eq!(capture.text(), "23456789");
        assert!(capture.wait_for("456", Duration::ZERO));
        assert!(!capture.wait_for("45x", Duration::from_millis(1)));
        capture.clear();
        let waiter = std::thread::spawn(move || capture.wait_for("login:", Duration::from_secs(20)));
        output.write(b"log");
        output.write(b"in: ");
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn a_tee_writes_everywhere() {
        let (a, b) = (Capture::new(8), Capture::new(8));
        let mut tee = Tee(vec![Box::new(a.clone()), Box::new(b.clone()), Box::new(Discard)]);
        assert_eq!(tee.offer(b"both"), 4);
        assert_eq!((a.text(), b.text()), ("both".into(), "both".into()));
    }
}
