//! `isomer run`: one machine from its first instruction to an exit code, through resets.

use crate::{
    args::{Format, RunArgs, ServeArgs},
    console::{Console, Input, KEPT_BYTES, Sink},
    machines::{self, Attached, Hub, Prepared, Served},
    plan::{self, PlanError},
    report::{self, Elapsed, ErrorReport, RunError, RunReport, Truncated, VcpuReport},
    signals::{Cause, Control, Handles},
    tiers::{CacheReport, ProfileReport, Tiers},
};
use isomer_devices::backend::{FdOutput, InputWaker, terminal_size};
use isomer_engine::{EngineKind, JitStats, Samples};
use isomer_machine::{
    Boot, Host, Machine, MachineError, Outcome, Spec, lifecycle::Streams, profile::Profile, symbols::Symbols,
};
use miette::Diagnostic;
use rustix::time::{ClockId, clock_gettime};
use std::{
    io,
    time::{Duration, Instant},
};

/// Why no machine ran.
#[derive(Debug, thiserror::Error, Diagnostic)]
enum StartError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Named(#[from] machines::MachineError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Machine(#[from] MachineError),
    #[error("the host refuses {what}: {source}")]
    #[diagnostic(
        code(isomer::cli::host),
        help("close other programs, or raise the limits on processes and open files (ulimit -u, ulimit -n)")
    )]
    Host { what: &'static str, source: io::Error },
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Host { what, source }
}

/// Runs what `args` ask for and returns the process's exit code.
pub(crate) fn run(args: &RunArgs) -> u8 {
    let started = match machines::prepare(args) {
        Ok(Prepared::Background) => return 0,
        Ok(Prepared::Here(args, attached)) => start(&args, attached.as_ref(), false),
        Err(error) => Err(error.into()),
    };
    end(started, args.format)
}

/// Runs a named machine in the background: its console goes to its log and to whoever attaches.
pub(crate) fn serve(args: &ServeArgs) -> u8 {
    let started = machines::serve(&args.name)
        .map_err(StartError::from)
        .and_then(|(args, attached)| start(&RunArgs { quiet: true, ..args }, Some(&attached), true));
    end(started, Format::Text)
}

fn end(started: Result<u8, StartError>, format: Format) -> u8 {
    match started {
        Ok(code) => code,
        Err(error) => {
            report::error(&error, format);
            match error {
                StartError::Plan(error) => error.exit_code(),
                StartError::Named(_) | StartError::Machine(_) | StartError::Host { .. } => 1,
            }
        }
    }
}

fn start(args: &RunArgs, attached: Option<&Attached>, background: bool) -> Result<u8, StartError> {
    isomer_engine::share_heap();
    let spec = plan::spec(args)?;
    // Before anything runs, so that a wrong file is no surprise at the end.
    let symbols = args.profile.map(|_| Symbols::of(&spec)).transpose()?.unwrap_or_default();
    let control = Control::default();
    control.handle_signals().map_err(host("to watch signals"))?;
    let mut outputs = Outputs::new(args, &control).map_err(host("output"))?;
    let hub = match attached.filter(|_| background) {
        Some(attached) => Some(Hub::console(attached.machine.log_path()).map_err(host("a log"))?),
        None => None,
    };
    if let Some(hub) = &hub {
        outputs.console = Sink::Hub(hub.clone());
    }
    let served =
        attached.map(|attached| attached.listen(hub, &control)).transpose().map_err(host("a socket"))?;
    let began = Instant::now();
    let deadline = args.timeout.map(|limit| began + limit);
    if let Some(deadline) = deadline {
        control.abandon_output_at(deadline);
    }
    let mut session = Session {
        args,
        spec: &spec,
        served,
        control,
        outputs,
        began,
        deadline,
        vcpus: Vec::new(),
        resets: 0,
        engine: EngineKind::default(),
        jit: JitStats::default(),
        cache: None,
        samples: Samples::default(),
        symbols,
    };
    let outcome = session.run_machines()?;
    Ok(session.finish(&outcome))
}

