//! `cargo xtask isa`: assembles the programs of `tests/isa/<guest>` and runs each on every engine.
//!
//! A program ends with the macro `done` of `test.inc`. Comments state what its registers hold then:
//! `#= a0 0x2a` in hexadecimal, `#= a0 -1` in decimal, `#= fa0 0x3ff0000000000000` as the register's bits.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use isomer_engine::{EngineKind, Trace};
use isomer_riscv64::{
    Cpu,
    regs::{F_NAMES, X_NAMES},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command as Program,
    time::Instant,
};

use crate::{
    process,
    suites::bare::{Bare, Verdict},
    tools::{self, Tool},
};

const TOOLS: [Tool; 2] = [
    Tool::program("riscv64-linux-gnu-as", "binutils-riscv64-linux-gnu"),
    Tool::program("riscv64-linux-gnu-ld", "binutils-riscv64-linux-gnu"),
];
const MARCH: &str = "-march=rv64imafdc_zicsr_zifencei_zba_zbb_zbc_zbs";

/// Instructions before a program counts as hung; the longest takes some ten thousand.
const LIMIT: u64 = 1_000_000;

#[derive(Args)]
pub(crate) struct Command {
    /// Only programs whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Trace instructions, page walks, traps: insn,mmu,irq
    #[arg(long, default_value = "")]
    trace: String,
}

impl Command {
    /// What `cargo xtask check` runs.
    pub(crate) fn all() -> Self {
        Self { only: None, trace: String::new() }
    }
}

pub(crate) fn run(command: &Command) -> Result<()> {
    let folder = crate::repository_root().join("tests/isa/riscv64");
    let built = crate::target_dir()?.join("isa/riscv64");
    let trace: Trace = command.trace.parse()?;
    tools::require("assembling tests/isa", &TOOLS)?;
    fs::create_dir_all(&built).with_context(|| format!("cannot create {}", built.display()))?;

    let start = Instant::now();
    // By engine.
    let (mut passed, mut failed) = ([0; EngineKind::ALL.len()], 0);
    for source in sources(&folder, command.only.as_deref())? {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let program = assemble(&source, &folder, &built.join(&name)).and_then(|elf| {
            let text = fs::read_to_string(&source)?;
            Ok((elf, Expected::parse(&text)?))
        });
        for (passed, engine) in passed.iter_mut().zip(EngineKind::ALL) {
            let engine_name = engine.name();
            let tested = match &program {
                Ok((elf, expected)) => test(elf, expected, engine, trace),
                Err(error) => Err(anyhow::anyhow!("{error:#}")),
            };
            match tested {
                Ok(()) => *passed += 1,
                Err(why) => {
                    failed += 1;
                    println!("FAIL {name} on {engine_name}: {why:#}");
                }
            }
        }
    }
    let columns =
        EngineKind::ALL.iter().zip(passed).map(|(engine, passed)| format!("{passed} on {}", engine.name()));
    println!("isa: passed {}", columns.collect::<Vec<_>>().join(", "));
    let passed: usize = passed.iter().sum();
    println!("isa: {passed} passed, {failed} failed in {:.1} s", start.elapsed().as_secs_f64());
    ensure!(failed == 0 && passed > 0, "{failed} failed, {passed} passed");
    Ok(())
}

/// The folder's `.s` files, by name.
fn sources(folder: &Path, only: Option<&str>) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut sources: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    sources.retain(|path| {
        let wanted =
            only.is_none_or(|only| path.file_stem().is_some_and(|n| n.to_string_lossy().contains(only)));
        wanted && path.extension().is_some_and(|extension| extension == "s")
    });
    sources.sort();
    Ok(sources)
}

/// Makes an ELF file linked at the start of RAM, everything in one writable and executable segment.
fn assemble(source: &Path, include: &Path, output: &Path) -> Result<Vec<u8>> {
    let (object, elf) = (output.with_extension("o"), output.with_extension("elf"));
    let mut assembler = Program::new("riscv64-linux-gnu-as");
    process::run(assembler.arg(MARCH).arg("-I").arg(include).arg("-o").arg(&object).arg(source))?;
    let mut linker = Program::new("riscv64-linux-gnu-ld");
    linker.args(["--omagic", "--no-warn-rwx-segments", "--no-relax", "-Ttext=0x80000000"]);
    process::run(linker.arg("-o").arg(&elf).arg(&object))?;
    fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))
}

