//! Guests that run one row after another: the host types a row's name, the guest runs it between marker lines
//! (`benches/init` has the protocol). So all machines can be up at once, and a row runs on one after the other.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::columns::Column;
use super::footprint::Mappings;
use super::image::{Guest, INIT_LINE};
use super::machine::Running;
use super::rows::Row;
use super::{LIMIT_S, Places, columns, host};

/// Seconds before a row counts as hung.
const ROW_LIMIT_S: u64 = 600;
/// How often and at what intervals a machine is looked at after a row, and the CPU time in one that counts as quiet.
const QUIET_LOOKS: u32 = 100;
const QUIET_INTERVAL: Duration = Duration::from_millis(100);
const QUIET_CPU: Duration = Duration::from_millis(10);

/// What one run of a row gave.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    /// User and system time of the emulator's process.
    pub(super) cpu: Duration,
    /// What the process went on to take until it was quiet: compilers that came too late. Part of no row.
    pub(super) after: Duration,
    /// The row's checksum or the kernel's version: the same on every machine.
    pub(super) result: String,
}

/// A column's machine with the guest of all rows.
pub(super) struct Session<'a> {
    pub(super) column: &'static Column,
    places: &'a Places,
    guest: &'a Guest,
    running: Option<Running>,
}

/// What a machine says of itself after its rows.
pub(super) struct Ending {
    /// What the emulator printed, `--stats` among it.
    pub(super) stats: String,
    /// Memory beyond the guest's, in KiB (PSS); none if the guest's cannot be told from the rest.
    pub(super) beyond_ram_kib: Option<u64>,
}

impl<'a> Session<'a> {
    pub(super) fn new(column: &'static Column, places: &'a Places, guest: &'a Guest) -> Self {
        Self { column, places, guest, running: None }
    }

    /// Boots the guest, unless it runs already.
    pub(super) fn start(&mut self) -> Result<&mut Running> {
        let running = match self.running.take() {
            Some(running) => running,
            None => started(self.column.command(self.places, self.guest, "rows")?)?,
        };
        Ok(self.running.insert(running))
    }

    /// Runs a row. A machine that fails is stopped, and the next row boots another.
    pub(super) fn run(&mut self, row: &Row) -> Result<Sample> {
        let sample = self.start().and_then(|running| timed(running, row));
        if sample.is_err() {
            self.running = None;
        }
        sample
    }

    /// Stops the machine; none if it does not run.
    pub(super) fn end(&mut self) -> Result<Option<Ending>> {
        let Some(running) = self.running.take() else { return Ok(None) };
        let mappings = Mappings::read(running.pid(), columns::ram_name(self.column)).ok();
        let beyond_ram_kib = mappings.map(|mappings| mappings.pss - mappings.guest_ram);
        Ok(Some(Ending { stats: running.stop()?, beyond_ram_kib }))
    }
}

