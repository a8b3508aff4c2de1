//! Random numbers and values worth computing with: xoshiro256** (Blackman and Vigna, 2018), seeded by splitmix64.

/// A generator: the same seed and stream give the same numbers on every host.
#[derive(Clone, Debug)]
pub(crate) struct Random([u64; 4]);

impl Random {
    /// Stream number `stream` of `seed`.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut state = seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95);
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }))
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        let Self([a, b, c, d]) = self;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// 0 to `end - 1`; 0 where `end` is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// `first` to `last`.
    pub(crate) fn between(&mut self, first: i64, last: i64) -> i64 {
        first + self.below((last - first + 1).cast_unsigned()).cast_signed()
    }

    /// True that often in a hundred.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of `choices`, which must not be empty.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// An integer as programs and edge cases have them.
    pub(crate) fn integer(&mut self) -> u64 {
        let value = match self.below(8) {
            0 => self.pick(&EDGES),
            1 => self.between(-16, 16).cast_unsigned(),
            2 => 1 << self.below(64),
            3 => (1u64 << self.below(64)).wrapping_add(self.between(-2, 2).cast_unsigned()),
            // A run of ones.
            4 => (u64::MAX >> self.below(64)) & u64::MAX << self.below(64),
            5 => u64::from(self.bits() as u32),
            6 => i64::from(self.bits() as i32).cast_unsigned(),
            _ => self.bits(),
        };
        if self.percent(10) { !value } else { value }
    }

    /// What a floating-point register may hold: doubles, NaN-boxed narrower numbers, and badly boxed ones.
    pub(crate) fn float_register(&mut self) -> u64 {
        match self.below(16) {
            0..=5 => self.float(11, 52),
            6..=10 => u64::MAX << 32 | self.float(8, 23),
            11..=14 => u64::MAX << 16 | self.float(5, 10),
            _ => {
                let boxed = u64::MAX << self.pick(&[16, 32]) | self.float(5, 10);
                boxed ^ 1 << self.between(16, 63)
            }
        }
    }

    /// An IEEE 754 number with exponent and fraction of these widths.
    fn float(&mut self, exponent_bits: u32, fraction_bits: u32) -> u64 {
        let most = (1u64 << exponent_bits) - 1;
        let bias = most >> 1;
        let ones = (1u64 << fraction_bits) - 1;
        let quiet = 1u64 << (fraction_bits - 1);
        let fraction = match self.below(6) {
            0 => 0,
            1 => ones,
            2 => 1 << self.below(u64::from(fraction_bits)),
            3 => ones & !(1 << self.below(u64::from(fraction_bits))),
            4 => ones & ones << self.below(u64::from(fraction_bits)),
            _ => self.bits() & ones,
        };
        let (exponent, fraction) = match self.below(16) {
            0 => (0, 0),
            1 => (most, 0),
            2 => (most, quiet | fraction),
            3 => (most, (fraction & !quiet).max(1)),
            4 => (0, fraction),
            5 => (self.below(2), fraction),
            6 => (most - 1, fraction),
            // Near 1, near the limits of integer conversions, near the smallest normals.
            7..=11 => (bias.wrapping_add_signed(self.between(-3, 3)) & most, fraction),
            12 => (bias.wrapping_add_signed(self.between(7, 65)).min(most), fraction),
            13 => (self.below(u64::from(fraction_bits) + 3).min(most), fraction),
            _ => (self.below(most + 1), fraction),
        };
        (self.bits() & 1) << (exponent_bits + fraction_bits) | exponent << fraction_bits | fraction
    }
}

const EDGES: [u64; 10] = [
    0,
    1,
    u64::MAX,
    1 << 63,
    u64::MAX >> 1,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0xffff_ffff_8000_0000,
    0xffff_ffff_7fff_ffff,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_and_repeat() {
        let first = |seed, stream| Random::new(seed, stream).bits();
        assert_eq!(first(7, 1), first(7, 1));
        assert_ne!(first(7, 1), first(7, 2));
        assert_ne!(first(7, 1), first(8, 1));
    }

    #[test]
    fn ranges_hold() {
        let mut random = Random::new(1, 0);
        let seen: Vec<i64> = (0..1000).map(|_| random.between(-2, 2)).collect();
        assert!((-2..=2).all(|n| seen.contains(&n)) && seen.iter().all(|n| (-2..=2).contains(n)));
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn every_class_of_float_occurs() {
        let mut random = Random::new(1, 0);
        let seen: Vec<f64> = (0..2000).map(|_| f64::from_bits(random.float(11, 52))).collect();
        let has = |class: fn(&f64) -> bool| seen.iter().any(class);
        assert!(has(|v| v.is_infinite()) && has(|v| v.is_subnormal()) && has(|v| *v == 0.0));
        let nan = |v: &f64, quiet| v.is_nan() && (v.to_bits() >> 51 & 1 == 1) == quiet;
        assert!(seen.iter().any(|v| nan(v, true)) && seen.iter().any(|v| nan(v, false)));
    }
}
