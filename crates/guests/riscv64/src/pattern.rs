//! Encoding diagrams as text (volume I, 1.5 and 2.2), parsed into masks and field extractors.
//!
//! A pattern is read from the most significant bit down; tokens are separated by spaces:
//!
//! | token            | meaning |
//! |------------------|---------|
//! | `0010011`        | fixed bits |
//! | `rd` `rs1` `csr` | a field of its usual width |
//! | `imm[12\|10:5]`  | some bits of a field, most significant first, as the manual draws them |
//! | `rd'`            | a three-bit register number: x8 to x15 |
//! | `rd/rs1`         | one encoding for two fields |
//! | `rd!0,2`         | the field may not have these values |
//! | `rs1=2`          | (occupies no bits) a field's value where the encoding implies one |
//!
//! `imm` and `nzimm` are signed by their highest bit; every other field is unsigned. `nzimm` and `nzuimm` may
//! not be zero as a whole.

use std::fmt;

/// A field of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Field {
    /// Destination register.
    Rd,
    /// First source register.
    Rs1,
    /// Second source register.
    Rs2,
    /// Third source register.
    Rs3,
    /// Immediate, shift amount, selector or number.
    Imm,
    /// Rounding mode.
    Rm,
    /// Acquire.
    Aq,
    /// Release.
    Rl,
    /// CSR number.
    Csr,
    /// A fence's mode.
    Fm,
    /// What a fence orders before it.
    Pred,
    /// What a fence orders after it.
    Succ,
}

impl Field {
    const COUNT: usize = 12;

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Every field of one encoded instruction; absent ones are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fields([i64; Field::COUNT]);

impl Fields {
    /// A field's value: register numbers 0 to 31, immediates extended and scaled.
    pub(crate) const fn get(&self, field: Field) -> i64 {
        self.0[field as usize]
    }
    /// A small unsigned field.
    pub(crate) const fn byte(&self, field: Field) -> u8 {
        self.0[field as usize] as u8
    }
}

/// `len` bits from `from` in the encoding are bits `to` and up of a field.
#[derive(Clone, Copy, Debug)]
struct Piece {
    field: Field,
    from: u8,
    to: u8,
    len: u8,
}

/// A parsed pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// Bits that are fixed.
    pub(crate) mask: u32,
    /// Their values.
    pub(crate) bits: u32,
    /// 16 or 32.
    pub(crate) width: u32,
    /// Fields that occupy bits or have an implied value, as [`Field::bit`]s.
    present: u16,
    /// `rd` and `rs1` share their bits.
    fused: bool,
    pieces: Vec<Piece>,
    implied: Vec<(Field, i64)>,
    /// Added to what the pieces give: 8 for three-bit register numbers.
    bias: [u8; Field::COUNT],
    excluded: Vec<(Field, i64)>,
    /// Sign bit of the immediate, if it is signed.
    sign: Option<u8>,
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
        let mut tokens = Vec::new();
        for token in text.split_whitespace() {
            tokens.push(Token::parse(token).map_err(fail)?);
        }
        let width: u32 = tokens.iter().map(Token::width).sum();
        if width != 16 && width != 32 {
            return Err(fail(format!("{width} bits wide")));
        }
        let mut pattern = Self {
            mask: 0,
            bits: 0,
            width,
            present: 0,
            fused: false,
            pieces: Vec::new(),
            implied: Vec::new(),
            bias: [0; Field::COUNT],
            excluded: Vec::new(),
            sign: None,
        };
        let mut low = width;
        for token in &tokens {
            low -= token.width();
            pattern.add(token, low);
        }
        Ok(pattern)
    }

    /// Adds a token whose least significant bit is `low`.
    fn add(&mut self, token: &Token, low: u32) {
        match token {
            Token::Fixed { bits, len } => {
                self.mask |= ones(*len) << low;
                self.bits |= bits << low;
            }
            Token::Implied { field, value } => {
                self.present |= field.bit();
                self.implied.push((*field, *value));
            }
            Token::Part { fields, ranges, bias, signed, excluded } => {
                self.fused |= fields.len() == 2;
                for &field in fields {
                    self.present |= field.bit();
                    self.bias[field as usize] = *bias;
                    self.excluded.extend(excluded.iter().map(|&value| (field, value)));
                    let mut from = low as u8 + ranges.iter().map(|r| r.len).sum::<u8>();
                    for range in ranges {
                        from -= range.len;
                        self.pieces.push(Piece { field, from, to: range.low, len: range.len });
                        if *signed {
                            self.sign = self.sign.max(Some(range.low + range.len - 1));
                        }
                    }
                }
            }
        }
    }

    /// Is `insn` one of this pattern's encodings?
    #[cfg(test)]
    pub(crate) fn matches(&self, insn: u32) -> bool {
        insn & self.mask == self.bits && self.fields_if_allowed(insn).is_some()
    }

    /// The fields of an encoding whose fixed bits are right, unless one has a value that is another instruction's.
    pub(crate) fn fields_if_allowed(&self, insn: u32) -> Option<Fields> {
        let fields = self.fields(insn);
        self.excluded.iter().all(|&(field, value)| fields.get(field) != value).then_some(fields)
    }

    /// The fields of an encoding.
    pub(crate) fn fields(&self, insn: u32) -> Fields {
        let mut fields = Fields::default();
        for piece in &self.pieces {
            let bits = insn >> piece.from & ones(u32::from(piece.len));
            fields.0[piece.field as usize] |= i64::from(bits) << piece.to;
        }
        for (value, bias) in fields.0.iter_mut().zip(self.bias) {
            *value += i64::from(bias);
        }
        for &(field, value) in &self.implied {
            fields.0[field as usize] = value;
        }
        if let Some(sign) = self.sign {
            let unused = 63 - u32::from(sign);
            let imm = &mut fields.0[Field::Imm as usize];
            *imm = *imm << unused >> unused;
        }
        fields
    }

    /// `insn` with as much of `value` in a field as its bits hold.
    pub(crate) fn with(&self, insn: u32, field: Field, value: i64) -> u32 {
        let value = (value - i64::from(self.bias[field as usize])) as u32;
        self.pieces.iter().filter(|piece| piece.field == field).fold(insn, |insn, piece| {
            let ones = ones(u32::from(piece.len));
            insn & !(ones << piece.from) | (value >> piece.to & ones) << piece.from
        })
    }

    /// Does the encoding say anything about this field?
    pub(crate) const fn has(&self, field: Field) -> bool {
        self.present & field.bit() != 0
    }

    /// Do `rd` and `rs1` share their bits, so that assembly names them once?
    pub(crate) fn is_fused(&self) -> bool {
        let implied = |field| self.implied.iter().any(|&(f, _)| f == field);
        self.fused || implied(Field::Rd) && implied(Field::Rs1)
    }

    /// Could one encoding match both, going by fixed bits alone?
    #[cfg(test)]
    pub(crate) const fn meets(&self, other: &Self) -> bool {
        self.width == other.width && (self.bits ^ other.bits) & self.mask & other.mask == 0
    }
}

