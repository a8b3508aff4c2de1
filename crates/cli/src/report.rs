//! What users read: the first line, errors with code, cause and fix, results, counters. For people or as JSON.

use crate::{
    args::Format,
    tiers::{CacheReport, ProfileReport, Tiers},
};
use isomer_engine::{EngineKind, Stats};
use isomer_machine::{EngineChoice, Outcome, Spec};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use serde::Serialize;
use std::{
    fmt,
    io::{self, IsTerminal, Write},
    time::Duration,
};

/// The host's instruction set, by the name `uname -m` has for it.
pub(crate) fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        name => name,
    }
}

/// The first line: guest, host, engine and why not a faster one, size.
pub(crate) fn banner(spec: &Spec, engine: &str) -> String {
    let (memory, cpus) = (Bytes(spec.memory_bytes), Count(spec.cpus, "cpu"));
    format!("{} on {} · {engine} · {memory} · {cpus}", spec.arch.name(), host_arch())
}

/// The engine as the first line tells it: which, and why not a faster one.
pub(crate) fn engine_note(spec: &Spec, kind: EngineKind, fallback: Option<&str>) -> String {
    let why = match (spec.engine, fallback) {
        (EngineChoice::Auto, Some(why)) => format!("jit: {why}"),
        (EngineChoice::Auto, None) => no_hypervisor(spec.arch.name(), host_arch(), std::env::consts::OS),
        _ => "as asked".to_owned(),
    };
    format!("{} ({why})", kind.name())
}

/// Why no hypervisor runs the guest.
fn no_hypervisor(guest: &str, host: &str, os: &str) -> String {
    let name = hypervisor(os);
    match guest == host {
        true => format!("{name}: not in this version"),
        false => format!("{name}: guest ISA differs"),
    }
}

/// The hypervisor of an operating system.
pub(crate) fn hypervisor(os: &str) -> &'static str {
    match os {
        "macos" => "hvf",
        "windows" => "whpx",
        _ => "kvm",
    }
}

/// A size in the largest unit that divides it.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.iter().find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift)) {
            Some((shift, unit)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// A size for people, to three digits.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let text = match units.iter().find(|(shift, _)| self.0 >> shift != 0) {
            Some((shift, unit)) => {
                let size = self.0 as f64 / (1_u64 << shift) as f64;
                format!("{size:.*} {unit}", usize::from(size < 100.0))
            }
            None => format!("{} bytes", self.0),
        };
        f.pad(&text)
    }
}

struct Count(usize, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

/// A time for people.
pub(crate) struct Elapsed(pub(crate) Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs_f64() {
            s if s < 1.0 => write!(f, "{:.0} ms", s * 1000.0),
            s if s < 120.0 => write!(f, "{s:.1} s"),
            s => write!(f, "{:.0} min {:.0} s", (s / 60.0).floor(), s % 60.0),
        }
    }
}

/// An error as programs read it.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorReport {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl From<&dyn Diagnostic> for ErrorReport {
    fn from(error: &dyn Diagnostic) -> Self {
        Self {
            code: error.code().map_or_else(|| "isomer::error".to_owned(), |code| code.to_string()),
            message: error.to_string(),
            help: error.help().map(|help| help.to_string()),
        }
    }
}

/// Shows an error: on standard error for people, on standard output as JSON.
pub(crate) fn error(error: &dyn Diagnostic, format: Format) {
    #[derive(Serialize)]
    struct Wrapper {
        error: ErrorReport,
    }
    match format {
        Format::Json => json(&Wrapper { error: error.into() }),
        Format::Text => note(&render(error, io::stderr().is_terminal())),
    }
}

fn render(error: &dyn Diagnostic, terminal: bool) -> String {
    let mut text = String::new();
    if terminal {
        let theme = match no_colour() {
            true => GraphicalTheme::unicode_nocolor(),
            false => GraphicalTheme::unicode(),
        };
        // Our messages hold their causes; a chain would say everything twice.
        let handler = GraphicalReportHandler::new_themed(theme).without_cause_chain();
        if handler.render_report(&mut text, error).is_ok() {
            return text;
        }
        text.clear();
    }
    let report = ErrorReport::from(error);
    text.push_str(&format!("isomer: {}\n  code: {}", report.message, report.code));
    if let Some(help) = report.help {
        text.push_str(&format!("\n  fix: {help}"));
    }
    text
}

