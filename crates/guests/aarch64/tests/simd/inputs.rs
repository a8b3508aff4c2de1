//! What registers and memory hold before a recorded instruction: numbers that matter to vectors, from a seed.

/// The memory that recorded instructions access.
pub(crate) const WINDOW: u64 = 0x1000_0000;
/// Its size in bytes.
pub(crate) const SIZE: usize = 0x4_0000;

/// The generator of inputs (SplitMix64's finalizer).
const fn mix(seed: u64) -> u64 {
    let x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// A lane of `bits`: small, extreme, or as a floating-point number zero, subnormal, infinite, NaN or near 1.
fn lane(random: u64, bits: u32) -> u64 {
    let ones = u64::MAX >> (64 - bits);
    let sign = (random >> 8 & 1) << (bits - 1);
    let fraction = match bits {
        8 => 3,
        16 => 10,
        32 => 23,
        _ => 52,
    };
    let exponents = ones >> (fraction + 1);
    let frac = match random >> 9 & 3 {
        0 => 0,
        1 => 1 << (random >> 32 & 63).min(fraction - 1),
        _ => mix(random) & ((1 << fraction) - 1),
    };
    let exp = match random >> 11 & 7 {
        0 => 0,
        1 => exponents,
        2 => exponents - 1,
        3 => 1,
        _ => (exponents / 2).wrapping_sub(5).wrapping_add(random >> 20 & 15) & exponents,
    };
    match random & 7 {
        0 => mix(random) & ones,
        1 => sign | [0, 1, ones >> 1, 2][(random >> 16 & 3) as usize],
        _ => sign | exp << fraction | frac,
    }
}

/// What Vn holds.
pub(crate) fn vector(seed: u64, n: u64) -> u128 {
    let start = mix(seed << 16 | n);
    let bits = [8, 16, 16, 32, 32, 64, 64, 64][(start & 7) as usize];
    (0..128 / bits).fold(0, |v, i| {
        let random = mix(start.wrapping_add(u64::from(i) << 32));
        v | u128::from(lane(random, bits)) << (i * bits)
    })
}

/// What Xn holds; small numbers before a memory access, where it may be an offset.
pub(crate) fn general(seed: u64, n: u64, memory: bool) -> u64 {
    let random = mix(seed << 16 | 1 << 8 | n);
    match random & 3 {
        _ if memory => random >> 32 & 0x1ff,
        0 => random >> 32 & 63,
        1 => lane(random, 64),
        2 => random as i32 as u64,
        _ => random,
    }
}

/// What the window holds, a doubleword each.
pub(crate) fn memory() -> Vec<u64> {
    let mut state = 12_345u64;
    let word = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 29
    };
    (0..SIZE / 8).map(word).collect()
}