const fn ones(len: u32) -> u32 {
    if len >= 32 { u32::MAX } else { (1 << len) - 1 }
}

/// Bits `low .. low + len` of a field.
#[derive(Debug)]
struct Range {
    low: u8,
    len: u8,
}

#[derive(Debug)]
enum Token {
    Fixed { bits: u32, len: u32 },
    Implied { field: Field, value: i64 },
    Part { fields: Vec<Field>, ranges: Vec<Range>, bias: u8, signed: bool, excluded: Vec<i64> },
}

impl Token {
    fn width(&self) -> u32 {
        match self {
            Self::Fixed { len, .. } => *len,
            Self::Implied { .. } => 0,
            Self::Part { ranges, .. } => ranges.iter().map(|r| u32::from(r.len)).sum(),
        }
    }

    fn parse(token: &str) -> Result<Self, String> {
        if token.bytes().all(|b| matches!(b, b'0' | b'1')) {
            let bits = u32::from_str_radix(token, 2).map_err(|e| format!("{token}: {e}"))?;
            return Ok(Self::Fixed { bits, len: token.len() as u32 });
        }
        if let Some((name, value)) = token.split_once('=') {
            let (fields, ..) = field_of(name)?;
            return Ok(Self::Implied { field: fields[0], value: number(value)? });
        }
        let (token, excluded) = match token.split_once('!') {
            Some((rest, values)) => (rest, values.split(',').map(number).collect::<Result<_, _>>()?),
            None => (token, Vec::new()),
        };
        let (name, ranges) = match token.strip_suffix(']').and_then(|t| t.split_once('[')) {
            Some((name, list)) => (name, Some(parse_ranges(list)?)),
            None => (token, None),
        };
        let (fields, width, short) = field_of(name)?;
        let ranges = ranges.unwrap_or_else(|| vec![Range { low: 0, len: width }]);
        let mut excluded = excluded;
        if name.starts_with("nz") {
            excluded.push(0);
        }
        Ok(Self::Part {
            fields: fields.to_vec(),
            ranges,
            bias: if short { 8 } else { 0 },
            signed: matches!(name, "imm" | "nzimm"),
            excluded,
        })
    }
}

