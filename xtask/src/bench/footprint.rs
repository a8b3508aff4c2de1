//! `cargo xtask bench footprint`: what a machine costs beside its guest. Memory beyond the pages that the guest has
//! touched, host CPU while the guest idles, and the time to a guest's first instruction.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::columns::{self, Column};
use super::document::{self, Spread};
use super::machine::Running;
use super::{LIMIT_S, Places, host, image};

/// How often memory is measured.
const MEMORY_RUNS: usize = 3;
/// What the embedded guest's shell prints.
const PROMPT: &str = "isomer:~# ";
/// How long the guest is left alone before its memory is looked at, its host CPU time on the clock.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(super) struct Options {
    /// How often a machine is started
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Isomer's columns, as for speed [default: all that the binary knows]
    #[arg(long, value_delimiter = ',', value_name = "COLUMN")]
    engine: Vec<String>,
    /// Put the tables into BENCHMARKS.md
    #[arg(long)]
    write: bool,
}

pub(super) fn run(options: &Options, places: &Places) -> Result<()> {
    let columns = columns::available(&options.engine, places)?;
    let load_before = host::load();
    let memory = memory(&columns, places)?;
    let startup = startup(&columns, options.runs, places)?;
    let mut facts = vec![document::command_line()];
    facts.extend(host::describe(places)?);
    facts.push(format!("load average of 1 and 5 minutes before: {load_before}; after: {}", host::load()));
    for (section, table) in [("footprint", memory), ("start-up", startup)] {
        let text = format!("\n{table}\n{}\n", document::note(&facts));
        println!("{text}");
        if options.write {
            document::write(&places.section(section), &text)?;
        }
    }
    Ok(())
}

/// Sums over the mappings of a process, in KiB (proc(5), smaps). Pages that are mapped twice count twice in `rss` and
/// once in the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mappings {
    rss: u64,
    pub(super) pss: u64,
    /// Of the mappings that are the guest's RAM.
    pub(super) guest_ram: u64,
    /// Of programs and libraries.
    files: u64,
    /// Of everything else: heap, stacks, code caches.
    anonymous: u64,
}

impl Mappings {
    pub(super) fn read(pid: u32, guest_ram: &str) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let sums = Self::parse(&text, guest_ram);
        ensure!(sums.guest_ram > 0, "no mapping of process {pid} has {guest_ram:?} in its name");
        Ok(sums)
    }

    fn parse(smaps: &str, guest_ram: &str) -> Self {
        let mut sums = Self::default();
        let mut name = "";
        for line in smaps.lines() {
            let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
            let kib = || rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
            match first {
                "Rss:" => sums.rss += kib(),
                "Pss:" => {
                    sums.pss += kib();
                    *sums.of(name, guest_ram) += kib();
                }
                // address permissions offset device inode name: only the first line of a mapping has no colon there.
                _ if !first.ends_with(':') => name = line.splitn(6, ' ').nth(5).unwrap_or("").trim(),
                _ => {}
            }
        }
        sums
    }

    fn of(&mut self, name: &str, guest_ram: &str) -> &mut u64 {
        if name.contains(guest_ram) {
            &mut self.guest_ram
        } else if name.starts_with('/') && !name.ends_with("(deleted)") {
            &mut self.files
        } else {
            &mut self.anonymous
        }
    }
}

/// The largest resident set that a process has had, in KiB (proc(5), status).
fn peak(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = kib.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok());
    kib.with_context(|| format!("{path} does not say VmHWM"))
}

/// What one idle machine costs.
struct Idle {
    mappings: Mappings,
    /// The largest resident set since the start, in KiB.
    peak: u64,
    cpu: Duration,
}

