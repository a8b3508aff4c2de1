//! Where a running machine's terminals lead: to the log, and to whoever is attached.

use isomer_devices::backend::{CharOutput, FdOutput, QueuedOutput};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::Write,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Bytes that somebody who attaches sees of what was before.
const KEPT_BYTES: usize = 4 << 10;
/// Bytes that may wait for one who is attached.
const QUEUE_BYTES: usize = 256 << 10;
/// A log that has become this long begins anew; the one before is kept.
const LOG_BYTES: u64 = 8 << 20;

/// A terminal's output. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    log: Option<Log>,
    kept: VecDeque<u8>,
    attached: Option<(u64, QueuedOutput)>,
    /// Numbers those who attach.
    next: u64,
    /// The guest waits for whoever is attached, instead of losing what that one does not take in time.
    waits: bool,
    wake: Option<Arc<dyn Fn() + Send + Sync>>,
}

struct Log {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Log {
    fn open(path: PathBuf) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(&path)?;
        let len = file.metadata()?.len();
        Ok(Self { path, file, len })
    }

    /// A guest can write as much as it likes: two files are all it gets.
    fn write(&mut self, bytes: &[u8]) {
        if self.len > LOG_BYTES {
            let _ = fs::rename(&self.path, self.path.with_extension("log.old"));
            match Self::open(self.path.clone()) {
                Ok(log) => *self = log,
                Err(error) => tracing::warn!("the log cannot begin anew: {error}"),
            }
        }
        if self.file.write_all(bytes).is_ok() {
            self.len += bytes.len() as u64;
        }
    }
}

impl Hub {
    /// A console, which is logged.
    pub(crate) fn console(log: PathBuf) -> std::io::Result<Self> {
        let hub = Self::default();
        hub.lock().log = Some(Log::open(log)?);
        Ok(hub)
    }

    /// A terminal that belongs to whoever is attached.
    pub(crate) fn terminal() -> Self {
        let hub = Self::default();
        hub.lock().waits = true;
        hub
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Output goes to `stream` as well, from now on and in place of whoever was attached; `None` if that fails.
    pub(crate) fn attach(&self, stream: &UnixStream) -> Option<u64> {
        let output = FdOutput::new(stream.try_clone().ok()?.into());
        let mut queue = QueuedOutput::new(output, QUEUE_BYTES).ok()?;
        let mut state = self.lock();
        let before: Vec<u8> = state.kept.iter().copied().collect();
        queue.offer(&before);
        if let Some(wake) = &state.wake {
            queue.on_room(wake.clone());
        }
        state.next += 1;
        let number = state.next;
        let old = state.attached.replace((number, queue));
        let wake = state.wake.clone();
        drop(state);
        // Without the lock: it waits for its thread.
        drop(old);
        if let Some(wake) = wake {
            wake();
        }
        Some(number)
    }

    /// Whoever attached as `number` is gone, and what was said to that one is nobody else's.
    pub(crate) fn detach(&self, number: u64) {
        let mut state = self.lock();
        let gone = state.attached.take_if(|(known, _)| *known == number);
        if gone.is_some() && state.waits {
            state.kept.clear();
        }
        let wake = state.wake.clone();
        drop(state);
        drop(gone);
        if let Some(wake) = wake {
            wake();
        }
    }

    /// Is somebody attached?
    pub(crate) fn is_attached(&self) -> bool {
        self.lock().attached.is_some()
    }
}

impl CharOutput for Hub {
    fn write(&mut self, bytes: &[u8]) {
        self.offer(bytes);
    }

    fn offer(&mut self, bytes: &[u8]) -> usize {
        let mut state = self.lock();
        let taken = match &mut state.attached {
            Some((_, queue)) => queue.offer(bytes),
            None => bytes.len(),
        };
        let taken = if state.waits { taken } else { bytes.len() };
        let bytes = &bytes[..taken];
        if let Some(log) = &mut state.log {
            log.write(bytes);
        }
        let kept = &bytes[bytes.len().saturating_sub(KEPT_BYTES)..];
        let excess = (state.kept.len() + kept.len()).saturating_sub(KEPT_BYTES);
        state.kept.drain(..excess);
        state.kept.extend(kept);
        taken
    }

    fn on_room(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        let mut state = self.lock();
        if let Some((_, queue)) = &mut state.attached {
            queue.on_room(wake.clone());
        }
        state.wake = Some(wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn whoever_attaches_sees_what_was_and_what_comes() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("m.log");
        let mut hub = Hub::console(log.clone()).unwrap();
        hub.write(b"login: ");
        let (mut here, there) = UnixStream::pair().unwrap();
        let number = hub.attach(&there).unwrap();
        assert!(hub.is_attached());
        hub.write(b"root\n");
        let mut seen = [0; 12];
        here.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"login: root\n");
        hub.detach(number);
        hub.write(b"later");
        assert!(!hub.is_attached());
        assert_eq!(fs::read(&log).unwrap(), b"login: root\nlater");
    }

    #[test]
    fn a_console_never_waits_and_a_terminal_does() {
        let dir = tempfile::tempdir().unwrap();
        let (_here, there) = UnixStream::pair().unwrap();
        let big = vec![b'x'; 4 << 20];
        let mut console = Hub::console(dir.path().join("m.log")).unwrap();
        console.attach(&there).unwrap();
        assert_eq!(console.offer(&big), big.len());
        let mut terminal = Hub::terminal();
        assert_eq!(terminal.offer(&big), big.len(), "to nobody");
        let number = terminal.attach(&there).unwrap();
        assert!(terminal.offer(&big) < big.len());
        drop(there);
        drop(_here);
        terminal.detach(number);
        assert_eq!(terminal.offer(&big), big.len());
    }

    #[test]
    fn a_log_stays_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("m.log");
        let mut hub = Hub::console(log.clone()).unwrap();
        let block = vec![b'x'; 1 << 20];
        (0..20).for_each(|_| hub.write(&block));
        let bytes: u64 =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= 2 * LOG_BYTES + (2 << 20), "{bytes}");
    }
}
