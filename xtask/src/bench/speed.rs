//! `cargo xtask bench`: every row on every column, in interleaved rounds.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::columns::{self, Column};
use super::image::{self, Debian, Guest};
use super::report::{Report, Table};
use super::rows::{Kernel, Kind, ROWS, Row, Selection};
use super::session::{self, Sample, Session};
use super::{Places, document, host};

/// Rounds, unless the command line says how many.
const RUNS: u32 = 3;

#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    selection: Selection,
    /// How often everything runs [default: 3; with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Isomer's columns: interp, jit-cold, jit-warm, jit-uncached, jit [default: the first three, of those that the
    /// binary knows]
    #[arg(long, value_delimiter = ',', value_name = "COLUMN")]
    engine: Vec<String>,
    /// Print the rows and end
    #[arg(long)]
    pub(super) list: bool,
    /// Download the newest packages again
    #[arg(long)]
    refresh: bool,
    /// Debian archive to download from [default: the one in the system's apt sources]
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
    /// Where the results go as JSON, too [default: results.json in the benchmarks' folder below target]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Put the table into BENCHMARKS.md
    #[arg(long, conflicts_with_all = ["only", "rows", "quick"])]
    write: bool,
}

impl Options {
    /// # Errors
    /// When a name is not a row's or a column's.
    pub(super) fn check(&self) -> Result<()> {
        columns::check(&self.engine)?;
        self.selection.rows().map(|_| ())
    }
}

/// Prints the rows.
pub(super) fn list() {
    for row in &ROWS {
        println!("{:<16} {:<9} {}", row.name, row.group.name(), row.what);
    }
}

/// # Errors
/// When a row fails on a machine, or two machines compute different results; after the table is written.
pub(super) fn run(options: &Options, places: &Places) -> Result<()> {
    let rows = options.selection.rows()?;
    let columns = columns::available(&options.engine, places)?;
    let runs = options.runs.unwrap_or(if options.selection.quick { 1 } else { RUNS });
    let debian = Debian::prepare(places, options.mirror.as_deref(), options.refresh)?;
    let load_before = host::load();

    let mut bench = Bench::new(places, &debian, &rows, &columns)?;
    bench.prime()?;
    for round in 0..runs {
        eprintln!("round {} of {runs}", round + 1);
        bench.round(round as usize);
    }

    let mut facts = vec![format!("{}, {runs} rounds: medians", document::command_line())];
    facts.extend(host::describe(places)?);
    facts.push(format!("guest programs: {}", image::compiler(places.platform)?));
    facts.push(format!("Debian packages: {}", debian.versions()?));
    facts.push(format!("load average of 1 and 5 minutes before: {load_before}; after: {}", host::load()));
    let report = Report { date: host::date()?, facts, table: bench.table };
    let text = report.markdown();
    println!("{text}");
    let json = options.json.clone().unwrap_or_else(|| places.work.join("results.json"));
    report.write_json(&json)?;
    println!("as JSON: {}", json.display());
    if options.write {
        document::write(&places.section("speed"), &text)?;
    }
    let failures = report.table.failures();
    if !failures.is_empty() {
        bail!("{} of the rows failed:\n{}", failures.len(), failures.join("\n"));
    }
    Ok(())
}

/// A benchmark under way.
struct Bench<'a> {
    places: &'a Places,
    columns: Vec<&'static Column>,
    /// Rows of a session, in order.
    programs: Vec<&'static Row>,
    session_guest: Option<Guest>,
    boots: Vec<(&'static Row, Guest)>,
    table: Table,
}

impl<'a> Bench<'a> {
    fn new(
        places: &'a Places,
        debian: &Debian,
        rows: &[&'static Row],
        columns: &[&'static Column],
    ) -> Result<Self> {
        let mut programs = Vec::new();
        let mut boots = Vec::new();
        for row in rows {
            match row.kind {
                Kind::Program | Kind::Script => programs.push(*row),
                Kind::Boot(Kernel::Debian) => boots.push((*row, debian.boot()?)),
                Kind::Boot(Kernel::Embedded) => boots.push((*row, image::embedded(places)?)),
            }
        }
        let session_guest = if programs.is_empty() { None } else { Some(debian.rows(&programs)?) };
        let table = Table::new(rows, columns);
        Ok(Self { places, columns: columns.to_vec(), programs, session_guest, boots, table })
    }

    /// Runs everything once, unmeasured, on the columns that start from a filled cache.
    fn prime(&mut self) -> Result<()> {
        for column in self.columns.iter().filter(|column| column.needs_priming()) {
            eprintln!("filling the cache of `{}`", column.name);
            for (row, guest) in &self.boots {
                if let Err(why) = session::prime_boot(column, self.places, guest, row.name) {
                    eprintln!("  {} in the run that fills the cache: {why:#}", row.name);
                }
            }
            if let Some(guest) = &self.session_guest {
                for (row, why) in session::prime(column, self.places, guest, &self.programs)? {
                    eprintln!("  {} in the run that fills the cache: {why:#}", row.name);
                }
            }
        }
        Ok(())
    }

    /// Every row once on every column. The columns take turns at going first.
    fn round(&mut self, round: usize) {
        let mut columns = self.columns.clone();
        let first = round % columns.len();
        columns.rotate_left(first);
        for (row, guest) in &self.boots {
            for column in &columns {
                let sample = session::boot(column, self.places, guest, row.name);
                note(&mut self.table, row, column, sample);
            }
        }
        let Some(guest) = &self.session_guest else { return };
        let mut sessions: Vec<Session> =
            columns.iter().map(|column| Session::new(column, self.places, guest)).collect();
        for session in &mut sessions {
            // One that does not boot says so again at its first row.
            let _ = session.start();
        }
        for row in &self.programs {
            for session in &mut sessions {
                let sample = session.run(row);
                note(&mut self.table, row, session.column, sample);
            }
        }
        for session in &mut sessions {
            match session.end() {
                Ok(ending) => self.table.end(session.column, ending),
                Err(why) => eprintln!("  `{}` did not end well: {why:#}", session.column.name),
            }
        }
    }
}

fn note(table: &mut Table, row: &Row, column: &Column, sample: Result<Sample>) {
    match &sample {
        Ok(sample) => eprintln!("  {} {} {:.2} s", row.name, column.name, sample.cpu.as_secs_f64()),
        Err(why) => eprintln!("  {} {} FAILED: {why:#}", row.name, column.name),
    }
    table.add(row, column, sample);
}
