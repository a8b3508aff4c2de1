//! What a table's note says about the host and the programs measured, and CPU times from /proc (proc(5)).

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Places;
use crate::process;

/// Clock ticks in /proc are USER_HZ: 100 on every architecture that Isomer runs on.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time that a live process has taken, all threads, in steps of 10 ms.
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    // utime and stime, fields 14 and 15.
    ticks(&format!("/proc/{pid}/stat"), 14)
}

/// User and system time of all children of this process that have ended, in steps of 10 ms.
pub(super) fn children_cpu_time() -> Result<Duration> {
    // cutime and cstime, fields 16 and 17.
    ticks("/proc/self/stat", 16)
}

/// The sum of a field of /proc/PID/stat and the one after it; fields count from 1.
fn ticks(path: &str, field: usize) -> Result<Duration> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let ticks = sum_of_two(&text, field).with_context(|| format!("cannot understand {path}: {text:?}"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn sum_of_two(stat: &str, field: usize) -> Option<u64> {
    // The second field is a name in parentheses that may hold anything; the third follows the last one.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(field - 3).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

/// The load averages of one and five minutes.
pub(super) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().take(2).collect::<Vec<_>>().join(" and ")
}

/// Date, host, and the versions of both machines, as lines of a note.
pub(super) fn describe(places: &Places) -> Result<Vec<String>> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let virtual_machine = cpuinfo.lines().any(|l| l.starts_with("flags") && l.contains(" hypervisor"));
    let kind = if virtual_machine { "virtual machine" } else { "host" };
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
    let isomer = match places.built {
        true => {
            format!("at commit {}, {}", commit()?, process::capture(Command::new("rustc").arg("--version"))?)
        }
        false => "of a binary that --isomer named".to_owned(),
    };
    Ok(vec![
        format!("{}, {processors}-CPU {model} {kind}, {}", date()?, system.trim_matches('"')),
        format!("Isomer {isomer}"),
        [vec![places.platform.qemu_version()?], places.qemu_cpu_options()].concat().join(" "),
    ])
}

/// The commit of the working tree, and whether crates differ from it.
fn commit() -> Result<String> {
    let git = || {
        let mut git = Command::new("git");
        git.current_dir(crate::repository_root());
        git
    };
    let head = process::capture(git().args(["rev-parse", "--short=10", "HEAD"]))?;
    let changed = process::capture(git().args(["status", "--porcelain", "--untracked-files=no", "crates"]))?;
    Ok(if changed.is_empty() { head } else { format!("{head} with uncommitted changes in crates/") })
}

/// Today, UTC.
pub(super) fn date() -> Result<String> {
    process::capture(Command::new("date").args(["-u", "+%Y-%m-%d"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "7 (a) (b c) R 1 7 7 0 -1 4194304 90 0 0 0 120 34 5 6 20 0 1";
        assert_eq!(sum_of_two(stat, 14), Some(154));
        assert_eq!(sum_of_two(stat, 16), Some(11));
        assert_eq!(sum_of_two("7 (a) R 1", 14), None);
        assert_eq!(sum_of_two("", 14), None);
    }

    #[test]
    fn this_process_has_a_cpu_time() -> Result<()> {
        assert!(cpu_time(std::process::id())? < Duration::from_secs(3600));
        assert!(cpu_time(0).is_err());
        Ok(())
    }
}
