//! The host's ends of the guest's console and of its command's streams: the terminal, pipes, or memory.

use crate::{
    machines::Hub,
    signals::{Cause, Control},
};
use isomer_devices::backend::{
    Capture, CharInput, CharOutput, ConsoleCommand, EscapeFilter, FdOutput, InputPump, InputWaker, PumpEvent,
    QueuedOutput, RawMode,
};
use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes that may wait for the host.
const QUEUE_BYTES: usize = 64 << 10;
/// Bytes kept of each stream for the JSON result, the newest.
pub(crate) const KEPT_BYTES: usize = 16 << 20;
/// The key a terminal's driver takes for the end of input.
const CTRL_D: u8 = 0x04;
/// How often the end of input is repeated: whoever reads first may not be the shell.
const END_INTERVAL: Duration = Duration::from_secs(1);

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where one output of the guest goes. It outlives machines, so that a reset loses nothing.
#[derive(Clone)]
pub(crate) enum Sink {
    /// To a descriptor, through a queue.
    Host(HostSink),
    /// Into memory.
    Kept(KeptSink),
    /// To the log, and to whoever is attached.
    Hub(Hub),
}

#[derive(Clone)]
pub(crate) struct HostSink {
    queue: Arc<Mutex<QueuedOutput>>,
    /// A command's stream: what does not fit must wait here, for the guest may power off with the rest in its own
    /// queue. A console leaves the rest to the guest.
    waits: bool,
    accepted: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
}

#[derive(Clone)]
pub(crate) struct KeptSink {
    capture: Capture,
    total_bytes: Arc<AtomicU64>,
}

/// Counts what has left for the host.
struct Counted {
    output: FdOutput,
    written: Arc<AtomicU64>,
}

impl CharOutput for Counted {
    fn write(&mut self, bytes: &[u8]) {
        self.output.write(bytes);
        self.written.fetch_add(bytes.len() as u64, Ordering::AcqRel);
    }
}

impl Sink {
    /// Output to `output`.
    pub(crate) fn host(output: FdOutput, waits: bool, control: &Control) -> io::Result<Self> {
        let written = Arc::<AtomicU64>::default();
        let queue = QueuedOutput::new(Counted { output, written: written.clone() }, QUEUE_BYTES)?;
        control.add_output(queue.abandoner());
        Ok(Self::Host(HostSink {
            queue: Arc::new(Mutex::new(queue)),
            waits,
            accepted: Arc::default(),
            written,
        }))
    }

    /// Output kept in memory, the newest `limit_bytes`.
    pub(crate) fn kept(limit_bytes: usize) -> Self {
        Self::Kept(KeptSink { capture: Capture::new(limit_bytes), total_bytes: Arc::default() })
    }

    /// Waits until the host has taken everything, for as long as it takes; less, if the end was asked for.
    pub(crate) fn drain(&self, control: &Control) {
        let Self::Host(sink) = self else { return };
        while sink.written.load(Ordering::Acquire) < sink.accepted.load(Ordering::Acquire)
            && !control.gave_up_output()
        {
            lock(&sink.queue).flush();
        }
    }

    /// What was kept as text, and whether its beginning is missing.
    pub(crate) fn text(&self) -> (String, bool) {
        match self {
            Self::Host(_) | Self::Hub(_) => (String::new(), false),
            Self::Kept(sink) => {
                let bytes = sink.capture.bytes();
                let truncated = sink.total_bytes.load(Ordering::Acquire) > bytes.len() as u64;
                (String::from_utf8_lossy(&bytes).into_owned(), truncated)
            }
        }
    }
}

impl CharOutput for Sink {
    fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Host(sink) => {
                sink.accepted.fetch_add(bytes.len() as u64, Ordering::AcqRel);
                lock(&sink.queue).write(bytes);
            }
            Self::Kept(sink) => {
                sink.total_bytes.fetch_add(bytes.len() as u64, Ordering::AcqRel);
                sink.capture.write(bytes);
            }
            Self::Hub(hub) => hub.write(bytes),
        }
    }

    fn offer(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Host(sink) if !sink.waits => {
                let taken = lock(&sink.queue).offer(bytes);
                sink.accepted.fetch_add(taken as u64, Ordering::AcqRel);
                taken
            }
            Self::Hub(hub) => hub.offer(bytes),
            Self::Host(_) | Self::Kept(_) => {
                self.write(bytes);
                bytes.len()
            }
        }
    }

    fn on_room(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        match self {
            Self::Host(sink) => lock(&sink.queue).on_room(wake),
            Self::Hub(hub) => hub.on_room(wake),
            Self::Kept(_) => {}
        }
    }

    fn flush(&mut self) {
        if let Self::Host(sink) = self {
            lock(&sink.queue).flush();
        }
    }
}

