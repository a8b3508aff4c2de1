//! Character output to descriptors and files: a writer that survives whatever the other end does, a queue that
//! keeps vCPUs from waiting for it, and a log file of bounded size.

use super::char::CharOutput;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long output waits for a non-blocking descriptor that takes nothing before it drops a piece.
const STUCK_LIMIT_S: i64 = 5;
/// How long `flush` and closing wait for a queue to empty.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Output to a descriptor: a terminal, a pipe, a socket. Once the other end is gone, output is dropped.
#[derive(Debug)]
pub struct FdOutput {
    fd: OwnedFd,
    gone: bool,
}

impl FdOutput {
    /// Output to `fd`.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, gone: false }
    }

    /// Output to this process's standard output.
    pub fn stdout() -> io::Result<Self> {
        Ok(Self::new(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?))
    }

    /// Output to this process's standard error.
    pub fn stderr() -> io::Result<Self> {
        Ok(Self::new(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)?))
    }

    fn write_all(&self, mut bytes: &[u8]) -> rustix::io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.fd, bytes) {
                Ok(0) => return Err(Errno::IO),
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::INTR) => {}
                // Somebody else made the shared descriptor non-blocking (a terminal that stdin and stdout share).
                Err(Errno::AGAIN) => self.wait_writable()?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn wait_writable(&self) -> rustix::io::Result<()> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        match poll(&mut fds, Some(&Timespec { tv_sec: STUCK_LIMIT_S, tv_nsec: 0 })) {
            Ok(0) => Err(Errno::TIMEDOUT),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

impl CharOutput for FdOutput {
    fn write(&mut self, bytes: &[u8]) {
        if self.gone {
            return;
        }
        match self.write_all(bytes) {
            Ok(()) => {}
            Err(Errno::TIMEDOUT) => {
                isomer_core::guest_warn!("output is stuck: dropped up to {} bytes", bytes.len())
            }
            Err(e) => {
                self.gone = true;
                tracing::warn!("output is dropped from here on: {e}");
            }
        }
    }
}

/// Output that hands its bytes to a thread, so that devices neither wait for the host nor make a system call a byte.
pub struct QueuedOutput {
    shared: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

struct Queue {
    state: Mutex<QueueState>,
    /// For the thread: there is something to do.
    filled: Condvar,
    /// For writers: there is room, or all is written.
    drained: Condvar,
    limit_bytes: usize,
}

#[derive(Default)]
struct QueueState {
    bytes: Vec<u8>,
    writing: bool,
    closed: bool,
    abandoned: bool,
    /// Call this once there is room.
    wake: Option<Arc<dyn Fn() + Send + Sync>>,
    wanted: bool,
}

impl fmt::Debug for QueuedOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueuedOutput({} bytes waiting)", self.shared.lock().bytes.len())
    }
}

/// Lets go of a [`QueuedOutput`] whose other end is stuck, from another thread.
#[derive(Clone)]
pub struct AbandonOutput(Arc<Queue>);

impl AbandonOutput {
    /// Drops what waits and everything written later; writers that wait return.
    pub fn abandon(&self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        state.bytes.clear();
        let wake = state.wake.clone();
        drop(state);
        self.0.drained.notify_all();
        if let Some(wake) = wake {
            wake();
        }
    }
}

impl fmt::Debug for AbandonOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AbandonOutput")
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what there is room for.
    fn add(&self, state: &mut QueueState, bytes: &[u8]) -> usize {
        if state.abandoned {
            return bytes.len();
        }
        let room = self.limit_bytes.saturating_sub(state.bytes.len()).min(bytes.len());
        if state.bytes.is_empty() && room > 0 {
            self.filled.notify_one();
        }
        state.bytes.extend_from_slice(&bytes[..room]);
        room
    }

    /// The thread: writes until closed and empty.
    fn serve(&self, mut output: impl CharOutput) {
        let mut batch = Vec::new();
        let mut state = self.lock();
        loop {
            while state.bytes.is_empty() && !state.closed {
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.bytes.is_empty() {
                break;
            }
            std::mem::swap(&mut batch, &mut state.bytes);
            state.writing = true;
            let wake = std::mem::take(&mut state.wanted).then(|| state.wake.clone()).flatten();
            drop(state);
            self.drained.notify_all();
            if let Some(wake) = wake {
                wake();
            }
            output.write(&batch);
            batch.clear();
            state = self.lock();
            state.writing = false;
            self.drained.notify_all();
        }
        drop(state);
        output.flush();
    }
}

impl QueuedOutput {
    /// Queues at most `limit_bytes` for `output`, which gets a thread of its own.
    pub fn new(output: impl CharOutput + 'static, limit_bytes: usize) -> io::Result<Self> {
        let limit_bytes = limit_bytes.max(1);
        let (filled, drained) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Queue { state: Mutex::default(), filled, drained, limit_bytes });
        let queue = shared.clone();
        let thread = std::thread::Builder::new().name("output".into()).spawn(move || queue.serve(output))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The means to let go of a stuck output.
    pub fn abandoner(&self) -> AbandonOutput {
        AbandonOutput(self.shared.clone())
    }

    /// Waits until all is written; `false` when that takes too long.
    fn wait_empty(&self) -> bool {
        let deadline = Instant::now() + FLUSH_LIMIT;
        let mut state = self.shared.lock();
        while !state.abandoned && (state.writing || !state.bytes.is_empty()) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            state = self.shared.drained.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        !state.abandoned
    }
}

