//! What ends a run from outside, and in which order: the machine first, then output that nobody takes.

use isomer_devices::backend::{RawMode, output::AbandonOutput, restore_terminal};
use isomer_engine::EngineKind;
use isomer_machine::MachineEngine;
use signal_hook::{
    consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGWINCH},
    iterator::Signals,
};
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a machine that was told to stop may wait for whoever reads its output.
const OUTPUT_GRACE: Duration = Duration::from_secs(3);

/// Who asked for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A signal, by number.
    Signal(i32),
    /// The escape key.
    User,
}

impl Cause {
    /// The process's exit code, as a shell reports it.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Signal(number) => 128u8.saturating_add(u8::try_from(number).unwrap_or(127)),
            Self::User => 0,
        }
    }
}

/// The running machine's handles.
pub(crate) struct Handles {
    pub(crate) stop: Box<dyn Fn() + Send>,
    pub(crate) resize: Box<dyn Fn() + Send>,
    /// Absent in tests, which have no machine.
    pub(crate) engine: Option<MachineEngine>,
}

#[derive(Default)]
struct State {
    machine: Option<Handles>,
    cause: Option<Cause>,
    outputs: Vec<AbandonOutput>,
    raw: Option<Weak<RawMode>>,
}

/// Shared by the signal thread, the input thread and the one that runs machines, one after the other.
#[derive(Clone, Default)]
pub(crate) struct Control(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    abandoned: AtomicBool,
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, this machine is the one to stop; at once, if the end was asked for in between.
    pub(crate) fn attach(&self, handles: Handles) {
        let mut state = self.lock();
        if state.cause.is_some() {
            (handles.stop)();
        }
        (handles.resize)();
        state.machine = Some(handles);
    }

    /// The machine has ended.
    pub(crate) fn detach(&self) {
        self.lock().machine = None;
    }

    /// Output to let go of when it holds up the end.
    pub(crate) fn add_output(&self, output: AbandonOutput) {
        self.lock().outputs.push(output);
    }

    /// The terminal, to be made raw again when the process continues after a stop.
    pub(crate) fn set_raw(&self, raw: &Arc<RawMode>) {
        self.lock().raw = Some(Arc::downgrade(raw));
    }

    /// Who asked for the end, if somebody did.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.lock().cause
    }

    /// Was output that nobody took let go of?
    pub(crate) fn gave_up_output(&self) -> bool {
        self.0.abandoned.load(Ordering::Acquire)
    }

    /// Stops the machine in order. `false` if that was asked for before.
    pub(crate) fn stop(&self, cause: Cause) -> bool {
        let mut state = self.lock();
        if state.cause.is_some() {
            return false;
        }
        state.cause = Some(cause);
        if let Some(machine) = &state.machine {
            (machine.stop)();
        }
        drop(state);
        self.abandon_output_at(Instant::now());
        true
    }

    /// Lets go of output that still waits a while after `end`, when the machine is to be stopped. A vCPU may wait
    /// for room in it, and would never end.
    pub(crate) fn abandon_output_at(&self, end: Instant) {
        let control = self.clone();
        let body = move || {
            thread::sleep((end + OUTPUT_GRACE).saturating_duration_since(Instant::now()));
            control.0.abandoned.store(true, Ordering::Release);
            let outputs = control.lock().outputs.clone();
            outputs.iter().for_each(AbandonOutput::abandon);
        };
        if let Err(error) = thread::Builder::new().name("guard".into()).spawn(body) {
            tracing::warn!("no thread to guard the end: {error}");
        }
    }

    /// The running machine's engine.
    pub(crate) fn engine(&self) -> Option<EngineKind> {
        Some(self.lock().machine.as_ref()?.engine.as_ref()?.kind())
    }

    /// Lets the guest go on with the next engine; what to tell the user.
    pub(crate) fn next_engine(&self) -> String {
        let engine = self.lock().machine.as_ref().and_then(|machine| machine.engine.clone());
        let Some(engine) = engine else { return "no machine is running".to_owned() };
        let next = match engine.kind() {
            EngineKind::Jit => EngineKind::Interpreter,
            EngineKind::Interpreter => EngineKind::Reference,
            _ => EngineKind::Jit,
        };
        match engine.switch(next) {
            Ok(()) => format!("engine: {}", next.name()),
            Err(error) => format!("engine: still {}, for {error}", engine.kind().name()),
        }
    }

    fn resize(&self) {
        if let Some(machine) = &self.lock().machine {
            (machine.resize)();
        }
    }

    fn continued(&self) {
        let raw = self.lock().raw.as_ref().and_then(Weak::upgrade);
        if let Some(raw) = raw {
            let _ = raw.reapply();
        }
        self.resize();
    }

    /// Starts the thread that takes this process's signals. Signals that our parent has us ignore (`nohup`, `&` in a
    /// script) stay ignored.
    pub(crate) fn handle_signals(&self) -> io::Result<()> {
        let ignored = ignored_signals();
        let ends = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| ignored >> (signal - 1) & 1 == 0);
        let mut signals = Signals::new(ends.chain([SIGWINCH, SIGCONT]))?;
        let control = self.clone();
        let body = move || {
            for signal in signals.forever() {
                match signal {
                    SIGWINCH => control.resize(),
                    SIGCONT => control.continued(),
                    signal if control.stop(Cause::Signal(signal)) => {}
                    // The second one: whatever holds up the end, no more of it.
                    signal => {
                        restore_terminal();
                        std::process::exit(Cause::Signal(signal).exit_code().into());
                    }
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(body).map(drop)
    }
}

/// A bit for each signal that was ignored when we started; none where the host does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    parse_ignored(&status)
}

fn parse_ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn the_end_reaches_every_machine_once_asked_for() {
        let (stops, sizes) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let handles = || {
            let (stops, sizes) = (stops.clone(), sizes.clone());
            let count = |counter: Arc<AtomicU32>| {
                Box::new(move || {
                    counter.fetch_add(1, Ordering::SeqCst);
                })
            };
            Handles { stop: count(stops), resize: count(sizes), engine: None }
        };
        let control = Control::default();
        control.attach(handles());
        assert_eq!(
            (control.cause(), stops.load(Ordering::SeqCst), sizes.load(Ordering::SeqCst)),
            (None, 0, 1)
        );
        assert!(control.stop(Cause::Signal(SIGTERM)));
        assert!(!control.stop(Cause::User));
        assert_eq!((control.cause(), stops.load(Ordering::SeqCst)), (Some(Cause::Signal(15)), 1));
        control.detach();
        control.attach(handles());
        assert_eq!(stops.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn exit_codes_are_the_shells() {
        assert_eq!(Cause::Signal(SIGINT).exit_code(), 130);
        assert_eq!(Cause::Signal(SIGTERM).exit_code(), 143);
        assert_eq!(Cause::User.exit_code(), 0);
    }

    #[test]
    fn ignored_signals_are_read() {
        assert_eq!(parse_ignored("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"), 0x1001);
        assert_eq!(parse_ignored("SigIgn:\tzz"), 0);
        // Rust ignores SIGPIPE in every program.
        #[cfg(target_os = "linux")]
        assert_ne!(ignored_signals() >> 12 & 1, 0);
    }
}
