//! `cargo xtask oracle`: random instruction streams on every engine and on QEMU, which must agree on all registers,
//! flags, traps and memory.
//!
//! Sequences of a few dozen instructions are packed into one program with the states they start from. The program
//! runs as a Linux process on QEMU and in user mode on ours. Everything is made from a seed, which is printed. What is
//! particular to an instruction set is in its folder.

mod aarch64;
mod engine;
mod image;
mod qemu;
mod random;
mod record;
mod reduce;
mod riscv64;
mod subject;

use aarch64::Arm;
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use image::Image;
use isomer_engine::EngineKind;
use qemu::Qemu;
use random::Random;
use record::{Record, Word};
use riscv64::Riscv;
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, Hasher, RandomState},
    path::{Path, PathBuf},
    time::Instant,
};
use subject::{Sequence, Subject};

/// Sequences in a program: translation and start-up are shared by as many as the harness's jumps reach.
const SEQUENCES: usize = 1000;
/// States each sequence runs from.
const INPUTS: usize = 4;
/// The seed of the run that is the same every time.
const FIXED_SEED: u64 = 1;

/// The instruction sets that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Arch {
    Riscv64,
    Aarch64,
}

#[derive(Args)]
pub(crate) struct Command {
    /// Instruction set
    #[arg(long, value_enum, default_value = "riscv64")]
    arch: Arch,
    /// Where the sequences come from; random if not given
    #[arg(long)]
    seed: Option<u64>,
    /// Instructions to compare on each engine, about: 1000000 or 1e6
    #[arg(long, default_value = "1e6", value_parser = count)]
    insns: u64,
    /// Engines to run on: interp, reference, jit, eager, template, mixed
    #[arg(long, value_delimiter = ',', default_value = "interp,reference,template,eager,mixed")]
    engine: Vec<String>,
    /// CPU model
    #[arg(long, default_value = "max")]
    cpu: String,
    /// Another program than Debian's qemu-riscv64-static or qemu-aarch64-static
    #[arg(long)]
    qemu: Option<PathBuf>,
    /// Run what `cargo xtask check` runs: 10^5 instructions, half of them from a seed that is always the same
    #[arg(long, conflicts_with_all = ["seed", "insns", "engine", "cpu", "qemu", "keep_going"])]
    quick: bool,
    /// Give up after this many differences
    #[arg(long, default_value_t = 10)]
    keep_going: usize,
}

/// Runs `insns` instructions of one seed.
///
/// # Errors
/// When an engine and QEMU do not agree, or the comparison cannot be made.
pub(crate) fn run(command: &Command) -> Result<()> {
    match command.arch {
        Arch::Riscv64 => run_subject(Riscv::new(&command.cpu)?, command),
        Arch::Aarch64 => run_subject(Arm::new(&command.cpu)?, command),
    }
}

fn run_subject<S: Subject>(subject: S, command: &Command) -> Result<()> {
    let oracle = Oracle::new(subject, command.qemu.as_deref())?;
    if command.quick {
        return oracle.quick();
    }
    let engines = command.engine.iter().map(|name| engine_by_name(name)).collect::<Result<Vec<_>>>()?;
    println!("{} -cpu {}", oracle.qemu.version()?, oracle.qemu.cpu());
    let seed = command.seed.unwrap_or_else(random_seed);
    oracle.run(seed, command.insns, &engines, command.keep_going)
}

fn engine_by_name(name: &str) -> Result<EngineKind> {
    Ok(name.parse()?)
}

/// `1000000` or `1e6`.
fn count(text: &str) -> Result<u64, String> {
    let parsed = match text.split_once('e') {
        Some((digits, exponent)) => {
            let power = exponent.parse().ok().and_then(|exponent| 10u64.checked_pow(exponent));
            power.and_then(|power| digits.parse::<u64>().ok()?.checked_mul(power))
        }
        None => text.parse().ok(),
    };
    parsed.filter(|n| *n > 0).ok_or_else(|| format!("{text:?} is not a number of instructions"))
}

/// A seed nobody chose: what the standard library seeds its hash tables with.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The subject and the reference.
struct Oracle<S> {
    subject: S,
    qemu: Qemu,
}

/// The same record after a run on either side.
struct Pair {
    /// Which of the program's records.
    number: usize,
    reference: Record,
    ours: Record,
}

/// A program's run on QEMU and on some engines.
struct Compared {
    /// By engine.
    differing: Vec<Vec<Pair>>,
    /// Instructions of the sequences, on one engine.
    insns: u64,
    /// Sequences ended by a trap.
    traps: u64,
}

/// What has been compared so far.
#[derive(Default)]
struct Tally {
    insns: u64,
    runs: usize,
    traps: u64,
    found: usize,
    /// Mnemonics that differences were reported for.
    culprits: BTreeSet<String>,
    /// Instructions of each class, as many times as their sequences ran; some of those were branched over.
    classes: BTreeMap<&'static str, u64>,
}

impl<S: Subject> Oracle<S> {
    fn new(subject: S, qemu: Option<&Path>) -> Result<Self> {
        let qemu = Qemu::new(qemu, &subject)?;
        Ok(Self { subject, qemu })
    }

    /// A short comparison, half of it from a seed that is always the same.
    fn quick(&self) -> Result<()> {
        self.run(FIXED_SEED, 50_000, &EngineKind::ALL, 1)?;
        self.run(random_seed(), 50_000, &EngineKind::ALL, 1)
    }

