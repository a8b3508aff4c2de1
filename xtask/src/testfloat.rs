//! `cargo xtask testfloat`: Berkeley TestFloat's vectors through the guests' own instructions, on every engine.
//!
//! The vectors come from `testfloat_gen`, which whoever wants to try this has built beside the project. A guest's program
//! has a loop for each function and rounding; bits and flags of each result have to be the vector's.

mod aarch64;
mod cases;
mod machine;
mod program;
mod riscv64;
mod vectors;

use anyhow::{Context, Result, bail, ensure};
use cases::Setting;
use clap::Args;
use isomer_engine::EngineKind;
use machine::{Machine, VECTORS};
use program::{Case, Mismatch, Program, Recipe};
use std::{path::PathBuf, thread, time::Instant};
use vectors::{Generator, Specialization};

use crate::tools;

/// Mismatches of a loop that are shown, for each engine.
const SHOWN: usize = 3;
/// Of how many vectors `--quick` takes one: a prime, for the vectors come in rounds.
const QUICK: usize = 97;

#[derive(Args)]
pub(crate) struct Command {
    /// testfloat_gen of github.com/ucb-bar/berkeley-testfloat-3 (or of its release 3e), over SoftFloat of
    /// berkeley-softfloat-3 built with SPECIALIZE_TYPE=RISCV for the riscv64 guest, ARM-VFPv2-defaultNaN or ARM-VFPv2 for
    /// the aarch64 guest. Which it is shows in its vectors. More than one can be given
    #[arg(required = true, value_name = "GEN")]
    generators: Vec<PathBuf>,
    /// TestFloat's level: 1, or 2 for some hundred times as many vectors
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=2))]
    level: u32,
    /// Of functions of several operands, take one vector in 97
    #[arg(long)]
    quick: bool,
    /// Only functions whose name contains this, as in f64_ or mulAdd
    #[arg(long)]
    only: Option<String>,
    /// Engines to run on: interp, reference, jit, eager, template, mixed
    #[arg(long, value_delimiter = ',', default_value = "interp,reference,jit,eager,template,mixed")]
    engine: Vec<String>,
}

/// Vectors and failures so far, these by engine.
#[derive(Clone, Default)]
struct Tally {
    vectors: u64,
    results: u64,
    failures: Vec<u64>,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.vectors += other.vectors;
        self.results += other.results;
        self.results += other.results;
        self.failures.resize(other.failures.len().max(self.failures.len()), 0);
        self.failures.iter_mut().zip(&other.failures).for_each(|(sum, failures)| *sum += failures);
    }
}

/// The guests, riscv64 first.
fn guests() -> [&'static Recipe; 2] {
    [&riscv64::RECIPE, &aarch64::RECIPE]
}

/// Runs every generator's vectors on its guest.
///
/// # Errors
/// When a result is not the vector's, or none can be had.
pub(crate) fn run(command: &Command) -> Result<()> {
    let parsed = command.engine.iter().map(|name| name.parse::<EngineKind>());
    let engines = parsed.collect::<Result<Vec<_>, _>>()?;
    let mut total = Tally::default();
    for path in &command.generators {
        let generator = Generator::new(path, command.level, if command.quick { QUICK } else { 1 });
        total.add(&on_guest(command, &generator, &engines)?);
    }
    let failures: u64 = total.failures.iter().sum();
    ensure!(failures == 0, "{failures} results are not those of TestFloat");
    Ok(())
}

