//! Vectors as Berkeley's `testfloat_gen` writes them: a line each, hexadecimal, operands, result, flags.

use super::cases::{Function, Kind, Rounding, Setting};
use anyhow::{Context, Result, bail, ensure};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

/// The machine that a generator's SoftFloat was built for (`SPECIALIZE_TYPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Specialization {
    /// `RISCV`.
    RiscV,
    /// `ARM-VFPv2`: NaNs pass their payloads on.
    Arm,
    /// `ARM-VFPv2-defaultNaN`.
    ArmDefaultNan,
}

/// A generator, and how it is asked.
pub(crate) struct Generator {
    program: PathBuf,
    level: u32,
    /// Of functions of several operands, one vector in so many is taken.
    every: usize,
}

/// A word of a line each: operands, result, flags.
pub(crate) type Words = Vec<u64>;

impl Generator {
    pub(crate) fn new(program: &Path, level: u32, every: usize) -> Self {
        Self { program: program.to_owned(), level, every }
    }

    /// Starts the generator for one function in one setting. The guests that detect tininess before rounding are Arm's.
    pub(crate) fn start(&self, setting: Setting, tininess_before: bool) -> Result<Vectors> {
        let (_, operands) = setting.function.operands();
        let mut command = Command::new(&self.program);
        command.arg("-level").arg(self.level.to_string());
        command.arg(format!("-{}", setting.rounding.name()));
        command.arg(if setting.exact { "-exact" } else { "-notexact" });
        command.arg(if tininess_before { "-tininessbefore" } else { "-tininessafter" });
        command.arg(setting.function.name());
        Vectors::start(&mut command, operands, if operands > 1 { self.every } else { 1 })
    }

    /// What it was built for, by what it does with NaNs.
    pub(crate) fn specialization(&self) -> Result<Specialization> {
        let all = |from, to| -> Result<Words> {
            let function = Function::Convert(from, to);
            let mut vectors =
                self.start(Setting { function, rounding: Rounding::NearEven, exact: true }, false)?;
            let mut words = Vec::new();
            vectors.read(&mut words, usize::MAX)?;
            vectors.finish()?;
            Ok(words)
        };
        specialization(&all(Kind::F64, Kind::I32)?, &all(Kind::F64, Kind::F32)?).with_context(|| {
            format!(
                "{} was built for another machine than a guest's: build SoftFloat with \
                 SPECIALIZE_TYPE=RISCV, ARM-VFPv2 or ARM-VFPv2-defaultNaN",
                self.program.display()
            )
        })
    }
}

/// Tells it by vectors of `f64_to_i32` and of `f64_to_f32`.
fn specialization(to_integer: &[u64], to_single: &[u64]) -> Option<Specialization> {
    let of_nan = |words: &[u64]| -> Vec<u64> {
        let nan = |line: &&[u64]| line[0] & !(1 << 63) > 0x7ff0_0000_0000_0000;
        words.chunks_exact(3).filter(nan).map(|line| line[1]).collect()
    };
    let (integers, singles) = (of_nan(to_integer), of_nan(to_single));
    let all = |values: &[u64], value| !values.is_empty() && values.iter().all(|of| *of == value);
    match (all(&integers, 0x7fff_ffff), all(&integers, 0), all(&singles, 0x7fc0_0000)) {
        (true, _, true) => Some(Specialization::RiscV),
        (_, true, true) => Some(Specialization::ArmDefaultNan),
        // There is a NaN with a payload among them, and x86 has no 0 for it.
        (_, true, false) => Some(Specialization::Arm),
        _ => None,
    }
}

/// What a generator writes.
pub(crate) struct Vectors {
    child: Child,
    lines: BufReader<ChildStdout>,
    operands: usize,
    every: usize,
    /// Lines read.
    number: usize,
    line: Vec<u8>,
    shown: String,
}

impl Vectors {
    /// Starts a program that writes vectors with so many operands.
    fn start(command: &mut Command, operands: usize, every: usize) -> Result<Self> {
        let shown = crate::process::describe(command);
        // What generators tell on standard error is how many vectors they have written.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
        let output = child.stdout.take().context("a pipe was asked for")?;
        let lines = BufReader::with_capacity(1 << 18, output);
        Ok(Self { child, lines, operands, every, number: 0, line: Vec::new(), shown })
    }

