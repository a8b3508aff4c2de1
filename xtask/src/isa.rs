//! `cargo xtask isa`: assembles the programs of `tests/isa/<guest>` and runs each on every engine.
//!
//! A program ends with the macro `done` of `test.inc`. Comments state what its registers hold then:
//! `#= a0 0x2a` in hexadecimal, `#= a0 -1` in decimal, `#= fa0 0x3ff0000000000000` as the register's bits.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use isomer_engine::{EngineKind, Trace};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command as Program,
    time::Instant,
};

use crate::{
    process,
    suites::bare::{self, Machine, Verdict},
    tools::{self, Tool},
};

/// How programs of one instruction set are made.
struct Isa {
    /// The folder's name, and what `--only` sees in front of a program's.
    name: &'static str,
    tools: [Tool; 2],
    /// Prefix of the cross tools.
    cross: &'static str,
    march: &'static str,
    /// What the linker must not do.
    linker: &'static [&'static str],
}

const ISAS: [Isa; 2] = [
    Isa {
        name: "riscv64",
        tools: [
            Tool::program("riscv64-linux-gnu-as", "binutils-riscv64-linux-gnu"),
            Tool::program("riscv64-linux-gnu-ld", "binutils-riscv64-linux-gnu"),
        ],
        cross: "riscv64-linux-gnu-",
        march: "-march=rv64imafdc_zicsr_zifencei_zba_zbb_zbc_zbs",
        linker: &["--no-relax"],
    },
    Isa {
        name: "aarch64",
        tools: [
            Tool::program("aarch64-linux-gnu-as", "binutils-aarch64-linux-gnu"),
            Tool::program("aarch64-linux-gnu-ld", "binutils-aarch64-linux-gnu"),
        ],
        cross: "aarch64-linux-gnu-",
        march: "-march=armv8.7-a+crypto+sha3+fp16fml+bf16+i8mm+rng+flagm",
        linker: &[],
    },
];

/// Instructions before a program counts as hung; the longest takes some ten thousand.
const LIMIT: u64 = 1_000_000;

#[derive(Args)]
pub(crate) struct Command {
    /// Only programs whose name contains this: aarch64/debug, say
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
    let trace: Trace = command.trace.parse()?;
    let start = Instant::now();
    // By engine.
    let (mut passed, mut failed) = ([0; EngineKind::ALL.len()], 0);
    for isa in &ISAS {
        let folder = crate::repository_root().join("tests/isa").join(isa.name);
        let built = crate::target_dir()?.join("isa").join(isa.name);
        let sources = sources(isa, &folder, command.only.as_deref())?;
        if sources.is_empty() {
            continue;
        }
        tools::require("assembling tests/isa", &isa.tools)?;
        fs::create_dir_all(&built).with_context(|| format!("cannot create {}", built.display()))?;
        for source in sources {
            let name = name(isa, &source);
            let output = built.join(source.file_stem().unwrap_or_default());
            let program = assemble(isa, &source, &folder, &output).and_then(|elf| {
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
    }
    let columns =
        EngineKind::ALL.iter().zip(passed).map(|(engine, passed)| format!("{passed} on {}", engine.name()));
    println!("isa: passed {}", columns.collect::<Vec<_>>().join(", "));
    let passed: usize = passed.iter().sum();
    println!("isa: {passed} passed, {failed} failed in {:.1} s", start.elapsed().as_secs_f64());
    ensure!(failed == 0 && passed > 0, "{failed} failed, {passed} passed");
    Ok(())
}

/// A program's name, with its instruction set.
fn name(isa: &Isa, source: &Path) -> String {
    format!("{}/{}", isa.name, source.file_stem().unwrap_or_default().to_string_lossy())
}

/// The folder's `.s` files, by name.
fn sources(isa: &Isa, folder: &Path, only: Option<&str>) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut sources: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    sources.retain(|path| {
        let wanted = only.is_none_or(|only| name(isa, path).contains(only));
        wanted && path.extension().is_some_and(|extension| extension == "s")
    });
    sources.sort();
    Ok(sources)
}

/// Makes an ELF file linked at the start of RAM, everything in one writable and executable segment.
fn assemble(isa: &Isa, source: &Path, include: &Path, output: &Path) -> Result<Vec<u8>> {
    let (object, elf) = (output.with_extension("o"), output.with_extension("elf"));
    let mut assembler = Program::new(format!("{}as", isa.cross));
    process::run(assembler.arg(isa.march).arg("-I").arg(include).arg("-o").arg(&object).arg(source))?;
    let mut linker = Program::new(format!("{}ld", isa.cross));
    linker.args(["--omagic", "--no-warn-rwx-segments", "-Ttext=0x80000000"]).args(isa.linker);
    process::run(linker.arg("-o").arg(&elf).arg(&object))?;
    fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))
}

