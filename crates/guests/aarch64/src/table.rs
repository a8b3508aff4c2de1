//! The instruction tables together, and integer data processing and branches: mnemonic, encoding as the manual draws it,
//! features needed, operands in assembly, lifting function (Arm ARM, C4.1.93 to C4.1.95).

use crate::{
    Features as F,
    decode::Insn,
    helpers_integer::IntegerHelper as H,
    lift::Lift,
    lift_alu::{self as alu, Sum},
    lift_branch::{self as branch, To},
    lift_mem as mem,
    mode::Key,
    operands::{has_bitmask, row},
    pattern::Field,
    pauth::{self, Code, Hint, Modifier},
    table_fp, table_mem, table_system,
};
use isomer_ir::{
    Type,
    op::{BinOp as B, Cond, UnOp as U},
};

/// Features of what every CPU has.
pub(crate) const BASE: F = F::empty();

/// Every row, and whether floating-point access controls apply to it.
pub(crate) fn all() -> impl Iterator<Item = (&'static Insn, bool)> {
    let integer = integer().map(|insn| (insn, false));
    let system = table_system::TABLE.iter().map(|insn| (insn, false));
    integer.chain(system).chain(table_fp::tables().map(|insn| (insn, true)))
}

/// The rows of base instructions.
pub(crate) fn integer() -> impl Iterator<Item = &'static Insn> {
    let own = [IMMEDIATE, REGISTER, BRANCHES, HINTS].into_iter();
    own.chain(table_mem::TABLES.iter().copied()).flatten()
}

/// `sf` and `N` agree, and a 32-bit register has no bit 32.
fn is_bitfield(insn: u32) -> bool {
    match Field::sf.of(insn) {
        0 => insn & 0x0060_8000 == 0,
        _ => Field::N.of(insn) == 1,
    }
}

/// The same for `extr`, whose bits 21:16 are no immediate.
fn is_extract(insn: u32) -> bool {
    match Field::sf.of(insn) {
        0 => insn & 0x0040_8000 == 0,
        _ => Field::N.of(insn) == 1,
    }
}

/// A 32-bit register is shifted by less than 32.
pub(crate) fn shift_fits(insn: u32) -> bool {
    Field::sf.of(insn) == 1 || insn & 0x8000 == 0
}

/// A 32-bit register has two halfwords.
fn halfword_fits(insn: u32) -> bool {
    Field::sf.of(insn) == 1 || Field::hw.of(insn) < 2
}

/// Extended registers are shifted by up to 4.
fn extension_fits(insn: u32) -> bool {
    Field::imm3.of(insn) <= 4
}

fn undefined(l: &mut Lift<'_>, _: ()) {
    l.undefined();
}

