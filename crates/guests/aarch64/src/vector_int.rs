//! Integer vector instructions with saturation or rounding, polynomial products and dot products (the manual, C7.2), as
//! [`crate::vector`] helpers execute them.

use crate::vector::{Vector, lane, number};

/// `value << shift` (to the right if negative), the exact result optionally rounded. Amounts beyond any lane do what
/// their limit does.
fn shifted(value: i128, shift: i32, round: bool) -> i128 {
    if shift >= 0 {
        return value << shift.min(63);
    }
    let amount = shift.unsigned_abs().min(100);
    let rounding = if round { 1 << (amount - 1) } else { 0 };
    (value + rounding) >> amount
}

/// SQSHL, UQSHL, SRSHL, URSHL, SQRSHL, UQRSHL (register): the shift is the lowest byte of each lane of Vm.
pub(crate) fn shift_by_register(v: &mut Vector) -> u128 {
    let (bits, signed) = (v.size_bits(), !v.u());
    let (round, saturate) = (v.field(12, 1) != 0, v.field(11, 1) != 0);
    v.map(bits, |v, [n, m, _]| {
        let (value, shift) = (number(n, bits, signed), i32::from(m as i8));
        if shift >= bits as i32 {
            return if !saturate || value == 0 {
                0
            } else {
                v.saturate_to(value.signum() << 100, bits, signed)
            };
        }
        let result = shifted(value, shift, round);
        if saturate { v.saturate_to(result, bits, signed) } else { result as u64 }
    })
}

/// SQSHL, UQSHL, SQSHLU (immediate).
pub(crate) fn shift_left_saturating(v: &mut Vector) -> u128 {
    let (bits, shift) = immediate_left(v);
    let to_signed = v.field(12, 1) != 0 && !v.u();
    let from_signed = v.field(12, 1) == 0 || !v.u();
    v.map(bits, |v, [n, ..]| {
        let value = number(n, bits, from_signed) << shift;
        v.saturate_to(value, bits, to_signed)
    })
}

/// Lane width and amount of a left shift by immediate.
fn immediate_left(v: &Vector) -> (u32, u32) {
    let imm = v.field(16, 7);
    let bits = 8 << (imm >> 3).max(1).ilog2();
    (bits, imm - bits)
}

/// SQSHRN, UQSHRN, SQSHRUN and, rounding, SQRSHRN, UQRSHRN, SQRSHRUN.
pub(crate) fn shift_right_narrow(v: &mut Vector) -> u128 {
    let imm = v.field(16, 7);
    let bits = 8 << (imm >> 3).max(1).ilog2();
    let amount = (2 * bits - imm) as i32;
    let round = v.field(11, 1) != 0;
    let unsigned_from_signed = v.field(12, 1) == 0;
    let from_signed = unsigned_from_signed || !v.u();
    let to_signed = !unsigned_from_signed && !v.u();
    v.narrow(bits, |v, n| {
        let value = shifted(number(n, 2 * bits, from_signed), -amount, round);
        v.saturate_to(value, bits, to_signed)
    })
}

/// SQXTN, UQXTN, SQXTUN.
pub(crate) fn extract_narrow(v: &mut Vector) -> u128 {
    let bits = v.size_bits();
    let unsigned_from_signed = v.field(12, 5) == 0b10010;
    let from_signed = unsigned_from_signed || !v.u();
    let to_signed = !unsigned_from_signed && !v.u();
    v.narrow(bits, |v, n| v.saturate_to(number(n, 2 * bits, from_signed), bits, to_signed))
}

/// SQADD, UQADD, SQSUB, UQSUB of scalars.
pub(crate) fn add_saturating(v: &mut Vector) -> u128 {
    let (bits, signed, subtract) = (v.size_bits(), !v.u(), v.field(13, 1) != 0);
    v.map(bits, |v, [n, m, _]| {
        let (n, m) = (number(n, bits, signed), number(m, bits, signed));
        v.saturate_to(if subtract { n - m } else { n + m }, bits, signed)
    })
}

/// SUQADD: unsigned n to signed d; USQADD: signed n to unsigned d.
pub(crate) fn accumulate_saturating(v: &mut Vector) -> u128 {
    let (bits, signed) = (v.size_bits(), !v.u());
    v.map(bits, |v, [n, _, d]| {
        v.saturate_to(number(d, bits, signed) + number(n, bits, !signed), bits, signed)
    })
}

/// SQABS, SQNEG.
pub(crate) fn negate_saturating(v: &mut Vector) -> u128 {
    let (bits, negate) = (v.size_bits(), v.u());
    v.map(bits, |v, [n, ..]| {
        let n = number(n, bits, true);
        v.saturate_to(if negate { -n } else { n.abs() }, bits, true)
    })
}

/// SQDMULH, SQRDMULH: the high half of the doubled product; by element too.
pub(crate) fn multiply_doubling_high(v: &mut Vector) -> u128 {
    let bits = v.size_bits();
    // Vectors tell them apart by U, elements by the lowest bit of their opcode.
    let round = if v.field(10, 1) != 0 { v.u() } else { v.field(12, 1) != 0 };
    v.by_element(bits);
    v.map(bits, |v, [n, m, _]| {
        let product = 2 * number(n, bits, true) * number(m, bits, true);
        let rounding = if round { 1 << (bits - 1) } else { 0 };
        v.saturate_to((product + rounding) >> bits, bits, true)
    })
}

