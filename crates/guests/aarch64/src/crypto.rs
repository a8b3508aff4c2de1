//! The cryptographic instructions (the manual, C7.2: AESE and so on; FIPS 197, FIPS 180-4), as [`crate::vector`] helpers
//! execute them.

use crate::vector::{Vector, lane};

/// `x * a` in AES's field.
const fn double(a: u8) -> u8 {
    a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 }
}

/// The S-box (FIPS 197, 5.1.1): inverses by powers of the generator 3, then the affine map.
const SBOX: [u8; 256] = {
    let mut sbox = [0; 256];
    let (mut p, mut q) = (1u8, 1u8);
    loop {
        p ^= double(p);
        // q is divided by 3: the inverse of p.
        q ^= q << 1;
        q ^= q << 2;
        q ^= q << 4;
        if q & 0x80 != 0 {
            q ^= 0x09;
        }
        sbox[p as usize] =
            q ^ q.rotate_left(1) ^ q.rotate_left(2) ^ q.rotate_left(3) ^ q.rotate_left(4) ^ 0x63;
        if p == 1 {
            break;
        }
    }
    sbox[0] = 0x63;
    sbox
};

/// Its inverse.
const INVERSE_SBOX: [u8; 256] = {
    let mut inverse = [0; 256];
    let mut i = 0;
    while i < 256 {
        inverse[SBOX[i] as usize] = i as u8;
        i += 1;
    }
    inverse
};

/// AESE: AddRoundKey, SubBytes, ShiftRows.
pub(crate) fn aese(v: &mut Vector) -> u128 {
    let state = (v.d ^ v.n).to_le_bytes();
    u128::from_le_bytes(std::array::from_fn(|i| SBOX[usize::from(state[i * 5 % 16])]))
}

/// AESD: AddRoundKey, InvShiftRows, InvSubBytes.
pub(crate) fn aesd(v: &mut Vector) -> u128 {
    let state = (v.d ^ v.n).to_le_bytes();
    u128::from_le_bytes(std::array::from_fn(|i| INVERSE_SBOX[usize::from(state[i * 13 % 16])]))
}

/// [`double`] of every byte of a column.
fn double_column(column: u32) -> u32 {
    ((column & 0x7f7f_7f7f) << 1) ^ ((column >> 7 & 0x0101_0101) * 0x1b)
}

/// Each column times a circulant matrix: `row(column)` gives it times each entry of the matrix's first row.
fn mix(state: u128, row: fn(u32) -> [u32; 4]) -> u128 {
    from_words(words(state).map(|column| {
        let [a, b, c, d] = row(column);
        a ^ b.rotate_right(8) ^ c.rotate_right(16) ^ d.rotate_right(24)
    }))
}

/// AESMC: MixColumns.
pub(crate) fn aesmc(v: &mut Vector) -> u128 {
    mix(v.n, |by_1| {
        let by_2 = double_column(by_1);
        [by_2, by_2 ^ by_1, by_1, by_1]
    })
}

/// AESIMC: InvMixColumns.
pub(crate) fn aesimc(v: &mut Vector) -> u128 {
    mix(v.n, |by_1| {
        let by_2 = double_column(by_1);
        let by_4 = double_column(by_2);
        let by_8 = double_column(by_4);
        [by_8 ^ by_4 ^ by_2, by_8 ^ by_2 ^ by_1, by_8 ^ by_4 ^ by_1, by_8 ^ by_1]
    })
}

fn words(v: u128) -> [u32; 4] {
    std::array::from_fn(|i| lane(v, 32, i as u32) as u32)
}

fn from_words(words: [u32; 4]) -> u128 {
    words.iter().rev().fold(0, |v, word| v << 32 | u128::from(*word))
}

fn choose(x: u32, y: u32, z: u32) -> u32 {
    (y ^ z) & x ^ z
}

fn majority(x: u32, y: u32, z: u32) -> u32 {
    x & y | (x | y) & z
}

/// Four rounds of SHA-1 with the function `f` (shared pseudocode `SHA1C` and so on).
fn sha1_rounds(v: &Vector, f: fn(u32, u32, u32) -> u32) -> u128 {
    let (mut x, mut y) = (words(v.d), v.n as u32);
    for w in words(v.m) {
        y = y.wrapping_add(x[0].rotate_left(5)).wrapping_add(f(x[1], x[2], x[3])).wrapping_add(w);
        x[1] = x[1].rotate_left(30);
        // <Y, X> rotated left by a word.
        (x, y) = ([y, x[0], x[1], x[2]], x[3]);
    }
    from_words(x)
}

/// SHA1C: choose.
pub(crate) fn sha1c(v: &mut Vector) -> u128 {
    sha1_rounds(v, choose)
}

/// SHA1P: parity.
pub(crate) fn sha1p(v: &mut Vector) -> u128 {
    sha1_rounds(v, |x, y, z| x ^ y ^ z)
}

/// SHA1M: majority.
pub(crate) fn sha1m(v: &mut Vector) -> u128 {
    sha1_rounds(v, majority)
}

/// SHA1H: the fixed rotate.
pub(crate) fn sha1h(v: &mut Vector) -> u128 {
    (v.n as u32).rotate_left(30).into()
}

/// SHA1SU0.
pub(crate) fn sha1su0(v: &mut Vector) -> u128 {
    (v.n << 64 | v.d >> 64) ^ v.d ^ v.m
}

