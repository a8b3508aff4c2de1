//! QARMA-64, the block cipher behind pointer authentication codes (Arm ARM, J1.1 "ComputePAC"; R. Avanzi, "The QARMA Block
//! Cipher Family", 2017).
//!
//! A state is sixteen cells of four bits, cell 0 the most significant; four rows of four.

/// A key: w0 and k0 of the paper, the high and low half of a key register pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Key {
    pub(crate) high: u64,
    pub(crate) low: u64,
}

/// A variant: rounds before the reflector, and the substitution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Variant {
    /// FEAT_PACQARMA3: three rounds with the paper's sigma 1.
    Qarma3,
    /// FEAT_PACQARMA5: five rounds with sigma 2.
    Qarma5,
}

/// Sigma 1 and sigma 2.
const SIGMA: [[u8; 16]; 2] = [
    [10, 13, 14, 6, 15, 7, 3, 5, 9, 8, 0, 12, 11, 1, 2, 4],
    [11, 6, 8, 15, 12, 0, 9, 14, 3, 7, 4, 5, 13, 2, 1, 10],
];
/// Digits of pi.
const ROUND: [u64; 5] =
    [0, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89, 0x4528_21e6_38d0_1377];
const ALPHA: u64 = 0xc0ac_29b7_c97c_50dd;
/// Which cell comes to each place.
const TAU: [u8; 16] = [0, 11, 6, 13, 10, 1, 12, 7, 5, 14, 3, 8, 15, 4, 9, 2];
/// The same for the tweak.
const H: [u8; 16] = [6, 5, 14, 15, 0, 1, 2, 3, 7, 12, 13, 4, 8, 9, 10, 11];
/// Cells of the tweak that also pass through a shift register.
const OMEGA: [u8; 7] = [0, 1, 3, 4, 8, 11, 13];

const TAU_INVERSE: [u8; 16] = inverse(TAU);
const H_INVERSE: [u8; 16] = inverse(H);
const SIGMA_INVERSE: [[u8; 16]; 2] = [inverse(SIGMA[0]), inverse(SIGMA[1])];

const fn inverse(of: [u8; 16]) -> [u8; 16] {
    let mut inverse = [0; 16];
    let mut n = 0;
    while n < 16 {
        inverse[of[n] as usize] = n as u8;
        n += 1;
    }
    inverse
}

/// Cells moved.
#[inline]
fn permute(state: u64, from: &[u8; 16]) -> u64 {
    from.iter().fold(0, |moved, &cell| moved << 4 | state >> (60 - 4 * cell) & 15)
}

/// Cells replaced.
#[inline]
fn substitute(state: u64, sigma: &[u8; 16]) -> u64 {
    (0..64).step_by(4).fold(0, |new, low| new | u64::from(sigma[(state >> low & 15) as usize]) << low)
}

/// Every cell rotated left by one.
#[inline]
fn rotate_cells(state: u64) -> u64 {
    (state & 0x7777_7777_7777_7777) << 1 | state >> 3 & 0x1111_1111_1111_1111
}

/// MixColumns: circ(0, rho, rho^2, rho), its own inverse.
#[inline]
fn mix(state: u64) -> u64 {
    let once = rotate_cells(state.rotate_left(16) ^ state.rotate_left(48));
    once ^ rotate_cells(rotate_cells(state.rotate_left(32)))
}

/// The tweak of the next round.
#[inline]
fn forward_tweak(tweak: u64) -> u64 {
    OMEGA.iter().fold(permute(tweak, &H), |tweak, cell| {
        let low = 60 - 4 * cell;
        let old = tweak >> low & 15;
        let new = old >> 1 | (old ^ old >> 1) << 3 & 8;
        tweak ^ (old ^ new) << low
    })
}

/// The tweak of the round before.
#[inline]
fn backward_tweak(tweak: u64) -> u64 {
    let tweak = OMEGA.iter().fold(tweak, |tweak, cell| {
        let low = 60 - 4 * cell;
        let old = tweak >> low & 15;
        let new = old << 1 & 15 | (old ^ old >> 3) & 1;
        tweak ^ (old ^ new) << low
    });
    permute(tweak, &H_INVERSE)
}

/// ComputePAC: `data` enciphered under `tweak`.
pub(crate) fn compute_pac(data: u64, tweak: u64, key: Key, variant: Variant) -> u64 {
    match variant {
        Variant::Qarma3 => encipher(data, tweak, key, 2, 0),
        Variant::Qarma5 => encipher(data, tweak, key, 4, 1),
    }
}

/// The cipher with round constants up to `last`.
fn encipher(data: u64, mut tweak: u64, key: Key, last: usize, sigma: usize) -> u64 {
    let (w0, k0) = (key.high, key.low);
    let w1 = w0.rotate_right(1) ^ w0 >> 63;
    let (sub, inverse_sub) = (&SIGMA[sigma], &SIGMA_INVERSE[sigma]);
    let mut state = data ^ w0;
    for (round, constant) in ROUND[..=last].iter().enumerate() {
        state ^= k0 ^ tweak ^ constant;
        if round > 0 {
            state = mix(permute(state, &TAU));
        }
        state = substitute(state, sub);
        tweak = forward_tweak(tweak);
    }
    // A forward round, the reflector, a backward round.
    state = substitute(mix(permute(state ^ w1 ^ tweak, &TAU)), sub);
    state = permute(mix(permute(state, &TAU)) ^ k0, &TAU_INVERSE);
    state = permute(mix(substitute(state, inverse_sub)), &TAU_INVERSE) ^ w0 ^ tweak;
    for (round, constant) in ROUND[..=last].iter().enumerate().rev() {
        state = substitute(state, inverse_sub);
        if round > 0 {
            state = permute(mix(state), &TAU_INVERSE);
        }
        tweak = backward_tweak(tweak);
        state ^= constant ^ k0 ^ tweak ^ ALPHA;
    }
    state ^ w1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's test vectors, appendix A: r = 5 with sigma 1 and sigma 2.
    #[test]
    fn published_vectors() {
        let key = Key { high: 0x84be_85ce_9804_e94b, low: 0xec28_02d4_e0a4_88e9 };
        let (data, tweak) = (0xfb62_3599_da6e_8127, 0x477d_469d_ec0b_8762);
        assert_eq!(encipher(data, tweak, key, 4, 0), 0x544b_0ab9_5bda_7c3a);
        assert_eq!(encipher(data, tweak, key, 4, 1), 0xc003_b939_99b3_3765);
        assert_eq!(compute_pac(data, tweak, key, Variant::Qarma5), 0xc003_b939_99b3_3765);
    }

    #[test]
    fn tweaks_go_back() {
        let tweak = 0x477d_469d_ec0b_8762;
        assert_eq!(backward_tweak(forward_tweak(tweak)), tweak);
    }
}