/// SQRDMLAH, SQRDMLSH (FEAT_RDM).
pub(crate) fn multiply_accumulate_high(v: &mut Vector) -> u128 {
    let bits = v.size_bits();
    let subtract = if v.field(10, 1) != 0 { v.field(11, 1) } else { v.field(13, 1) } != 0;
    v.by_element(bits);
    v.map(bits, |v, [n, m, d]| {
        let product = 2 * number(n, bits, true) * number(m, bits, true);
        let product = if subtract { -product } else { product };
        let sum = (number(d, bits, true) << bits) + product + (1 << (bits - 1));
        v.saturate_to(sum >> bits, bits, true)
    })
}

/// SQDMULL, SQDMLAL, SQDMLSL.
pub(crate) fn multiply_doubling_long(v: &mut Vector) -> u128 {
    let bits = v.size_bits();
    // The two classes of encodings number their operations differently; what neither accumulates is SQDMULL.
    let by_element = v.field(10, 1) == 0 && v.field(24, 1) != 0;
    let (accumulate, subtract) = match (by_element, v.field(12, 4)) {
        (false, 0b1001) | (true, 0b0011) => (true, false),
        (false, 0b1011) | (true, 0b0111) => (true, true),
        _ => (false, false),
    };
    v.by_element(bits);
    let wide = 2 * bits;
    v.widen(bits, |v, [n, m, d]| {
        let product = v.saturate_to(2 * number(n, bits, true) * number(m, bits, true), wide, true);
        if !accumulate {
            return product;
        }
        let (d, product) = (number(d, wide, true), number(product, wide, true));
        v.saturate_to(if subtract { d - product } else { d + product }, wide, true)
    })
}

/// PMUL: low half of the polynomial product of bytes.
pub(crate) fn multiply_polynomial(v: &mut Vector) -> u128 {
    v.map(8, |_, [n, m, _]| carryless(n, m))
}

/// PMULL, PMULL2: bytes to halfwords.
pub(crate) fn multiply_polynomial_long(v: &mut Vector) -> u128 {
    v.widen(8, |_, [n, m, _]| carryless(n, m))
}

/// The product over GF(2) of two bytes.
fn carryless(a: u64, b: u64) -> u64 {
    (0..8).filter(|i| b >> i & 1 != 0).fold(0, |product, i| product ^ a << i)
}

/// SDOT, UDOT, USDOT, SUDOT: sums of four products of bytes; by element too.
pub(crate) fn dot_product(v: &mut Vector) -> u128 {
    let (n_signed, m_signed) = dot_signs(v);
    v.by_element(32);
    v.map(32, |_, [n, m, d]| {
        let products = (0..4).map(|i| number(n >> (8 * i), 8, n_signed) * number(m >> (8 * i), 8, m_signed));
        (i128::from(d) + products.sum::<i128>()) as u64
    })
}

/// Which operands of a dot product are signed.
fn dot_signs(v: &Vector) -> (bool, bool) {
    let mixed = v.field(12, 4) == 0b1111 || v.field(24, 1) == 0 && v.field(11, 1) != 0;
    match (mixed, v.field(24, 1), v.field(23, 1)) {
        // USDOT by vector; by element bit 23 tells it from SUDOT.
        (true, 0, _) | (true, _, 1) => (false, true),
        (true, ..) => (true, false),
        _ => (!v.u(), !v.u()),
    }
}

/// SMMLA, UMMLA, USMMLA (FEAT_I8MM): a 2x8 matrix times an 8x2 one, accumulated in words.
pub(crate) fn matrix_multiply(v: &mut Vector) -> u128 {
    let n_signed = !v.u() && v.field(11, 1) == 0;
    let m_signed = !v.u();
    (0..4).fold(0, |result, at| {
        let (row, column) = (at / 2, at % 2);
        let products = (0..8).map(|k| {
            let n = number(lane(v.n, 8, row * 8 + k), 8, n_signed);
            n * number(lane(v.m, 8, column * 8 + k), 8, m_signed)
        });
        let sum = i128::from(lane(v.d, 32, at)) + products.sum::<i128>();
        result | u128::from(sum as u32) << (at * 32)
    })
}

/// URECPE, URSQRTE: estimates of unsigned fixed-point numbers.
pub(crate) fn estimate_unsigned(v: &mut Vector) -> u128 {
    let root = v.u();
    v.map(32, |_, [n, ..]| {
        let n = n as u32;
        let in_range = if root { n >> 30 != 0 } else { n >> 31 != 0 };
        let estimate = match (in_range, root) {
            (false, _) => return u64::from(u32::MAX),
            (true, true) => crate::vector_fp::square_root_estimate(n >> 23),
            (true, false) => crate::vector_fp::reciprocal_estimate(n >> 23),
        };
        u64::from(estimate << 23)
    })
}

impl Vector {
    /// The value as a lane of `bits`; saturates.
    pub(crate) fn saturate_to(&mut self, value: i128, bits: u32, signed: bool) -> u64 {
        if signed { self.saturate_signed(value, bits) } else { self.saturate_unsigned(value, bits) }
    }
}