/// SHA1SU1.
pub(crate) fn sha1su1(v: &mut Vector) -> u128 {
    let t = words(v.d ^ v.n >> 32).map(|word| word.rotate_left(1));
    from_words([t[0], t[1], t[2], t[3] ^ t[0].rotate_left(1)])
}

/// Four rounds of SHA-256 on `[x, y]`; gives both (shared pseudocode `SHA256hash`).
fn sha256_rounds(x: u128, y: u128, w: u128) -> [u128; 2] {
    let (mut x, mut y) = (words(x), words(y));
    for w in words(w) {
        let sum1 = y[0].rotate_right(6) ^ y[0].rotate_right(11) ^ y[0].rotate_right(25);
        let sum0 = x[0].rotate_right(2) ^ x[0].rotate_right(13) ^ x[0].rotate_right(22);
        let t = y[3].wrapping_add(sum1).wrapping_add(choose(y[0], y[1], y[2])).wrapping_add(w);
        let below = x[3].wrapping_add(t);
        let above = t.wrapping_add(sum0).wrapping_add(majority(x[0], x[1], x[2]));
        (x, y) = ([above, x[0], x[1], x[2]], [below, y[0], y[1], y[2]]);
    }
    [from_words(x), from_words(y)]
}

/// SHA256H.
pub(crate) fn sha256h(v: &mut Vector) -> u128 {
    sha256_rounds(v.d, v.n, v.m)[0]
}

/// SHA256H2.
pub(crate) fn sha256h2(v: &mut Vector) -> u128 {
    sha256_rounds(v.n, v.d, v.m)[1]
}

/// SHA256SU0.
pub(crate) fn sha256su0(v: &mut Vector) -> u128 {
    let (d, next) = (words(v.d), words(v.n << 96 | v.d >> 32));
    from_words(std::array::from_fn(|i| {
        let x = next[i];
        d[i].wrapping_add(x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3)
    }))
}

/// SHA256SU1.
pub(crate) fn sha256su1(v: &mut Vector) -> u128 {
    let (d, m, next) = (words(v.d), words(v.m), words(v.m << 96 | v.n >> 32));
    let sigma = |x: u32| x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10;
    let mut result = [0u32; 4];
    for i in 0..4 {
        // The upper two use what the lower two have become.
        let x = if i < 2 { m[i + 2] } else { result[i - 2] };
        result[i] = sigma(x).wrapping_add(d[i]).wrapping_add(next[i]);
    }
    from_words(result)
}

fn halves(v: u128) -> [u64; 2] {
    [v as u64, (v >> 64) as u64]
}

fn from_halves([low, high]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// SHA512H.
pub(crate) fn sha512h(v: &mut Vector) -> u128 {
    let (x, y, w) = (halves(v.n), halves(v.m), halves(v.d));
    let sum1 = |e: u64| e.rotate_right(14) ^ e.rotate_right(18) ^ e.rotate_right(41);
    let choose = |e: u64, f: u64, g: u64| e & f ^ !e & g;
    let high = choose(y[1], x[0], x[1]).wrapping_add(sum1(y[1])).wrapping_add(w[1]);
    let e = high.wrapping_add(y[0]);
    let low = choose(e, y[1], x[0]).wrapping_add(sum1(e)).wrapping_add(w[0]);
    from_halves([low, high])
}

/// SHA512H2.
pub(crate) fn sha512h2(v: &mut Vector) -> u128 {
    let (x, y, w) = (halves(v.n), halves(v.m), halves(v.d));
    let sum0 = |a: u64| a.rotate_right(28) ^ a.rotate_right(34) ^ a.rotate_right(39);
    let majority = |a: u64, b: u64, c: u64| a & b ^ a & c ^ b & c;
    let high = majority(x[0], y[1], y[0]).wrapping_add(sum0(y[0])).wrapping_add(w[1]);
    let low = majority(high, y[0], y[1]).wrapping_add(sum0(high)).wrapping_add(w[0]);
    from_halves([low, high])
}

/// SHA512SU0.
pub(crate) fn sha512su0(v: &mut Vector) -> u128 {
    let (w, x) = (halves(v.d), halves(v.n));
    let sigma = |a: u64| a.rotate_right(1) ^ a.rotate_right(8) ^ a >> 7;
    from_halves([w[0].wrapping_add(sigma(w[1])), w[1].wrapping_add(sigma(x[0]))])
}

/// SHA512SU1.
pub(crate) fn sha512su1(v: &mut Vector) -> u128 {
    let (x, y, w) = (halves(v.n), halves(v.m), halves(v.d));
    let sigma = |a: u64| a.rotate_right(19) ^ a.rotate_right(61) ^ a >> 6;
    from_halves(std::array::from_fn(|i| w[i].wrapping_add(sigma(x[i])).wrapping_add(y[i])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_s_box_is_the_standards() {
        assert_eq!(SBOX[..8], [0x63, 0x7c, 0x77, 0x7b, 0xf2, 0x6b, 0x6f, 0xc5]);
        assert_eq!(SBOX[0x53], 0xed);
        assert_eq!(INVERSE_SBOX[0x63], 0);
        let mut seen = SBOX;
        seen.sort_unstable();
        assert!(seen.iter().enumerate().all(|(i, &byte)| i == usize::from(byte)));
    }
}