/// Hands input to whichever machine runs now.
#[derive(Clone)]
pub(crate) struct Switch(Arc<SwitchShared>);

struct SwitchShared {
    state: Mutex<SwitchState>,
    waker: InputWaker,
    /// The guest's terminal cannot be closed: say the end with this key.
    end_key: Option<u8>,
    closing: AtomicBool,
}

#[derive(Default)]
struct SwitchState {
    device: Option<Arc<dyn CharInput>>,
    ended: bool,
}

impl Switch {
    pub(crate) fn new(waker: InputWaker, end_key: Option<u8>) -> Self {
        Self(Arc::new(SwitchShared {
            state: Mutex::default(),
            waker,
            end_key,
            closing: AtomicBool::new(false),
        }))
    }

    fn device(&self) -> Option<Arc<dyn CharInput>> {
        lock(&self.0.state).device.clone()
    }

    /// Input goes to `device` from now on; if it was over already, so it is for this one.
    pub(crate) fn connect(&self, device: Arc<dyn CharInput>) {
        let mut state = lock(&self.0.state);
        state.device = Some(device.clone());
        // Where a key says the end, it goes on being sent; a device told of the end would take no more of it.
        let ended = state.ended && self.0.end_key.is_none();
        drop(state);
        if ended {
            device.end_of_input();
        }
        self.0.waker.wake();
    }

    /// Input waits for the next machine.
    pub(crate) fn disconnect(&self) {
        lock(&self.0.state).device = None;
    }

    fn close(&self) {
        self.0.closing.store(true, Ordering::Release);
    }
}

impl CharInput for Switch {
    fn receive(&self, bytes: &[u8]) -> usize {
        self.device().map_or(0, |device| device.receive(bytes))
    }

