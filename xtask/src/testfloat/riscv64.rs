//! The riscv64 guest's instructions for TestFloat's functions: F, D, Zfh and Zfa.

use super::{
    cases::{Function, Kind, Setting},
    machine::{self, Machine},
    program::{Code, Recipe},
    vectors::Specialization,
};
use crate::tools::Tool;
use anyhow::{Context, Result};
use isomer_engine::EngineKind;
use isomer_riscv64::Riscv64;

pub(crate) const RECIPE: Recipe = Recipe {
    name: "riscv64",
    tools: [
        Tool::program("riscv64-linux-gnu-as", "binutils-riscv64-linux-gnu"),
        Tool::program("riscv64-linux-gnu-ld", "binutils-riscv64-linux-gnu"),
    ],
    assembler: ("riscv64-linux-gnu-as", &["-march=rv64gc_zfh"]),
    linker: "riscv64-linux-gnu-ld",
    tininess_before: false,
    start: START,
    code,
    enclose,
    holds,
    flags: |fflags| fflags,
    machine: new,
};

fn new(elf: &[u8], engine: EngineKind) -> Result<Box<dyn Machine>> {
    let guest = Riscv64::by_name("max").context("the model exists")?;
    machine::new(guest, |guest, entry| guest.reset(0, entry), elf, engine)
}

/// Loops get operands in a0, results in a1, the number of vectors in a2, and go on at `finished`.
const START: &str = "
    .option norelax
    .globl  _start
_start:
    la      t0, trapped
    csrw    mtvec, t0
    li      t0, 1 << 13             # mstatus.FS: initial
    csrs    mstatus, t0
    li      s0, JOB
    li      s1, DONE
idle:
    ld      t0, (s0)
    beqz    t0, idle
    sd      zero, (s0)
    ld      a2, 8(s0)
    li      a0, OPERANDS
    li      a1, RESULTS
    jr      t0
finished:
    li      t0, 1
    sd      t0, (s1)
    j       idle
    .balign 4
trapped:
    csrr    t0, mcause
    addi    t0, t0, 2
    sd      t0, (s1)
1:  j       1b
";

/// A format's or an integer's letters in mnemonics.
fn letters(kind: Kind) -> &'static str {
    match kind {
        Kind::F16 => "h",
        Kind::F32 => "s",
        Kind::F64 => "d",
        Kind::I32 => "w",
        Kind::U32 => "wu",
        Kind::I64 => "l",
        Kind::U64 | Kind::Bool => "lu",
    }
}

/// A format's number in encodings.
fn field(format: Kind) -> u32 {
    match format {
        Kind::F16 => 2,
        Kind::F32 => 0,
        _ => 1,
    }
}

/// Operands are in fa0 to fa2 or a4; the result is for fa5 or a5. Every second instruction is rounded by its own field, the
/// others by `frm`, as an assembler means it that is told nothing.
fn code(setting: Setting, _: Specialization) -> Option<Code> {
    let fixed = *["rne", "rtz", "rdn", "rup", "rmm"].get(setting.rounding as usize)?;
    let both = |text: String| Code::new(&[], &[text.clone(), format!("{text}, {fixed}")]);
    let twice = |text: String| Code::new(&[], &[text.clone(), text]);
    Some(match setting.function {
        Function::Binary(name, format) => both(format!("f{name}.{} fa5, fa0, fa1", letters(format))),
        Function::Sqrt(format) => both(format!("fsqrt.{} fa5, fa0", letters(format))),
        Function::MulAdd(format) => {
            let l = letters(format);
            Code::new(
                &[format!("fneg.{l} fa3, fa0"), format!("fneg.{l} fa4, fa2")],
                &[
                    format!("fmadd.{l} fa5, fa0, fa1, fa2"),
                    format!("fmsub.{l} fa5, fa0, fa1, fa4, {fixed}"),
                    format!("fnmsub.{l} fa5, fa3, fa1, fa2"),
                    format!("fnmadd.{l} fa5, fa3, fa1, fa4, {fixed}"),
                ],
            )
        }
        Function::Compare(relation, format) => match (relation.asks, relation.signalling) {
            ("eq", true) => return None,
            ("eq", false) | (_, true) => {
                twice(format!("f{}.{} a5, fa0, fa1", relation.asks, letters(format)))
            }
            // Zfa's fleq and fltq, which older assemblers do not know.
            (asks, false) => {
                let function = if asks == "le" { 4 } else { 5 };
                twice(format!(".insn r 0x53, {function}, {:#x}, a5, fa0, fa1", 0x50 | field(format)))
            }
        },
        // Zfa's fround and froundnx, the same.
        Function::RoundToInt(format) => {
            let (number, which) = (0x20 | field(format), if setting.exact { "f5" } else { "f4" });
            let insn = |rounding: usize| format!(".insn r 0x53, {rounding}, {number:#x}, fa5, fa0, {which}");
            Code::new(&[], &[insn(7), insn(setting.rounding as usize)])
        }
        Function::Convert(from, to) => {
            let source = if from.is_float() { "fa0" } else { "a4" };
            let result = if to.is_float() { "fa5" } else { "a5" };
            let text = format!("fcvt.{}.{} {result}, {source}", letters(to), letters(from));
            if setting.function.rounds() { both(text) } else { twice(text) }
        }
    })
}

/// The loop around `code`.
fn enclose(setting: Setting, code: &Code, _: Specialization) -> String {
    let (kind, operands) = setting.function.operands();
    let store = if setting.function.result().is_float() { "fsd     fa5" } else { "sd      a5" };
    let mut text = format!("    fsrmi   {}\n1:\n", setting.rounding as usize);
    for number in 0..operands {
        let load = match kind {
            Kind::F16 => format!("flh     fa{number}"),
            Kind::F32 => format!("flw     fa{number}"),
            Kind::F64 => format!("fld     fa{number}"),
            _ => "ld      a4".to_owned(),
        };
        text += &format!("    {load}, {}(a0)\n", 8 * number);
    }
    code.setup.iter().for_each(|line| text += &format!("    {line}\n"));
    for (number, variant) in code.variants.iter().enumerate() {
        let inexact = u8::from(Code::is_inexact_before(number));
        text += &format!("    fsflagsi {inexact}\n    {variant}\n    frflags t1\n");
        text += &format!("    {store}, {}(a1)\n    sd      t1, {}(a1)\n", 16 * number, 16 * number + 8);
    }
    text +=
        &format!("    addi    a0, a0, {}\n    addi    a1, a1, {}\n", 8 * operands, 16 * code.variants.len());
    text + "    addi    a2, a2, -1\n    bnez    a2, 1b\n    j       finished\n"
}

/// A result as 64 bits of a register: boxed, or extended with its bit 31.
fn holds(kind: Kind, bits: u64) -> u64 {
    match kind {
        Kind::F16 => bits | !0xffff,
        Kind::F32 => bits | !0xffff_ffff,
        Kind::I32 | Kind::U32 => i64::from(bits as u32 as i32).cast_unsigned(),
        _ => bits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_hold_boxed_and_extended_values() {
        assert_eq!(holds(Kind::F16, 0x3c00), 0xffff_ffff_ffff_3c00);
        assert_eq!(holds(Kind::U32, 0x8000_0000), 0xffff_ffff_8000_0000);
        assert_eq!((holds(Kind::F64, 7), holds(Kind::Bool, 1)), (7, 1));
    }
}