/// Fills the cache of a column's machines: boots the guest and runs every row. The rows that did not run, and why:
/// compiled code that is wrong shall not hide the rest.
pub(super) fn prime(
    column: &Column,
    places: &Places,
    guest: &Guest,
    rows: &[&'static Row],
) -> Result<Vec<(&'static Row, anyhow::Error)>> {
    column.empty_primed_cache(places, "rows")?;
    let mut running = None;
    let mut failures = Vec::new();
    for row in rows {
        let machine = match running.take() {
            Some(machine) => Ok(machine),
            None => started(column.priming_command(places, guest, "rows")?),
        };
        match machine.and_then(|mut machine| timed(&mut machine, row).map(|_| machine)) {
            Ok(machine) => running = Some(machine),
            Err(why) => failures.push((*row, why)),
        }
    }
    running.map(Running::stop).transpose()?;
    Ok(failures)
}

/// Boots a kernel and stops it where it starts init.
pub(super) fn boot(column: &Column, places: &Places, guest: &Guest, purpose: &str) -> Result<Sample> {
    booted(column.command(places, guest, purpose)?)
}

/// Fills the cache of a column's boots.
pub(super) fn prime_boot(column: &Column, places: &Places, guest: &Guest, purpose: &str) -> Result<()> {
    column.empty_primed_cache(places, purpose)?;
    booted(column.priming_command(places, guest, purpose)?).map(|_| ())
}

fn booted(command: std::process::Command) -> Result<Sample> {
    let mut running = Running::start(command, Duration::from_secs(LIMIT_S))?;
    running.wait_for("Linux version ")?;
    let version = running.rest_of_line()?;
    let release = version.split(' ').next().unwrap_or_default();
    let cpu = running.wait_for(INIT_LINE)?;
    running.stop()?;
    Ok(Sample { cpu, after: Duration::ZERO, result: format!("Linux {release}") })
}

fn started(command: std::process::Command) -> Result<Running> {
    let mut running = Running::start(command, Duration::from_secs(LIMIT_S))?;
    running.wait_for("BENCH READY")?;
    Ok(running)
}

/// Runs a row between its marker lines.
fn timed(running: &mut Running, row: &Row) -> Result<Sample> {
    running.type_line(row.name, Duration::from_secs(ROW_LIMIT_S))?;
    // A row that fails before its work begins has a result alone.
    let (mut begin, mut end) = (None, None);
    let result = loop {
        let moment = running.wait_for("BENCH ")?;
        let line = running.rest_of_line()?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("BEGIN", _) => begin = Some(moment),
            ("END", _) => end = Some(moment),
            ("RESULT", text) => break text.to_owned(),
            _ => bail!("the guest said `BENCH {line}`"),
        }
    };
    running.wait_for("BENCH READY")?;
    ensure!(!result.starts_with("error"), "the guest said: {result}");
    let (begin, end) = begin.zip(end).context("the guest did not say when its work began and ended")?;
    Ok(Sample { cpu: end - begin, after: quiet(running.pid())? - end, result })
}

/// Waits until a process is nearly idle, so that it neither disturbs the next machine nor pays in its own next row; its
/// CPU time by then.
fn quiet(pid: u32) -> Result<Duration> {
    let mut before = host::cpu_time(pid)?;
    for _ in 0..QUIET_LOOKS {
        thread::sleep(QUIET_INTERVAL);
        let now = host::cpu_time(pid)?;
        if now - before <= QUIET_CPU {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::ROWS;
    use std::process::Command;

    /// A shell script in the place of a machine.
    fn machine(script: &str) -> Result<Running> {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo noise; echo BENCH READY; {script}; read never")]);
        started(command)
    }

    #[test]
    fn rows_are_timed_between_their_markers() -> Result<()> {
        let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let row = format!(
            "read row; echo BENCH BEGIN; {work}; echo BENCH END; echo BENCH RESULT $row is done; echo BENCH READY"
        );
        let mut running = machine(&format!("{work}; {work}; {row}; {row}"))?;
        let first = timed(&mut running, &ROWS[0])?;
        assert_eq!(first.result, format!("{} is done", ROWS[0].name));
        assert!(first.cpu >= Duration::from_millis(10), "{first:?}");
        assert_eq!(timed(&mut running, &ROWS[1])?.result, format!("{} is done", ROWS[1].name));
        Ok(())
    }

    #[test]
    fn work_after_the_end_is_told_apart() -> Result<()> {
        let work = "i=0; while [ $i -lt 600000 ]; do i=$((i+1)); done";
        let script = format!(
            "read row; echo BENCH BEGIN; echo BENCH END; echo BENCH RESULT x; echo BENCH READY; {work}"
        );
        let sample = timed(&mut machine(&script)?, &ROWS[0])?;
        assert!(sample.after > sample.cpu + Duration::from_millis(20), "{sample:?}");
        Ok(())
    }

    #[test]
    fn what_the_guest_reports_as_an_error_is_one() -> Result<()> {
        let said = |script: &str| -> Result<String> {
            let mut running = machine(&format!("read row; {script}; echo BENCH READY"))?;
            Ok(timed(&mut running, &ROWS[0]).unwrap_err().to_string())
        };
        assert!(said("echo BENCH RESULT error: broken")?.contains("error: broken"));
        assert!(said("echo BENCH RESULT fine")?.contains("when its work began"));
        assert!(said("echo BENCH BEGIN")?.contains("BENCH READY"));
        Ok(())
    }
}