/// The convention of no-color.org.
fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// May messages on standard error be coloured?
pub(crate) fn stderr_has_colour() -> bool {
    io::stderr().is_terminal() && !no_colour()
}

/// A line on standard error. That nobody listens is no reason to fail.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end_matches('\n'));
}

/// One JSON object on standard output.
pub(crate) fn json(value: &impl Serialize) {
    let mut stdout = io::stdout().lock();
    let written = serde_json::to_writer(&mut stdout, value).is_ok();
    if written && writeln!(stdout).and_then(|()| stdout.flush()).is_ok() {
        return;
    }
    tracing::warn!("standard output did not take the result");
}

/// Why a run did not end well.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum RunError {
    #[error("the time limit of {} has passed, and the machine was stopped", Elapsed(*.0))]
    #[diagnostic(code(isomer::run::timeout), help("use a larger --timeout, or none"))]
    TimedOut(Duration),
    #[error("guest cpu{cpu} is stuck at {pc:#x}: {trap}\n{registers}")]
    #[diagnostic(
        code(isomer::run::wedged),
        help(
            "the guest jumped to where no code is, or its trap handler faults; --trace irq shows how it got there"
        )
    )]
    Wedged { cpu: usize, pc: u64, trap: String, registers: String },
    #[error("the guest reported failure with code {0}")]
    #[diagnostic(code(isomer::run::failed), help("the code is the guest's own; its console may say more"))]
    Failed(u16),
    #[error("the guest was reset before its command ended, so there is no exit code")]
    #[diagnostic(
        code(isomer::run::reset),
        help("a kernel panic resets the guest: look at its console, and try a larger --memory")
    )]
    CommandReset,
    #[error("a CPU of the machine failed: {0}")]
    #[diagnostic(code(isomer::run::crashed), help("this is a bug in Isomer; please report it"))]
    Crashed(String),
    #[error("the machine's CPUs stopped, and nobody asked for it")]
    #[diagnostic(code(isomer::run::stopped), help("this is a bug in Isomer; please report it"))]
    Stopped,
}

/// Counters of one vCPU.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct VcpuReport {
    insns: u64,
    blocks: u64,
    code_bytes: u64,
    compiled_insns: u64,
    compiled_entries: u64,
    tlb_misses: u64,
    walks: u64,
    traps: u64,
    sleeps: u64,
    lookups: u64,
}

impl VcpuReport {
    /// Adds the counters of the same vCPU in a machine that was made again after a reset.
    pub(crate) fn add(&mut self, stats: &Stats) {
        self.insns += stats.insns;
        self.blocks += stats.blocks;
        self.code_bytes = stats.code_bytes;
        self.compiled_insns += stats.compiled_insns;
        self.compiled_entries += stats.compiled_entries;
        self.tlb_misses += stats.tlb_misses;
        self.walks += stats.walks;
        self.traps += stats.traps;
        self.sleeps += stats.sleeps;
        self.lookups += stats.lookups;
    }

    pub(crate) fn insns(&self) -> u64 {
        self.insns
    }
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }
    pub(crate) fn compiled_insns(&self) -> u64 {
        self.compiled_insns
    }
    pub(crate) fn compiled_entries(&self) -> u64 {
        self.compiled_entries
    }
}

/// Which captured outputs lack their beginning.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Truncated {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) console: bool,
}

/// All about a run that is over.
#[derive(Debug, Serialize)]
pub(crate) struct RunReport {
    pub(crate) arch: &'static str,
    pub(crate) host: &'static str,
    pub(crate) engine: &'static str,
    pub(crate) memory_bytes: u64,
    pub(crate) cpus: usize,
    pub(crate) outcome: &'static str,
    pub(crate) exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<ErrorReport>,
    pub(crate) resets: u64,
    pub(crate) wall_ms: u64,
    pub(crate) cpu_ms: u64,
    pub(crate) vcpus: Vec<VcpuReport>,
    pub(crate) tiers: Tiers,
    /// Of compiled code, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<CacheReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) profile: Option<ProfileReport>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) console: String,
    pub(crate) truncated: Truncated,
}