/// Data processing with immediates.
#[rustfmt::skip]
static IMMEDIATE: &[Insn] = &[
    row!("udf",   "0000000000000000 imm16f",                   BASE, "#{imm16f}", undefined),
    row!("adr",   "0 immlo 10000 immhi Rd",                    BASE, "{Xd}, {adr}", alu::adr),
    row!("adrp",  "1 immlo 10000 immhi Rd",                    BASE, "{Xd}, {adrp}", alu::adrp),
    row!("add",   "sf 00 100010 sh imm12 Rn Rd",               BASE, "{Rdsp}, {Rnsp}, #{imm12}{lsl12}", alu::add_imm, Sum::Add),
    row!("adds",  "sf 01 100010 sh imm12 Rn Rd",               BASE, "{Rd}, {Rnsp}, #{imm12}{lsl12}", alu::adds_imm, Sum::Add),
    row!("sub",   "sf 10 100010 sh imm12 Rn Rd",               BASE, "{Rdsp}, {Rnsp}, #{imm12}{lsl12}", alu::add_imm, Sum::Sub),
    row!("subs",  "sf 11 100010 sh imm12 Rn Rd",               BASE, "{Rd}, {Rnsp}, #{imm12}{lsl12}", alu::adds_imm, Sum::Sub),
    row!("smax",  "sf 00 1000111 0000 imm8c Rn Rd",            F::CSSC, "{Rd}, {Rn}, #{simm8}", alu::extremum_imm, B::MaxS),
    row!("umax",  "sf 00 1000111 0001 imm8c Rn Rd",            F::CSSC, "{Rd}, {Rn}, #{uimm8}", alu::extremum_imm, B::MaxU),
    row!("smin",  "sf 00 1000111 0010 imm8c Rn Rd",            F::CSSC, "{Rd}, {Rn}, #{simm8}", alu::extremum_imm, B::MinS),
    row!("umin",  "sf 00 1000111 0011 imm8c Rn Rd",            F::CSSC, "{Rd}, {Rn}, #{uimm8}", alu::extremum_imm, B::MinU),
    row!("and",   "sf 00 100100 N immr imms Rn Rd",            BASE, "{Rdsp}, {Rn}, #{bitmask}", alu::logic_imm, B::And).when(has_bitmask),
    row!("orr",   "sf 01 100100 N immr imms Rn Rd",            BASE, "{Rdsp}, {Rn}, #{bitmask}", alu::logic_imm, B::Or).when(has_bitmask),
    row!("eor",   "sf 10 100100 N immr imms Rn Rd",            BASE, "{Rdsp}, {Rn}, #{bitmask}", alu::logic_imm, B::Xor).when(has_bitmask),
    row!("ands",  "sf 11 100100 N immr imms Rn Rd",            BASE, "{Rd}, {Rn}, #{bitmask}", alu::ands_imm).when(has_bitmask),
    row!("movn",  "sf 00 100101 hw imm16 Rd",                  BASE, "{Rd}, #{imm16}{hw}", alu::movn).when(halfword_fits),
    row!("movz",  "sf 10 100101 hw imm16 Rd",                  BASE, "{Rd}, #{imm16}{hw}", alu::movz).when(halfword_fits),
    row!("movk",  "sf 11 100101 hw imm16 Rd",                  BASE, "{Rd}, #{imm16}{hw}", alu::movk).when(halfword_fits),
    row!("sbfm",  "sf 00 100110 N immr imms Rn Rd",            BASE, "{Rd}, {Rn}, #{immr}, #{imms}", alu::extract_field, true).when(is_bitfield),
    row!("bfm",   "sf 01 100110 N immr imms Rn Rd",            BASE, "{Rd}, {Rn}, #{immr}, #{imms}", alu::bfm).when(is_bitfield),
    row!("ubfm",  "sf 10 100110 N immr imms Rn Rd",            BASE, "{Rd}, {Rn}, #{immr}, #{imms}", alu::extract_field, false).when(is_bitfield),
    row!("extr",  "sf 00 100111 N 0 Rm imms Rn Rd",            BASE, "{Rd}, {Rn}, {Rm}, #{imms}", alu::extr).when(is_extract),
];

