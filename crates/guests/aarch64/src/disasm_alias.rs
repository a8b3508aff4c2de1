//! Aliases: names that the manual prefers for some encodings of an instruction (Arm ARM, C6.2 "Alias conditions").

use crate::{
    decode::{Buckets, Row},
    operands::bitmask,
    pattern::{Field, Pattern},
};
use std::sync::LazyLock;

/// One alias; the first that matches is taken.
struct Alias {
    name: &'static str,
    pattern: &'static str,
    assembly: &'static str,
    when: fn(u32) -> bool,
}

const fn alias(name: &'static str, pattern: &'static str, assembly: &'static str) -> Alias {
    Alias { name, pattern, assembly, when: |_| true }
}

impl Alias {
    const fn when(self, when: fn(u32) -> bool) -> Self {
        Self { when, ..self }
    }
}

struct Index {
    patterns: Vec<(usize, Pattern)>,
    buckets: Buckets,
}

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let parsed = ALIASES.iter().enumerate();
    let patterns: Vec<_> =
        parsed.filter_map(|(n, alias)| Some((n, Pattern::parse(alias.pattern).ok()?))).collect();
    let buckets = Buckets::new(patterns.iter().map(|(_, pattern)| pattern));
    Index { patterns, buckets }
});

/// Name and operands by which an encoding is better known.
pub(crate) fn find(row: &Row, insn: u32) -> Option<(&'static str, &'static str)> {
    if row.fp {
        return None;
    }
    let index = &*INDEX;
    index.buckets.candidates(insn).iter().find_map(|&n| {
        let (number, pattern) = &index.patterns[usize::from(n)];
        let alias = &ALIASES[*number];
        (pattern.matches(insn) && (alias.when)(insn)).then_some((alias.name, alias.assembly))
    })
}

fn width(insn: u32) -> u32 {
    if Field::sf.of(insn) != 0 { 64 } else { 32 }
}

/// A 12-bit immediate of zero between registers of which one is SP.
fn moves_sp(insn: u32) -> bool {
    Field::Rd.of(insn) == 31 || Field::Rn.of(insn) == 31
}

/// `movz`, `movn` can make the value otherwise, or this is not how.
fn is_plain_wide(insn: u32) -> bool {
    let (imm, hw) = (Field::imm16.of(insn), Field::hw.of(insn));
    let inverted = insn >> 29 & 3 == 0;
    (imm != 0 || hw == 0) && !(inverted && width(insn) == 32 && imm == 0xffff)
}

/// The bitmask is none that `movz` or `movn` would make (Arm ARM, "MoveWidePreferred"), which cannot write SP.
fn needs_bitmask(insn: u32) -> bool {
    let (immr, imms) = (Field::immr.of(insn) as u8, Field::imms.of(insn) as u8);
    let Some(value) = bitmask(Field::N.of(insn) != 0, immr, imms, width(insn)) else {
        return false;
    };
    let mask = u64::MAX >> (64 - width(insn));
    let fits = |value: u64| (0..width(insn)).step_by(16).any(|low| value & mask & !(0xffff << low) == 0);
    Field::Rd.of(insn) == 31 || !fits(value) && !fits(!value)
}

fn imms_is_top(insn: u32) -> bool {
    Field::imms.of(insn) == width(insn) - 1
}

fn inserts(insn: u32) -> bool {
    Field::imms.of(insn) < Field::immr.of(insn)
}

fn shifts_left(insn: u32) -> bool {
    Field::imms.of(insn) + 1 == Field::immr.of(insn)
}

fn same_sources(insn: u32) -> bool {
    Field::Rn.of(insn) == Field::Rm.of(insn)
}

/// The condition is neither `al` nor `nv`.
fn is_conditional(insn: u32) -> bool {
    Field::cond.of(insn) < 14
}

/// A conditional increment, inversion or negation of one register that is not the zero register.
fn changes_one(insn: u32) -> bool {
    is_conditional(insn) && same_sources(insn) && Field::Rn.of(insn) != 31
}

fn negates_one(insn: u32) -> bool {
    is_conditional(insn) && same_sources(insn)
}

