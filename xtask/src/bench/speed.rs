//! The table of ratios: programs and boots, on QEMU and on every engine asked for, in interleaved rounds.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::document::{self, Spread};
use super::guest::{self, Embedded, Guest};
use super::machine::{self, Machine, Running};
use super::{LIMIT_S, Places, host};

/// The programs of `benches/guest`, in the order of the table.
const PROGRAMS: [(&str, &str); 7] = [
    ("integer", "lists, matrices, a state machine, CRC"),
    ("sieve", "short loops, byte stores"),
    ("fib", "calls, returns, branches"),
    ("memcpy", "copies of 8 MiB"),
    ("chase", "dependent loads all over 8 MiB"),
    ("matmul", "double precision, fused multiply-add"),
    ("getppid", "system calls"),
];
/// Its instructions are those of boot and markers, and are subtracted from every program's.
const BASELINE: &str = "empty";

#[derive(Args)]
pub(super) struct Options {
    /// How often everything runs
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Isomer's engines to measure, as `isomer run --engine` names them
    #[arg(long, value_delimiter = ',', default_value = "interp")]
    engine: Vec<String>,
    /// Only the row of this name; can be repeated
    #[arg(long, value_name = "ROW", conflicts_with = "write")]
    only: Vec<String>,
    /// Debian's stock kernel [default: the one that `cargo xtask boot` keeps]
    #[arg(long, value_name = "FILE", requires = "debian_initrd")]
    debian_kernel: Option<PathBuf>,
    /// The initial RAM disk that goes with it
    #[arg(long, value_name = "FILE", requires = "debian_kernel")]
    debian_initrd: Option<PathBuf>,
    /// Put the table into BENCHMARKS.md
    #[arg(long)]
    write: bool,
}

/// One line of the table, or one for each engine.
struct Row {
    name: &'static str,
    what: &'static str,
    guest: Guest,
    /// From where to where the clock runs.
    interval: Interval,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Interval {
    /// From the line that a program prints before its work to the one after it.
    Program,
    /// From the emulator's start to the line that the kernel prints before it starts init.
    Boot,
}

/// What one run gave.
struct Sample {
    cpu: Duration,
    /// Guest instructions from the emulator's start to the interval's end, where the machine counts them.
    insns: Option<u64>,
    /// The program's checksum or the kernel's version: the same on every machine.
    result: String,
}

/// A row's samples of one machine, one a round.
struct Series {
    machine: Machine,
    samples: Vec<Sample>,
}

pub(super) fn run(options: &Options, places: &Places) -> Result<()> {
    let machines: Vec<Machine> =
        std::iter::once(Machine::Qemu).chain(options.engine.iter().cloned().map(Machine::Isomer)).collect();
    let rows = rows(options, places)?;
    let load_before = host::load();
    let baseline = baseline(options, places, &machines)?;

    let mut lines = Vec::new();
    let mut results = Vec::new();
    let mut ratios = vec![Vec::new(); machines.len()];
    for row in &rows {
        let series = measure(row, &machines, places, options.rounds)?;
        results.push(format!("{} {}", row.name, series[0].samples[0].result));
        for (index, isomer) in series.iter().enumerate().skip(1) {
            let (line, ratio) = line(row, &series[0], isomer, &baseline)?;
            println!("{}", line.join("  "));
            ratios[index].push(ratio);
            lines.push(line);
        }
    }
    for (machine, ratios) in machines.iter().zip(&ratios).skip(1) {
        let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
        let cells = ["geometric mean", "", machine.name(), "", "", &format!("{mean:.2}"), ""];
        lines.push(cells.map(str::to_owned).to_vec());
    }

    let header =
        ["row", "what it is", "engine", "QEMU, CPU s", "Isomer, CPU s", "QEMU / Isomer", "guest MIPS"];
    let mut facts =
        vec![format!("{}, {} rounds: median (min-max)", document::command_line(), options.rounds)];
    facts.extend(host::describe()?);
    facts.push(format!("guest programs: {}", guest::compiler()?));
    facts.extend(results.iter().filter(|r| r.contains("Linux")).map(|result| format!("kernel of {result}")));
    facts.push(format!("load average of 1 and 5 minutes before: {load_before}; after: {}", host::load()));
    let text = format!("\n{}\n{}\n", document::table(&header, &lines), document::note(&facts));
    println!("{text}");
    if options.write { document::write("speed", &text) } else { Ok(()) }
}

fn rows(options: &Options, places: &Places) -> Result<Vec<Row>> {
    let embedded = Embedded::unpack(places)?;
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut rows = Vec::new();
    for (name, what) in PROGRAMS.into_iter().filter(|(name, _)| wanted(name)) {
        rows.push(Row { name, what, guest: embedded.program(name)?, interval: Interval::Program });
    }
    let boot = |name, what, guest| Row { name, what, guest, interval: Interval::Boot };
    if wanted("boot") {
        rows.push(boot("boot", "embedded kernel, start to init", embedded.shell()?));
    }
    if wanted("boot-debian") {
        match guest::debian(options.debian_kernel.as_deref(), options.debian_initrd.as_deref())? {
            Some(guest) => rows.push(boot("boot-debian", "Debian's kernel, start to init", guest)),
            None => println!("no Debian kernel: name one, or run `cargo xtask boot` first"),
        }
    }
    ensure!(!rows.is_empty(), "no row of these names");
    Ok(rows)
}

/// The instructions of each machine's run without work; empty for a machine that does not count.
fn baseline(options: &Options, places: &Places, machines: &[Machine]) -> Result<Vec<(Machine, f64)>> {
    let guest = Embedded::unpack(places)?.program(BASELINE)?;
    let row = Row { name: BASELINE, what: "", guest, interval: Interval::Program };
    let series = measure(&row, machines, places, options.rounds)?;
    Ok(series.iter().filter_map(|series| Some((series.machine.clone(), series.insns()?.median))).collect())
}

/// Runs a row on all machines in turn, `rounds` times over.
fn measure(row: &Row, machines: &[Machine], places: &Places, rounds: u32) -> Result<Vec<Series>> {
    let new = |machine: &Machine| Series { machine: machine.clone(), samples: Vec::new() };
    let mut all: Vec<Series> = machines.iter().map(new).collect();
    for _ in 0..rounds {
        for series in &mut all {
            let running = Running::start(
                series.machine.command(&places.isomer, &row.guest),
                Duration::from_secs(LIMIT_S),
            )?;
            let sample = sample(running, row.interval)
                .with_context(|| format!("{} on {}", row.name, series.machine.name()))?;
            eprintln!("  {} {} {:.2} s", row.name, series.machine.name(), sample.cpu.as_secs_f64());
            series.samples.push(sample);
        }
    }
    let mut results =
        all.iter().flat_map(|s| s.samples.iter().map(move |sample| (&s.machine, &sample.result)));
    if let Some((_, first)) = results.next()
        && let Some((machine, other)) = results.find(|(_, result)| *result != first)
    {
        bail!("{}: QEMU says {first:?}, {} says {other:?}", row.name, machine.name());
    }
    Ok(all)
}

fn sample(mut running: Running, interval: Interval) -> Result<Sample> {
    let (cpu, result) = match interval {
        Interval::Program => {
            let begin = running.wait_for("BENCH BEGIN")?;
            let end = running.wait_for("BENCH END ")?;
            (end - begin, running.rest_of_line()?)
        }
        Interval::Boot => {
            running.wait_for("Linux version ")?;
            let version = running.rest_of_line()?;
            let release = version.split(' ').next().unwrap_or_default();
            (running.wait_for(guest::INIT_LINE)?, format!("Linux {release}"))
        }
    };
    Ok(Sample { cpu, insns: machine::instructions(&running.stop()?), result })
}

impl Series {
    fn cpu_s(&self) -> Option<Spread> {
        Spread::of(self.samples.iter().map(|sample| sample.cpu.as_secs_f64()))
    }

