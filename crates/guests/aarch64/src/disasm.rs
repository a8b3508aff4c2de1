//! Assembly text in the syntax of GNU objdump, from the same tables that decode.
//!
//! A row's `assembly` (and its name) is text with operands in braces. [`operand`] writes those of general registers,
//! immediates and addresses; what it does not know is asked of the modules of the other tables. Aliases that the manual
//! prefers are rows of [`crate::disasm_alias`].

use crate::{Features, decode, disasm_alias, disasm_fp, disasm_system, operands::bitmask, pattern::Field};
use std::fmt::Write;

/// The instruction at the start of `code` and its length; see [`isomer_ir::Guest::disassemble`].
pub(crate) fn disassemble(features: Features, code: &[u8], pc: u64) -> (String, usize) {
    let Some(&bytes) = code.first_chunk() else {
        return (String::new(), 0);
    };
    (assembly(features, u32::from_le_bytes(bytes), pc, true), 4)
}

/// One instruction, by its preferred alias or its own name.
pub(crate) fn assembly(features: Features, insn: u32, pc: u64, aliases: bool) -> String {
    let Some(row) = decode::decode(features, insn) else {
        return format!(".inst {insn:#010x}");
    };
    let alias = if aliases { disasm_alias::find(row, insn) } else { None };
    let (name, operands) = alias.unwrap_or((row.insn.name, row.insn.assembly));
    let mut text = String::with_capacity(32);
    expand(name, insn, pc, &mut text);
    if !operands.is_empty() {
        let end = text.len();
        text.push(' ');
        expand(operands, insn, pc, &mut text);
        // The only operand may be one that is left out.
        if text.len() == end + 1 {
            text.truncate(end);
        }
    }
    text
}

/// Writes a template, each `{operand}` replaced.
fn expand(template: &str, insn: u32, pc: u64, out: &mut String) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        let known = operand(name, insn, pc, out);
        debug_assert!(known, "no operand is called {name}");
        rest = after;
    }
    out.push_str(rest);
}

/// A general register: x or w, and what 31 is.
fn register(wide: bool, number: u32, stack: bool, out: &mut String) {
    let letter = if wide { 'x' } else { 'w' };
    let _ = match (number, stack, wide) {
        (31, true, true) => write!(out, "sp"),
        (31, true, false) => write!(out, "wsp"),
        (31, false, _) => write!(out, "{letter}zr"),
        _ => write!(out, "{letter}{number}"),
    };
}

/// A register operand: `X`, `W` or `R` (of the width that `sf` says), the field's letter, `sp` if 31 is SP, `.next` for
/// the second of a pair.
fn register_operand(name: &str, insn: u32, out: &mut String) -> bool {
    let (name, next) = name.strip_suffix(".next").map_or((name, 0), |name| (name, 1));
    let wide = match name.as_bytes().first() {
        Some(b'X') => true,
        Some(b'W') => false,
        Some(b'R') => Field::sf.of(insn) != 0,
        _ => return false,
    };
    let (letters, stack) = name[1..].strip_suffix("sp").map_or((&name[1..], false), |rest| (rest, true));
    let field = match letters {
        "d" | "t" => Field::Rd,
        "n" => Field::Rn,
        "m" | "s" => Field::Rm,
        "a" | "t2" => Field::Ra,
        _ => return false,
    };
    register(wide, (field.of(insn) + next).min(31), stack, out);
    true
}

