//! Assembly text, from the same table that decodes: mnemonics and operand order of the manual, ABI register names, no
//! pseudo-instructions.

use crate::{
    Extensions, csr,
    decode::{self, Decoded},
    lift_fp::FLI,
    pattern::Field,
    regs::{F_NAMES, X_NAMES},
};
use std::fmt::Write;

/// The instruction at the start of `code` and its length; see [`isomer_ir::Guest::disassemble`].
pub(crate) fn disassemble(ext: Extensions, code: &[u8], pc: u64) -> (String, usize) {
    let Some((insn, len)) = decode::fetch(code) else {
        return (String::new(), 0);
    };
    let text = match decode::decode(ext, insn) {
        Some(decoded) => decoded.assembly(pc),
        None if len == 2 => format!(".2byte {insn:#06x}"),
        None => format!(".4byte {insn:#010x}"),
    };
    (text, len)
}

impl Decoded {
    fn assembly(&self, pc: u64) -> String {
        let mut text = self.mnemonic();
        let mut separator = ' ';
        for operand in self.row.insn.form.assembly().split(',') {
            if let Some(operand) = self.operand(operand, pc) {
                text.push(separator);
                text.push_str(&operand);
                separator = ',';
            }
        }
        text
    }

    /// The name, with its number or ordering suffix if it has one.
    fn mnemonic(&self) -> String {
        let number = self.fields.get(Field::Imm);
        let mut name = self.row.insn.name.replace('#', &number.to_string());
        name.push_str(match (self.fields.get(Field::Aq), self.fields.get(Field::Rl)) {
            (0, 0) => "",
            (_, 0) => ".aq",
            (0, _) => ".rl",
            _ => ".aqrl",
        });
        name
    }

    /// One operand; `None` if the encoding has no such field, or says it together with another.
    fn operand(&self, operand: &str, pc: u64) -> Option<String> {
        if let Some((offset, base)) = operand.split_once('(') {
            let base = self.operand(base.trim_end_matches(')'), pc)?;
            let offset = self.operand(offset, pc).unwrap_or_default();
            return Some(format!("{offset}({base})"));
        }
        let field = field_of(operand)?;
        if !self.row.pattern.has(field) || operand == "rs1" && self.row.pattern.is_fused() {
            return None;
        }
        let value = self.fields.get(field);
        let number = self.fields.byte(field);
        Some(match operand {
            "rd" | "rs1" | "rs2" => X_NAMES[usize::from(number & 31)].to_owned(),
            "frd" | "frs1" | "frs2" | "frs3" => F_NAMES[usize::from(number & 31)].to_owned(),
            "hex" => format!("{value:#x}"),
            "upper" => format!("{:#x}", value >> 12 & 0xf_ffff),
            "address" => format!("{:#x}", pc.wrapping_add(value as u64)),
            "csr" => csr::name(value as u16).unwrap_or_else(|| format!("{value:#x}")),
            "pred" | "succ" => accesses(number),
            "constant" => constant(number),
            "rm" => return rounding(number).map(str::to_owned),
            "rtz" => "rtz".to_owned(),
            _ => value.to_string(),
        })
    }
}

fn field_of(operand: &str) -> Option<Field> {
    Some(match operand {
        "rd" | "frd" => Field::Rd,
        "rs1" | "frs1" | "rtz" => Field::Rs1,
        "rs2" | "frs2" => Field::Rs2,
        "frs3" => Field::Rs3,
        "imm" | "hex" | "upper" | "address" | "constant" => Field::Imm,
        "csr" => Field::Csr,
        "rm" => Field::Rm,
        "pred" => Field::Pred,
        "succ" => Field::Succ,
        _ => return None,
    })
}

/// The sets of a fence: device input and output, reads, writes.
fn accesses(set: u8) -> String {
    let letters = [(8, 'i'), (4, 'o'), (2, 'r'), (1, 'w')];
    let text: String = letters.iter().filter(|(bit, _)| set & bit != 0).map(|(_, letter)| letter).collect();
    if text.is_empty() { "0".to_owned() } else { text }
}

/// A static rounding mode; dynamic rounding is what is meant when none is written.
fn rounding(rm: u8) -> Option<&'static str> {
    match rm {
        0 => Some("rne"),
        1 => Some("rtz"),
        2 => Some("rdn"),
        3 => Some("rup"),
        4 => Some("rmm"),
        7 => None,
        _ => Some("reserved"),
    }
}

/// A constant of `fli` as assemblers take it.
fn constant(number: u8) -> String {
    match number & 31 {
        1 => "min".to_owned(),
        30 => "inf".to_owned(),
        31 => "nan".to_owned(),
        n => {
            let mut text = String::new();
            let _ = write!(text, "{:?}", FLI[usize::from(n)]);
            text
        }
    }
}
