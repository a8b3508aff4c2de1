//! Operands of SIMD and floating-point instructions in assembly.
//!
//! | operand | meaning |
//! |---------|---------|
//! | `Bd` `Hn` `Sm` `Da` `Qt` | a scalar of that width; the second letter is the register field |
//! | `Fd` `Zd` `Yd` `Id` `Z5d` | a scalar of the width that ftype, size, sz, immh, imm5 say; `ZW`, `IW`: twice that |
//! | `Vd.T` | a vector by size and Q; `W`: of lanes twice as wide, all of it; `P`: of those, by Q |
//! | `Vd.B` `Vd.H` `Vd.S` `Vd.F` `Vd.I` `Vd.J` `Vd.T5` | by Q, of bytes, halfwords, words; by sz; by immh; twice that; by imm5 |
//! | `Vd.4s` | that shape |
//! | `Vm.e` ... | an element, see [`element`] |

use crate::{
    lift_simd_move::{expand_float, modified_immediate},
    pattern::Field,
    vreg::{Simd, lane_of, wider},
};
use isomer_ir::types::{FpFormat, Lane};
use std::fmt::Write;

const LETTERS: [char; 4] = ['b', 'h', 's', 'd'];

fn letter(lane: Lane) -> char {
    LETTERS[lane as usize]
}

/// The register field that a letter names.
fn field(letter: &str) -> Option<Field> {
    Some(match letter {
        "d" | "t" => Field::Rd,
        "n" => Field::Rn,
        "m" => Field::Rm,
        "a" | "t2" => Field::Ra,
        _ => return None,
    })
}

/// Writes an operand; false if it is none of these.
pub(crate) fn operand(name: &str, insn: u32, out: &mut String) -> bool {
    let o = Simd(insn);
    match name.split_once('.') {
        Some((register, shape)) if register.starts_with('V') => vector(register, shape, o, out),
        Some((list, count)) => count.parse().is_ok_and(|count| structure(list, o, count, out)),
        None => scalar(name, o, out) || immediate(name, o, out),
    }
}

/// A register that is one number.
fn scalar(name: &str, o: Simd, out: &mut String) -> bool {
    let lane = |width: &str| {
        Some(match width {
            "F" => letter_of_format(o.ftype()),
            "Z" => letter(o.lane()),
            "ZW" => letter(o.wide()),
            "Y" => letter_of_format(o.fmt()),
            "I" => letter(o.shift_lane()),
            "IW" => letter(wider(o.shift_lane())),
            "Z5" => letter(imm5(o).0),
            "B" | "H" | "S" | "D" | "Q" => width.chars().next()?.to_ascii_lowercase(),
            "R5" => {
                if imm5(o).0 == Lane::D {
                    'x'
                } else {
                    'w'
                }
            }
            _ => return None,
        })
    };
    if name == "Rq" {
        return general(if o.bits(30, 1) != 0 { 'x' } else { 'w' }, Field::Rd.of(o.0), out);
    }
    let at = name.find(|c: char| c.is_ascii_lowercase()).unwrap_or(name.len());
    let (Some(letter), Some(field)) = (lane(&name[..at]), field(&name[at..])) else {
        return false;
    };
    if matches!(letter, 'x' | 'w') {
        return general(letter, field.of(o.0), out);
    }
    write!(out, "{letter}{}", field.of(o.0)).is_ok()
}

fn general(letter: char, number: u32, out: &mut String) -> bool {
    if number == 31 { write!(out, "{letter}zr") } else { write!(out, "{letter}{number}") }.is_ok()
}

fn letter_of_format(fmt: FpFormat) -> char {
    match fmt {
        FpFormat::F64 => 'd',
        FpFormat::F32 => 's',
        FpFormat::F16 | FpFormat::Bf16 => 'h',
    }
}

/// The lane and index of imm5.
fn imm5(o: Simd) -> (Lane, u32) {
    let imm5 = Field::imm5.of(o.0);
    let log2 = imm5.trailing_zeros().min(3);
    (lane_of(log2), imm5 >> (log2 + 1))
}

/// A vector register of some shape, or an element of one.
fn vector(register: &str, shape: &str, o: Simd, out: &mut String) -> bool {
    let Some(number) = field(&register[1..]).map(|field| field.of(o.0)) else {
        return false;
    };
    let by_q = |lane: Lane| (lane.count() >> (1 - o.bits(30, 1)), letter(lane));
    let fp = if o.fmt() == FpFormat::F64 { Lane::D } else { Lane::S };
    let (count, lane) = match shape {
        "T" => by_q(o.lane()),
        "W" if o.lane() == Lane::D => (1, 'q'),
        "W" => (o.wide().count(), letter(o.wide())),
        "P" => by_q(o.wide()),
        "B" => by_q(Lane::B),
        "H" => by_q(Lane::H),
        "S" => by_q(Lane::S),
        "F" => by_q(fp),
        "I" => by_q(o.shift_lane()),
        "J" => (wider(o.shift_lane()).count(), letter(wider(o.shift_lane()))),
        "T5" => by_q(imm5(o).0),
        "h" => (2 << o.bits(30, 1), 'h'),
        "2" => (2, letter(fp)),
        _ => {
            if let Some((number, suffix, index)) = element(number, shape, o) {
                return write!(out, "v{number}.{suffix}[{index}]").is_ok();
            }
            return shape.starts_with(|c: char| c.is_ascii_digit())
                && write!(out, "v{number}.{shape}").is_ok();
        }
    };
    write!(out, "v{number}.{count}{lane}").is_ok()
}