/// Where the guest's outputs go.
struct Outputs {
    console: Sink,
    stdout: Sink,
    stderr: Sink,
}

impl Outputs {
    fn new(args: &RunArgs, control: &Control) -> io::Result<Self> {
        if args.format == Format::Json {
            let kept = || Sink::kept(KEPT_BYTES);
            return Ok(Self { console: kept(), stdout: kept(), stderr: kept() });
        }
        // With a command, standard output is the command's alone, and the console is for the kernel's messages.
        let console = if args.command.is_empty() { FdOutput::stdout()? } else { FdOutput::stderr()? };
        Ok(Self {
            console: Sink::host(console, false, control)?,
            stdout: Sink::host(FdOutput::stdout()?, true, control)?,
            stderr: Sink::host(FdOutput::stderr()?, true, control)?,
        })
    }

    fn all(&self) -> [&Sink; 3] {
        [&self.console, &self.stdout, &self.stderr]
    }
}

/// One `isomer run`.
struct Session<'a> {
    args: &'a RunArgs,
    spec: &'a Spec,
    /// How a named machine is reached from outside.
    served: Option<Served>,
    control: Control,
    outputs: Outputs,
    began: Instant,
    deadline: Option<Instant>,
    vcpus: Vec<VcpuReport>,
    resets: u64,
    /// The last machine's.
    engine: EngineKind,
    jit: JitStats,
    cache: Option<CacheReport>,
    samples: Samples,
    /// For the profile.
    symbols: Symbols,
}