    fn insns(&self) -> Option<Spread> {
        let counts: Option<Vec<f64>> = self.samples.iter().map(|s| Some(s.insns? as f64)).collect();
        Spread::of(counts?)
    }
}

/// The table's cells for one engine, and its ratio.
fn line(
    row: &Row,
    qemu: &Series,
    isomer: &Series,
    baseline: &[(Machine, f64)],
) -> Result<(Vec<String>, f64)> {
    let (Some(theirs), Some(ours)) = (qemu.cpu_s(), isomer.cpu_s()) else {
        bail!("{}: no samples", row.name)
    };
    let outside = match row.interval {
        Interval::Program => baseline.iter().find(|(machine, _)| *machine == isomer.machine).map(|(_, n)| *n),
        Interval::Boot => Some(0.0),
    };
    let mips = isomer.insns().zip(outside).map(|(all, outside)| (all.median - outside) / ours.median / 1e6);
    let ratio = theirs.median / ours.median;
    let cells = vec![
        row.name.to_owned(),
        row.what.to_owned(),
        isomer.machine.name().to_owned(),
        format!("{theirs:.2}"),
        format!("{ours:.2}"),
        format!("{ratio:.2}"),
        mips.map_or_else(String::new, |mips| format!("{mips:.0}")),
    ];
    Ok((cells, ratio))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(machine: Machine, runs: &[(u64, Option<u64>)]) -> Series {
        let sample = |&(ms, insns): &(u64, Option<u64>)| Sample {
            cpu: Duration::from_millis(ms),
            insns,
            result: String::new(),
        };
        Series { machine, samples: runs.iter().map(sample).collect() }
    }

    fn row(interval: Interval) -> Row {
        let guest = Guest { kernel: PathBuf::new(), initrd: PathBuf::new() };
        Row { name: "row", what: "what", guest, interval }
    }

    #[test]
    fn a_line_has_ratio_and_mips_of_the_medians() -> Result<()> {
        let qemu = series(Machine::Qemu, &[(1000, None), (3000, None), (2000, None)]);
        let engine = Machine::Isomer("interp".into());
        let isomer = series(engine.clone(), &[(4000, Some(900_000_000)); 3]);
        let baseline = [(engine, 100_000_000.0)];
        let (cells, ratio) = line(&row(Interval::Program), &qemu, &isomer, &baseline)?;
        assert!((ratio - 0.5).abs() < 1e-9);
        assert_eq!(cells[3..], ["2.00 (1.00-3.00)", "4.00 (4.00-4.00)", "0.50", "200"]);
        // A boot's instructions all belong to it.
        assert_eq!(line(&row(Interval::Boot), &qemu, &isomer, &baseline)?.0[6], "225");
        Ok(())
    }

    #[test]
    fn every_program_of_the_table_has_a_source() {
        let folder = crate::repository_root().join("benches/guest");
        for name in PROGRAMS.iter().map(|(name, _)| *name).chain([BASELINE]) {
            assert!(folder.join(name).with_extension("c").exists(), "{name}");
        }
    }
}
