//! Finding the table row of an encoding.

use crate::{
    Extensions,
    operands::Form,
    pattern::{Fields, Pattern},
    table, table_c, table_fp,
};
use std::sync::LazyLock;

/// A row of the instruction table.
#[derive(Debug)]
pub(crate) struct Insn {
    /// The manual's mnemonic.
    pub(crate) name: &'static str,
    /// The encoding, see [`crate::pattern`].
    pub(crate) pattern: &'static str,
    /// Extensions of which all are needed.
    pub(crate) all: Extensions,
    /// Extensions of which one is needed; empty if no further one is.
    pub(crate) any: Extensions,
    /// What it is and how it is lifted.
    pub(crate) form: Form,
    /// The row of which this one takes some encodings (hints, aliases with a name of their own).
    pub(crate) refines: Option<&'static str>,
}

impl Insn {
    /// A row that needs all of `all`.
    pub(crate) const fn new(name: &'static str, pattern: &'static str, all: Extensions, form: Form) -> Self {
        Self { name, pattern, all, any: Extensions::empty(), form, refines: None }
    }
    /// The same, needing one of `any` as well.
    pub(crate) const fn any(self, any: Extensions) -> Self {
        Self { any, ..self }
    }
    /// The same, taking encodings from the row `base` (where it is enabled).
    pub(crate) const fn refines(self, base: &'static str) -> Self {
        Self { refines: Some(base), ..self }
    }

    /// Does a hart with `ext` have it?
    pub(crate) fn enabled(&self, ext: Extensions) -> bool {
        ext.contains(self.all) && (self.any.is_empty() || ext.intersects(self.any))
    }
}

/// A row with its parsed pattern.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) insn: &'static Insn,
    pub(crate) pattern: Pattern,
}

/// An instruction found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoded {
    pub(crate) row: &'static Row,
    pub(crate) fields: Fields,
}

/// A row that an encoding may belong to: what has to be compared lies beside its neighbours', and the row elsewhere.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    mask: u32,
    bits: u32,
    row: u16,
}

/// Rows by what their encodings share: bits 6:2 and 14:12 of 32-bit ones, 1:0 and 15:13 of 16-bit ones.
#[derive(Debug)]
pub(crate) struct Decoder {
    rows: Vec<Row>,
    long: Vec<Vec<Candidate>>,
    short: Vec<Vec<Candidate>>,
}

const fn long_bucket(insn: u32) -> usize {
    (insn >> 2 & 0x1f | insn >> 7 & 0xe0) as usize
}

/// The bits of an encoding that put it into bucket `number`.
const fn long_bits(number: usize) -> u32 {
    (number as u32 & 0x1f) << 2 | (number as u32 & 0xe0) << 7
}

const fn short_bucket(insn: u32) -> usize {
    (insn & 3 | insn >> 11 & 0x1c) as usize
}

const fn short_bits(number: usize) -> u32 {
    number as u32 & 3 | (number as u32 & 0x1c) << 11
}

static DECODER: LazyLock<Decoder> = LazyLock::new(Decoder::new);

impl Decoder {
    fn new() -> Self {
        // A refinement is looked at before the row it refines.
        let all = || table::TABLE.iter().chain(table_fp::TABLE).chain(table_c::TABLE);
        let ordered = all().filter(|i| i.refines.is_some()).chain(all().filter(|i| i.refines.is_none()));
        let rows: Vec<Row> = ordered
            .filter_map(|insn| Some(Row { insn, pattern: Pattern::parse(insn.pattern).ok()? }))
            .collect();
        let mut decoder = Self { long: vec![Vec::new(); 256], short: vec![Vec::new(); 32], rows };
        for (index, Row { pattern, .. }) in decoder.rows.iter().enumerate() {
            let (buckets, bits_of): (_, fn(usize) -> u32) = match pattern.width {
                32 => (&mut decoder.long, long_bits),
                _ => (&mut decoder.short, short_bits),
            };
            let shared = bits_of(buckets.len() - 1) & pattern.mask;
            for (number, bucket) in buckets.iter_mut().enumerate() {
                if (bits_of(number) ^ pattern.bits) & shared == 0 {
                    bucket.push(Candidate { mask: pattern.mask, bits: pattern.bits, row: index as u16 });
                }
            }
        }
        decoder
    }

    /// Every row, refinements first.
    pub(crate) fn rows() -> &'static [Row] {
        &DECODER.rows
    }
}

/// Length in bytes of the instruction that begins with this halfword (volume I, 1.5). Encodings of more than
/// 32 bits are reserved; they trap as 32-bit ones.
pub(crate) const fn length(halfword: u16) -> usize {
    if halfword & 3 == 3 { 4 } else { 2 }
}

/// The row of `insn` on a hart with `ext`; a 16-bit encoding lies in the low half, the rest 0.
pub(crate) fn decode(ext: Extensions, insn: u32) -> Option<Decoded> {
    let decoder = &*DECODER;
    let bucket = match length(insn as u16) {
        4 => &decoder.long[long_bucket(insn)],
        _ => &decoder.short[short_bucket(insn)],
    };
    let matching = bucket.iter().filter(|candidate| insn & candidate.mask == candidate.bits);
    matching
        .map(|candidate| &decoder.rows[usize::from(candidate.row)])
        .filter(|row| row.insn.enabled(ext))
        .find_map(|row| Some(Decoded { row, fields: row.pattern.fields_if_allowed(insn)? }))
}

