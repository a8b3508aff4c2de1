//! When a mixed engine changes to what: an interpreter, the reference engine or compiled code of any tier, with blocks of
//! any length, every few to every few thousand instructions. All of it follows from a seed.

use crate::EngineKind;

/// Until when something runs guest code, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    /// The interpreter (which leaves compiled code alone), the reference engine, or what compiles.
    pub(crate) kind: EngineKind,
    /// The most instructions a block is lifted for: other lengths put block boundaries between other instructions.
    pub(crate) block_insns: u32,
}

/// Draws phases.
pub(crate) struct Mixer {
    random: u64,
    /// Instructions retired when the next phase begins.
    next: u64,
}

/// log2 of a phase's longest length; lengths are spread evenly over powers of two.
const LONGEST: u64 = 12;

impl Mixer {
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds differ in few bits, and none may give 0 (the multiplier is 2^64 over the golden ratio).
        Self { random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, next: 0 }
    }

    /// Of `n`: xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators").
    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % n
    }

    /// Instructions left of the present phase, at `insns`.
    pub(crate) fn left(&self, insns: u64) -> u64 {
        self.next.saturating_sub(insns)
    }

    /// The next phase, from `insns` on.
    pub(crate) fn draw(&mut self, insns: u64, longest_block: u32) -> Phase {
        let most = 1 << self.below(LONGEST + 1);
        self.next = insns.saturating_add(1 + self.below(most));
        let kind = match self.below(8) {
            0 => EngineKind::Reference,
            1..=3 => EngineKind::Interpreter,
            _ => EngineKind::Jit,
        };
        let block_insns = [1, 2, 3, 7, longest_block, longest_block][self.below(6) as usize];
        Phase { kind, block_insns: block_insns.min(longest_block) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_from_the_seed_and_vary() {
        let phases = |seed| {
            let mut mixer = Mixer::new(seed);
            let mut at = 0;
            let draw = |_| {
                let phase = mixer.draw(at, 48);
                let left = mixer.left(at);
                at += left;
                (phase.kind.name(), phase.block_insns, left)
            };
            (0..1000).map(draw).collect::<Vec<_>>()
        };
        assert_eq!(phases(7), phases(7));
        assert_ne!(phases(7), phases(8));
        let drawn = phases(0);
        for kind in ["interp", "reference", "jit"] {
            assert!(drawn.iter().filter(|phase| phase.0 == kind).count() > 50, "{kind}");
        }
        assert!(
            drawn.iter().all(|&(_, insns, left)| (1..=48).contains(&insns) && (1..=4096).contains(&left))
        );
        assert!(drawn.iter().any(|phase| phase.2 > 2000) && drawn.iter().any(|phase| phase.2 == 1));
    }
}
