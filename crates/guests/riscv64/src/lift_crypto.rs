//! Scalar cryptography (volume I, 31): AES (Zknd, Zkne), SHA-2 (Zknh), SM4 (Zksed), SM3 (Zksh).

use crate::{
    helpers::Helper,
    lift::Lift,
    operands::{I, R, R1, RSel},
};
use isomer_ir::{
    Type, Value,
    op::BinOp::{self, Rotr, ShrU},
};

// --- AES

macro_rules! aes_rounds {
    ($($name:ident $helper:ident)*) => {$(
        pub(crate) fn $name(l: &mut Lift<'_>, o: R) {
            l.pure(Helper::$helper, o);
        }
    )*};
}

aes_rounds! {
    aes64ds Aes64Ds
    aes64dsm Aes64Dsm
    aes64es Aes64Es
    aes64esm Aes64Esm
}

pub(crate) fn aes64im(l: &mut Lift<'_>, o: R1) {
    let a = l.x(o.rs1);
    let value = l.call(Helper::Aes64Im, &[a]);
    l.set_x(o.rd, value);
}

/// Round numbers above 10 are reserved; their encodings are not in the table.
pub(crate) fn aes64ks1i(l: &mut Lift<'_>, o: I) {
    let args = [l.x(o.rs1), l.imm(o.imm)];
    let value = l.call(Helper::Aes64Ks1i, &args);
    l.set_x(o.rd, value);
}

/// The next two key words: w0 = rs1's high word ^ rs2's low word; w1 = w0 ^ rs2's high word.
pub(crate) fn aes64ks2(l: &mut Lift<'_>, o: R) {
    let (a, b) = (l.x(o.rs1), l.x(o.rs2));
    let a_high = l.b.bin_imm(ShrU, a, 32);
    let low = l.b.xor(a_high, b);
    let b_high = l.b.bin_imm(ShrU, b, 32);
    let high = l.b.xor(low, b_high);
    let value = l.b.deposit(low, high, 32, 32);
    l.set_x(o.rd, value);
}

// --- SHA-2 and SM3: exclusive-or of the operand rotated and shifted

impl Lift<'_> {
    /// rd = exclusive-or of `terms` applied to rs1 (its low half for I32).
    fn mix(&mut self, ty: Type, terms: [(BinOp, u64); 3], o: R1) {
        let whole = self.x(o.rs1);
        let a = self.b.trunc(ty, whole);
        let [first, second, third]: [Value; 3] = terms.map(|(op, amount)| self.b.bin_imm(op, a, amount));
        let value = self.b.xor(first, second);
        let value = self.b.xor(value, third);
        self.set_x(o.rd, value);
    }
}

macro_rules! mixes {
    ($($name:ident $ty:ident $($op:ident $amount:literal)*;)*) => {$(
        pub(crate) fn $name(l: &mut Lift<'_>, o: R1) {
            l.mix(Type::$ty, [$(($op, $amount)),*], o);
        }
    )*};
}

mixes! {
    sha256sum0 I32 Rotr 2 Rotr 13 Rotr 22;
    sha256sum1 I32 Rotr 6 Rotr 11 Rotr 25;
    sha256sig0 I32 Rotr 7 Rotr 18 ShrU 3;
    sha256sig1 I32 Rotr 17 Rotr 19 ShrU 10;
    sha512sum0 I64 Rotr 28 Rotr 34 Rotr 39;
    sha512sum1 I64 Rotr 14 Rotr 18 Rotr 41;
    sha512sig0 I64 Rotr 1 Rotr 8 ShrU 7;
    sha512sig1 I64 Rotr 19 Rotr 61 ShrU 6;
    // P0(x) = x ^ (x <<< 9) ^ (x <<< 17); P1(x) = x ^ (x <<< 15) ^ (x <<< 23).
    sm3p0 I32 Rotr 0 Rotr 23 Rotr 15;
    sm3p1 I32 Rotr 0 Rotr 17 Rotr 9;
}

// --- SM4

impl Lift<'_> {
    fn sm4(&mut self, helper: Helper, o: RSel) {
        let args = [self.x(o.rs1), self.x(o.rs2), self.imm(i64::from(o.select))];
        let value = self.call(helper, &args);
        self.set_x(o.rd, value);
    }
}

pub(crate) fn sm4ed(l: &mut Lift<'_>, o: RSel) {
    l.sm4(Helper::Sm4Ed, o);
}

pub(crate) fn sm4ks(l: &mut Lift<'_>, o: RSel) {
    l.sm4(Helper::Sm4Ks, o);
}
