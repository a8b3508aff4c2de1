//! The aarch64 guest's instructions for TestFloat's functions: scalar and vector ones, half precision included.
//!
//! SoftFloat's `mulAdd` passes on another NaN than the architecture's, so it is compared with default NaNs only.

use super::{
    cases::{Function, Kind, Rounding, Setting},
    machine::{self, Machine},
    program::{Code, Recipe},
    vectors::Specialization,
};
use crate::tools::Tool;
use anyhow::{Context, Result};
use isomer_aarch64::Aarch64;
use isomer_engine::EngineKind;

pub(crate) const RECIPE: Recipe = Recipe {
    name: "aarch64",
    tools: [
        Tool::program("aarch64-linux-gnu-as", "binutils-aarch64-linux-gnu"),
        Tool::program("aarch64-linux-gnu-ld", "binutils-aarch64-linux-gnu"),
    ],
    assembler: ("aarch64-linux-gnu-as", &["-march=armv8.2-a+fp16"]),
    linker: "aarch64-linux-gnu-ld",
    tininess_before: true,
    start: START,
    code,
    enclose,
    holds,
    flags,
    machine: new,
};

fn new(elf: &[u8], engine: EngineKind) -> Result<Box<dyn Machine>> {
    let guest = Aarch64::by_name("max").context("the model exists")?;
    machine::new(guest, |guest, entry| guest.reset(0, entry), elf, engine)
}

/// Loops get operands in x0, results in x1, the number of vectors in x2, FPSR with IXC set in x12, and go on at `finished`.
const START: &str = "
    .globl  _start
_start:
    mov     x9, #3 << 20            // CPACR_EL1.FPEN
    msr     cpacr_el1, x9
    ldr     x9, =vectors
    msr     vbar_el1, x9
    isb
    mov     x12, #0x10
    ldr     x20, =JOB
    ldr     x21, =DONE
idle:
    ldr     x9, [x20]
    cbz     x9, idle
    str     xzr, [x20]
    ldr     x2, [x20, #8]
    ldr     x0, =OPERANDS
    ldr     x1, =RESULTS
    br      x9
finished:
    mov     x9, #1
    str     x9, [x21]
    b       idle
    .ltorg
trapped:
    mrs     x9, esr_el1
    add     x9, x9, #2
    str     x9, [x21]
1:  b       1b
    .balign 2048
vectors:
    .rept   16
    b       trapped
    .balign 128
    .endr
";

/// A format's letter in register names.
fn letter(format: Kind) -> &'static str {
    match format {
        Kind::F16 => "h",
        Kind::F32 => "s",
        _ => "d",
    }
}

/// A general register of a kind's width.
fn general(kind: Kind, number: u32) -> String {
    format!("{}{number}", if kind.bits() == 64 { "x" } else { "w" })
}

/// FPCR.RMode's value, if it has one.
fn rmode(rounding: Rounding) -> Option<u32> {
    match rounding {
        Rounding::NearEven => Some(0),
        Rounding::Max => Some(1),
        Rounding::Min => Some(2),
        Rounding::MinMag => Some(3),
        Rounding::NearMaxMag | Rounding::Odd => None,
    }
}

/// The letter of instructions that round in their own way.
fn way(rounding: Rounding) -> Option<&'static str> {
    Some(match rounding {
        Rounding::NearEven => "n",
        Rounding::MinMag => "z",
        Rounding::Min => "m",
        Rounding::Max => "p",
        Rounding::NearMaxMag => "a",
        Rounding::Odd => return None,
    })
}

/// `name` for whole registers, whose lanes are all the same, and the last lane of the result.
fn vector(name: &str, format: Kind, sources: &[&str]) -> String {
    let (lanes, l) = (128 / format.bits(), letter(format));
    let arrangement = format!("{lanes}{l}");
    let sources: String = sources.iter().map(|source| format!(", {source}.{arrangement}")).collect();
    format!("{name} v5.{arrangement}{sources}\n    mov {l}5, v5.{l}[{}]", lanes - 1)
}

