//! A machine that runs: its threads, and how it ends.

use crate::{Console, GuestPort, HostPort, MachineEngine, MachineError, Spec, boards, profile::Sampler};
use isomer_core::{Bus, Timers, bus::SharedDevice};
use isomer_devices::{
    backend::char::{CharInput, CharOutput, InputWaker},
    test_finisher::PowerEvent,
};
use isomer_engine::{Control, Controls, Exit, Samples, Stats, Vcpu};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What the host gives a machine.
pub struct Host {
    /// Where console output goes.
    pub console: Box<dyn CharOutput>,
    /// A command's standard output and standard error, where the embedded guest runs one.
    pub streams: Option<Streams>,
    /// Woken when the console (or, with a command, its standard input) takes input again.
    pub waker: InputWaker,
    /// Further ports, for programs of the host.
    pub ports: Vec<HostPort>,
}

/// Where a command's output goes.
pub struct Streams {
    /// Standard output.
    pub stdout: Box<dyn CharOutput>,
    /// Standard error.
    pub stderr: Box<dyn CharOutput>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Host")
    }
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset: make it again from the same spec.
    Reset,
    /// The guest reported failure with this code.
    Failed(u16),
    /// The command run in the embedded guest ended with this exit code.
    Command(i32),
    /// The guest cannot continue.
    Wedged {
        /// CPU number.
        cpu: usize,
        /// Where.
        pc: u64,
        /// The trap it repeats.
        trap: String,
        /// Its registers.
        registers: String,
    },
    /// The time limit passed.
    TimedOut,
    /// Somebody asked us to stop.
    Stopped,
    /// A vCPU's thread failed: a bug.
    Crashed(String),
}

/// What happens to a machine from inside.
#[derive(Debug)]
pub enum Event {
    /// The guest used a power register or firmware call.
    Power(PowerEvent),
    /// The embedded guest told its command's exit code.
    CommandDone(i32),
    /// A vCPU stopped for good.
    Wedged(Outcome),
    /// Stop at once.
    Stop,
}

/// What a board hands to the machine.
pub struct Parts {
    /// The vCPUs, in order.
    pub vcpus: Vec<Box<dyn Vcpu>>,
    /// Their common controls.
    pub control: Arc<dyn Controls>,
    /// Their engine.
    pub engine: MachineEngine,
    /// All devices by name, for reset, state and shutdown.
    pub devices: Vec<(String, SharedDevice)>,
    /// Takes console input (or the command's standard input).
    pub input: Arc<dyn CharInput>,
    /// Tells the guest of the terminal's size.
    pub resize: Option<Box<dyn Fn(u16, u16) + Send + Sync>>,
    /// The host's ends of its ports, in their order.
    pub ports: Vec<GuestPort>,
    /// The guest runs one command and tells its exit code.
    pub runs_command: bool,
    /// Presses the power button, where the board has one.
    pub power_button: Option<Box<dyn Fn() + Send + Sync>>,
    /// The timer thread.
    pub timers: Arc<Timers>,
    /// The memory bus.
    pub bus: Arc<Bus>,
}

/// A machine.
pub struct Machine {
    parts: Parts,
    threads: Vec<JoinHandle<Box<dyn Vcpu>>>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    stats: Arc<Mutex<Vec<Stats>>>,
    command_exit: Option<i32>,
    resize: Arc<dyn Fn(u16, u16) + Send + Sync>,
    wants_samples: bool,
    sampler: Option<Sampler>,
    samples: Samples,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.parts.devices.iter().map(|(name, _)| name).collect();
        f.debug_struct("Machine").field("devices", &names).finish_non_exhaustive()
    }
}

/// How long a command's exit code may come before the power-off that follows it.
const COMMAND_GRACE: Duration = Duration::from_secs(5);

impl Machine {
    /// Makes the machine `spec` describes, ready to start.
    pub fn new(spec: &Spec, host: Host) -> Result<Self, MachineError> {
        let (sender, events) = channel();
        let mut parts = boards::build(spec, host, sender.clone())?;
        let resize = parts.resize.take().map_or_else(|| Arc::new(|_, _| ()) as _, Arc::from);
        Ok(Self {
            parts,
            threads: Vec::new(),
            events,
            sender,
            stats: Arc::default(),
            command_exit: None,
            resize,
            wants_samples: spec.profile.sample,
            sampler: None,
            samples: Samples::default(),
        })
    }

    /// Takes console input.
    pub fn input(&self) -> Arc<dyn CharInput> {
        self.parts.input.clone()
    }

    /// The host's ends of the ports it asked for, in their order.
    pub fn ports(&self) -> &[GuestPort] {
        &self.parts.ports
    }