fn test(elf: &[u8], expected: &Expected, engine: EngineKind, trace: Trace) -> Result<()> {
    let mut machine = bare::load(elf, engine, "max", trace)?;
    match machine.run(LIMIT) {
        Verdict::Passed => expected.check(&*machine),
        // `unexpected_trap` of test.inc.
        Verdict::Failed(code) => {
            bail!("unexpected trap, cause {}\n{}", code.wrapping_sub(1), machine.describe())
        }
        Verdict::Hung(state) => bail!("no end after {LIMIT} instructions\n{state}"),
    }
}

/// What the registers hold at a program's end.
#[derive(Debug, PartialEq, Eq)]
struct Expected(Vec<(String, u128)>);

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
            let value = number(value).with_context(|| format!("{value} is not a number"))?;
            all.push((name.to_owned(), value));
        }
        ensure!(!all.is_empty(), "no comment `#= REGISTER VALUE` says what to expect");
        Ok(Self(all))
    }

    /// Compares with what the registers hold; an unknown name is wrong, too.
    fn check(&self, machine: &dyn Machine) -> Result<()> {
        let wrong: Vec<String> = self
            .0
            .iter()
            .filter_map(|(name, expected)| match machine.register(name) {
                Some(value) if value == *expected => None,
                Some(value) => Some(format!("{name}: expected {expected:#x}, got {value:#x}")),
                None => Some(format!("no register {name}")),
            })
            .collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(())
    }
}

/// `0x` and hexadecimal digits (more than 64 bits for vectors), or a decimal number of 64 bits that may be negative.
fn number(text: &str) -> Option<u128> {
    match text.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16).ok(),
        None => {
            let value = text.parse::<u64>().ok().or_else(|| Some(text.parse::<i64>().ok()?.cast_unsigned()));
            value.map(u128::from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_read_from_comments() -> Result<()> {
        let text =
            " li a0, 42 #= a0 0x2a\n li a0, 1 # no fact\n#= fs1 -1  # all ones\n#= v2 0x1ffffffffffffffff\n";
        let facts = [("a0", 42), ("fs1", u128::from(u64::MAX)), ("v2", (1 << 65) - 1)];
        let facts = facts.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(Expected::parse(text)?, Expected(facts.to_vec()));
        Ok(())
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        for wrong in ["", "li a0, 1", "#= a0", "#= a0 1 2", "#= a0 twelve", "#= a0 0x1_0"] {
            assert!(Expected::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_register_fails() -> Result<()> {
        struct Fixed;
        impl Machine for Fixed {
            fn run(&mut self, _: u64) -> Verdict {
                Verdict::Passed
            }
            fn register(&self, name: &str) -> Option<u128> {
                (name == "a0").then_some(42)
            }
            fn describe(&self) -> String {
                String::new()
            }
            fn signature(&self) -> Result<Vec<String>> {
                Ok(Vec::new())
            }
        }
        assert!(Expected::parse("#= a0 42")?.check(&Fixed).is_ok());
        assert!(Expected::parse("#= a0 43")?.check(&Fixed).is_err());
        assert!(Expected::parse("#= a99 42")?.check(&Fixed).is_err());
        Ok(())
    }

    #[test]
    fn every_folder_of_programs_is_run() -> Result<()> {
        for entry in fs::read_dir(crate::repository_root().join("tests/isa"))? {
            let name = entry?.file_name();
            assert!(ISAS.iter().any(|isa| name == isa.name), "{}", name.display());
        }
        Ok(())
    }
}
