//! Encoding diagrams as text (Arm ARM, C4.1: the boxes read from bit 31 to bit 0), parsed into masks.
//!
//! Tokens are separated by spaces:
//!
//! | token     | meaning |
//! |-----------|---------|
//! | `0111`    | fixed bits |
//! | `xx`      | bits that decide nothing (the manual's `(0)` and `(1)`, which hardware ignores) |
//! | `Rd` `sf` | a field, which must lie where [`Field`] says it always lies |
//! | `shift!3` | the field may not have these values (`!1,2` for several) |

use std::fmt;

/// A field of A64 encodings: one name, one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// The least significant bit.
    pub low: u8,
    /// How many bits.
    pub len: u8,
}

impl Field {
    /// The field's bits in an encoding.
    #[inline(always)]
    pub const fn of(self, insn: u32) -> u32 {
        insn >> self.low & ones(self.len as u32)
    }

    /// The field as a signed number.
    #[inline(always)]
    pub const fn signed(self, insn: u32) -> i64 {
        let unused = 64 - self.len as u32;
        (self.of(insn) as i64) << unused >> unused
    }

    /// `insn` with the low bits of `value` in this field.
    pub const fn with(self, insn: u32, value: u32) -> u32 {
        insn & !(ones(self.len as u32) << self.low) | (value & ones(self.len as u32)) << self.low
    }

    /// The field of this name.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(n, _)| *n == name).map(|&(_, field)| field)
    }
}

/// What an operand struct's field is made from.
pub(crate) trait FromField {
    /// Takes the field out of an encoding.
    fn from_field(field: Field, insn: u32) -> Self;
}

macro_rules! from_field {
    ($($ty:ident)*) => {$(
        impl FromField for $ty {
            #[inline(always)]
            fn from_field(field: Field, insn: u32) -> Self {
                field.of(insn) as $ty
            }
        }
    )*};
}

from_field! { u8 u16 u32 u64 }

impl FromField for bool {
    #[inline(always)]
    fn from_field(field: Field, insn: u32) -> Self {
        field.of(insn) != 0
    }
}

/// Signed immediates.
impl FromField for i64 {
    #[inline(always)]
    fn from_field(field: Field, insn: u32) -> Self {
        field.signed(insn)
    }
}

macro_rules! fields {
    ($($name:ident $low:literal $len:literal)*) => {
        /// The manual's names, in its spelling.
        #[allow(non_upper_case_globals, missing_docs, reason = "the manual's names are the documentation")]
        impl Field {
            $(pub const $name: Self = Self { low: $low, len: $len };)*
        }
        static NAMES: &[(&str, Field)] = &[$((stringify!($name), Field::$name)),*];
    };
}

fields! {
    // Registers.
    Rd 0 5  Rt 0 5  Rn 5 5  Rm 16 5  Rs 16 5  Ra 10 5  Rt2 10 5
    // Data processing.
    sf 31 1  N 22 1  sh 22 1  shift 22 2  option 13 3  imm3 10 3  imm6 10 6  imm12 10 12  imm16 5 16  imm16f 0 16  hw 21 2
    immr 16 6  imms 10 6  immlo 29 2  immhi 5 19  cond 12 4  nzcv 0 4  imm5 16 5  mask 0 4  rot 15 6
    uimm6 16 6  uimm4 10 4  imm8c 10 8
    // Branches.
    imm26 0 26  imm19 5 19  imm14 5 14  b5 31 1  b40 19 5  bcond 0 4
    // Loads and stores. `A`, `R`: acquire and release of LSE; `o0`: of exclusives; `S`: scaled offset register.
    imm9 12 9  imm7 15 7  A 23 1  R 22 1  o0 15 1  L 22 1  S 12 1  size 30 2  S10 22 1
    // System.
    op1 16 3  CRn 12 4  CRm 8 4  op2 5 3  o20 19 1  imm7hint 5 7
    // Floating point and vectors.
    Q 30 1  U 29 1  ftype 22 2  vsize 22 2  sz 22 1  rmode 19 2  fscale 10 6  fimm8 13 8  immh 19 4  immb 16 3
    tlen 13 2  H 11 1  Lm 21 1  M 20 1  Rm4 16 4  imm4 11 4  abc 16 3  defgh 5 5  cmode 12 4  vop 29 1  o2 11 1
    rot1 12 1  rot2 12 2  rot2e 13 2  vimm5 16 5  ldsize 10 2  ldS 12 1  ldop 13 3  imm2 12 2  imm6x 10 6
    fcond 12 4  fpcvt 15 2
}