    /// Which console a spec's machine has.
    pub fn console_of(spec: &Spec) -> Console {
        spec.console()
    }

    /// Tells the guest the terminal's size, where its console has one.
    pub fn resize(&self, columns: u16, rows: u16) {
        (self.resize)(columns, rows);
    }

    /// [`Self::resize`] for any thread, while another one waits for the machine.
    pub fn resizer(&self) -> Arc<dyn Fn(u16, u16) + Send + Sync> {
        self.resize.clone()
    }

    /// A handle that stops the machine from any thread.
    pub fn stopper(&self) -> impl Fn() + Send + Clone + 'static {
        let sender = self.sender.clone();
        move || {
            let _ = sender.send(Event::Stop);
        }
    }

    /// What runs guest code: to be told, and changed while the guest runs, by any thread.
    pub fn engine(&self) -> &MachineEngine {
        &self.parts.engine
    }

    /// Presses the power button, upon which a guest shuts down if it cares to. `false`: the board has none.
    pub fn press_power_button(&self) -> bool {
        let button = self.parts.power_button.as_ref();
        button.map(|press| press()).is_some()
    }

    /// Starts the vCPU threads.
    pub fn start(&mut self) -> Result<(), MachineError> {
        self.parts.control.set_control(Control::Run);
        if self.wants_samples {
            self.sampler = Some(Sampler::start(self.parts.control.clone())?);
        }
        for (index, mut vcpu) in std::mem::take(&mut self.parts.vcpus).into_iter().enumerate() {
            let events = self.sender.clone();
            let body = move || {
                isomer_core::initiator::set_vcpu(index);
                if let Exit::Wedged { pc, registers, trap } = vcpu.run(None) {
                    let outcome = Outcome::Wedged { cpu: index, pc, trap, registers };
                    let _ = events.send(Event::Wedged(outcome));
                }
                vcpu
            };
            let thread = std::thread::Builder::new().name(format!("cpu{index}")).spawn(body);
            self.threads.push(thread.map_err(|source| MachineError::Host { what: "a thread", source })?);
        }
        Ok(())
    }

    /// Waits until the machine ends, at most until `deadline`; then all its threads have ended.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Outcome {
        let outcome = self.next_outcome(deadline);
        let crashed = self.stop();
        crashed.map_or(outcome, Outcome::Crashed)
    }

    fn next_outcome(&mut self, deadline: Option<Instant>) -> Outcome {
        loop {
            // Threads that panicked send nothing, so look at them now and then.
            let patience = Duration::from_millis(500);
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            match self.events.recv_timeout(left.map_or(patience, |left| left.min(patience))) {
                Ok(Event::CommandDone(code)) => self.command_exit = Some(code),
                Ok(Event::Wedged(outcome)) => return outcome,
                Ok(Event::Stop) => return Outcome::Stopped,
                Ok(Event::Power(event)) => return self.power(event),
                Err(RecvTimeoutError::Timeout) if deadline.is_some_and(|at| Instant::now() >= at) => {
                    return Outcome::TimedOut;
                }
                Err(RecvTimeoutError::Timeout) if self.threads.iter().any(JoinHandle::is_finished) => {
                    return Outcome::Stopped;
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    fn power(&mut self, event: PowerEvent) -> Outcome {
        // The exit code travels through a device worker and may arrive just after the power-off.
        let until = Instant::now() + if self.command_exit.is_some() { Duration::ZERO } else { COMMAND_GRACE };
        while self.parts.runs_command && self.command_exit.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::CommandDone(code)) => self.command_exit = Some(code),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        match (self.command_exit, event) {
            (Some(code), _) => Outcome::Command(code),
            (None, PowerEvent::Off) => Outcome::PowerOff,
            (None, PowerEvent::Reset) => Outcome::Reset,
            (None, PowerEvent::Fail(code)) => Outcome::Failed(code),
        }
    }

    /// Stops all threads and lets devices finish; the message of a thread that panicked, if one did.
    fn stop(&mut self) -> Option<String> {
        self.parts.control.set_control(Control::Stop);
        self.sampler = None;
        let mut crashed = None;
        let mut stats = Vec::new();
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(vcpu) => {
                    stats.push(vcpu.stats());
                    self.samples.merge(vcpu.samples());
                }
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                    crashed = Some(text.unwrap_or_else(|| "a vCPU thread panicked".to_owned()));
                }
            }
        }
        if !stats.is_empty() {
            *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
        }
        for (_, device) in &self.parts.devices {
            device.lock().unwrap_or_else(PoisonError::into_inner).quiesce();
        }
        crashed
    }

    /// Where the guest's time went, once the machine has ended; nothing unless its spec asked for it.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Counters of each vCPU, once the machine has ended.
    pub fn stats(&self) -> Vec<Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}