impl Session<'_> {
    /// Runs the machine, and again after each reset, until it ends for good.
    fn run_machines(&mut self) -> Result<Outcome, StartError> {
        let waker = InputWaker::new().map_err(host("an event descriptor"))?;
        let mut machine = self.make(&waker)?;
        let engine = machine.engine();
        self.engine = engine.kind();
        let note = report::engine_note(self.spec, engine.kind(), engine.fallback());
        if self.args.format == Format::Text && !self.args.quiet {
            report::note(&report::banner(self.spec, &note));
        }
        let console = self.open_console(waker.clone()).map_err(host("standard input"))?;
        loop {
            let outcome = self.run_machine(&mut machine, &console)?;
            drop(machine);
            if outcome != Outcome::Reset || !self.may_reset() {
                // With the keys still alive: output that nobody takes can be left.
                self.outputs.all().iter().for_each(|sink| sink.drain(&self.control));
                return Ok(outcome);
            }
            self.resets += 1;
            machine = self.make(&waker)?;
        }
    }

    /// A command is not run twice: its reset is a failure.
    fn may_reset(&self) -> bool {
        !self.args.no_reboot && self.spec.command.is_none() && self.control.cause().is_none()
    }

    fn make(&self, waker: &InputWaker) -> Result<Machine, MachineError> {
        let streams = Streams {
            stdout: Box::new(self.outputs.stdout.clone()),
            stderr: Box::new(self.outputs.stderr.clone()),
        };
        let host = Host {
            console: Box::new(self.outputs.console.clone()),
            streams: self.spec.command.is_some().then_some(streams),
            waker: waker.clone(),
            ports: self.served.as_ref().map(Served::ports).unwrap_or_default(),
        };
        Machine::new(self.spec, host)
    }

    fn open_console(&self, waker: InputWaker) -> io::Result<Console> {
        let input = if matches!(self.outputs.console, Sink::Hub(_)) {
            Input::Nobody
        } else if plan::is_interactive(self.args, self.spec) {
            Input::Terminal
        } else if self.spec.command.is_some() {
            Input::Command
        } else {
            Input::Console { end_key: matches!(self.spec.boot, Boot::Embedded) }
        };
        let (spec, control, began) = (self.spec.clone(), self.control.clone(), self.began);
        let status = move || {
            let cpu = Duration::from_millis(cpu_ms());
            let engine = control.engine().map_or("between two machines", EngineKind::name);
            let banner = report::banner(&spec, engine);
            format!("{banner} · running for {} · {} of host CPU", Elapsed(began.elapsed()), Elapsed(cpu))
        };
        Console::open(input, waker, &self.control, status)
    }

    /// Runs one machine to its end.
    fn run_machine(&mut self, machine: &mut Machine, console: &Console) -> Result<Outcome, MachineError> {
        let resizer = machine.resizer();
        let resize = move || {
            if let Some((columns, rows)) = terminal_size(rustix::stdio::stdout()) {
                resizer(columns, rows);
            }
        };
        self.control.attach(Handles {
            stop: Box::new(machine.stopper()),
            resize: Box::new(resize),
            engine: Some(machine.engine().clone()),
        });
        console.switch().connect(machine.input());
        if let Some(served) = &self.served {
            served.connect(machine);
        }
        let started = machine.start();
        let outcome = started.map(|()| machine.wait(self.deadline));
        console.switch().disconnect();
        if let Some(served) = &self.served {
            served.disconnect();
        }
        self.control.detach();
        self.engine = machine.engine().kind();
        let jit = machine.engine().jit_stats();
        self.jit = self.jit.plus(&jit);
        if let Some(cache) = machine.engine().cache_stats() {
            self.cache.get_or_insert_default().add(&cache, &jit);
        }
        self.samples.merge(machine.samples());
        let stats = machine.stats();
        self.vcpus.resize(stats.len().max(self.vcpus.len()), VcpuReport::default());
        self.vcpus.iter_mut().zip(&stats).for_each(|(sum, stats)| sum.add(stats));
        outcome
    }

    /// Says how it ended, and with which exit code the process does.
    fn finish(self, outcome: &Outcome) -> u8 {
        let cause = self.control.cause();
        let failure = failure(outcome, cause, self.spec.command.is_some(), self.args.timeout);
        let profile = self
            .args
            .profile
            .map(|most| ProfileReport::new(&Profile::new(&self.samples, &self.symbols, most)));
        let mut report = RunReport {
            arch: self.spec.arch.name(),
            host: report::host_arch(),
            engine: self.engine.name(),
            memory_bytes: self.spec.memory_bytes,
            cpus: self.spec.cpus,
            outcome: report::outcome_name(outcome),
            exit_code: exit_code(outcome, cause, failure.as_ref()),
            error: None,
            resets: self.resets,
            wall_ms: self.began.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            cpu_ms: cpu_ms(),
            tiers: Tiers::new(&self.vcpus, &self.jit),
            cache: self.cache,
            vcpus: self.vcpus,
            profile,
            stdout: String::new(),
            stderr: String::new(),
            console: String::new(),
            truncated: Truncated::default(),
        };
        if self.args.format == Format::Json {
            report.error = failure.as_ref().map(|error| ErrorReport::from(error as &dyn Diagnostic));
            (report.stdout, report.truncated.stdout) = self.outputs.stdout.text();
            (report.stderr, report.truncated.stderr) = self.outputs.stderr.text();
            (report.console, report.truncated.console) = self.outputs.console.text();
            report::json(&report);
        } else if let Some(failure) = &failure {
            report::error(failure, Format::Text);
        } else if *outcome == Outcome::PowerOff && self.spec.command.is_some() {
            report::note("isomer: the guest powered off before its command told an exit code");
        }
        if self.args.stats {
            report::note(&report.stats());
        }
        if self.args.format == Format::Text
            && let Some(profile) = &report.profile
        {
            report::note(&profile.text());
        }
        report.exit_code
    }
}

/// CPU time of this process, all threads.
fn cpu_ms() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    (time.tv_sec as u64) * 1000 + (time.tv_nsec as u64) / 1_000_000
}