/// `len` ones.
#[inline(always)]
pub(crate) const fn ones(len: u32) -> u32 {
    if len >= 32 { u32::MAX } else { (1 << len) - 1 }
}

/// A parsed diagram.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// Bits that are fixed.
    pub(crate) mask: u32,
    /// Their values.
    pub(crate) bits: u32,
    fields: Vec<Field>,
    excluded: Vec<(Field, u32)>,
}

/// A pattern that cannot be parsed; a defect of the table, which a test catches.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("encoding pattern \"{pattern}\": {problem}")]
pub(crate) struct PatternError {
    pattern: String,
    problem: String,
}

impl Pattern {
    /// Parses a diagram.
    pub(crate) fn parse(text: &str) -> Result<Self, PatternError> {
        let fail = |problem: String| PatternError { pattern: text.to_owned(), problem };
        let mut pattern = Self { mask: 0, bits: 0, fields: Vec::new(), excluded: Vec::new() };
        let mut low = 32u32;
        for token in text.split_whitespace() {
            let take = |len: usize| {
                low.checked_sub(len as u32).ok_or_else(|| fail("more than 32 bits wide".to_owned()))
            };
            if token.bytes().all(|b| matches!(b, b'0' | b'1' | b'x')) {
                low = take(token.len())?;
                for bit in token.bytes() {
                    pattern.mask = pattern.mask << 1 | u32::from(bit != b'x');
                    pattern.bits = pattern.bits << 1 | u32::from(bit == b'1');
                }
                continue;
            }
            let (name, excluded) = token.split_once('!').unwrap_or((token, ""));
            let field = Field::named(name).ok_or_else(|| fail(format!("no field is called {name}")))?;
            low = take(usize::from(field.len))?;
            if low != u32::from(field.low) {
                return Err(fail(format!("{name} lies at bit {low}, not at {}", field.low)));
            }
            pattern.fields.push(field);
            pattern.mask <<= field.len;
            pattern.bits <<= field.len;
            for value in excluded.split(',').filter(|v| !v.is_empty()) {
                let value = value.parse().map_err(|_| fail(format!("{value} is not a number")))?;
                pattern.excluded.push((field, value));
            }
        }
        if low != 0 {
            return Err(fail(format!("{low} bits too few")));
        }
        Ok(pattern)
    }

    /// Is `insn` one of this pattern's encodings?
    #[inline(always)]
    pub(crate) fn matches(&self, insn: u32) -> bool {
        insn & self.mask == self.bits && self.excluded.iter().all(|&(field, value)| field.of(insn) != value)
    }

    /// Does the diagram have this field?
    pub(crate) fn has(&self, field: Field) -> bool {
        self.fields.contains(&field)
    }

    /// Could one encoding match both, going by fixed bits alone?
    #[cfg(test)]
    pub(crate) const fn meets(&self, other: &Self) -> bool {
        (self.bits ^ other.bits) & self.mask & other.mask == 0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bit in (0..32).rev() {
            let known = self.mask >> bit & 1 != 0;
            f.write_str(match (known, self.bits >> bit & 1) {
                (false, _) => ".",
                (true, 0) => "0",
                _ => "1",
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagrams_become_masks() {
        let add = Pattern::parse("sf 0 0 01011 shift!3 0 Rm imm6 Rn Rd").unwrap();
        assert_eq!((add.mask, add.bits), (0x7f20_0000, 0x0b00_0000));
        assert!(add.matches(0x8b02_0020));
        assert!(!add.matches(0x8bc2_0020), "shift = 3");
        assert_eq!(add.to_string(), ".0001011..0.....................");
        let ldxr = Pattern::parse("1x 001000 010 xxxxx 0 xxxxx Rn Rt").unwrap();
        assert!(ldxr.matches(0xc85f_7c41));
    }

    #[test]
    fn fields_are_signed_when_asked() {
        assert_eq!(i64::from_field(Field::imm9, 0x1ff << 12), -1);
        assert_eq!(u64::from_field(Field::imm9, 0x1ff << 12), 0x1ff);
        assert_eq!(Field::Rm.with(0xffff_ffff, 3), 0xffe3_ffff);
    }

    #[test]
    fn mistakes_are_told() {
        for bad in [
            "0",
            "Rd",
            "sf 0000000000000000000000000000000 0",
            "what 000",
            "Rn!z 000000000000000000000000000",
        ] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
