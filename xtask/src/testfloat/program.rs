//! The program of a guest: a loop for each of TestFloat's functions in each setting, over operands in memory.
//!
//! A loop executes each of its instructions for every vector, the first from clear flags, the second with the inexact flag
//! set already (engines have short cuts then), and so on, and stores result and flags, eight bytes each.

use super::{
    cases::{Kind, Setting},
    machine::{self, Machine, RAM_BASE},
    vectors::Specialization,
};
use crate::{process, tools::Tool};
use anyhow::{Context, Result};
use isomer_engine::EngineKind;
use object::{Object, ObjectSymbol};
use std::{collections::HashMap, fs, path::Path, process::Command};

/// TestFloat's inexact flag.
const INEXACT: u64 = 1;

/// The instructions for a function in a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    /// What their operands need, once a vector.
    pub(crate) setup: Vec<String>,
    /// Instructions, some with others behind them, that all give the function's result.
    pub(crate) variants: Vec<String>,
}

impl Code {
    pub(crate) fn new(setup: &[String], variants: &[String]) -> Self {
        Self { setup: setup.to_vec(), variants: variants.to_vec() }
    }

    /// Is the inexact flag set before instruction `number`?
    pub(crate) fn is_inexact_before(number: usize) -> bool {
        number % 2 == 1
    }
}

/// A guest's part.
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    pub(crate) tools: [Tool; 2],
    /// And its options.
    pub(crate) assembler: (&'static str, &'static [&'static str]),
    pub(crate) linker: &'static str,
    pub(crate) tininess_before: bool,
    /// The program but for the loops.
    pub(crate) start: &'static str,
    /// The guest's instructions, if it has any.
    pub(crate) code: fn(Setting, Specialization) -> Option<Code>,
    /// The loop around them.
    pub(crate) enclose: fn(Setting, &Code, Specialization) -> String,
    /// What eight bytes of a result hold.
    pub(crate) holds: fn(Kind, u64) -> u64,
    /// The guest's flags in TestFloat's order.
    pub(crate) flags: fn(u64) -> u64,
    pub(crate) machine: fn(&[u8], EngineKind) -> Result<Box<dyn Machine>>,
}

/// A setting that a guest has instructions for.
pub(crate) struct Case {
    pub(crate) setting: Setting,
    /// Where its loop is.
    pub(crate) entry: u64,
    /// How many instructions it tries.
    pub(crate) variants: usize,
}

/// A program and its loops.
pub(crate) struct Program {
    pub(crate) elf: Vec<u8>,
    pub(crate) cases: Vec<Case>,
}

impl Program {
    /// Assembles loops for what `wanted` picks, in `folder`.
    pub(crate) fn new(
        recipe: &Recipe,
        specialization: Specialization,
        wanted: impl Fn(&Setting) -> bool,
        folder: &Path,
    ) -> Result<Self> {
        let with_code = |setting: Setting| Some((setting, (recipe.code)(setting, specialization)?));
        let picked: Vec<_> = Setting::all().into_iter().filter(wanted).filter_map(with_code).collect();
        let mut source = machine::symbols() + recipe.start;
        for (number, (setting, code)) in picked.iter().enumerate() {
            // Within a page, so that whole loops are compiled together.
            source += &format!("    .balign 256\ncase_{number}: /* {} */\n", setting.function.name());
            source += &(recipe.enclose)(*setting, code, specialization);
        }
        let elf = assemble(recipe, &source, folder)?;
        let file = object::File::parse(elf.as_slice())?;
        let symbols: HashMap<_, _> = file
            .symbols()
            .filter_map(|symbol| Some((symbol.name().ok()?.to_owned(), symbol.address())))
            .collect();
        let cases = picked.into_iter().enumerate().map(|(number, (setting, code))| {
            let entry = symbols.get(&format!("case_{number}")).copied();
            let entry = entry.context("the assembler lost a loop's label")?;
            Ok(Case { setting, entry, variants: code.variants.len() })
        });
        let cases = cases.collect::<Result<_>>()?;
        Ok(Self { elf, cases })
    }
}

fn assemble(recipe: &Recipe, source: &str, folder: &Path) -> Result<Vec<u8>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let [source_file, object, elf] =
        ["s", "o", "elf"].map(|extension| folder.join("loops").with_extension(extension));
    fs::write(&source_file, source).with_context(|| format!("cannot write {}", source_file.display()))?;
    let (assembler, options) = recipe.assembler;
    process::run(Command::new(assembler).args(options).arg("-o").arg(&object).arg(&source_file))?;
    let mut linker = Command::new(recipe.linker);
    linker.args(["--omagic", "--no-warn-rwx-segments"]).arg(format!("-Ttext={RAM_BASE:#x}"));
    process::run(linker.arg("-o").arg(&elf).arg(&object))?;
    fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))
}

