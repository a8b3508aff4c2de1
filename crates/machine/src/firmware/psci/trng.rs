//! True random number generator firmware interface 1.0 (DEN 0098).

use super::{Answer, Call, Done, Error};

/// TRNG 1.0.
pub(super) const VERSION: u64 = 0x1_0000;
/// Names this generator: a random (version 4) UUID.
pub(super) const UUID: [u32; 4] = [0x5a3c_7e19, 0x2b84_4f6d, 0x91d0_6ce3, 0xb7f2_083a];

/// TRNG_RND(bits): entropy in x1 to x3, the lowest bits in x3; what was not asked for is zero.
pub(super) fn random(call: &mut Call<'_>) -> Answer {
    let width = if call.is_64_bit { 64 } else { 32 };
    let bits = call.args[0];
    if !(1..=3 * width).contains(&bits) {
        return Err(Error::InvalidParameters);
    }
    let mut word = |first: u64| {
        let wanted = bits.saturating_sub(first).min(width);
        if wanted == 0 { 0 } else { call.machine.entropy() >> (64 - wanted) }
    };
    let (low, middle, high) = (word(0), word(width), word(2 * width));
    Ok(Done::Return([Some(0), Some(high), Some(middle), Some(low)]))
}
