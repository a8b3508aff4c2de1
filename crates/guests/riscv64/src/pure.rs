//! Functions of their arguments alone: `fclass`, `fcvtmod.w.d`, crossbar permutations (volume I, 28), AES and SM4 (31).

use aes::{Block, hazmat};
use isomer_ir::{
    softfloat::{self, Env, Round},
    types::FpFormat,
};
use std::sync::LazyLock;

/// `fclass` of a number in format number `format` (of [`FpFormat`]).
pub(crate) fn fclass(format: u64, a: u64) -> u64 {
    let formats = [FpFormat::F16, FpFormat::Bf16, FpFormat::F32, FpFormat::F64];
    let format = formats.into_iter().find(|f| *f as u64 == format).unwrap_or(FpFormat::F64);
    u64::from(softfloat::classify(format, a))
}

/// The value of `fcvtmod.w.d`, sign-extended; its flags are raised by the conversion lifted beside it.
pub(crate) fn fcvtmod_w_d(a: u64) -> u64 {
    let low = softfloat::to_int_modulo32(FpFormat::F64, a, &mut Env::riscv(Round::TowardZero));
    i64::from(low as i32) as u64
}

/// Each nibble of `b` picks a nibble of `a`.
pub(crate) fn xperm4(a: u64, b: u64) -> u64 {
    (0..64).step_by(4).fold(0, |value, at| {
        let index = b >> at & 15;
        value | (a >> (index * 4) & 15) << at
    })
}

/// Each byte of `b` picks a byte of `a`, or 0.
pub(crate) fn xperm8(a: u64, b: u64) -> u64 {
    (0..64).step_by(8).fold(0, |value, at| {
        let index = b >> at & 0xff;
        let byte = if index < 8 { a >> (index * 8) & 0xff } else { 0 };
        value | byte << at
    })
}

// --- arithmetic of GF(2^8) and substitution boxes

/// Product modulo `polynomial` (its low eight bits).
const fn gf_mul(mut a: u8, mut b: u8, polynomial: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { polynomial } else { 0 };
        b >>= 1;
    }
    product
}

/// Inverse, with 0 for 0.
const fn gf_inverse(a: u8, polynomial: u8) -> u8 {
    let mut inverse = 1;
    let mut n = 0;
    // a^254 = a^-1.
    while n < 254 {
        inverse = gf_mul(inverse, a, polynomial);
        n += 1;
    }
    inverse
}

/// x^8 + x^4 + x^3 + x + 1 (FIPS 197, 4).
const AES_POLYNOMIAL: u8 = 0x1b;

/// SubBytes (FIPS 197, 5.1.1), made from its definition.
static AES_SBOX: LazyLock<[u8; 256]> = LazyLock::new(|| {
    std::array::from_fn(|i| {
        let b = gf_inverse(i as u8, AES_POLYNOMIAL);
        b ^ b.rotate_left(1) ^ b.rotate_left(2) ^ b.rotate_left(3) ^ b.rotate_left(4) ^ 0x63
    })
});

/// x^8 + x^7 + x^6 + x^5 + x^4 + x^2 + 1 (GB/T 32907-2016).
const SM4_POLYNOMIAL: u8 = 0xf5;

/// The SM4 S-box as the affine map, inversion, affine map that it is: S(x) = A(inverse(A(x) ^ 0xd3)) ^ 0xd3.
static SM4_SBOX: LazyLock<[u8; 256]> = LazyLock::new(|| {
    // The circulant matrix whose first row is 0xd3's bits: bit i of A(x) is the parity of x and a rotation.
    let affine =
        |x: u8| (0..8).fold(0u8, |y, i| y | ((x & 0xa7u8.rotate_left(i)).count_ones() as u8 & 1) << i) ^ 0xd3;
    std::array::from_fn(|i| affine(gf_inverse(affine(i as u8), SM4_POLYNOMIAL)))
});

// --- AES; a state is two registers of two columns each, the first byte of a column least significant