#[rustfmt::skip]
static ALIASES: &[Alias] = &[
    alias("mov",  "sf 00 100010 0 000000000000 Rn Rd",    "{Rdsp}, {Rnsp}").when(moves_sp),
    alias("cmn",  "sf 01 100010 sh imm12 Rn 11111",       "{Rnsp}, #{imm12}{lsl12}"),
    alias("cmp",  "sf 11 100010 sh imm12 Rn 11111",       "{Rnsp}, #{imm12}{lsl12}"),
    alias("mov",  "sf 01 100100 N immr imms 11111 Rd",    "{Rdsp}, #{bitmask}").when(needs_bitmask),
    alias("tst",  "sf 11 100100 N immr imms Rn 11111",    "{Rn}, #{bitmask}"),
    alias("mov",  "sf 00 100101 hw imm16 Rd",             "{Rd}, #{wide}").when(is_plain_wide),
    alias("mov",  "sf 10 100101 hw imm16 Rd",             "{Rd}, #{wide}").when(is_plain_wide),
    alias("asr",  "sf 00 100110 N immr imms Rn Rd",       "{Rd}, {Rn}, #{immr}").when(imms_is_top),
    alias("sbfiz", "sf 00 100110 N immr imms Rn Rd",      "{Rd}, {Rn}, #{lsb}, #{length}").when(inserts),
    alias("sxtb", "sf 00 100110 N 000000 000111 Rn Rd",   "{Rd}, {Wn}"),
    alias("sxth", "sf 00 100110 N 000000 001111 Rn Rd",   "{Rd}, {Wn}"),
    alias("sxtw", "1 00 100110 1 000000 011111 Rn Rd",    "{Rd}, {Wn}"),
    alias("sbfx", "sf 00 100110 N immr imms Rn Rd",       "{Rd}, {Rn}, #{immr}, #{width}"),
    alias("bfc",  "sf 01 100110 N immr imms 11111 Rd",    "{Rd}, #{lsb}, #{length}").when(inserts),
    alias("bfi",  "sf 01 100110 N immr imms Rn Rd",       "{Rd}, {Rn}, #{lsb}, #{length}").when(inserts),
    alias("bfxil", "sf 01 100110 N immr imms Rn Rd",      "{Rd}, {Rn}, #{immr}, #{width}"),
    alias("lsr",  "sf 10 100110 N immr imms Rn Rd",       "{Rd}, {Rn}, #{immr}").when(imms_is_top),
    alias("lsl",  "sf 10 100110 N immr imms Rn Rd",       "{Rd}, {Rn}, #{lsl}").when(shifts_left),
    alias("ubfiz", "sf 10 100110 N immr imms Rn Rd",      "{Rd}, {Rn}, #{lsb}, #{length}").when(inserts),
    alias("uxtb", "0 10 100110 0 000000 000111 Rn Rd",    "{Rd}, {Rn}"),
    alias("uxth", "0 10 100110 0 000000 001111 Rn Rd",    "{Rd}, {Rn}"),
    alias("ubfx", "sf 10 100110 N immr imms Rn Rd",       "{Rd}, {Rn}, #{immr}, #{width}"),
    alias("ror",  "sf 00 100111 N 0 Rm imms Rn Rd",       "{Rd}, {Rn}, #{imms}").when(same_sources),
    alias("mov",  "sf 01 01010 00 0 Rm 000000 11111 Rd",  "{Rd}, {Rm}"),
    alias("mvn",  "sf 01 01010 shift 1 Rm imm6 11111 Rd", "{Rd}, {Rm}{shift}"),
    alias("tst",  "sf 11 01010 shift 0 Rm imm6 Rn 11111", "{Rn}, {Rm}{shift}"),
    alias("cmn",  "sf 01 01011 shift 0 Rm imm6 Rn 11111", "{Rn}, {Rm}{shift}"),
    alias("cmp",  "sf 11 01011 shift 0 Rm imm6 Rn 11111", "{Rn}, {Rm}{shift}"),
    alias("neg",  "sf 10 01011 shift 0 Rm imm6 11111 Rd", "{Rd}, {Rm}{shift}"),
    alias("negs", "sf 11 01011 shift 0 Rm imm6 11111 Rd", "{Rd}, {Rm}{shift}"),
    alias("cmn",  "sf 01 01011 00 1 Rm option imm3 Rn 11111", "{Rnsp}, {Rm.ext}{extend}"),
    alias("cmp",  "sf 11 01011 00 1 Rm option imm3 Rn 11111", "{Rnsp}, {Rm.ext}{extend}"),
    alias("ngc",  "sf 10 11010000 Rm 000000 11111 Rd",    "{Rd}, {Rm}"),
    alias("ngcs", "sf 11 11010000 Rm 000000 11111 Rd",    "{Rd}, {Rm}"),
    alias("cset", "sf 00 11010100 11111 cond 01 11111 Rd", "{Rd}, {cond.inverse}").when(is_conditional),
    alias("cinc", "sf 00 11010100 Rm cond 01 Rn Rd",      "{Rd}, {Rn}, {cond.inverse}").when(changes_one),
    alias("csetm", "sf 10 11010100 11111 cond 00 11111 Rd", "{Rd}, {cond.inverse}").when(is_conditional),
    alias("cinv", "sf 10 11010100 Rm cond 00 Rn Rd",      "{Rd}, {Rn}, {cond.inverse}").when(changes_one),
    alias("cneg", "sf 10 11010100 Rm cond 01 Rn Rd",      "{Rd}, {Rn}, {cond.inverse}").when(negates_one),
    alias("lsl",  "sf 00 11010110 Rm 001000 Rn Rd",       "{Rd}, {Rn}, {Rm}"),
    alias("lsr",  "sf 00 11010110 Rm 001001 Rn Rd",       "{Rd}, {Rn}, {Rm}"),
    alias("asr",  "sf 00 11010110 Rm 001010 Rn Rd",       "{Rd}, {Rn}, {Rm}"),
    alias("ror",  "sf 00 11010110 Rm 001011 Rn Rd",       "{Rd}, {Rn}, {Rm}"),
    alias("mul",  "sf 00 11011000 Rm 0 11111 Rn Rd",      "{Rd}, {Rn}, {Rm}"),
    alias("mneg", "sf 00 11011000 Rm 1 11111 Rn Rd",      "{Rd}, {Rn}, {Rm}"),
    alias("smull", "1 00 11011001 Rm 0 11111 Rn Rd",      "{Xd}, {Wn}, {Wm}"),
    alias("smnegl", "1 00 11011001 Rm 1 11111 Rn Rd",     "{Xd}, {Wn}, {Wm}"),
    alias("umull", "1 00 11011101 Rm 0 11111 Rn Rd",      "{Xd}, {Wn}, {Wm}"),
    alias("umnegl", "1 00 11011101 Rm 1 11111 Rn Rd",     "{Xd}, {Wn}, {Wm}"),
    // Atomic operations whose result is not wanted.
    alias("stadd{release}b",  "00 111000 0 R 1 Rs 000000 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stadd{release}h",  "01 111000 0 R 1 Rs 000000 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stadd{release}",   "10 111000 0 R 1 Rs 000000 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stadd{release}",   "11 111000 0 R 1 Rs 000000 Rn 11111", "{Xs}, [{Xnsp}]"),
    alias("stclr{release}b",  "00 111000 0 R 1 Rs 000100 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stclr{release}h",  "01 111000 0 R 1 Rs 000100 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stclr{release}",   "10 111000 0 R 1 Rs 000100 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stclr{release}",   "11 111000 0 R 1 Rs 000100 Rn 11111", "{Xs}, [{Xnsp}]"),
    alias("steor{release}b",  "00 111000 0 R 1 Rs 001000 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("steor{release}h",  "01 111000 0 R 1 Rs 001000 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("steor{release}",   "10 111000 0 R 1 Rs 001000 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("steor{release}",   "11 111000 0 R 1 Rs 001000 Rn 11111", "{Xs}, [{Xnsp}]"),
    alias("stset{release}b",  "00 111000 0 R 1 Rs 001100 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stset{release}h",  "01 111000 0 R 1 Rs 001100 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stset{release}",   "10 111000 0 R 1 Rs 001100 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stset{release}",   "11 111000 0 R 1 Rs 001100 Rn 11111", "{Xs}, [{Xnsp}]"),
    alias("stsmax{release}b", "00 111000 0 R 1 Rs 010000 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stsmax{release}h", "01 111000 0 R 1 Rs 010000 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stsmax{release}",  "10 111000 0 R 1 Rs 010000 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stsmax{release}",  "11 111000 0 R 1 Rs 010000 Rn 11111", "{Xs}, [{Xnsp}]"),
    alias("stsmin{release}b", "00 111000 0 R 1 Rs 010100 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stsmin{release}h", "01 111000 0 R 1 Rs 010100 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stsmin{release}",  "10 111000 0 R 1 Rs 010100 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stsmin{release}",  "11 111000 0 R 1 Rs 010100 Rn 11111", "{Xs}, [{Xnsp}]"),
    alias("stumax{release}b", "00 111000 0 R 1 Rs 011000 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stumax{release}h", "01 111000 0 R 1 Rs 011000 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stumax{release}",  "10 111000 0 R 1 Rs 011000 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stumax{release}",  "11 111000 0 R 1 Rs 011000 Rn 11111", "{Xs}, [{Xnsp}]"),
    alias("stumin{release}b", "00 111000 0 R 1 Rs 011100 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stumin{release}h", "01 111000 0 R 1 Rs 011100 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stumin{release}",  "10 111000 0 R 1 Rs 011100 Rn 11111", "{Ws}, [{Xnsp}]"),
    alias("stumin{release}",  "11 111000 0 R 1 Rs 011100 Rn 11111", "{Xs}, [{Xnsp}]"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disasm::wide;

    #[test]
    fn every_alias_parses() {
        for alias in ALIASES {
            assert!(Pattern::parse(alias.pattern).is_ok(), "{}: {}", alias.name, alias.pattern);
        }
    }

    #[test]
    fn bitmasks_that_wide_moves_make_are_left_to_them() {
        assert!(!needs_bitmask(0xb240_3fe0), "0xffff");
        assert!(needs_bitmask(0xb240_43e0), "0x1ffff");
        assert_eq!(wide(0x9280_0000), u64::MAX);
    }
}