/// The first instruction of `code` as a number, and its length; `None` if it is cut off.
pub(crate) fn fetch(code: &[u8]) -> Option<(u32, usize)> {
    let low = u16::from_le_bytes(*code.first_chunk()?);
    match length(low) {
        4 => Some((u32::from_le_bytes(*code.first_chunk()?), 4)),
        _ => Some((u32::from(low), 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Extensions = Extensions::all();

    fn rows() -> impl Iterator<Item = (&'static Insn, Pattern)> {
        let all = table::TABLE.iter().chain(table_fp::TABLE).chain(table_c::TABLE);
        all.map(|insn| (insn, Pattern::parse(insn.pattern).unwrap_or_else(|e| panic!("{}: {e}", insn.name))))
    }

    /// What the table says without any lookup structure.
    fn search(insn: u32) -> Option<&'static str> {
        let width = length(insn as u16) as u32 * 8;
        let matching: Vec<_> = rows().filter(|(_, p)| p.width == width && p.matches(insn)).collect();
        let refined = matching.iter().find(|(i, _)| i.refines.is_some());
        refined.or(matching.first()).map(|(i, _)| i.name)
    }

    fn found(insn: u32) -> Option<&'static str> {
        decode(ALL, insn).map(|d| d.row.insn.name)
    }

    #[test]
    fn every_pattern_parses_and_says_its_length() {
        for (insn, pattern) in rows() {
            let long = pattern.bits & pattern.mask & 3 == 3;
            assert_eq!(pattern.width == 32, long, "{}", insn.name);
        }
        assert_eq!(DECODER.rows.len(), rows().count());
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = rows().map(|(insn, _)| insn.name).collect();
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b));
    }

    /// Two rows share an encoding only if one refines the other, and then it lies in the other entirely.
    #[test]
    fn long_rows_do_not_overlap() {
        let rows: Vec<_> = rows().filter(|(_, p)| p.width == 32).collect();
        for (n, (a, pa)) in rows.iter().enumerate() {
            for (b, pb) in &rows[n + 1..] {
                let inside = |inner: &Pattern, outer: &Pattern| outer.mask & !inner.mask == 0;
                let refines = a.refines == Some(b.name) && inside(pa, pb)
                    || b.refines == Some(a.name) && inside(pb, pa);
                assert!(refines || !pa.meets(pb), "{} {pa} and {} {pb}", a.name, b.name);
            }
        }
        for (insn, _) in &rows {
            let base = insn.refines.map(|base| rows.iter().any(|(i, _)| i.name == base));
            assert_ne!(base, Some(false), "{} refines an unknown row", insn.name);
        }
    }

    #[test]
    fn short_rows_do_not_overlap_and_are_found() {
        let rows: Vec<_> = rows().filter(|(_, p)| p.width == 16).collect();
        for insn in (0..=0xffff_u32).filter(|i| i & 3 != 3) {
            let matching: Vec<_> = rows.iter().filter(|(_, p)| p.matches(insn)).map(|(i, _)| *i).collect();
            let expected = match matching[..] {
                [] => None,
                [only] => Some(only.name),
                [a, b] if a.refines == Some(b.name) => Some(a.name),
                [a, b] if b.refines == Some(a.name) => Some(b.name),
                _ => panic!("{insn:#06x} is ambiguous: {matching:?}"),
            };
            assert_eq!(found(insn), expected, "{insn:#06x}");
        }
    }

    #[test]
    fn long_encodings_are_found() {
        // A linear congruential generator (Knuth's MMIX): the same samples every time.
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        for _ in 0..2_000 {
            let insn = random() | 3;
            assert_eq!(found(insn), search(insn), "{insn:#010x}");
        }
        for (insn, pattern) in rows().filter(|(_, p)| p.width == 32) {
            for _ in 0..8 {
                let word = random() & !pattern.mask | pattern.bits;
                assert_eq!(found(word), search(word), "{word:#010x} of {}", insn.name);
            }
        }
    }

    #[test]
    fn extensions_gate() {
        let base = Extensions::I | Extensions::C;
        let mul = 0x02b5_0533;
        assert!(decode(base, mul).is_none());
        assert!(decode(base | Extensions::M, mul).is_some());
        // andn is in Zbb and in Zbkb.
        let andn = 0x40b5_7533;
        assert!(decode(base, andn).is_none());
        assert!(decode(base | Extensions::ZBKB, andn).is_some());
        // Without Zihintpause, pause is the fence it refines.
        let pause = 0x0100_000f;
        assert_eq!(decode(base, pause).map(|d| d.row.insn.name), Some("fence"));
        // c.fld needs D as well.
        assert!(decode(base, 0x2108).is_none());
        assert!(decode(base | Extensions::D, 0x2108).is_some());
    }

    #[test]
    fn defined_illegal_encodings_are_not_found() {
        assert_eq!(found(0), None);
        assert_eq!(found(0xffff_ffff), None);
        // Reserved: c.addi16sp 0 with rd = 2, c.lwsp to x0, c.jr x0.
        for insn in [0x6101, 0x4002, 0x8002] {
            assert_eq!(found(insn), None, "{insn:#06x}");
        }
    }
}