impl RunReport {
    /// The counters, for people.
    pub(crate) fn stats(&self) -> String {
        let insns: u64 = self.vcpus.iter().map(VcpuReport::insns).sum();
        let mips = insns as f64 / 1000.0 / (self.cpu_ms.max(1) as f64);
        let mut text = format!(
            "isomer: {:.3} s, {:.3} s of host CPU, {insns} instructions, {mips:.1} MIPS",
            self.wall_ms as f64 / 1000.0,
            self.cpu_ms as f64 / 1000.0,
        );
        for (index, vcpu) in self.vcpus.iter().enumerate() {
            text.push_str(&format!(
                "\nisomer: cpu{index}: {} instructions, {} blocks translated, {} KiB of code, {} traps, {} sleeps, {} lookups, \
                 {} TLB misses, {} page walks",
                vcpu.insns,
                vcpu.blocks,
                vcpu.code_bytes >> 10,
                vcpu.traps,
                vcpu.sleeps,
                vcpu.lookups,
                vcpu.tlb_misses,
                vcpu.walks,
            ));
        }
        text.push_str(&self.tiers.text());
        text.extend(self.cache.as_ref().map(CacheReport::text));
        text
    }
}

/// An outcome by name.
pub(crate) fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::PowerOff => "power_off",
        Outcome::Reset => "reset",
        Outcome::Failed(_) => "failed",
        Outcome::Command(_) => "command",
        Outcome::Wedged { .. } => "wedged",
        Outcome::TimedOut => "timed_out",
        Outcome::Stopped => "stopped",
        Outcome::Crashed(_) => "crashed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_what_runs_on_what() {
        let spec = Spec { cpus: 2, memory_bytes: 1 << 30, ..Spec::default() };
        let line = banner(&spec, "jit (as asked)");
        assert!(line.starts_with("riscv64 on "), "{line}");
        assert!(line.ends_with(" · jit (as asked) · 1 GiB · 2 cpus"), "{line}");
        assert!(banner(&Spec::default(), "").ends_with(" · 512 MiB · 1 cpu"));
        let (auto, asked) = (Spec::default(), Spec { engine: EngineChoice::Interp, ..Spec::default() });
        assert!(engine_note(&auto, EngineKind::Jit, None).starts_with("jit (kvm: "));
        let fallback = engine_note(&auto, EngineKind::Interpreter, Some("no memory for code"));
        assert_eq!(fallback, "interp (jit: no memory for code)");
        assert_eq!(engine_note(&asked, EngineKind::Interpreter, None), "interp (as asked)");
        assert_eq!(no_hypervisor("riscv64", "x86_64", "linux"), "kvm: guest ISA differs");
        assert_eq!(no_hypervisor("aarch64", "aarch64", "macos"), "hvf: not in this version");
    }

    #[test]
    fn sizes_and_times_are_readable() {
        for (bytes, text) in [
            (512 << 20, "512 MiB"),
            (2 << 30, "2 GiB"),
            (1536 << 20, "1536 MiB"),
            (3 << 40, "3 TiB"),
            (4096, "4 KiB"),
            (4097, "4097 bytes"),
            (0, "0 bytes"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        for (ms, text) in [(12, "12 ms"), (1500, "1.5 s"), (150_000, "2 min 30 s")] {
            assert_eq!(Elapsed(Duration::from_millis(ms)).to_string(), text);
        }
    }

    #[test]
    fn errors_have_code_cause_and_fix_in_every_form() {
        let error = RunError::TimedOut(Duration::from_secs(30));
        let plain = render(&error, false);
        let lines: Vec<_> = plain.lines().collect();
        assert_eq!(lines[0], "isomer: the time limit of 30.0 s has passed, and the machine was stopped");
        assert_eq!(lines[1..], ["  code: isomer::run::timeout", "  fix: use a larger --timeout, or none"]);
        let fancy = render(&error, true);
        assert!(fancy.contains("isomer::run::timeout") && fancy.contains("larger --timeout"), "{fancy}");
        let json = serde_json::to_value(ErrorReport::from(&error as &dyn Diagnostic)).unwrap();
        assert_eq!(json["code"], "isomer::run::timeout");
    }

    #[test]
    fn a_stuck_guest_is_reported_with_registers() {
        let error = RunError::Wedged {
            cpu: 1,
            pc: 0x8000_1234,
            trap: "instruction access fault".into(),
            registers: "x0 0\nx1 1".into(),
        };
        let plain = render(&error, false);
        assert!(
            plain.starts_with("isomer: guest cpu1 is stuck at 0x80001234: instruction access fault\nx0 0"),
            "{plain}"
        );
    }
}