/// What went wrong, if something did.
fn failure(
    outcome: &Outcome,
    cause: Option<Cause>,
    command: bool,
    timeout: Option<Duration>,
) -> Option<RunError> {
    match outcome {
        Outcome::PowerOff | Outcome::Command(_) => None,
        Outcome::Reset => command.then_some(RunError::CommandReset),
        Outcome::Failed(code) => Some(RunError::Failed(*code)),
        Outcome::Wedged { cpu, pc, trap, registers } => {
            let (trap, registers) = (trap.clone(), registers.clone());
            Some(RunError::Wedged { cpu: *cpu, pc: *pc, trap, registers })
        }
        Outcome::TimedOut => Some(RunError::TimedOut(timeout.unwrap_or_default())),
        Outcome::Stopped => cause.is_none().then_some(RunError::Stopped),
        Outcome::Crashed(why) => Some(RunError::Crashed(why.clone())),
    }
}

/// The process's exit code. A guest's own code keeps its low byte, but failure never turns into success.
fn exit_code(outcome: &Outcome, cause: Option<Cause>, failure: Option<&RunError>) -> u8 {
    let low_byte = |code: u32| match code.to_le_bytes()[0] {
        0 if code != 0 => 1,
        byte => byte,
    };
    match (outcome, failure) {
        (Outcome::Command(code), _) => low_byte(code.cast_unsigned()),
        (Outcome::Failed(code), _) => low_byte((*code).into()).max(1),
        (Outcome::Stopped, _) => cause.map_or(70, Cause::exit_code),
        (Outcome::TimedOut, _) => 124,
        (Outcome::Wedged { .. } | Outcome::Crashed(_), _) => 70,
        (Outcome::PowerOff | Outcome::Reset, Some(_)) => 1,
        (Outcome::PowerOff | Outcome::Reset, None) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(outcome: &Outcome, cause: Option<Cause>, command: bool) -> u8 {
        let failure = failure(outcome, cause, command, Some(Duration::from_secs(1)));
        exit_code(outcome, cause, failure.as_ref())
    }

    #[test]
    fn exit_codes_follow_outcomes() {
        let wedged =
            Outcome::Wedged { cpu: 0, pc: 0, trap: "illegal instruction".into(), registers: String::new() };
        for (outcome, expected) in [
            (Outcome::PowerOff, 0),
            (Outcome::Reset, 0),
            (Outcome::Command(0), 0),
            (Outcome::Command(7), 7),
            (Outcome::Command(255), 255),
            (Outcome::Command(256), 1),
            (Outcome::Command(-1), 255),
            (Outcome::Failed(3), 3),
            (Outcome::Failed(0x100), 1),
            (Outcome::Failed(0), 1),
            (Outcome::TimedOut, 124),
            (wedged, 70),
            (Outcome::Crashed("index out of bounds".into()), 70),
            (Outcome::Stopped, 70),
        ] {
            assert_eq!(code(&outcome, None, false), expected, "{outcome:?}");
        }
        assert_eq!(code(&Outcome::Reset, None, true), 1);
        assert_eq!(code(&Outcome::PowerOff, None, true), 0);
        assert_eq!(code(&Outcome::Stopped, Some(Cause::Signal(2)), false), 130);
        assert_eq!(code(&Outcome::Stopped, Some(Cause::Signal(15)), true), 143);
        assert_eq!(code(&Outcome::Stopped, Some(Cause::User), false), 0);
        // The guest was faster than the signal.
        assert_eq!(code(&Outcome::Command(5), Some(Cause::Signal(15)), true), 5);
    }

    #[test]
    fn only_what_went_wrong_is_reported() {
        let report = |outcome: &Outcome, cause, command| failure(outcome, cause, command, None).is_some();
        assert!(!report(&Outcome::PowerOff, None, true));
        assert!(!report(&Outcome::Command(9), None, true));
        assert!(!report(&Outcome::Stopped, Some(Cause::User), false));
        assert!(report(&Outcome::Stopped, None, false));
        assert!(report(&Outcome::Reset, None, true) && !report(&Outcome::Reset, None, false));
    }
}