    /// Compares programs until enough instructions have run.
    fn run(&self, seed: u64, insns: u64, engines: &[EngineKind], keep_going: usize) -> Result<()> {
        let start = Instant::now();
        println!("oracle: seed {seed}");
        let mut tally = Tally::default();
        for program in 0.. {
            if tally.insns >= insns || tally.found >= keep_going {
                break;
            }
            let sequences = self.program(seed, program, insns - tally.insns)?;
            let borrowed: Vec<_> = sequences.iter().map(|(s, inputs)| (s, inputs.as_slice())).collect();
            let compared = match self.compare(&borrowed, engines) {
                Ok(compared) => compared,
                Err(error) => {
                    println!("FAILURE: seed {seed}, program {program}: {error:#}");
                    let (sequence, error) = self.failing(&borrowed, engines)?;
                    println!("{}", self.listing(&sequence, 0));
                    return Err(error);
                }
            };
            tally.insns += compared.insns;
            tally.traps += compared.traps;
            tally.runs += sequences.len() * INPUTS;
            for class in sequences.iter().flat_map(|(sequence, _)| self.subject.classes(sequence)) {
                *tally.classes.entry(class).or_default() += INPUTS as u64;
            }
            for (&engine, differing) in engines.iter().zip(&compared.differing) {
                let name = format!("{engine:?}: seed {seed}, program {program}");
                self.report(&name, engine, &sequences, differing, keep_going, &mut tally)?;
            }
        }
        let Tally { insns, runs, traps, found, classes, .. } = tally;
        for (class, count) in classes {
            println!("  {class:<24} {count:>12}");
        }
        println!(
            "oracle: seed {seed}: {insns} instructions on each of {} engines, {runs} runs, {traps} ended by traps, in {:.1} s",
            engines.len(),
            start.elapsed().as_secs_f64()
        );
        ensure!(found == 0, "{found} differences from QEMU with seed {seed}");
        Ok(())
    }

    /// The sequences of a program of a seed, as many as make about `insns` instructions, and their inputs.
    fn program(&self, seed: u64, program: u64, insns: u64) -> Result<Vec<(Sequence, [Record; INPUTS])>> {
        // A run is about seventy instructions.
        let wanted = insns / (70 * INPUTS as u64) + 1;
        let mut generator = self.subject.generator(Random::new(seed, program));
        let mut make = || Ok((generator.sequence()?, std::array::from_fn(|_| generator.input())));
        (0..wanted.min(SEQUENCES as u64)).map(|_| make()).collect()
    }

    /// Prints the differences of a program, one for each mnemonic they are reduced to.
    fn report(
        &self,
        name: &str,
        engine: EngineKind,
        sequences: &[(Sequence, [Record; INPUTS])],
        differing: &[Pair],
        most: usize,
        tally: &mut Tally,
    ) -> Result<()> {
        let mut last = None;
        for pair in differing {
            let (number, input) = (pair.number / INPUTS, pair.number % INPUTS);
            // One run of a sequence is enough.
            if last.replace(number) == Some(number) || tally.found >= most {
                continue;
            }
            let (sequence, inputs) = &sequences[number];
            let least = self.reduce(sequence, &inputs[input], engine)?;
            let report = self.describe(&least, &inputs[input], engine)?;
            match report {
                Some(report) if tally.culprits.insert(report.last.clone()) => {
                    println!("DIFFERENCE on {name}, sequence {number}\n{}", report.text);
                    tally.found += 1;
                }
                Some(_) => {}
                None => {
                    println!("DIFFERENCE on {name}, sequence {number}, only behind the others");
                    tally.found += 1;
                }
            }
        }
        Ok(())
    }

    /// Runs one program on QEMU and, meanwhile, on the engines.
    fn compare(&self, sequences: &[(&Sequence, &[Record])], engines: &[EngineKind]) -> Result<Compared> {
        let image = Image::new(&self.subject, sequences)?;
        let reference = self.qemu.start(&image)?;
        let ours: Vec<_> = engines.iter().map(|&kind| engine::run(&image, &self.subject, kind)).collect();
        let reference = reference.finish(&image)?;
        let mut compared = Compared { differing: Vec::new(), insns: 0, traps: 0 };
        for outcome in ours {
            let outcome = outcome?;
            let mut differing = Vec::new();
            let (mut traps, mut count) = (0, 0);
            let records = reference.chunks(record::BYTES).zip(outcome.records.chunks(record::BYTES));
            for (number, (reference, ours)) in records.enumerate() {
                let mut ours = Record::from_bytes(ours)?;
                ours.normalize(|cause| self.subject.signal_of(cause));
                traps += u64::from(ours.get(Word::Cause as i64) != 0);
                count += 1;
                if ours.bytes() != reference {
                    let reference = Record::from_bytes(reference)?;
                    differing.push(Pair { number, reference, ours });
                }
            }
            compared.differing.push(differing);
            compared.traps = traps;
            let harness = count * image.harness.insns_a_record + traps * image.harness.insns_a_trap;
            compared.insns = outcome.insns.saturating_sub(harness);
        }
        Ok(compared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_may_be_powers_of_ten() {
        assert_eq!((count("1e6"), count("25")), (Ok(1_000_000), Ok(25)));
        assert!(["", "0", "1e", "e6", "2e30", "-1"].iter().all(|text| count(text).is_err()));
    }
}