/// Operands are in v0 to v2, and in all lanes of v16 to v18, or in x4; the result is for v5 or x5.
fn code(setting: Setting, specialization: Specialization) -> Option<Code> {
    let by_mode = rmode(setting.rounding);
    let code = |variants: &[String]| Some(Code::new(&[], variants));
    match setting.function {
        Function::Binary(name, format) => {
            by_mode?;
            let (l, name) = (letter(format), format!("f{name}"));
            code(&[format!("{name} {l}5, {l}0, {l}1"), vector(&name, format, &["v16", "v17"])])
        }
        Function::Sqrt(format) => {
            by_mode?;
            let l = letter(format);
            code(&[format!("fsqrt {l}5, {l}0"), vector("fsqrt", format, &["v16"])])
        }
        Function::MulAdd(format) if specialization == Specialization::ArmDefaultNan => {
            by_mode?;
            let l = letter(format);
            Some(Code::new(
                &[format!("fneg {l}3, {l}0"), format!("fneg {l}4, {l}2")],
                &[
                    format!("fmadd {l}5, {l}0, {l}1, {l}2"),
                    format!("fmsub {l}5, {l}3, {l}1, {l}2"),
                    format!("fnmsub {l}5, {l}0, {l}1, {l}4"),
                    format!("fnmadd {l}5, {l}3, {l}1, {l}4"),
                    format!("mov v5.16b, v18.16b\n    {}", vector("fmla", format, &["v16", "v17"])),
                ],
            ))
        }
        Function::MulAdd(_) => None,
        Function::Compare(relation, format) => {
            let l = letter(format);
            let condition = match relation.asks {
                "eq" => "eq",
                "lt" => "mi",
                _ => "ls",
            };
            let compare = if relation.signalling { "fcmpe" } else { "fcmp" };
            let flags = format!("{compare} {l}0, {l}1\n    cset x5, {condition}");
            // The mask's last bit. Both operands of these are the other way round, but for equality.
            let mask = match (relation.asks, relation.signalling) {
                ("eq", false) => Some("fcmeq"),
                ("lt", true) => Some("fcmgt"),
                ("le", true) => Some("fcmge"),
                _ => None,
            };
            let last = format!("umov {}, v5.{l}[0]\n    and x5, x5, #1", general(format, 5));
            let mask = mask.map(|name| format!("{name} {l}5, {l}1, {l}0\n    {last}"));
            code(&[flags.clone(), mask.unwrap_or(flags)])
        }
        Function::RoundToInt(format) => {
            let l = letter(format);
            let pair = |name: &str| [format!("{name} {l}5, {l}0"), vector(name, format, &["v16"])];
            if setting.exact {
                by_mode?;
                return code(&pair("frintx"));
            }
            let mut variants = pair(&format!("frint{}", way(setting.rounding)?)).to_vec();
            variants.extend(by_mode.into_iter().flat_map(|_| pair("frinti")));
            code(&variants)
        }
        Function::Convert(Kind::F64, Kind::F32) if setting.rounding == Rounding::Odd => {
            code(&["fcvtxn s5, d0".to_owned(), "fcvtxn v5.2s, v16.2d\n    mov s5, v5.s[1]".to_owned()])
        }
        Function::Convert(from, to) if from.is_float() && to.is_float() => {
            by_mode?;
            let text = format!("fcvt {}5, {}0", letter(to), letter(from));
            code(&[text.clone(), text])
        }
        Function::Convert(from, to) if from.is_float() => {
            let sign = if to.is_signed() { "s" } else { "u" };
            let name = format!("fcvt{}{sign}", way(setting.rounding)?);
            let l = letter(from);
            let scalar = format!("{name} {}, {l}0", general(to, 5));
            let within = (from.bits() == to.bits())
                .then(|| format!("{name} {l}5, {l}0\n    fmov {}, {l}5", general(to, 5)));
            code(&[scalar.clone(), within.unwrap_or(scalar)])
        }
        Function::Convert(from, to) => {
            by_mode?;
            let name = if from.is_signed() { "scvtf" } else { "ucvtf" };
            let l = letter(to);
            let scalar = format!("{name} {l}5, {}", general(from, 4));
            let within = (from.bits() == to.bits())
                .then(|| format!("fmov {l}6, {}\n    {name} {l}5, {l}6", general(from, 4)));
            code(&[scalar.clone(), within.unwrap_or(scalar)])
        }
    }
}

/// The loop around `code`.
fn enclose(setting: Setting, code: &Code, specialization: Specialization) -> String {
    let (kind, operands) = setting.function.operands();
    let default_nan = u32::from(specialization == Specialization::ArmDefaultNan);
    let fpcr = rmode(setting.rounding).unwrap_or(0) << 22 | default_nan << 25;
    let result = if setting.function.result().is_float() { "d5" } else { "x5" };
    let mut text = format!("    mov     x9, #{fpcr}\n    msr     fpcr, x9\n1:\n");
    for number in 0..operands {
        let at = 8 * number;
        if kind.is_float() {
            let l = letter(kind);
            text += &format!("    ldr     {l}{number}, [x0, #{at}]\n");
            text += &format!("    dup     v{}.{}{l}, v{number}.{l}[0]\n", 16 + number, 128 / kind.bits());
        } else {
            text += &format!("    ldr     x4, [x0, #{at}]\n");
        }
    }
    code.setup.iter().for_each(|line| text += &format!("    {line}\n"));
    for (number, variant) in code.variants.iter().enumerate() {
        let before = if Code::is_inexact_before(number) { "x12" } else { "xzr" };
        text += &format!("    msr     fpsr, {before}\n    {variant}\n    mrs     x13, fpsr\n");
        let at = 16 * number;
        text += &format!("    str     {result}, [x1, #{at}]\n    str     x13, [x1, #{}]\n", at + 8);
    }
    text += &format!(
        "    add     x0, x0, #{}\n    add     x1, x1, #{}\n",
        8 * operands,
        16 * code.variants.len()
    );
    text + "    subs    x2, x2, #1\n    b.ne    1b\n    b       finished\n"
}

/// A result as 64 bits of a register: what is not written is zero.
fn holds(_: Kind, bits: u64) -> u64 {
    bits
}

/// FPSR's bits from the lowest on are IOC, DZC, OFC, UFC and IXC. What else is set there is no flag of TestFloat's, and stays.
fn flags(fpsr: u64) -> u64 {
    let low = fpsr & 0x1f;
    fpsr & !0x1f | (low.reverse_bits() >> 59)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_in_the_other_order() {
        assert_eq!([1, 2, 4, 8, 16].map(flags), [16, 8, 4, 2, 1]);
        assert_eq!(flags(1 << 27 | 0x11), 1 << 27 | 0x11);
    }
}