    /// Adds the words of up to `most` vectors, fewer only at the end; tells how many.
    pub(crate) fn read(&mut self, words: &mut Words, most: usize) -> Result<usize> {
        let mut count = 0;
        while count < most {
            self.line.clear();
            let read = self.lines.read_until(b'\n', &mut self.line);
            if read.with_context(|| format!("cannot read what `{}` writes", self.shown))? == 0 {
                break;
            }
            self.number += 1;
            if !(self.number - 1).is_multiple_of(self.every) {
                continue;
            }
            let before = words.len();
            if parse(&self.line, words).is_none() || words.len() - before != self.operands + 2 {
                let line = String::from_utf8_lossy(&self.line);
                bail!("line {} of `{}` is no vector: {}", self.number, self.shown, line.trim_end());
            }
            count += 1;
        }
        Ok(count)
    }

    /// Makes sure that the generator did not fail, and wrote something.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.child.wait().with_context(|| format!("cannot wait for `{}`", self.shown))?;
        ensure!(
            status.success() && self.number > 0,
            "`{}` wrote {} vectors and ended with {status}; run it by hand to see why",
            self.shown,
            self.number
        );
        Ok(())
    }
}

impl Drop for Vectors {
    fn drop(&mut self) {
        // It ended long ago, unless something went wrong here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Adds the words of a line.
fn parse(line: &[u8], words: &mut Words) -> Option<()> {
    for token in line.split(u8::is_ascii_whitespace).filter(|token| !token.is_empty()) {
        if token.len() > 16 {
            return None;
        }
        let mut word = 0;
        for &digit in token {
            word = word << 4 | u64::from(char::from(digit).to_digit(16)?);
        }
        words.push(word);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_hexadecimal_words() {
        let mut words = Vec::new();
        assert!(parse(b"8683F7FF c07f3fff 1 01\n", &mut words).is_some());
        assert_eq!(words, [0x8683_f7ff, 0xc07f_3fff, 1, 1]);
        for wrong in [b"12 3g".as_slice(), b"-1", b"123456789abcdef01"] {
            assert!(parse(wrong, &mut words).is_none());
        }
    }

    #[test]
    fn builds_are_told_by_their_nans() {
        const NAN: u64 = 0x7ff8_0000_0000_0001;
        let of = |integer, single| specialization(&[0, 0, 0, NAN, integer, 16], &[NAN, single, 0]);
        assert_eq!(of(0x7fff_ffff, 0x7fc0_0000), Some(Specialization::RiscV));
        assert_eq!(of(0, 0x7fc0_0000), Some(Specialization::ArmDefaultNan));
        assert_eq!(of(0, 0x7fc0_0001), Some(Specialization::Arm));
        assert_eq!(of(0x8000_0000, 0xffc0_0000), None);
        assert_eq!(specialization(&[0, 0, 0], &[0, 0, 0]), None);
    }

    #[test]
    fn a_generator_is_read_in_parts_and_its_failures_are_told() -> Result<()> {
        let start = |text: &str, every| Vectors::start(Command::new("sh").args(["-c", text]), 1, every);
        let mut vectors = start("echo 1 2 0; echo 3 4 5; echo 6 7 8", 1)?;
        let mut words = Vec::new();
        assert_eq!((vectors.read(&mut words, 2)?, words.as_slice()), (2, [1, 2, 0, 3, 4, 5].as_slice()));
        assert_eq!((vectors.read(&mut words, 2)?, words.len()), (1, 9));
        vectors.finish()?;
        words.clear();
        assert_eq!(start("echo 1 2 0; echo 3 4 5; echo 6 7 8", 2)?.read(&mut words, 9)?, 2);
        assert_eq!(words, [1, 2, 0, 6, 7, 8]);
        assert!(start("echo 1 2", 1)?.read(&mut words, 1).is_err());
        for wrong in ["exit 0", "echo 1 2 3; exit 3"] {
            let mut vectors = start(wrong, 1)?;
            vectors.read(&mut words, 2)?;
            assert!(vectors.finish().is_err(), "{wrong}");
        }
        Ok(())
    }
}