/// The manual's condition names.
pub(crate) const CONDITIONS: [&str; 16] =
    ["eq", "ne", "cs", "cc", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le", "al", "nv"];
const SHIFTS: [&str; 4] = ["lsl", "lsr", "asr", "ror"];
const EXTENSIONS: [&str; 8] = ["uxtb", "uxth", "uxtw", "uxtx", "sxtb", "sxth", "sxtw", "sxtx"];

/// Writes one operand; false if it is none of any table's.
fn operand(name: &str, insn: u32, pc: u64, out: &mut String) -> bool {
    register_operand(name, insn, out)
        || register_modifier(name, insn, out)
        || immediate(name, insn, out)
        || place(name, insn, pc, out)
        || offset(name, insn, out)
        || suffix(name, insn, out)
        || disasm_fp::operand(name, insn, out)
        || disasm_system::operand(name, insn, out)
}

/// Shifts and extensions of registers.
fn register_modifier(name: &str, insn: u32, out: &mut String) -> bool {
    let (sf, option) = (Field::sf.of(insn) != 0, Field::option.of(insn));
    let _ = match name {
        "shift" => match (Field::shift.of(insn), Field::imm6.of(insn)) {
            (0, 0) => Ok(()),
            (shift, amount) => write!(out, ", {} #{amount}", SHIFTS[shift as usize]),
        },
        "Rm.ext" => {
            register(sf && option & 3 == 3, Field::Rm.of(insn), false, out);
            Ok(())
        }
        "extend" => {
            // With SP the extension that changes nothing is called lsl, or nothing at all.
            let flags = insn >> 29 & 1 != 0;
            let stack = Field::Rn.of(insn) == 31 || !flags && Field::Rd.of(insn) == 31;
            let whole = option == if sf { 3 } else { 2 };
            match (stack && whole, Field::imm3.of(insn)) {
                (true, 0) => Ok(()),
                (true, amount) => write!(out, ", lsl #{amount}"),
                (false, 0) => write!(out, ", {}", EXTENSIONS[option as usize]),
                (false, amount) => write!(out, ", {} #{amount}", EXTENSIONS[option as usize]),
            }
        }
        "Xn.ret" => {
            if Field::Rn.of(insn) != 30 {
                register(true, Field::Rn.of(insn), false, out);
            }
            Ok(())
        }
        _ => return false,
    };
    true
}

/// Numbers.
fn immediate(name: &str, insn: u32, out: &mut String) -> bool {
    let sf = Field::sf.of(insn) != 0;
    let width = if sf { 64 } else { 32 };
    let (immr, imms) = (Field::immr.of(insn), Field::imms.of(insn));
    let _ = match name {
        "imm12" => write!(out, "{:#x}", Field::imm12.of(insn)),
        "lsl12" if Field::sh.of(insn) != 0 => write!(out, ", lsl #12"),
        "imm16" => write!(out, "{:#x}", Field::imm16.of(insn)),
        "imm16f" => write!(out, "{}", Field::imm16f.of(insn)),
        "hw" if Field::hw.of(insn) != 0 => write!(out, ", lsl #{}", 16 * Field::hw.of(insn)),
        "lsl12" | "hw" => Ok(()),
        "wide" => write!(out, "{:#x}", wide(insn)),
        "simm8" => write!(out, "{}", Field::imm8c.signed(insn)),
        "uimm8" => write!(out, "{}", Field::imm8c.of(insn)),
        "bitmask" => {
            let value = bitmask(Field::N.of(insn) != 0, immr as u8, imms as u8, width);
            write!(out, "{:#x}", value.unwrap_or_default())
        }
        "immr" => write!(out, "{immr}"),
        "imms" => write!(out, "{imms}"),
        "lsl" => write!(out, "{}", width - 1 - imms),
        "lsb" => write!(out, "{}", (width - immr) % width),
        "length" => write!(out, "{}", imms + 1),
        "width" => write!(out, "{}", imms + 1 - immr.min(imms)),
        "rot" => write!(out, "{}", Field::rot.of(insn)),
        "mask" => write!(out, "{}", Field::mask.of(insn)),
        "nzcv" => write!(out, "{:#x}", Field::nzcv.of(insn)),
        "imm5" => write!(out, "{:#x}", Field::imm5.of(insn)),
        "bit" => write!(out, "{}", Field::b5.of(insn) << 5 | Field::b40.of(insn)),
        _ => return false,
    };
    true
}

/// The value that `movz` and `movn` give.
pub(crate) fn wide(insn: u32) -> u64 {
    let value = u64::from(Field::imm16.of(insn)) << (16 * Field::hw.of(insn));
    match (insn >> 29 & 3, Field::sf.of(insn)) {
        (0, 0) => u64::from(!value as u32),
        (0, _) => !value,
        _ => value,
    }
}

/// Addresses of code and literals.
fn place(name: &str, insn: u32, pc: u64, out: &mut String) -> bool {
    let adr = Field::immhi.signed(insn) << 2 | i64::from(Field::immlo.of(insn));
    let address = match name {
        "adr" => pc.wrapping_add_signed(adr),
        "adrp" => (pc & !0xfff).wrapping_add_signed(adr << 12),
        "imm14" => pc.wrapping_add_signed(Field::imm14.signed(insn) * 4),
        "imm19" => pc.wrapping_add_signed(Field::imm19.signed(insn) * 4),
        "imm26" => pc.wrapping_add_signed(Field::imm26.signed(insn) * 4),
        _ => return false,
    };
    let _ = write!(out, "{address:#x}");
    true
}

/// Offsets of loads and stores: `off` is left out when zero, `imm` is not; `.2` says in units of four bytes.
fn offset(name: &str, insn: u32, out: &mut String) -> bool {
    let (name, scale) = match name.split_once('.') {
        Some((name, scale)) => match scale.parse::<u32>() {
            Ok(scale) => (name, scale),
            Err(_) => return false,
        },
        None => (name, 0),
    };
    let value = match name {
        "off12" => i64::from(Field::imm12.of(insn)) << scale,
        "off9" | "imm9" => Field::imm9.signed(insn),
        "off7" | "imm7" => Field::imm7.signed(insn) << scale,
        "off10" => (i64::from(Field::imm9.of(insn)) - i64::from(Field::S10.of(insn)) * 512) * 8,
        "offreg" => {
            offset_register(insn, scale, out);
            return true;
        }
        _ => return false,
    };
    let _ = match (name.starts_with("off"), value) {
        (true, 0) => Ok(()),
        (true, _) => write!(out, ", #{value}"),
        (false, _) => write!(out, "{value}"),
    };
    true
}

/// The register offset of a load or store and how it is extended.
fn offset_register(insn: u32, scale: u32, out: &mut String) {
    let (option, scaled) = (Field::option.of(insn), Field::S.of(insn) != 0);
    register(option & 1 != 0, Field::Rm.of(insn), false, out);
    let extension = if option == 3 { "lsl" } else { EXTENSIONS[option as usize] };
    let _ = match (option, scaled) {
        (3, false) => Ok(()),
        (_, true) => write!(out, ", {extension} #{scale}"),
        (_, false) => write!(out, ", {extension}"),
    };
}

/// Parts of mnemonics, conditions, prefetches.
fn suffix(name: &str, insn: u32, out: &mut String) -> bool {
    let (first, second) = match name {
        "order" => (Field::A.of(insn), Field::R.of(insn)),
        "cas.order" => (Field::L.of(insn), Field::o0.of(insn)),
        "release" => (0, Field::R.of(insn)),
        "cond" => {
            out.push_str(CONDITIONS[Field::cond.of(insn) as usize]);
            return true;
        }
        "cond.inverse" => {
            out.push_str(CONDITIONS[(Field::cond.of(insn) ^ 1) as usize]);
            return true;
        }
        "bcond" => {
            out.push_str(CONDITIONS[Field::bcond.of(insn) as usize]);
            return true;
        }
        "prfop" => {
            prefetch(Field::Rt.of(insn), out);
            return true;
        }
        _ => return false,
    };
    out.push_str(if first != 0 { "a" } else { "" });
    out.push_str(if second != 0 { "l" } else { "" });
    true
}

/// A prefetch operation (Arm ARM, C6.2.267): what for, which cache, whether it stays.
fn prefetch(operation: u32, out: &mut String) {
    let kind = ["pld", "pli", "pst"].get((operation >> 3) as usize);
    let level = (operation >> 1 & 3) + 1;
    let _ = match kind {
        Some(kind) if level < 4 => {
            write!(out, "{kind}l{level}{}", if operation & 1 != 0 { "strm" } else { "keep" })
        }
        _ => write!(out, "#{operation:#04x}"),
    };
}