/// Data processing of registers.
#[rustfmt::skip]
static REGISTER: &[Insn] = &[
    row!("and",   "sf 00 01010 shift 0 Rm imm6 Rn Rd",         BASE, "{Rd}, {Rn}, {Rm}{shift}", alu::logic, B::And).when(shift_fits),
    row!("bic",   "sf 00 01010 shift 1 Rm imm6 Rn Rd",         BASE, "{Rd}, {Rn}, {Rm}{shift}", alu::bic).when(shift_fits),
    row!("orr",   "sf 01 01010 shift 0 Rm imm6 Rn Rd",         BASE, "{Rd}, {Rn}, {Rm}{shift}", alu::logic, B::Or).when(shift_fits),
    row!("orn",   "sf 01 01010 shift 1 Rm imm6 Rn Rd",         BASE, "{Rd}, {Rn}, {Rm}{shift}", alu::logic_not, B::Or).when(shift_fits),
    row!("eor",   "sf 10 01010 shift 0 Rm imm6 Rn Rd",         BASE, "{Rd}, {Rn}, {Rm}{shift}", alu::logic, B::Xor).when(shift_fits),
    row!("eon",   "sf 10 01010 shift 1 Rm imm6 Rn Rd",         BASE, "{Rd}, {Rn}, {Rm}{shift}", alu::logic_not, B::Xor).when(shift_fits),
    row!("ands",  "sf 11 01010 shift 0 Rm imm6 Rn Rd",         BASE, "{Rd}, {Rn}, {Rm}{shift}", alu::logic_flags, B::And).when(shift_fits),
    row!("bics",  "sf 11 01010 shift 1 Rm imm6 Rn Rd",         BASE, "{Rd}, {Rn}, {Rm}{shift}", alu::logic_flags, B::AndNot).when(shift_fits),
    row!("add",   "sf 00 01011 shift!3 0 Rm imm6 Rn Rd",       BASE, "{Rd}, {Rn}, {Rm}{shift}", alu::add_shifted, Sum::Add).when(shift_fits),
    row!("adds",  "sf 01 01011 shift!3 0 Rm imm6 Rn Rd",       BASE, "{Rd}, {Rn}, {Rm}{shift}", alu::adds_shifted, Sum::Add).when(shift_fits),
    row!("sub",   "sf 10 01011 shift!3 0 Rm imm6 Rn Rd",       BASE, "{Rd}, {Rn}, {Rm}{shift}", alu::add_shifted, Sum::Sub).when(shift_fits),
    row!("subs",  "sf 11 01011 shift!3 0 Rm imm6 Rn Rd",       BASE, "{Rd}, {Rn}, {Rm}{shift}", alu::adds_shifted, Sum::Sub).when(shift_fits),
    row!("add",   "sf 00 01011 00 1 Rm option imm3 Rn Rd",     BASE, "{Rdsp}, {Rnsp}, {Rm.ext}{extend}", alu::add_extended, Sum::Add).when(extension_fits),
    row!("adds",  "sf 01 01011 00 1 Rm option imm3 Rn Rd",     BASE, "{Rd}, {Rnsp}, {Rm.ext}{extend}", alu::adds_extended, Sum::Add).when(extension_fits),
    row!("sub",   "sf 10 01011 00 1 Rm option imm3 Rn Rd",     BASE, "{Rdsp}, {Rnsp}, {Rm.ext}{extend}", alu::add_extended, Sum::Sub).when(extension_fits),
    row!("subs",  "sf 11 01011 00 1 Rm option imm3 Rn Rd",     BASE, "{Rd}, {Rnsp}, {Rm.ext}{extend}", alu::adds_extended, Sum::Sub).when(extension_fits),
    row!("adc",   "sf 00 11010000 Rm 000000 Rn Rd",            BASE, "{Rd}, {Rn}, {Rm}", alu::adc, Sum::Add),
    row!("adcs",  "sf 01 11010000 Rm 000000 Rn Rd",            BASE, "{Rd}, {Rn}, {Rm}", alu::adcs, Sum::Add),
    row!("sbc",   "sf 10 11010000 Rm 000000 Rn Rd",            BASE, "{Rd}, {Rn}, {Rm}", alu::adc, Sum::Sub),
    row!("sbcs",  "sf 11 11010000 Rm 000000 Rn Rd",            BASE, "{Rd}, {Rn}, {Rm}", alu::adcs, Sum::Sub),
    row!("rmif",  "1 01 11010000 rot 00001 Rn 0 mask",         F::FLAGM, "{Xn}, #{rot}, #{mask}", alu::rmif),
    row!("setf8", "0 01 11010000 000000 00010 Rn 01101",      F::FLAGM, "{Wn}", alu::setf, Type::I8),
    row!("setf16", "0 01 11010000 000000 10010 Rn 01101",     F::FLAGM, "{Wn}", alu::setf, Type::I16),
    row!("cfinv", "1101010100 0 00 000 0100 0000 000 11111",   F::FLAGM, "", alu::cfinv).refines(),
    row!("xaflag", "1101010100 0 00 000 0100 0000 001 11111",  F::FLAGM2, "", alu::xaflag).refines(),
    row!("axflag", "1101010100 0 00 000 0100 0000 010 11111",  F::FLAGM2, "", alu::axflag).refines(),
    row!("ccmn",  "sf 01 11010010 Rm cond 00 Rn 0 nzcv",       BASE, "{Rn}, {Rm}, #{nzcv}, {cond}", alu::ccmp, Sum::Add),
    row!("ccmn",  "sf 01 11010010 imm5 cond 10 Rn 0 nzcv",     BASE, "{Rn}, #{imm5}, #{nzcv}, {cond}", alu::ccmp_imm, Sum::Add),
    row!("ccmp",  "sf 11 11010010 Rm cond 00 Rn 0 nzcv",       BASE, "{Rn}, {Rm}, #{nzcv}, {cond}", alu::ccmp, Sum::Sub),
    row!("ccmp",  "sf 11 11010010 imm5 cond 10 Rn 0 nzcv",     BASE, "{Rn}, #{imm5}, #{nzcv}, {cond}", alu::ccmp_imm, Sum::Sub),
    row!("csel",  "sf 00 11010100 Rm cond 00 Rn Rd",           BASE, "{Rd}, {Rn}, {Rm}, {cond}", alu::select, alu::same),
    row!("csinc", "sf 00 11010100 Rm cond 01 Rn Rd",           BASE, "{Rd}, {Rn}, {Rm}, {cond}", alu::select, alu::plus_one),
    row!("csinv", "sf 10 11010100 Rm cond 00 Rn Rd",           BASE, "{Rd}, {Rn}, {Rm}, {cond}", alu::select, alu::inverted),
    row!("csneg", "sf 10 11010100 Rm cond 01 Rn Rd",           BASE, "{Rd}, {Rn}, {Rm}, {cond}", alu::select, alu::negated),
    row!("udiv",  "sf 00 11010110 Rm 000010 Rn Rd",            BASE, "{Rd}, {Rn}, {Rm}", alu::divide, B::DivU),
    row!("sdiv",  "sf 00 11010110 Rm 000011 Rn Rd",            BASE, "{Rd}, {Rn}, {Rm}", alu::divide, B::DivS),
    row!("lslv",  "sf 00 11010110 Rm 001000 Rn Rd",            BASE, "{Rd}, {Rn}, {Rm}", alu::binary, B::Shl),
    row!("lsrv",  "sf 00 11010110 Rm 001001 Rn Rd",            BASE, "{Rd}, {Rn}, {Rm}", alu::binary, B::ShrU),
    row!("asrv",  "sf 00 11010110 Rm 001010 Rn Rd",            BASE, "{Rd}, {Rn}, {Rm}", alu::binary, B::ShrS),
    row!("rorv",  "sf 00 11010110 Rm 001011 Rn Rd",            BASE, "{Rd}, {Rn}, {Rm}", alu::binary, B::Rotr),
    row!("smax",  "sf 00 11010110 Rm 011000 Rn Rd",            F::CSSC, "{Rd}, {Rn}, {Rm}", alu::binary, B::MaxS),
    row!("umax",  "sf 00 11010110 Rm 011001 Rn Rd",            F::CSSC, "{Rd}, {Rn}, {Rm}", alu::binary, B::MaxU),
    row!("smin",  "sf 00 11010110 Rm 011010 Rn Rd",            F::CSSC, "{Rd}, {Rn}, {Rm}", alu::binary, B::MinS),
    row!("umin",  "sf 00 11010110 Rm 011011 Rn Rd",            F::CSSC, "{Rd}, {Rn}, {Rm}", alu::binary, B::MinU),
    row!("crc32b",  "0 00 11010110 Rm 010000 Rn Rd",           F::CRC32, "{Wd}, {Wn}, {Wm}", alu::crc32, H::Crc32, 1),
    row!("crc32h",  "0 00 11010110 Rm 010001 Rn Rd",           F::CRC32, "{Wd}, {Wn}, {Wm}", alu::crc32, H::Crc32, 2),
    row!("crc32w",  "0 00 11010110 Rm 010010 Rn Rd",           F::CRC32, "{Wd}, {Wn}, {Wm}", alu::crc32, H::Crc32, 4),
    row!("crc32x",  "1 00 11010110 Rm 010011 Rn Rd",           F::CRC32, "{Wd}, {Wn}, {Xm}", alu::crc32, H::Crc32, 8),
    row!("crc32cb", "0 00 11010110 Rm 010100 Rn Rd",           F::CRC32, "{Wd}, {Wn}, {Wm}", alu::crc32, H::Crc32c, 1),
    row!("crc32ch", "0 00 11010110 Rm 010101 Rn Rd",           F::CRC32, "{Wd}, {Wn}, {Wm}", alu::crc32, H::Crc32c, 2),
    row!("crc32cw", "0 00 11010110 Rm 010110 Rn Rd",           F::CRC32, "{Wd}, {Wn}, {Wm}", alu::crc32, H::Crc32c, 4),
    row!("crc32cx", "1 00 11010110 Rm 010111 Rn Rd",           F::CRC32, "{Wd}, {Wn}, {Xm}", alu::crc32, H::Crc32c, 8),
    row!("rbit",  "sf 10 11010110 00000 000000 Rn Rd",         BASE, "{Rd}, {Rn}", alu::unary, U::Bitrev),
    row!("rev16", "sf 10 11010110 00000 000001 Rn Rd",         BASE, "{Rd}, {Rn}", alu::rev16),
    row!("rev",   "0 10 11010110 00000 000010 Rn Rd",          BASE, "{Rd}, {Rn}", alu::unary, U::Bswap),
    row!("rev32", "1 10 11010110 00000 000010 Rn Rd",          BASE, "{Rd}, {Rn}", alu::rev32),
    row!("rev",   "1 10 11010110 00000 000011 Rn Rd",          BASE, "{Rd}, {Rn}", alu::unary, U::Bswap),
    row!("clz",   "sf 10 11010110 00000 000100 Rn Rd",         BASE, "{Rd}, {Rn}", alu::unary, U::Clz),
    row!("cls",   "sf 10 11010110 00000 000101 Rn Rd",         BASE, "{Rd}, {Rn}", alu::cls),
    row!("ctz",   "sf 10 11010110 00000 000110 Rn Rd",         F::CSSC, "{Rd}, {Rn}", alu::unary, U::Ctz),
    row!("cnt",   "sf 10 11010110 00000 000111 Rn Rd",         F::CSSC, "{Rd}, {Rn}", alu::unary, U::Popcnt),
    row!("abs",   "sf 10 11010110 00000 001000 Rn Rd",         F::CSSC, "{Rd}, {Rn}", alu::abs),
    row!("madd",  "sf 00 11011000 Rm 0 Ra Rn Rd",              BASE, "{Rd}, {Rn}, {Rm}, {Ra}", alu::madd, Sum::Add),
    row!("msub",  "sf 00 11011000 Rm 1 Ra Rn Rd",              BASE, "{Rd}, {Rn}, {Rm}, {Ra}", alu::madd, Sum::Sub),
    row!("smaddl", "1 00 11011001 Rm 0 Ra Rn Rd",              BASE, "{Xd}, {Wn}, {Wm}, {Xa}", alu::maddl, Sum::Add, true),
    row!("smsubl", "1 00 11011001 Rm 1 Ra Rn Rd",              BASE, "{Xd}, {Wn}, {Wm}, {Xa}", alu::maddl, Sum::Sub, true),
    row!("umaddl", "1 00 11011101 Rm 0 Ra Rn Rd",              BASE, "{Xd}, {Wn}, {Wm}, {Xa}", alu::maddl, Sum::Add, false),
    row!("umsubl", "1 00 11011101 Rm 1 Ra Rn Rd",              BASE, "{Xd}, {Wn}, {Wm}, {Xa}", alu::maddl, Sum::Sub, false),
    row!("smulh", "1 00 11011010 Rm 0 11111 Rn Rd",            BASE, "{Xd}, {Xn}, {Xm}", alu::binary, B::MulHiS),
    row!("umulh", "1 00 11011110 Rm 0 11111 Rn Rd",            BASE, "{Xd}, {Xn}, {Xm}", alu::binary, B::MulHiU),
    row!("pacga", "1 00 11010110 Rm 001100 Rn Rd",             F::PAUTH, "{Xd}, {Xn}, {Xmsp}", pauth::pacga),
    row!("pacia", "1 10 11010110 00001 000000 Rn Rd",          F::PAUTH, "{Xd}, {Xnsp}", pauth::code, Code::Add, Key::IA),
    row!("pacib", "1 10 11010110 00001 000001 Rn Rd",          F::PAUTH, "{Xd}, {Xnsp}", pauth::code, Code::Add, Key::IB),
    row!("pacda", "1 10 11010110 00001 000010 Rn Rd",          F::PAUTH, "{Xd}, {Xnsp}", pauth::code, Code::Add, Key::DA),
    row!("pacdb", "1 10 11010110 00001 000011 Rn Rd",          F::PAUTH, "{Xd}, {Xnsp}", pauth::code, Code::Add, Key::DB),
    row!("autia", "1 10 11010110 00001 000100 Rn Rd",          F::PAUTH, "{Xd}, {Xnsp}", pauth::code, Code::Check, Key::IA),
    row!("autib", "1 10 11010110 00001 000101 Rn Rd",          F::PAUTH, "{Xd}, {Xnsp}", pauth::code, Code::Check, Key::IB),
    row!("autda", "1 10 11010110 00001 000110 Rn Rd",          F::PAUTH, "{Xd}, {Xnsp}", pauth::code, Code::Check, Key::DA),
    row!("autdb", "1 10 11010110 00001 000111 Rn Rd",          F::PAUTH, "{Xd}, {Xnsp}", pauth::code, Code::Check, Key::DB),
    row!("paciza", "1 10 11010110 00001 001000 11111 Rd",      F::PAUTH, "{Xd}", pauth::code_zero, Code::Add, Key::IA),
    row!("pacizb", "1 10 11010110 00001 001001 11111 Rd",      F::PAUTH, "{Xd}", pauth::code_zero, Code::Add, Key::IB),
    row!("pacdza", "1 10 11010110 00001 001010 11111 Rd",      F::PAUTH, "{Xd}", pauth::code_zero, Code::Add, Key::DA),
    row!("pacdzb", "1 10 11010110 00001 001011 11111 Rd",      F::PAUTH, "{Xd}", pauth::code_zero, Code::Add, Key::DB),
    row!("autiza", "1 10 11010110 00001 001100 11111 Rd",      F::PAUTH, "{Xd}", pauth::code_zero, Code::Check, Key::IA),
    row!("autizb", "1 10 11010110 00001 001101 11111 Rd",      F::PAUTH, "{Xd}", pauth::code_zero, Code::Check, Key::IB),
    row!("autdza", "1 10 11010110 00001 001110 11111 Rd",      F::PAUTH, "{Xd}", pauth::code_zero, Code::Check, Key::DA),
    row!("autdzb", "1 10 11010110 00001 001111 11111 Rd",      F::PAUTH, "{Xd}", pauth::code_zero, Code::Check, Key::DB),
    row!("xpaci", "1 10 11010110 00001 010000 11111 Rd",       F::PAUTH, "{Xd}", pauth::strip_code, false),
    row!("xpacd", "1 10 11010110 00001 010001 11111 Rd",       F::PAUTH, "{Xd}", pauth::strip_code, true),
];