/// The operands of vectors as loops read them. What lies above an integer's 32 bits must not matter.
pub(crate) fn operands(kind: Kind, count: usize, words: &[u64]) -> Vec<u8> {
    let rubbish = match kind {
        Kind::I32 | Kind::U32 => 0xdead_beef_0000_0000,
        _ => 0,
    };
    let lines = words.chunks_exact(count + 2);
    lines.flat_map(|line| &line[..count]).flat_map(|word| (word | rubbish).to_le_bytes()).collect()
}

/// A result that is not the vector's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Which of the words' lines.
    pub(crate) line: usize,
    /// Which of the loop's instructions.
    pub(crate) variant: usize,
    pub(crate) bits: u64,
    pub(crate) flags: u64,
}

/// Compares results with vectors.
pub(crate) fn mismatches(recipe: &Recipe, case: &Case, words: &[u64], results: &[u8]) -> Vec<Mismatch> {
    let kind = case.setting.function.result();
    let (_, operands) = case.setting.function.operands();
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    let mut found = Vec::new();
    let of_lines = results.chunks_exact(16 * case.variants);
    for (line, (vector, results)) in words.chunks_exact(operands + 2).zip(of_lines).enumerate() {
        let expected = (recipe.holds)(kind, vector[operands]);
        for (variant, result) in results.chunks_exact(16).enumerate() {
            let (bits, flags) = (word(&result[..8]), (recipe.flags)(word(&result[8..])));
            let before = if Code::is_inexact_before(variant) { INEXACT } else { 0 };
            if (bits, flags) != (expected, vector[operands + 1] | before) {
                found.push(Mismatch { line, variant, bits, flags });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{super::guests, *};
    use crate::testfloat::cases::{Function, Rounding};

    const ADD: Setting =
        Setting { function: Function::Binary("add", Kind::F32), rounding: Rounding::Min, exact: true };

    #[test]
    fn wrong_bits_and_wrong_flags_are_found() {
        let [recipe, _] = guests();
        let case = Case { setting: ADD, entry: 0, variants: 2 };
        let words = [0x3f80_0000, 0x3f80_0000, 0x4000_0000, 0, 1, 2, 3, 1];
        let results = |all: [u64; 8]| all.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let boxed = |bits: u64| bits | 0xffff_ffff_0000_0000;
        let right = [boxed(0x4000_0000), 0, boxed(0x4000_0000), 1, boxed(3), 1, boxed(3), 1];
        assert_eq!(mismatches(recipe, &case, &words, &results(right)), []);
        for (number, wrong) in
            [(0, 0x4000_0000), (1, 1), (2, boxed(0x4000_0001)), (3, 0), (4, boxed(4)), (5, 0), (6, 0), (7, 3)]
        {
            let mut all = right;
            all[number] = wrong;
            let found = mismatches(recipe, &case, &words, &results(all));
            let places: Vec<_> = found.iter().map(|found| (found.line, found.variant)).collect();
            assert_eq!(places, [(number / 4, number / 2 % 2)]);
        }
    }

    #[test]
    fn operands_stand_in_eight_bytes_each() {
        let bytes = operands(Kind::F32, 2, &[1, 2, 3, 0, 4, 5, 6, 0]);
        assert_eq!((bytes.len(), bytes[0], bytes[8], bytes[16], bytes[24]), (32, 1, 2, 4, 5));
        assert_eq!(operands(Kind::U32, 1, &[7, 0, 0]), 0xdead_beef_0000_0007u64.to_le_bytes());
    }

    #[test]
    fn guests_have_instructions_for_most_settings() {
        let [riscv64, aarch64] = guests();
        let count = |recipe: &Recipe, of| {
            let all = Setting::all();
            let with_code: Vec<_> = all.iter().filter_map(|&setting| (recipe.code)(setting, of)).collect();
            assert!(with_code.iter().all(|code| code.variants.len() >= 2));
            with_code.len()
        };
        assert_eq!(count(riscv64, Specialization::RiscV), 265);
        let [exact, passing] =
            [Specialization::ArmDefaultNan, Specialization::Arm].map(|of| count(aarch64, of));
        assert_eq!(exact - passing, 12, "SoftFloat's mulAdd passes on other NaNs");
    }
}
