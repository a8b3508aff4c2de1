//! `isomer doctor`: what works on this host, found out by running a small guest, and what to do about the rest.

use crate::{
    args::Format,
    report::{self, Bytes, Elapsed},
};
use isomer_devices::backend::{Capture, Discard, InputWaker};
use isomer_machine::{EngineChoice, Host, Machine, Outcome, Spec, lifecycle::Streams};
use miette::Diagnostic;
use serde::Serialize;
use std::{
    fs::OpenOptions,
    io::{self, Write},
    time::{Duration, Instant},
};

/// How long the probe guest may take. It takes seconds where it works.
const PROBE_LIMIT: Duration = Duration::from_secs(120);
/// The probe guest's RAM.
const PROBE_MEMORY: u64 = 128 << 20;
/// Console output kept for an error.
const KEPT_BYTES: usize = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// One finding.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    summary: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, summary: String) -> Self {
        Self { name, status: Status::Ok, summary, cause: None, fix: None }
    }

    fn not_ok(name: &'static str, status: Status, summary: &str, cause: String, fix: String) -> Self {
        Self { name, status, summary: summary.into(), cause: Some(cause), fix: Some(fix) }
    }
}

/// Everything found.
#[derive(Debug, Serialize)]
struct Findings {
    version: &'static str,
    host: HostFacts,
    /// Can any engine run a guest?
    usable: bool,
    checks: Vec<Check>,
}

#[derive(Clone, Debug, Serialize)]
struct HostFacts {
    arch: &'static str,
    os: &'static str,
    cores: usize,
    memory_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    available_memory_bytes: Option<u64>,
}

impl HostFacts {
    fn look() -> Self {
        let info = rustix::system::sysinfo();
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            arch: report::host_arch(),
            os: std::env::consts::OS,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: info.totalram as u64 * u64::from(info.mem_unit),
            available_memory_bytes: available(&meminfo),
        }
    }
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Checks everything, prints it, and returns the exit code: 0 if an engine is usable.
pub(crate) fn run(format: Format) -> u8 {
    let host = HostFacts::look();
    let engines = [
        engine("compiler", EngineChoice::Jit),
        engine("interpreter", EngineChoice::Interp),
        hypervisor(&host),
    ];
    let usable = engines.iter().any(|check| check.status == Status::Ok);
    let mut checks = vec![cores(&host), memory(&host)];
    checks.extend(engines);
    let findings = Findings { version: env!("CARGO_PKG_VERSION"), host, usable, checks };
    match format {
        Format::Json => report::json(&findings),
        Format::Text => {
            let _ = io::stdout().lock().write_all(text(&findings).as_bytes());
        }
    }
    u8::from(!usable)
}