/// The first half of what `round` makes of the state whose halves are `a` and `b`.
fn half(a: u64, b: u64, round: impl Fn(&mut Block)) -> u64 {
    let mut state = Block::from((u128::from(b) << 64 | u128::from(a)).to_le_bytes());
    round(&mut state);
    u128::from_le_bytes(state.into()) as u64
}

/// Last decryption round: a middle one without its InvMixColumns.
pub(crate) fn aes64ds(a: u64, b: u64) -> u64 {
    half(a, b, |state| {
        hazmat::equiv_inv_cipher_round(state, &Block::default());
        hazmat::mix_columns(state);
    })
}

/// Middle decryption round.
pub(crate) fn aes64dsm(a: u64, b: u64) -> u64 {
    half(a, b, |state| hazmat::equiv_inv_cipher_round(state, &Block::default()))
}

/// Last encryption round: a middle one without its MixColumns.
pub(crate) fn aes64es(a: u64, b: u64) -> u64 {
    half(a, b, |state| {
        hazmat::cipher_round(state, &Block::default());
        hazmat::inv_mix_columns(state);
    })
}

/// Middle encryption round.
pub(crate) fn aes64esm(a: u64, b: u64) -> u64 {
    half(a, b, |state| hazmat::cipher_round(state, &Block::default()))
}

/// InvMixColumns.
pub(crate) fn aes64im(a: u64) -> u64 {
    half(a, 0, hazmat::inv_mix_columns)
}

/// Key schedule, first half: SubWord of the high word, rotated and with the round constant but in round 10.
pub(crate) fn aes64ks1i(a: u64, round: u64) -> u64 {
    let word = ((a >> 32) as u32).to_le_bytes().map(|b| AES_SBOX[usize::from(b)]);
    let word = u32::from_le_bytes(word);
    let word = if round < 10 {
        let constant = (0..round).fold(1, |c, _| gf_mul(c, 2, AES_POLYNOMIAL));
        word.rotate_right(8) ^ u32::from(constant)
    } else {
        word
    };
    u64::from(word) << 32 | u64::from(word)
}

// --- SM4; one byte of a word a call

/// The standard's words begin with their most significant byte, registers with the least significant one: the
/// linear map is applied to the standard's form.
fn sm4(a: u64, b: u64, byte: u64, linear: fn(u32) -> u32) -> u64 {
    let shift = (byte & 3) as u32 * 8;
    let substituted = SM4_SBOX[usize::from((b >> shift) as u8)];
    let mapped = linear(u32::from(substituted) << 24).swap_bytes();
    let word = mapped.rotate_left(shift) ^ a as u32;
    i64::from(word as i32) as u64
}

/// Encryption and decryption round, for byte `byte` of `b`.
pub(crate) fn sm4ed(a: u64, b: u64, byte: u64) -> u64 {
    sm4(a, b, byte, |x| x ^ x.rotate_left(2) ^ x.rotate_left(10) ^ x.rotate_left(18) ^ x.rotate_left(24))
}