/// Branches.
#[rustfmt::skip]
static BRANCHES: &[Insn] = &[
    row!("b.{bcond}", "0101010 0 imm19 0 bcond",               BASE, "{imm19}", branch::b_cond),
    row!("b",     "0 00101 imm26",                             BASE, "{imm26}", branch::b),
    row!("bl",    "1 00101 imm26",                             BASE, "{imm26}", branch::bl),
    row!("cbz",   "sf 011010 0 imm19 Rt",                      BASE, "{Rt}, {imm19}", branch::cbz, Cond::Eq),
    row!("cbnz",  "sf 011010 1 imm19 Rt",                      BASE, "{Rt}, {imm19}", branch::cbz, Cond::Ne),
    row!("tbz",   "b5 011011 0 b40 imm14 Rt",                  BASE, "{Rt}, #{bit}, {imm14}", branch::tbz, false),
    row!("tbnz",  "b5 011011 1 b40 imm14 Rt",                  BASE, "{Rt}, #{bit}, {imm14}", branch::tbz, true),
    row!("br",    "1101011 0000 11111 000000 Rn 00000",        BASE, "{Xn}", branch::branch_register, To::Plain),
    row!("blr",   "1101011 0001 11111 000000 Rn 00000",        BASE, "{Xn}", branch::branch_register, To::Call),
    row!("ret",   "1101011 0010 11111 000000 Rn 00000",        BASE, "{Xn.ret}", branch::branch_register, To::Return),
    row!("braaz", "1101011 0000 11111 000010 Rn 11111",        F::PAUTH, "{Xn}", branch::branch_authenticated, To::Plain, Key::IA, Modifier::Zero),
    row!("brabz", "1101011 0000 11111 000011 Rn 11111",        F::PAUTH, "{Xn}", branch::branch_authenticated, To::Plain, Key::IB, Modifier::Zero),
    row!("blraaz", "1101011 0001 11111 000010 Rn 11111",       F::PAUTH, "{Xn}", branch::branch_authenticated, To::Call, Key::IA, Modifier::Zero),
    row!("blrabz", "1101011 0001 11111 000011 Rn 11111",       F::PAUTH, "{Xn}", branch::branch_authenticated, To::Call, Key::IB, Modifier::Zero),
    row!("retaa", "1101011 0010 11111 000010 11111 11111",     F::PAUTH, "", branch::return_authenticated, Key::IA),
    row!("retab", "1101011 0010 11111 000011 11111 11111",     F::PAUTH, "", branch::return_authenticated, Key::IB),
    row!("braa",  "1101011 1000 11111 000010 Rn Rd",           F::PAUTH, "{Xn}, {Xdsp}", branch::branch_authenticated, To::Plain, Key::IA, Modifier::Register),
    row!("brab",  "1101011 1000 11111 000011 Rn Rd",           F::PAUTH, "{Xn}, {Xdsp}", branch::branch_authenticated, To::Plain, Key::IB, Modifier::Register),
    row!("blraa", "1101011 1001 11111 000010 Rn Rd",           F::PAUTH, "{Xn}, {Xdsp}", branch::branch_authenticated, To::Call, Key::IA, Modifier::Register),
    row!("blrab", "1101011 1001 11111 000011 Rn Rd",           F::PAUTH, "{Xn}, {Xdsp}", branch::branch_authenticated, To::Call, Key::IB, Modifier::Register),
];