fn text(findings: &Findings) -> String {
    let mut text = String::new();
    for check in &findings.checks {
        let mark = match check.status {
            Status::Ok => "ok  ",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        text.push_str(&format!("{mark}  {:<12} {}\n", check.name, check.summary));
        for (label, detail) in [("cause", &check.cause), ("fix", &check.fix)] {
            if let Some(detail) = detail {
                text.push_str(&format!("{:>24}: {detail}\n", label));
            }
        }
    }
    text.push_str(match findings.usable {
        true => "\nThis host can run guests. Try: isomer run\n",
        false => "\nNo engine works on this host; see the causes above.\n",
    });
    text
}

fn cores(host: &HostFacts) -> Check {
    Check::ok("host", format!("{} {}, {} cores", host.arch, host.os, host.cores))
}

fn memory(host: &HostFacts) -> Check {
    let needed = Spec::default().memory_bytes;
    let mib = |bytes: u64| Bytes(bytes >> 20 << 20);
    let total = mib(host.memory_bytes);
    match host.available_memory_bytes {
        Some(available) if available < needed => Check::not_ok(
            "memory",
            Status::Warn,
            &format!("{} of {total} available", mib(available)),
            format!("a guest has {} unless told otherwise", Bytes(needed)),
            "close other programs, or give guests less with --memory 128M".into(),
        ),
        Some(available) => Check::ok("memory", format!("{} of {total} available", mib(available))),
        None => Check::ok("memory", format!("{total}")),
    }
}

/// Boots the embedded guest on an engine and runs `true` in it.
fn engine(name: &'static str, choice: EngineChoice) -> Check {
    match probe(choice) {
        Ok(Probe { wall, insns }) => {
            let mips = insns as f64 / 1e6 / wall.as_secs_f64().max(1e-3);
            let summary = format!(
                "booted Linux for riscv64 and ran a command in {}: {insns} instructions, {mips:.0} MIPS",
                Elapsed(wall)
            );
            Check::ok(name, summary)
        }
        Err(ProbeError { cause, fix }) => {
            Check::not_ok(name, Status::Fail, "cannot run the embedded guest", cause, fix)
        }
    }
}

struct Probe {
    wall: Duration,
    insns: u64,
}

struct ProbeError {
    cause: String,
    fix: String,
}

impl<E: Diagnostic> From<E> for ProbeError {
    fn from(error: E) -> Self {
        let fix = error.help().map_or_else(|| "please report this".to_owned(), |help| help.to_string());
        Self { cause: error.to_string(), fix }
    }
}

fn probe(engine: EngineChoice) -> Result<Probe, ProbeError> {
    let command = Some(vec!["true".to_owned()]);
    let spec = Spec { memory_bytes: PROBE_MEMORY, command, engine, ..Spec::default() };
    let waker = InputWaker::new().map_err(|error| ProbeError {
        cause: format!("the host refuses an event descriptor: {error}"),
        fix: "raise the limit on open files (ulimit -n)".into(),
    })?;
    let console = Capture::new(KEPT_BYTES);
    let streams = Streams { stdout: Box::new(Discard), stderr: Box::new(Discard) };
    let began = Instant::now();
    let mut machine = Machine::new(
        &spec,
        Host { console: Box::new(console.clone()), streams: Some(streams), waker, ports: Vec::new() },
    )?;
    machine.start()?;
    let outcome = machine.wait(Some(began + PROBE_LIMIT));
    let wall = began.elapsed();
    if outcome == Outcome::Command(0) {
        return Ok(Probe { wall, insns: machine.stats().iter().map(|stats| stats.insns).sum() });
    }
    let said = console.text();
    let said = said.lines().map(str::trim_end).rfind(|line| !line.is_empty());
    let said = said.map(|line| format!("; its console's last line: {line}")).unwrap_or_default();
    Err(ProbeError {
        cause: format!("the guest ended after {} with {outcome:?}{said}", Elapsed(wall)),
        fix: "run `isomer run -- true` to see more; if it fails too, please report it".into(),
    })
}

/// Hardware acceleration, which this version does not have.
fn hypervisor(host: &HostFacts) -> Check {
    let name = report::hypervisor(host.os);
    let device = match (name, OpenOptions::new().read(true).write(true).open("/dev/kvm")) {
        ("kvm", Ok(_)) => "; /dev/kvm exists and can be opened".to_owned(),
        ("kvm", Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            "; /dev/kvm does not exist".to_owned()
        }
        ("kvm", Err(error)) => format!("; /dev/kvm cannot be opened: {error}"),
        _ => String::new(),
    };
    Check::not_ok(
        name,
        Status::Warn,
        "not built yet",
        format!("this version has no {name} engine{device}"),
        "nothing to do: the interpreter runs every guest".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let meminfo = "MemTotal:       1000 kB\nMemAvailable:    500 kB\n";
        assert_eq!(available(meminfo), Some(500 << 10));
        assert_eq!(available("MemAvailable: many kB"), None);
        assert_eq!(available(""), None);
    }

    #[test]
    fn findings_have_cause_and_fix_unless_ok() {
        let host = HostFacts {
            arch: "riscv64",
            os: "linux",
            cores: 4,
            memory_bytes: 1 << 30,
            available_memory_bytes: Some(100 << 20),
        };
        let checks = vec![cores(&host), memory(&host), hypervisor(&host)];
        assert_eq!(checks[1].status, Status::Warn);
        for check in &checks {
            assert_eq!(check.status != Status::Ok, check.cause.is_some() && check.fix.is_some(), "{check:?}");
        }
        let findings = Findings { version: "0", host, usable: false, checks };
        let text = text(&findings);
        assert!(text.contains("warn  memory       100 MiB of 1 GiB available"), "{text}");
        assert!(text.contains("No engine works"));
        assert_eq!(serde_json::to_value(&findings).unwrap()["checks"][1]["status"], "warn");
    }
}