/// Key schedule, for byte `byte` of `b`.
pub(crate) fn sm4ks(a: u64, b: u64, byte: u64) -> u64 {
    sm4(a, b, byte, |x| x ^ x.rotate_left(13) ^ x.rotate_left(23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitution_boxes_are_the_published_ones() {
        assert_eq!(AES_SBOX[..8], [0x63, 0x7c, 0x77, 0x7b, 0xf2, 0x6b, 0x6f, 0xc5]);
        assert_eq!(AES_SBOX[0xff], 0x16);
        assert_eq!(SM4_SBOX[..8], [0xd6, 0x90, 0xe9, 0xfe, 0xcc, 0xe1, 0x3d, 0xb7]);
        assert_eq!(SM4_SBOX[0xf8..], [0x79, 0xee, 0x5f, 0x3e, 0xd7, 0xcb, 0x39, 0x48]);
    }

    /// FIPS 197, appendix B: the whole cipher through the instructions.
    #[test]
    fn aes_128_encrypts_and_decrypts() {
        let key = 0x3c4f_cf09_8815_f7ab_a6d2_ae28_1615_7e2b_u128;
        let plain = 0x3407_37e0_a298_3131_8d30_5a88_a8f6_4332_u128;
        let mut keys = vec![(key as u64, (key >> 64) as u64)];
        for round in 0..10 {
            let (low, high) = keys[round];
            let t = aes64ks1i(high, round as u64);
            let ks2 = |a: u64, b: u64| {
                let w0 = (a >> 32 ^ b) & 0xffff_ffff;
                w0 | (w0 ^ b >> 32) << 32
            };
            let next = ks2(t, low);
            keys.push((next, ks2(next, high)));
        }
        let (mut low, mut high) = (plain as u64 ^ keys[0].0, (plain >> 64) as u64 ^ keys[0].1);
        for key in &keys[1..10] {
            (low, high) = (aes64esm(low, high) ^ key.0, aes64esm(high, low) ^ key.1);
        }
        (low, high) = (aes64es(low, high) ^ keys[10].0, aes64es(high, low) ^ keys[10].1);
        let cipher = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
        assert_eq!(
            cipher,
            [0x39, 0x25, 0x84, 0x1d, 0x02, 0xdc, 0x09, 0xfb, 0xdc, 0x11, 0x85, 0x97, 0x19, 0x6a, 0x0b, 0x32]
        );

        (low, high) = (low ^ keys[10].0, high ^ keys[10].1);
        for key in keys[1..10].iter().rev() {
            let (k0, k1) = (aes64im(key.0), aes64im(key.1));
            (low, high) = (aes64dsm(low, high) ^ k0, aes64dsm(high, low) ^ k1);
        }
        (low, high) = (aes64ds(low, high) ^ keys[0].0, aes64ds(high, low) ^ keys[0].1);
        assert_eq!(u128::from(high) << 64 | u128::from(low), plain);
    }

    /// GB/T 32907-2016, appendix A.1: key = plain text = 0123...3210.
    #[test]
    fn sm4_encrypts() {
        let words = [0x0123_4567_u32, 0x89ab_cdef, 0xfedc_ba98, 0x7654_3210];
        // The instructions take words with the first byte least significant.
        let fk = [0xa3b1_bac6_u32, 0x56aa_3350, 0x677d_9197, 0xb270_22dc];
        let mut k: Vec<u32> = (0..4).map(|i| (words[i] ^ fk[i]).swap_bytes()).collect();
        let mut x: Vec<u32> = words.iter().map(|w| w.swap_bytes()).collect();
        for i in 0..32u32 {
            let n = i as usize;
            let ck = u32::from_be_bytes(std::array::from_fn(|j| ((4 * i + j as u32) * 7) as u8)).swap_bytes();
            let t = k[n + 1] ^ k[n + 2] ^ k[n + 3] ^ ck;
            let next = (0..4).fold(u64::from(k[n]), |a, byte| sm4ks(a, u64::from(t), byte));
            k.push(next as u32);
            let t = x[n + 1] ^ x[n + 2] ^ x[n + 3] ^ k[n + 4];
            let next = (0..4).fold(u64::from(x[n]), |a, byte| sm4ed(a, u64::from(t), byte));
            x.push(next as u32);
        }
        let cipher: Vec<u32> = x[32..].iter().rev().map(|w| w.swap_bytes()).collect();
        assert_eq!(cipher, [0x681e_df34, 0xd206_965e, 0x86b3_e94f, 0x536e_4246]);
    }

    #[test]
    fn crossbars_pick() {
        assert_eq!(xperm4(0xfedc_ba98_7654_3210, 0x0123_4567_89ab_cdef), 0x0123_4567_89ab_cdef);
        assert_eq!(xperm8(0x8877_6655_4433_2211, 0x0001_0203_0405_06ff), 0x1122_3344_5566_7700);
    }
}