/// The fields a name stands for, their usual width, and whether they are three-bit register numbers.
fn field_of(name: &str) -> Result<(&'static [Field], u8, bool), String> {
    let (plain, short) = match name.strip_suffix('\'') {
        Some(plain) => (plain, true),
        None => (name, false),
    };
    let (fields, width): (&[Field], u8) = match plain {
        "rd" => (&[Field::Rd], 5),
        "rs1" => (&[Field::Rs1], 5),
        "rs2" => (&[Field::Rs2], 5),
        "rs3" => (&[Field::Rs3], 5),
        "rd/rs1" => (&[Field::Rd, Field::Rs1], 5),
        // Immediates, whatever the manual calls them; those without brackets have one width only.
        "imm" | "nzimm" | "uimm" | "nzuimm" | "n" => (&[Field::Imm], 12),
        "shamt" => (&[Field::Imm], 6),
        "rnum" => (&[Field::Imm], 4),
        "bs" => (&[Field::Imm], 2),
        "rm" => (&[Field::Rm], 3),
        "aq" => (&[Field::Aq], 1),
        "rl" => (&[Field::Rl], 1),
        "csr" => (&[Field::Csr], 12),
        "fm" => (&[Field::Fm], 4),
        "pred" => (&[Field::Pred], 4),
        "succ" => (&[Field::Succ], 4),
        _ => return Err(format!("no field is called {name}")),
    };
    Ok((fields, if short { 3 } else { width }, short))
}

/// `12|10:5` and the like.
fn parse_ranges(list: &str) -> Result<Vec<Range>, String> {
    list.split('|')
        .map(|range| {
            let (high, low) = range.split_once(':').unwrap_or((range, range));
            let (high, low) = (number(high)?, number(low)?);
            if high < low || high > 31 {
                return Err(format!("bad bit range {range}"));
            }
            Ok(Range { low: low as u8, len: (high - low + 1) as u8 })
        })
        .collect()
}

fn number(text: &str) -> Result<i64, String> {
    text.parse::<u8>().map(i64::from).map_err(|_| format!("{text} is not a small number"))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bit in (0..self.width).rev() {
            let known = self.mask >> bit & 1 != 0;
            f.write_str(if !known {
                "."
            } else if self.bits >> bit & 1 != 0 {
                "1"
            } else {
                "0"
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pattern: &str, insn: u32) -> Fields {
        let pattern = Pattern::parse(pattern).expect("a valid pattern");
        assert!(pattern.matches(insn), "{insn:#x} should match {pattern}");
        pattern.fields(insn)
    }

    #[test]
    fn branch_immediates_unscramble() {
        // beq x10, x11, -8
        let f = fields("imm[12|10:5] rs2 rs1 000 imm[4:1|11] 1100011", 0xfeb5_0ce3);
        assert_eq!((f.get(Field::Rs1), f.get(Field::Rs2), f.get(Field::Imm)), (10, 11, -8));
        // jal x1, 0x800
        let f = fields("imm[20|10:1|11|19:12] rd 1101111", 0x0010_00ef);
        assert_eq!((f.get(Field::Rd), f.get(Field::Imm)), (1, 0x800));
    }

    #[test]
    fn compressed_fields_are_biased_fused_and_implied() {
        // c.sub x8, x9
        let pattern = "100 0 11 rd/rs1' 00 rs2' 01";
        let f = fields(pattern, 0x8c05);
        assert_eq!((f.get(Field::Rd), f.get(Field::Rs1), f.get(Field::Rs2)), (8, 8, 9));
        assert!(Pattern::parse(pattern).unwrap().is_fused());
        // c.addi16sp -64
        let f = fields("011 nzimm[9] 00010 nzimm[4|6|8:7|5] 01 rd=2 rs1=2", 0x7139);
        assert_eq!((f.get(Field::Rd), f.get(Field::Rs1), f.get(Field::Imm)), (2, 2, -64));
    }

    #[test]
    fn excluded_values_do_not_match() {
        let lui = Pattern::parse("011 nzimm[17] rd!0,2 nzimm[16:12] 01").unwrap();
        assert!(lui.matches(0x6085));
        assert!(!lui.matches(0x6105), "rd = 2");
        assert!(!lui.matches(0x6081), "imm = 0");
    }

    #[test]
    fn mistakes_are_told() {
        for bad in
            ["0", "rd rs9 0010011", "imm[3:5] 0000000000000", "rd!x 00000000000", "rd[40] 000000000000000"]
        {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