impl CharOutput for QueuedOutput {
    /// Waits while the queue is full.
    fn write(&mut self, mut bytes: &[u8]) {
        let mut state = self.shared.lock();
        loop {
            let taken = self.shared.add(&mut state, bytes);
            bytes = &bytes[taken..];
            if bytes.is_empty() {
                return;
            }
            state = self.shared.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn offer(&mut self, bytes: &[u8]) -> usize {
        let mut state = self.shared.lock();
        let taken = self.shared.add(&mut state, bytes);
        state.wanted |= taken < bytes.len();
        taken
    }

    fn on_room(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.shared.lock().wake = Some(wake);
    }

    fn flush(&mut self) {
        self.wait_empty();
    }
}

impl Drop for QueuedOutput {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        (state.closed, state.wake) = (true, None);
        drop(state);
        self.shared.filled.notify_one();
        // A thread stuck in the host keeps its output to itself and ends when the host lets it.
        let done = self.wait_empty();
        if let Some(thread) = self.thread.take().filter(|_| done) {
            let _ = thread.join();
        }
    }
}

/// Output to a file. When the file has grown to `limit_bytes`, it becomes `NAME.1` and a new one begins, so that a
/// guest fills at most twice that.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    len: u64,
    limit_bytes: u64,
    failed: bool,
}

impl LogFile {
    /// Opens or makes the file at `path`, readable by its owner only, and appends to it.
    pub fn open(path: &Path, limit_bytes: u64) -> io::Result<Self> {
        let file = Self::open_file(path)?;
        let len = file.metadata()?.len();
        Ok(Self { path: path.into(), file, len, limit_bytes: limit_bytes.max(1), failed: false })
    }

    fn open_file(path: &Path) -> io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt;
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        std::fs::rename(&self.path, old)?;
        self.file = Self::open_file(&self.path)?;
        self.len = 0;
        Ok(())
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.len >= self.limit_bytes {
                self.rotate()?;
            }
            let room = (self.limit_bytes - self.len).min(bytes.len() as u64) as usize;
            self.file.write_all(&bytes[..room])?;
            self.len += room as u64;
            bytes = &bytes[room..];
        }
        Ok(())
    }
}

impl CharOutput for LogFile {
    fn write(&mut self, bytes: &[u8]) {
        let result = self.append(bytes);
        if let Err(error) = &result
            && !self.failed
        {
            tracing::warn!(log = %self.path.display(), "log lines are lost: {error}");
        }
        self.failed = result.is_err();
    }
}

impl AsFd for FdOutput {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        sync::atomic::{AtomicU32, Ordering},
    };

    fn pipe() -> (File, OwnedFd) {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        (reader.into(), writer)
    }

    #[test]
    fn a_reader_that_left_is_no_error() {
        let (reader, writer) = pipe();
        let mut output = FdOutput::new(writer);
        output.write(b"x");
        drop(reader);
        output.write(b"y");
        assert!(output.gone);
        output.write(b"z");
    }

    #[test]
    fn nonblocking_descriptors_get_everything() {
        let (mut reader, writer) = pipe();
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
        let sink = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all.len()
        });
        let mut output = FdOutput::new(writer);
        output.write(&vec![7; 1 << 20]);
        drop(output);
        assert_eq!(sink.join().unwrap(), 1 << 20);
    }

    #[test]
    fn a_queue_delivers_in_order_and_holds_back() {
        let (mut reader, writer) = pipe();
        let mut output = QueuedOutput::new(FdOutput::new(writer), 1000).unwrap();
        let wakes = Arc::new(AtomicU32::new(0));
        let counter = wakes.clone();
        output.on_room(Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        }));
        // The pipe holds 64 KiB, the queue 1000 bytes and the thread one batch.
        let mut sent = 0u32;
        let mut last_taken = Instant::now();
        while last_taken.elapsed() < Duration::from_secs(1) {
            while output.offer(&sent.to_le_bytes()) == 4 {
                sent += 1;
                last_taken = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(sent > 16000, "{sent}");
        let before = wakes.load(Ordering::SeqCst);
        let mut all = vec![0; 4 * sent as usize];
        reader.read_exact(&mut all[..60000]).unwrap();
        output.flush();
        reader.read_exact(&mut all[60000..]).unwrap();
        assert!(wakes.load(Ordering::SeqCst) > before);
        let numbers = all.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap()));
        assert!(numbers.eq(0..sent));
    }

    #[test]
    fn a_stuck_queue_can_be_abandoned() {
        let (reader, writer) = pipe();
        let mut output = QueuedOutput::new(FdOutput::new(writer), 1000).unwrap();
        let abandon = output.abandoner();
        let writing = std::thread::spawn(move || {
            output.write(&vec![1; 1 << 20]);
            let start = Instant::now();
            drop(output);
            start.elapsed()
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(!writing.is_finished());
        abandon.abandon();
        assert!(writing.join().unwrap() < Duration::from_secs(1));
        drop(reader);
    }

    #[test]
    fn logs_rotate() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("console.log");
        let mut log = LogFile::open(&path, 10).unwrap();
        log.write(b"0123456789abcdefghijABC");
        assert_eq!(std::fs::read(&path).unwrap(), b"ABC");
        assert_eq!(std::fs::read(dir.path().join("console.log.1")).unwrap(), b"abcdefghij");
        drop(log);
        LogFile::open(&path, 10).unwrap().write(b"DE");
        assert_eq!(std::fs::read(&path).unwrap(), b"ABCDE");
    }
}
