//! Integer operations on constants, zero-extended to 64 bits on both sides.

use crate::{
    op::{BinOp, Cond, UnOp},
    types::Type,
};

/// Sign-extends the low bits of an integer type.
pub(super) const fn sext(ty: Type, bits: u64) -> i64 {
    let shift = 64 - if ty.is_int() { ty.bits() } else { 64 };
    ((bits << shift) as i64) >> shift
}

/// `bits` with those of a field taken out, extended to 64 bits.
pub(super) const fn extract(bits: u64, lo: u8, len: u8, signed: bool) -> u64 {
    let (up, down) = ((64 - lo as u32 - len as u32) & 63, (64 - len as u32) & 63);
    if signed { ((bits << up) as i64 >> down) as u64 } else { bits << up >> down }
}

/// A field's bits, all ones.
pub(super) const fn field_mask(lo: u8, len: u8) -> u64 {
    (u64::MAX >> (64 - len as u32 & 63)) << (lo & 63)
}

/// One operand.
pub(super) fn unary(op: UnOp, ty: Type, a: u64) -> u64 {
    let spare = 64 - ty.bits();
    let value = match op {
        UnOp::Not => !a,
        UnOp::Neg => a.wrapping_neg(),
        UnOp::Clz => u64::from(a.leading_zeros() - spare),
        UnOp::Ctz => u64::from(a.trailing_zeros().min(ty.bits())),
        UnOp::Popcnt => u64::from(a.count_ones()),
        UnOp::Bswap => a.swap_bytes() >> spare,
        UnOp::Bitrev => a.reverse_bits() >> spare,
        UnOp::OrBytes => u64::from_le_bytes(a.to_le_bytes().map(|byte| if byte == 0 { 0 } else { 0xff })),
    };
    value & ty.mask()
}

/// Two operands.
pub(super) fn binary(op: BinOp, ty: Type, a: u64, b: u64) -> u64 {
    let (sa, sb) = (sext(ty, a), sext(ty, b));
    let width = ty.bits();
    let amount = (b % u64::from(width)) as u32;
    let value = match op {
        BinOp::Add => a.wrapping_add(b),
        BinOp::Sub => a.wrapping_sub(b),
        BinOp::Mul => a.wrapping_mul(b),
        BinOp::MulHiU => ((u128::from(a) * u128::from(b)) >> width) as u64,
        BinOp::MulHiS => ((i128::from(sa) * i128::from(sb)) >> width) as u64,
        BinOp::MulHiSU => ((i128::from(sa) * i128::from(b)) >> width) as u64,
        BinOp::DivU => a.checked_div(b).unwrap_or(u64::MAX),
        BinOp::DivS if sb == 0 => u64::MAX,
        BinOp::DivS => sa.wrapping_div(sb) as u64,
        BinOp::RemU => a.checked_rem(b).unwrap_or(a),
        BinOp::RemS if sb == 0 => a,
        BinOp::RemS => sa.wrapping_rem(sb) as u64,
        BinOp::And => a & b,
        BinOp::Or => a | b,
        BinOp::Xor => a ^ b,
        BinOp::AndNot => a & !b,
        BinOp::Shl => a << amount,
        BinOp::ShrU => a >> amount,
        BinOp::ShrS => (sa >> amount) as u64,
        BinOp::Rotl => a << amount | a >> ((width - amount) % width),
        BinOp::Rotr => a >> amount | a << ((width - amount) % width),
        BinOp::MinU => a.min(b),
        BinOp::MaxU => a.max(b),
        BinOp::MinS => sa.min(sb) as u64,
        BinOp::MaxS => sa.max(sb) as u64,
        BinOp::ClMul => carryless(a, b) as u64,
        BinOp::ClMulHi => (carryless(a, b) >> width) as u64,
    };
    value & ty.mask()
}

fn carryless(a: u64, b: u64) -> u128 {
    (0..64).filter(|i| b >> i & 1 != 0).fold(0, |sum, i| sum ^ (u128::from(a) << i))
}

/// A comparison.
pub(super) fn compare(cond: Cond, ty: Type, a: u64, b: u64) -> bool {
    match cond {
        Cond::Eq => a == b,
        Cond::Ne => a != b,
        Cond::LtU => a < b,
        Cond::GeU => a >= b,
        Cond::LtS => sext(ty, a) < sext(ty, b),
        Cond::GeS => sext(ty, a) >= sext(ty, b),
    }
}