/// An element: `e` by size, `ef` by sz, `eh` of halfwords, `e4b` and `e2h` of groups, `ec` of complex numbers, `e5` and
/// `e4` by imm5, `d1` the upper doubleword. Gives register, lane and index.
fn element(number: u32, shape: &str, o: Simd) -> Option<(u32, &'static str, u32)> {
    const NAMES: [&str; 4] = ["b", "h", "s", "d"];
    let by_lane = |lane: Lane| {
        let (register, index) = o.element(lane);
        Some((register.into(), NAMES[lane as usize], index.into()))
    };
    let (lane, index) = imm5(o);
    match shape {
        "e" => by_lane(o.lane()),
        "ef" => by_lane(if o.fmt() == FpFormat::F64 { Lane::D } else { Lane::S }),
        "eh" => by_lane(Lane::H),
        "e4b" => by_lane(Lane::S).map(|(register, _, index)| (register, "4b", index)),
        "e2h" => by_lane(Lane::S).map(|(register, _, index)| (register, "2h", index)),
        "ec" => {
            let lane = if Field::vsize.of(o.0) == 1 { Lane::S } else { Lane::D };
            let name = if lane == Lane::S { "h" } else { "s" };
            by_lane(lane).map(|(register, _, index)| (register, name, index))
        }
        "e5" => Some((number, NAMES[lane as usize], index)),
        "e4" => Some((number, NAMES[lane as usize], Field::imm4.of(o.0) >> lane as u32)),
        "d1" => Some((number, "d", 1)),
        _ => None,
    }
}

/// Numbers and mnemonic suffixes.
fn immediate(name: &str, o: Simd, out: &mut String) -> bool {
    let cmode = Field::cmode.of(o.0);
    match name {
        "2" => write!(out, "{}", if o.q() { "2" } else { "" }),
        "shr" => write!(out, "{}", o.right_shift()),
        "shl" => write!(out, "{}", o.left_shift()),
        "lanebits" => write!(out, "{}", o.lane().bits()),
        "vimm4" => write!(out, "{}", Field::imm4.of(o.0)),
        "imm6x" => write!(out, "{}", Field::imm6x.of(o.0)),
        "fbits" => write!(out, "{}", 64 - Field::fscale.of(o.0)),
        "rot11" => write!(out, "{}", 90 * o.bits(11, 2)),
        "rot13" => write!(out, "{}", 90 * o.bits(13, 2)),
        "rotadd" => write!(out, "{}", 90 + 180 * o.bits(12, 1)),
        "imm8" => write!(out, "{:#x}", Field::abc.of(o.0) << 5 | Field::defgh.of(o.0)),
        "imm64" => write!(out, "{:#x}", modified_immediate(o.0)),
        "vlsl" => {
            match (cmode >> 1 & 3) * 8 * u32::from(cmode < 8) + (cmode >> 1 & 1) * 8 * u32::from(cmode >= 8) {
                0 => Ok(()),
                amount => write!(out, ", lsl #{amount}"),
            }
        }
        "vmsl" => write!(out, ", msl #{}", 8 << (cmode & 1)),
        "float" => float(Field::fimm8.of(o.0), out),
        "vfloat" => float(Field::abc.of(o.0) << 5 | Field::defgh.of(o.0), out),
        "tlist" => {
            registers(Field::Rn.of(o.0), Field::tlen.of(o.0) + 1, "16b", out);
            Ok(())
        }
        _ => return false,
    }
    .is_ok()
}

/// An 8-bit floating-point constant as C's `%.18e` writes it.
fn float(imm8: u32, out: &mut String) -> std::fmt::Result {
    let text = format!("{:.18e}", f64::from_bits(expand_float(imm8.into(), 11, 52)));
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    write!(out, "{digits}e{sign}{exponent:0>2}")
}

/// A list of consecutive registers: each by name, or more than two that do not wrap as a range.
fn registers(first: u32, count: u32, shape: &str, out: &mut String) {
    if count > 2 && first + count <= 32 {
        let _ = write!(out, "{{v{first}.{shape}-v{}.{shape}}}", first + count - 1);
        return;
    }
    let names = (first..first + count).map(|number| format!("v{}.{shape}", number & 31));
    let _ = write!(out, "{{{}}}", names.collect::<Vec<_>>().join(", "));
}

/// Loads and stores of structures of `count` registers: their lists, and what is added to the base.
fn structure(name: &str, o: Simd, count: u32, out: &mut String) -> bool {
    let lane = lane_of(o.bits(10, 2));
    let width = 8 << o.bits(30, 1);
    let single = match Field::ldop.of(o.0) >> 1 {
        0 => Lane::B,
        1 => Lane::H,
        _ if o.bits(10, 1) == 0 => Lane::S,
        _ => Lane::D,
    };
    let bytes = match name {
        "list" => {
            let shape = format!("{}{}", width * 8 / lane.bits(), letter(lane));
            registers(Field::Rt.of(o.0), count, &shape, out);
            return true;
        }
        "element" => {
            registers(Field::Rt.of(o.0), count, &letter(single).to_string(), out);
            let index = (o.bits(30, 1) << 3 | o.bits(10, 3)) >> single as u32;
            return write!(out, "[{index}]").is_ok();
        }
        "post" => count * width,
        "epost" => count * single.bits() / 8,
        "rpost" => count * lane.bits() / 8,
        _ => return false,
    };
    match Field::Rm.of(o.0) {
        31 => write!(out, "#{bytes}"),
        number => write!(out, "x{number}"),
    }
    .is_ok()
}
