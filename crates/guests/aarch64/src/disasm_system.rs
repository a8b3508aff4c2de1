//! Operands of system instructions in assembly, as objdump writes them.

use crate::{pattern::Field, sysop, sysreg, sysreg::key_of};
use std::fmt::Write;

const BARRIERS: [&str; 16] = [
    "#0x00", "oshld", "oshst", "osh", "#0x04", "nshld", "nshst", "nsh", "#0x08", "ishld", "ishst", "ish",
    "#0x0c", "ld", "st", "sy",
];

/// Writes an operand; false if it is none of these.
pub(crate) fn operand(name: &str, insn: u32, out: &mut String) -> bool {
    let crm = Field::CRm.of(insn);
    let key = key_of(u64::from(insn));
    let _ = match name {
        "hint" => write!(out, "{:#x}", Field::imm7hint.of(insn)),
        "crm" => write!(out, "{crm:#x}"),
        "barrier" => write!(out, "{}", BARRIERS[crm as usize]),
        "clrex" | "isb" if crm != 15 => write!(out, "#{crm:#x}"),
        "clrex" | "isb" => Ok(()),
        "sysreg" => write!(out, "{}", sysreg::name(key)),
        "pstate" => write!(out, "{}", pstate(insn)),
        "sysop" => write!(out, "{}", sysop::name(key).map_or("sys", |(mnemonic, _)| mnemonic)),
        "sysop.operands" => {
            operation(insn, key, out);
            Ok(())
        }
        _ => return false,
    };
    true
}

/// The field that `msr` with an immediate names.
fn pstate(insn: u32) -> String {
    let (op1, op2) = (Field::op1.of(insn), Field::op2.of(insn));
    let name = match (op1, op2) {
        (0, 3) => "uao",
        (0, 4) => "pan",
        (0, 5) => "spsel",
        (3, 1) => "ssbs",
        (3, 2) => "dit",
        (3, 4) => "tco",
        (3, 6) => "daifset",
        (3, 7) => "daifclr",
        _ => return format!("s0_{op1}_c4_c{}_{op2}", Field::CRm.of(insn)),
    };
    name.to_owned()
}

/// Operands of `sys` under its aliases: a name, and the register unless it is xzr and unused.
fn operation(insn: u32, key: u16, out: &mut String) {
    let rt = Field::Rt.of(insn);
    let _ = match sysop::name(key) {
        Some((mnemonic, name)) => write!(out, "{}", if mnemonic == name { "rctx" } else { name }),
        None => write!(
            out,
            "#{}, C{}, C{}, #{}",
            Field::op1.of(insn),
            Field::CRn.of(insn),
            Field::CRm.of(insn),
            Field::op2.of(insn)
        ),
    };
    let takes_none = |name: &str| ["iall", "vmall", "alle"].iter().any(|stem| name.starts_with(stem));
    if rt != 31 && !sysop::name(key).is_some_and(|(_, name)| takes_none(name)) {
        let _ = write!(out, ", x{rt}");
    }
}
