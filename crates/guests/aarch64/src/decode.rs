//! Finding the table row of an encoding (Arm ARM, C4).

use crate::{Features, lift::Lift, pattern::Pattern, table};
use std::sync::LazyLock;

/// What lifts an encoding: [`crate::operands::row`] makes it from a function with an operand struct.
pub(crate) type LiftFn = fn(&mut Lift<'_>, u32);

/// A row of an instruction table.
#[derive(Debug)]
pub(crate) struct Insn {
    /// The mnemonic; it may hold `{operands}` as `assembly` does (`b.{bcond}`).
    pub(crate) name: &'static str,
    /// The encoding, see [`crate::pattern`].
    pub(crate) pattern: &'static str,
    /// Features of which all are needed.
    pub(crate) features: Features,
    /// The operands in assembly: text with `{operands}`, see [`crate::disasm`].
    pub(crate) assembly: &'static str,
    /// Encodings that match the pattern but are unallocated give false.
    pub(crate) when: Option<fn(u32) -> bool>,
    /// The row takes encodings from another one: a hint with a meaning, say.
    pub(crate) refines: bool,
    /// Lifts.
    pub(crate) lift: LiftFn,
}

impl Insn {
    /// The same, for the encodings that `when` is true of.
    pub(crate) const fn when(self, when: fn(u32) -> bool) -> Self {
        Self { when: Some(when), ..self }
    }

    /// The same, taking encodings from another row where its features are there.
    pub(crate) const fn refines(self) -> Self {
        Self { refines: true, ..self }
    }
}

/// A row with its parsed pattern.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) insn: &'static Insn,
    pub(crate) pattern: Pattern,
    /// An instruction that floating-point access controls (CPACR_EL1.FPEN and relatives) apply to.
    pub(crate) fp: bool,
}

impl Row {
    #[inline(always)]
    fn matches(&self, insn: u32) -> bool {
        self.pattern.matches(insn) && self.insn.when.is_none_or(|when| when(insn))
    }
}

/// Patterns by the bits that most classes of encodings tell their members apart with: 31:21 and 11:10.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// Row numbers, bucket after bucket.
    rows: Vec<u16>,
    /// Where each bucket starts in `rows`; one more at the end.
    starts: Vec<u32>,
}

const BUCKETS: usize = 1 << 13;

#[inline(always)]
const fn bucket_of(insn: u32) -> usize {
    (insn >> 19 & 0x1ffc | insn >> 10 & 3) as usize
}

/// The bits of an encoding that put it into bucket `number`.
const fn bucket_bits(number: usize) -> u32 {
    (number as u32 & 0x1ffc) << 19 | (number as u32 & 3) << 10
}

impl Buckets {
    /// Sorts patterns, which keep their order within a bucket.
    pub(crate) fn new<'a>(patterns: impl Iterator<Item = &'a Pattern>) -> Self {
        let mut buckets = vec![Vec::new(); BUCKETS];
        for (index, pattern) in patterns.enumerate() {
            let decided = bucket_bits(BUCKETS - 1) & pattern.mask;
            // Count through the key bits that the pattern leaves open, without looking at other buckets.
            let open = bucket_of(!decided & bucket_bits(BUCKETS - 1));
            let base = bucket_of(pattern.bits & decided);
            let mut choice = open;
            loop {
                buckets[base | choice].push(index as u16);
                if choice == 0 {
                    break;
                }
                choice = (choice - 1) & open;
            }
        }
        let mut all = Self { rows: Vec::new(), starts: vec![0] };
        for bucket in buckets {
            all.rows.extend(bucket);
            all.starts.push(all.rows.len() as u32);
        }
        all
    }

    /// Numbers of the patterns that an encoding may match.
    #[inline(always)]
    pub(crate) fn candidates(&self, insn: u32) -> &[u16] {
        let number = bucket_of(insn);
        &self.rows[self.starts[number] as usize..self.starts[number + 1] as usize]
    }
}

/// All rows, ready for lookup.
#[derive(Debug)]
pub(crate) struct Decoder {
    rows: Vec<Row>,
    buckets: Buckets,
}

static DECODER: LazyLock<Decoder> = LazyLock::new(|| {
    // A row that refines is looked at before the row it takes encodings from.
    let refining = table::all().filter(|(insn, _)| insn.refines);
    let ordered = refining.chain(table::all().filter(|(insn, _)| !insn.refines));
    let rows: Vec<Row> = ordered
        .filter_map(|(insn, fp)| Some(Row { insn, pattern: Pattern::parse(insn.pattern).ok()?, fp }))
        .collect();
    let buckets = Buckets::new(rows.iter().map(|row| &row.pattern));
    Decoder { rows, buckets }
});

impl Decoder {
    /// Every row.
    pub(crate) fn rows() -> &'static [Row] {
        &DECODER.rows
    }
}

/// The row of `insn` on a CPU with `features`.
pub(crate) fn decode(features: Features, insn: u32) -> Option<&'static Row> {
    let decoder = &*DECODER;
    decoder
        .buckets
        .candidates(insn)
        .iter()
        .map(|&index| &decoder.rows[usize::from(index)])
        .find(|row| row.matches(insn) && features.contains(row.insn.features))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<(&'static Insn, Pattern)> {
        let parse = |insn: &'static Insn| {
            Pattern::parse(insn.pattern).unwrap_or_else(|e| panic!("{}: {e}", insn.name))
        };
        table::all().map(|(insn, _)| (insn, parse(insn))).collect()
    }

    #[test]
    fn every_pattern_parses() {
        assert_eq!(Decoder::rows().len(), rows().len());
    }

    /// Two rows share fixed bits only where exclusions or conditions keep them apart, tried on many encodings.
    #[test]
    fn rows_do_not_overlap() {
        let rows = Decoder::rows();
        for (n, a) in rows.iter().enumerate() {
            for b in rows[n + 1..].iter().filter(|b| !a.insn.refines && a.pattern.meets(&b.pattern)) {
                let mut insn = 0x9e37_79b9u32;
                for _ in 0..20_000 {
                    insn = insn.wrapping_mul(0x915f_77f5).wrapping_add(0x1234_5677);
                    let mixed = (insn ^ insn >> 15) & !a.pattern.mask & !b.pattern.mask
                        | a.pattern.bits
                        | b.pattern.bits;
                    let both = a.matches(mixed) && b.matches(mixed);
                    assert!(!both, "{} and {} share {mixed:#010x}", a.insn.name, b.insn.name);
                }
            }
        }
    }

    #[test]
    fn buckets_find_what_searching_finds() {
        let mut insn = 1u32;
        for _ in 0..50_000 {
            insn = insn.wrapping_mul(0x915f_77f5).wrapping_add(0x1234_5677);
            let word = insn ^ insn >> 13;
            let searched = Decoder::rows().iter().find(|row| row.matches(word)).map(|row| row.insn.pattern);
            assert_eq!(decode(Features::all(), word).map(|row| row.insn.pattern), searched, "{word:#010x}");
        }
    }
}