fn test(elf: &[u8], expected: &Expected, engine: EngineKind, trace: Trace) -> Result<()> {
    let mut machine = Bare::new(elf, engine, "max", trace)?;
    match machine.run(LIMIT) {
        Verdict::Passed => expected.check(machine.cpu()),
        // `unexpected_trap` of test.inc.
        Verdict::Failed(code) => {
            bail!("unexpected trap, mcause {}\n{}", code.wrapping_sub(1), machine.describe())
        }
        Verdict::Hung(state) => bail!("no end after {LIMIT} instructions\n{state}"),
    }
}

/// An integer or floating-point register.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Register {
    X(usize),
    F(usize),
}

impl Register {
    fn by_name(name: &str) -> Option<Self> {
        let position = |names: &[&str; 32]| names.iter().position(|known| *known == name);
        position(&X_NAMES).map(Self::X).or_else(|| position(&F_NAMES).map(Self::F))
    }

    fn value(self, cpu: &Cpu) -> u64 {
        match self {
            Self::X(n) => cpu.x[n],
            Self::F(n) => cpu.f[n],
        }
    }
}

/// What the registers hold at a program's end.
#[derive(Debug)]
struct Expected(Vec<(String, Register, u64)>);

impl Expected {
    /// Reads the comments `#= REGISTER VALUE`, on lines of their own or behind an instruction.
    ///
    /// # Errors
    /// When a line is not of that form, or there is none: such a test could not fail.
    fn parse(source: &str) -> Result<Self> {
        let mut all = Vec::new();
        for line in source.lines().filter_map(|line| Some(line.split_once("#=")?.1)) {
            // What follows a second # is a remark.
            let fact = line.split('#').next().unwrap_or_default();
            let [name, value] = fact.split_whitespace().collect::<Vec<_>>()[..] else {
                bail!("`#={line}` is not `#= REGISTER VALUE`");
            };
            let register = Register::by_name(name).with_context(|| format!("no register {name}"))?;
            let value = number(value).with_context(|| format!("{value} is not a 64-bit number"))?;
            all.push((name.to_owned(), register, value));
        }
        ensure!(!all.is_empty(), "no comment `#= REGISTER VALUE` says what to expect");
        Ok(Self(all))
    }

    fn check(&self, cpu: &Cpu) -> Result<()> {
        let wrong: Vec<String> = self
            .0
            .iter()
            .filter(|(_, register, value)| register.value(cpu) != *value)
            .map(|(name, register, value)| {
                format!("{name}: expected {value:#x}, got {:#x}", register.value(cpu))
            })
            .collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(())
    }
}

/// `0x` and hexadecimal digits, or a decimal number that may be negative.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse::<u64>().ok().or_else(|| Some(text.parse::<i64>().ok()?.cast_unsigned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_read_from_comments() -> Result<()> {
        let expected =
            Expected::parse(" li a0, 42 #= a0 0x2a\n li a0, 1 # no fact\n#= fs1 -1  # all ones\n#= t6 12\n")?;
        let facts: Vec<_> = expected.0.iter().map(|&(_, register, value)| (register, value)).collect();
        assert_eq!(facts, [(Register::X(10), 42), (Register::F(9), u64::MAX), (Register::X(31), 12)]);
        Ok(())
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        for wrong in ["", "li a0, 1", "#= a0", "#= a0 1 2", "#= a99 1", "#= a0 twelve", "#= a0 0x1_0"] {
            assert!(Expected::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_register_fails() -> Result<()> {
        let guest = isomer_riscv64::Riscv64::by_name("max").context("the model exists")?;
        let mut cpu = guest.reset(0, 0);
        cpu.x[10] = 42;
        assert!(Expected::parse("#= a0 42")?.check(&cpu).is_ok());
        assert!(Expected::parse("#= a0 43")?.check(&cpu).is_err());
        Ok(())
    }
}