/// The table of an idle guest's memory.
fn memory(columns: &[&Column], places: &Places) -> Result<String> {
    const PURPOSE: &str = "footprint";
    let guest = image::embedded(places)?;
    for column in columns.iter().filter(|column| column.needs_priming()) {
        column.empty_primed_cache(places, PURPOSE)?;
        idle(column, column.priming_command(places, &guest, PURPOSE)?)?;
    }
    let mut measured: Vec<Vec<Idle>> = columns.iter().map(|_| Vec::new()).collect();
    for _ in 0..MEMORY_RUNS {
        for (column, measured) in columns.iter().zip(&mut measured) {
            measured.push(idle(column, column.command(places, &guest, PURPOSE)?)?);
        }
    }

    type Figure = (&'static str, fn(&Idle) -> f64);
    fn mib(kib: u64) -> f64 {
        kib as f64 / 1024.0
    }
    let figures: [Figure; 7] = [
        ("largest resident set so far, MiB", |idle| mib(idle.peak)),
        ("resident set, MiB", |idle| mib(idle.mappings.rss)),
        ("guest RAM touched, MiB", |idle| mib(idle.mappings.guest_ram)),
        ("**beyond guest RAM, MiB**", |idle| mib(idle.mappings.pss - idle.mappings.guest_ram)),
        ("of that program and libraries, MiB", |idle| mib(idle.mappings.files)),
        ("of that heap, stacks, code, MiB", |idle| mib(idle.mappings.anonymous)),
        ("host CPU in 10 s of idling, s", |idle| idle.cpu.as_secs_f64()),
    ];
    let cell = |runs: &Vec<Idle>, figure: fn(&Idle) -> f64| {
        Spread::of(runs.iter().map(figure)).map_or_else(String::new, |spread| spread.to_string())
    };
    let row = |(name, figure): &Figure| {
        let cells = measured.iter().map(|runs| cell(runs, *figure));
        std::iter::once((*name).to_owned()).chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = figures.iter().map(row).collect();
    Ok(document::table(1, &header("idle at the shell prompt", columns), &rows))
}

/// Boots the embedded guest, leaves it alone, and looks at its process.
fn idle(column: &Column, mut command: Command) -> Result<Idle> {
    command.args(columns::ram_options(column));
    let mut running = Running::start(command, Duration::from_secs(LIMIT_S))?;
    running.wait_for(PROMPT)?;
    // What the boot left to do in the background.
    thread::sleep(Duration::from_secs(1));
    let before = host::cpu_time(running.pid())?;
    thread::sleep(IDLE);
    let cpu = host::cpu_time(running.pid())? - before;
    let mappings = Mappings::read(running.pid(), columns::ram_name(column))?;
    let idle = Idle { mappings, peak: peak(running.pid())?, cpu };
    running.stop()?;
    Ok(idle)
}

/// The table of the time from exec to a guest's first instruction.
fn startup(columns: &[&Column], runs: u32, places: &Places) -> Result<String> {
    let mut walls = vec!["wall time, ms".to_owned()];
    let mut cpus = vec!["host CPU time, mean, ms".to_owned()];
    for column in columns {
        let (wall, cpu) = start_often(&mut column.tiny_command(places)?, runs)?;
        walls.push(format!("{wall:.1}"));
        cpus.push(format!("{cpu:.1}"));
    }
    let what = format!("whole life of a process, {runs} runs");
    Ok(document::table(1, &header(&what, columns), &[walls, cpus]))
}

fn header<'a>(what: &'a str, columns: &[&'a Column]) -> Vec<&'a str> {
    std::iter::once(what).chain(columns.iter().map(|column| column.name)).collect()
}

/// Runs a command many times: wall time, and mean CPU time, in milliseconds.
fn start_often(command: &mut Command, runs: u32) -> Result<(Spread, f64)> {
    let shown = crate::process::describe(command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let before = host::children_cpu_time()?;
    let mut walls_ms = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
        let status = child.wait()?;
        walls_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        ensure!(status.success(), "`{shown}` ended with {status}");
    }
    let cpu_ms = (host::children_cpu_time()? - before).as_secs_f64() * 1000.0 / f64::from(runs);
    match Spread::of(walls_ms) {
        Some(walls) => Ok((walls, cpu_ms)),
        None => bail!("`{shown}` did not run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_summed_by_what_they_are() {
        let smaps = "55d0-55d1 r-xp 00000000 08:01 77                         /usr/bin/isomer\n\
                     Size:                 16 kB\nRss:                  12 kB\nPss:                   6 kB\n\
                     7f00-7f01 rw-s 00000000 00:01 99                         /memfd:isomer-ram (deleted)\n\
                     Rss:                 100 kB\nPss:                  50 kB\nPss_Dirty:            50 kB\n\
                     7f02-7f03 rw-p 00000000 00:00 0                          [heap]\n\
                     Rss:                   8 kB\nPss:                   8 kB\nVmFlags: rd wr\n\
                     7f04-7f05 rw-p 00000000 00:00 0 \n\
                     Rss:                   4 kB\nPss:                   4 kB\n";
        let sums = Mappings::parse(smaps, "memfd:isomer-ram");
        assert_eq!(sums, Mappings { rss: 124, pss: 68, guest_ram: 50, files: 6, anonymous: 12 });
        let own = Mappings::read(std::process::id(), "xtask");
        assert!(own.is_ok_and(|own| own.pss > 0 && own.rss >= own.guest_ram));
    }
}
