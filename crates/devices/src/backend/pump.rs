//! Brings a host descriptor's bytes (standard input, a pipe, a socket) to a device, no faster than it takes them.

use super::{
    char::{CharInput, InputWaker},
    escape::{ConsoleCommand, EscapeFilter, Step},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use std::{
    fmt, io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Bytes read at a time.
const BLOCK_BYTES: usize = 4096;
/// Bytes kept for a device that takes none, where reading must go on so that the escape key works.
const TYPE_AHEAD_BYTES: usize = 64 << 10;
/// How long closing waits for the thread. Only a descriptor that somebody else empties between poll and read keeps it.
const STOP_LIMIT: Duration = Duration::from_millis(200);

/// What a pump tells its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PumpEvent {
    /// The user asked for something.
    Command(ConsoleCommand),
    /// The descriptor ended, and the device has taken everything before its end.
    EndOfInput,
}

/// A thread that reads a descriptor for a device; dropping this stops it.
pub struct InputPump {
    waker: InputWaker,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for InputPump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InputPump")
    }
}

impl InputPump {
    /// Starts to read `fd` for `device`. `waker` must be woken when `device` has room after it took less than it was
    /// given. With `escape` (a terminal), keys are looked at even while the device takes none; without, what the
    /// device does not take stays in the host's pipe. `on_event` is called on the pump's thread.
    pub fn start(
        fd: OwnedFd,
        escape: Option<EscapeFilter>,
        device: impl CharInput + 'static,
        waker: InputWaker,
        on_event: impl FnMut(PumpEvent) + Send + 'static,
    ) -> io::Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            fd,
            escape,
            device: Box::new(device),
            waker: waker.clone(),
            stopped: stopped.clone(),
            on_event: Box::new(on_event),
            pending: Vec::new(),
            ended: false,
        };
        let thread = std::thread::Builder::new().name("input".into()).spawn(move || reader.run())?;
        Ok(Self { waker, stopped, thread: Some(thread) })
    }

    /// As [`Self::start`] on this process's standard input.
    pub fn stdin(
        escape: Option<EscapeFilter>,
        device: impl CharInput + 'static,
        waker: InputWaker,
        on_event: impl FnMut(PumpEvent) + Send + 'static,
    ) -> io::Result<Self> {
        let fd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        Self::start(fd, escape, device, waker, on_event)
    }
}

impl Drop for InputPump {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.waker.wake();
        let Some(thread) = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id())
        else {
            return;
        };
        let deadline = Instant::now() + STOP_LIMIT;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}

struct Reader {
    fd: OwnedFd,
    escape: Option<EscapeFilter>,
    device: Box<dyn CharInput>,
    waker: InputWaker,
    stopped: Arc<AtomicBool>,
    on_event: Box<dyn FnMut(PumpEvent) + Send>,
    pending: Vec<u8>,
    ended: bool,
}

impl Reader {
    fn run(mut self) {
        while !self.stopped.load(Ordering::Acquire) {
            if !self.pending.is_empty() {
                let taken = self.device.receive(&self.pending).min(self.pending.len());
                self.pending.drain(..taken);
            }
            if self.ended && self.pending.is_empty() {
                self.device.end_of_input();
                (self.on_event)(PumpEvent::EndOfInput);
                return;
            }
            if self.wait() {
                self.read();
            }
        }
    }

    /// Waits for input that is wanted, for room in the device, or for the end; tells whether there is input.
    fn wait(&self) -> bool {
        let wanted = !self.ended && (self.escape.is_some() || self.pending.is_empty());
        let mut fds = [PollFd::new(&self.waker, PollFlags::IN), PollFd::new(&self.fd, PollFlags::IN)];
        let count = if wanted { 2 } else { 1 };
        if poll(&mut fds[..count], None).is_err() {
            return false;
        }
        if !fds[0].revents().is_empty() {
            self.waker.clear();
        }
        wanted && !fds[1].revents().is_empty()
    }

    fn read(&mut self) {
        let mut block = [0; BLOCK_BYTES];
        match rustix::io::read(&self.fd, &mut block) {
            // A terminal that hung up answers EIO, a closed standard input EBADF: both are an end.
            Ok(0) => self.ended = true,
            Ok(n) => block[..n].iter().for_each(|&byte| self.take(byte)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.ended = true,
        }
    }

    fn take(&mut self, byte: u8) {
        match self.escape.as_mut().map_or(Step::Pass(byte), |escape| escape.feed(byte)) {
            Step::Pass(byte) if self.pending.len() < TYPE_AHEAD_BYTES => self.pending.push(byte),
            Step::Pass(_) | Step::Swallow => {}
            Step::Command(command) => (self.on_event)(PumpEvent::Command(command)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        io::Write,
        sync::{Condvar, Mutex, mpsc},
    };

    /// A device with a small buffer.
    #[derive(Default)]
    struct Small {
        state: Mutex<(Vec<u8>, bool)>,
        changed: Condvar,
    }

    const ROOM: usize = 16;

    impl CharInput for Arc<Small> {
        fn receive(&self, bytes: &[u8]) -> usize {
            let mut state = self.state.lock().unwrap();
            let n = (ROOM - state.0.len()).min(bytes.len());
            state.0.extend(&bytes[..n]);
            self.changed.notify_all();
            n
        }
        fn end_of_input(&self) {
            self.state.lock().unwrap().1 = true;
            self.changed.notify_all();
        }
    }

    impl Small {
        /// Waits for bytes or the end, and takes what there is.
        fn take(&self) -> Vec<u8> {
            let state = self.state.lock().unwrap();
            let wait =
                self.changed.wait_timeout_while(state, Duration::from_secs(20), |s| s.0.is_empty() && !s.1);
            std::mem::take(&mut wait.unwrap().0.0)
        }
    }

    fn start(escape: Option<EscapeFilter>) -> (File, Arc<Small>, InputPump, mpsc::Receiver<PumpEvent>) {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (device, (sender, events)) = (Arc::new(Small::default()), mpsc::channel());
        let on_event = move |event| {
            let _ = sender.send(event);
        };
        let waker = InputWaker::new().unwrap();
        let pump = InputPump::start(reader, escape, device.clone(), waker, on_event).unwrap();
        (writer.into(), device, pump, events)
    }

    #[test]
    fn a_slow_device_gets_everything_then_the_end() {
        let (mut writer, device, pump, events) = start(None);
        let sent: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        let copy = sent.clone();
        let thread = std::thread::spawn(move || writer.write_all(&copy).unwrap());
        let mut received = Vec::new();
        while received.len() < sent.len() {
            received.extend(device.take());
            pump.waker.wake();
        }
        assert!(received == sent);
        assert_eq!(events.recv_timeout(Duration::from_secs(20)), Ok(PumpEvent::EndOfInput));
        assert!(device.state.lock().unwrap().1);
        thread.join().unwrap();
    }

    #[test]
    fn the_escape_key_works_while_the_device_is_stuck() {
        let (mut writer, device, pump, events) = start(Some(EscapeFilter::default()));
        writer.write_all(&[b'.'; 5000]).unwrap();
        writer.write_all(b"\x01x").unwrap();
        let quit = PumpEvent::Command(ConsoleCommand::Quit);
        assert_eq!(events.recv_timeout(Duration::from_secs(20)), Ok(quit));
        assert_eq!(device.take(), [b'.'; ROOM]);
        let start = Instant::now();
        drop(pump);
        assert!(start.elapsed() < STOP_LIMIT);
    }
}