/// Hints that mean something: encodings taken from `hint`, which does nothing on CPUs without the feature.
#[rustfmt::skip]
static HINTS: &[Insn] = &[
    row!("xpaclri",   "1101010100 0 00 011 0010 0000 111 11111", F::PAUTH, "", pauth::strip_lr).refines(),
    row!("pacia1716", "1101010100 0 00 011 0010 0001 000 11111", F::PAUTH, "", pauth::code_hint, Code::Add, Key::IA, Hint::X17X16).refines(),
    row!("pacib1716", "1101010100 0 00 011 0010 0001 010 11111", F::PAUTH, "", pauth::code_hint, Code::Add, Key::IB, Hint::X17X16).refines(),
    row!("autia1716", "1101010100 0 00 011 0010 0001 100 11111", F::PAUTH, "", pauth::code_hint, Code::Check, Key::IA, Hint::X17X16).refines(),
    row!("autib1716", "1101010100 0 00 011 0010 0001 110 11111", F::PAUTH, "", pauth::code_hint, Code::Check, Key::IB, Hint::X17X16).refines(),
    row!("paciaz",    "1101010100 0 00 011 0010 0011 000 11111", F::PAUTH, "", pauth::code_hint, Code::Add, Key::IA, Hint::LrZero).refines(),
    row!("paciasp",   "1101010100 0 00 011 0010 0011 001 11111", F::PAUTH, "", pauth::code_hint, Code::Add, Key::IA, Hint::LrSp).refines(),
    row!("pacibz",    "1101010100 0 00 011 0010 0011 010 11111", F::PAUTH, "", pauth::code_hint, Code::Add, Key::IB, Hint::LrZero).refines(),
    row!("pacibsp",   "1101010100 0 00 011 0010 0011 011 11111", F::PAUTH, "", pauth::code_hint, Code::Add, Key::IB, Hint::LrSp).refines(),
    row!("autiaz",    "1101010100 0 00 011 0010 0011 100 11111", F::PAUTH, "", pauth::code_hint, Code::Check, Key::IA, Hint::LrZero).refines(),
    row!("autiasp",   "1101010100 0 00 011 0010 0011 101 11111", F::PAUTH, "", pauth::code_hint, Code::Check, Key::IA, Hint::LrSp).refines(),
    row!("autibz",    "1101010100 0 00 011 0010 0011 110 11111", F::PAUTH, "", pauth::code_hint, Code::Check, Key::IB, Hint::LrZero).refines(),
    row!("autibsp",   "1101010100 0 00 011 0010 0011 111 11111", F::PAUTH, "", pauth::code_hint, Code::Check, Key::IB, Hint::LrSp).refines(),
    row!("bti",       "1101010100 0 00 011 0010 0100 000 11111", F::BTI, "", mem::nothing).refines(),
    row!("bti",       "1101010100 0 00 011 0010 0100 010 11111", F::BTI, "c", mem::nothing).refines(),
    row!("bti",       "1101010100 0 00 011 0010 0100 100 11111", F::BTI, "j", mem::nothing).refines(),
    row!("bti",       "1101010100 0 00 011 0010 0100 110 11111", F::BTI, "jc", mem::nothing).refines(),
];