    fn end_of_input(&self) {
        let mut state = lock(&self.0.state);
        state.ended = true;
        let device = state.device.clone();
        drop(state);
        let Some(key) = self.0.end_key else {
            if let Some(device) = device {
                device.end_of_input();
            }
            return;
        };
        // On the pump's thread, which has nothing left to do.
        let mut next = Instant::now();
        while !self.0.closing.load(Ordering::Acquire) {
            if Instant::now() >= next {
                self.receive(&[key]);
                next = Instant::now() + END_INTERVAL;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The user's side while machines run. Dropping it restores the terminal.
pub(crate) struct Console {
    switch: Switch,
    raw: Option<Arc<RawMode>>,
    pump: Option<InputPump>,
}

/// How standard input is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A terminal that the guest gets whole, with an escape key.
    Terminal,
    /// Bytes for the guest's console; their end becomes Ctrl-D for the embedded guest's shell.
    Console { end_key: bool },
    /// A command's standard input.
    Command,
    /// Nobody is there: whoever attaches types.
    Nobody,
}

impl Console {
    /// Starts to read standard input. `status` makes the line that Ctrl-A c shows.
    pub(crate) fn open(
        input: Input,
        waker: InputWaker,
        control: &Control,
        status: impl Fn() -> String + Send + 'static,
    ) -> io::Result<Self> {
        let end_key = (input == Input::Console { end_key: true }).then_some(CTRL_D);
        let switch = Switch::new(waker.clone(), end_key);
        let raw = match input {
            Input::Terminal => Some(Arc::new(RawMode::enter(rustix::stdio::stdin())?)),
            Input::Console { .. } | Input::Command | Input::Nobody => None,
        };
        if let Some(raw) = &raw {
            control.set_raw(raw);
        }
        if input == Input::Nobody {
            return Ok(Self { switch, raw, pump: None });
        }
        let escape = raw.is_some().then(EscapeFilter::default);
        let stopper = control.clone();
        let on_event = move |event| match event {
            PumpEvent::Command(ConsoleCommand::Quit) => {
                stopper.stop(Cause::User);
            }
            PumpEvent::Command(ConsoleCommand::Help) => say(KEYS),
            PumpEvent::Command(ConsoleCommand::Monitor) => say(&status()),
            PumpEvent::Command(ConsoleCommand::Engine) => say(&stopper.next_engine()),
            PumpEvent::EndOfInput => tracing::debug!("standard input has ended"),
        };
        let pump = InputPump::stdin(escape, switch.clone(), waker, on_event)?;
        Ok(Self { switch, raw, pump: Some(pump) })
    }

    /// Where input goes.
    pub(crate) fn switch(&self) -> &Switch {
        &self.switch
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.switch.close();
        self.pump = None;
        self.raw = None;
    }
}

const KEYS: &str = "\
Ctrl-A x: leave
Ctrl-A c: show a status line; the guest keeps running
Ctrl-A e: go on with the next engine (jit, interp, reference); the guest keeps running
Ctrl-A h: show these keys
Ctrl-A Ctrl-A: send Ctrl-A to the guest";

/// Shows lines of ours between the guest's.
fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = writeln!(stderr);
    for line in text.lines() {
        let _ = writeln!(stderr, "isomer: {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Read};

    fn pipe() -> (File, FdOutput) {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        (reader.into(), FdOutput::new(writer))
    }

    #[test]
    fn a_stream_loses_nothing_to_a_slow_reader() {
        let (mut reader, output) = pipe();
        let control = Control::default();
        let mut sink = Sink::host(output, true, &control).unwrap();
        let sent: Vec<u8> = (0..1u32 << 20).map(|i| (i % 251) as u8).collect();
        let expected = sent.clone();
        let writer = thread::spawn(move || {
            assert_eq!(sink.offer(&sent), sent.len());
            sink.drain(&control);
        });
        thread::sleep(Duration::from_millis(50));
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        writer.join().unwrap();
        assert!(all == expected);
    }

    #[test]
    fn an_unread_stream_does_not_hold_up_the_end() {
        let (reader, output) = pipe();
        let control = Control::default();
        let mut sink = Sink::host(output, true, &control).unwrap();
        let copy = control.clone();
        let writer = thread::spawn(move || {
            sink.write(&vec![0; 1 << 20]);
            sink.drain(&copy);
        });
        thread::sleep(Duration::from_millis(50));
        assert!(!writer.is_finished());
        control.stop(Cause::User);
        writer.join().unwrap();
        drop(reader);
    }

    #[test]
    fn consoles_leave_the_rest_to_the_guest() {
        let (_reader, output) = pipe();
        let mut sink = Sink::host(output, false, &Control::default()).unwrap();
        let big = vec![0; 4 * QUEUE_BYTES];
        assert_eq!(sink.offer(&big), QUEUE_BYTES);
    }

    #[test]
    fn kept_output_says_whether_it_is_whole() {
        let mut sink = Sink::kept(4);
        assert_eq!(sink.offer(b"ab\xff"), 3);
        assert_eq!(sink.text(), ("ab\u{fffd}".into(), false));
        sink.write(b"cd");
        assert_eq!(sink.text(), ("b\u{fffd}cd".into(), true));
    }

    #[derive(Default)]
    struct Device(Mutex<(Vec<u8>, u32)>);

    impl CharInput for Device {
        fn receive(&self, bytes: &[u8]) -> usize {
            lock(&self.0).0.extend(bytes);
            bytes.len()
        }
        fn end_of_input(&self) {
            lock(&self.0).1 += 1;
        }
    }

    #[test]
    fn input_follows_the_machine() {
        let switch = Switch::new(InputWaker::new().unwrap(), None);
        assert_eq!(switch.receive(b"early"), 0);
        let (first, second) = (Arc::new(Device::default()), Arc::new(Device::default()));
        switch.connect(first.clone());
        assert_eq!(switch.receive(b"one"), 3);
        switch.disconnect();
        assert_eq!(switch.receive(b"between"), 0);
        switch.end_of_input();
        switch.connect(second.clone());
        assert_eq!(*lock(&first.0), (b"one".to_vec(), 0));
        assert_eq!(*lock(&second.0), (Vec::new(), 1));
    }

    #[test]
    fn a_terminal_learns_of_the_end_by_key_until_it_goes() {
        let switch = Switch::new(InputWaker::new().unwrap(), Some(CTRL_D));
        let device = Arc::new(Device::default());
        let copy = switch.clone();
        let pump = thread::spawn(move || copy.end_of_input());
        // The machine may come after the end, as with /dev/null.
        while !lock(&switch.0.state).ended {
            thread::yield_now();
        }
        switch.connect(device.clone());
        thread::sleep(2 * END_INTERVAL + Duration::from_millis(200));
        switch.close();
        pump.join().unwrap();
        let (keys, ends) = &*lock(&device.0);
        assert!(keys.len() >= 2 && keys.iter().all(|&key| key == CTRL_D));
        assert_eq!(*ends, 0);
    }
}