/// One guest's table.
fn on_guest(command: &Command, generator: &Generator, engines: &[EngineKind]) -> Result<Tally> {
    let specialization = generator.specialization()?;
    let [riscv64, aarch64] = guests();
    let recipe = match specialization {
        Specialization::RiscV => riscv64,
        Specialization::Arm | Specialization::ArmDefaultNan => aarch64,
    };
    tools::require("assembling TestFloat's loops", &recipe.tools)?;
    let only = command.only.as_deref().unwrap_or_default();
    let wanted = |setting: &Setting| setting.function.name().contains(only);
    let folder = crate::target_dir()?.join("testfloat").join(recipe.name);
    let program = Program::new(recipe, specialization, wanted, &folder)?;
    ensure!(!program.cases.is_empty(), "the {} guest has no function named {only}", recipe.name);
    let made = engines.iter().map(|&engine| (recipe.machine)(&program.elf, engine));
    let mut machines = made.collect::<Result<Vec<_>>>()?;

    let start = Instant::now();
    println!("{} on vectors for {specialization:?}; failures by engine", recipe.name);
    let names = engines.iter().map(|engine| engine.name().to_owned());
    row("function", "rounding", "vectors", names);
    let mut total = Tally::default();
    for case in &program.cases {
        let mut shown = Vec::new();
        let tally = on_engines(recipe, case, generator, &mut machines, engines, &mut shown)
            .with_context(|| format!("{} {}", case.setting.function.name(), case.setting.describe()))?;
        row(
            &case.setting.function.name(),
            &case.setting.describe(),
            &tally.vectors.to_string(),
            counts(&tally),
        );
        shown.iter().for_each(|line| println!("  {line}"));
        total.add(&tally);
    }
    row("all", "", &total.vectors.to_string(), counts(&total));
    println!(
        "testfloat: {}: {} vectors, {} results on each of {} engines, {} failures, in {:.0} s\n",
        recipe.name,
        total.vectors,
        total.results,
        engines.len(),
        total.failures.iter().sum::<u64>(),
        start.elapsed().as_secs_f64()
    );
    Ok(total)
}

fn counts(tally: &Tally) -> impl Iterator<Item = String> {
    tally.failures.iter().map(u64::to_string)
}

fn row(function: &str, rounding: &str, vectors: &str, engines: impl Iterator<Item = String>) {
    let engines: String = engines.map(|cell| format!(" {cell:>9}")).collect();
    println!("{function:<16} {rounding:<21} {vectors:>9}{engines}");
}

/// One setting's vectors on all engines.
fn on_engines(
    recipe: &Recipe,
    case: &Case,
    generator: &Generator,
    machines: &mut [Box<dyn Machine>],
    engines: &[EngineKind],
    shown: &mut Vec<String>,
) -> Result<Tally> {
    let (kind, operands) = case.setting.function.operands();
    let mut vectors = generator.start(case.setting, recipe.tininess_before)?;
    let mut tally = Tally { failures: vec![0; engines.len()], ..Tally::default() };
    let mut words = Vec::new();
    loop {
        words.clear();
        let count = vectors.read(&mut words, VECTORS)?;
        if count == 0 {
            break;
        }
        tally.vectors += count as u64;
        tally.results += (count * case.variants) as u64;
        let bytes = program::operands(kind, operands, &words);
        let job = |machine: &mut Box<dyn Machine>| -> Result<Vec<Mismatch>> {
            let mut results = vec![0; 16 * case.variants * count];
            machine.run(case.entry, &bytes, count, &mut results)?;
            Ok(program::mismatches(recipe, case, &words, &results))
        };
        let found = at_once(machines, job)?;
        for ((engine, found), failures) in engines.iter().zip(found).zip(&mut tally.failures) {
            let left = SHOWN.saturating_sub(*failures as usize);
            *failures += found.len() as u64;
            shown.extend(found.iter().take(left).map(|found| describe(operands, *engine, &words, found)));
        }
    }
    vectors.finish()?;
    Ok(tally)
}

/// Does `job` on every machine at the same time.
fn at_once<T: Send>(
    machines: &mut [Box<dyn Machine>],
    job: impl Fn(&mut Box<dyn Machine>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let job = &job;
    thread::scope(|scope| {
        let started: Vec<_> = machines.iter_mut().map(|machine| scope.spawn(move || job(machine))).collect();
        let joined = started.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a machine's thread panicked"),
        });
        joined.collect()
    })
}

/// A mismatch for people.
fn describe(operands: usize, engine: EngineKind, words: &[u64], found: &Mismatch) -> String {
    let line = words.chunks_exact(operands + 2).nth(found.line).unwrap_or_default();
    let (given, expected) = line.split_at(operands.min(line.len()));
    let hex = |words: &[u64]| words.iter().map(|word| format!("{word:x}")).collect::<Vec<_>>().join(" ");
    format!(
        "{}: {} gives {:x} {:02x}, not {} (instruction {}{})",
        engine.name(),
        hex(given),
        found.bits,
        found.flags,
        hex(expected),
        found.variant + 1,
        if program::Code::is_inexact_before(found.variant) { ", inexact before" } else { "" }
    )
}
