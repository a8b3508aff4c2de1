//! A record: the state a sequence starts from, replaced by the state it ends with.
//!
//! Each run of a sequence has one. While the sequence runs, one register (its *keeper*) holds the record's pointer;
//! loads and stores go to the scratch bytes around it.

use super::random::Random;
use anyhow::{Context, Result};

/// Bytes in a record; a multiple of the blocks that instructions clear at once.
pub(crate) const BYTES: usize = 1408;
/// From a record's first byte to where its pointer points: the middle of the scratch bytes.
pub(crate) const POINTER: usize = 256;
/// Scratch bytes.
pub(crate) const SCRATCH: usize = 512;
/// Scratch bytes at the end that only a pointer in front of them reaches into.
const LARGEST_ACCESS: i64 = 16;
/// Where accesses of up to 16 bytes may start, from the pointer.
pub(crate) const ACCESSIBLE: (i64, i64) = (-(POINTER as i64), (SCRATCH - POINTER) as i64 - LARGEST_ACCESS);

/// Doublewords of a record, by their distance from the pointer. The keeper is not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i64)]
pub(crate) enum Word {
    X0 = 256,
    /// Sixteen bytes each.
    F0 = 512,
    /// Up to three registers of flags and modes.
    Status = 1024,
    /// The sequence's address.
    Sequence = 1048,
    /// The code that loads the state, keeps the pointer in the keeper, and runs the sequence.
    Prologue = 1056,
    /// The code that stores the state.
    Epilogue = 1064,
    /// What ended the sequence early: a signal's number, or the bare machine's cause.
    Cause = 1072,
    /// Where.
    TrapPc = 1080,
    /// The address that is to blame, where the machine has one.
    TrapValue = 1088,
}

impl Word {
    pub(crate) const fn x(n: u8) -> i64 {
        Self::X0 as i64 + 8 * n as i64
    }
    pub(crate) const fn f(n: u8) -> i64 {
        Self::F0 as i64 + 16 * n as i64
    }
    pub(crate) const fn status(n: u8) -> i64 {
        Self::Status as i64 + 8 * n as i64
    }
}

/// What kind of value a register starts with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Integer,
    Float,
    /// Flags or modes: made by the instruction set's own function.
    Status(fn(&mut Random) -> u64),
}

/// A register and its place.
#[derive(Clone, Debug)]
pub(crate) struct Register {
    pub(crate) name: String,
    pub(crate) at: i64,
    pub(crate) kind: Kind,
}

/// The registers in an instruction set's records.
#[derive(Clone, Debug)]
pub(crate) struct Layout(pub(crate) Vec<Register>);

/// A signal that the sequence ended with, as the reference emulator reports it.
pub(crate) mod signal {
    pub(crate) const ILL: u64 = 4;
    pub(crate) const TRAP: u64 = 5;
    pub(crate) const BUS: u64 = 7;
    pub(crate) const SEGV: u64 = 11;
    /// Those that are handled.
    pub(crate) const ALL: [u64; 4] = [ILL, TRAP, BUS, SEGV];
}

/// One record.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Record(Vec<u8>);

impl Record {
    /// A state to start from.
    pub(crate) fn random(random: &mut Random, layout: &Layout) -> Self {
        let mut record = Self(vec![0; BYTES]);
        for word in 0..SCRATCH / 8 {
            let value = if random.percent(50) { random.integer() } else { random.float_register() };
            record.set(8 * word as i64 - POINTER as i64, value);
        }
        for register in &layout.0 {
            let value = match register.kind {
                Kind::Integer => random.integer(),
                Kind::Float => random.float_register(),
                Kind::Status(make) => make(random),
            };
            record.set(register.at, value);
        }
        record
    }

    /// The record in `bytes`.
    ///
    /// # Errors
    /// When that many bytes are no record.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        (bytes.len() == BYTES).then(|| Self(bytes.to_owned())).context("a record is cut off")
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The doubleword `distance` bytes from the pointer; 0 outside.
    pub(crate) fn get(&self, distance: i64) -> u64 {
        let at = usize::try_from(distance + POINTER as i64).unwrap_or(BYTES);
        self.0.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    /// Sets the doubleword `distance` bytes from the pointer.
    pub(crate) fn set(&mut self, distance: i64, value: u64) {
        let at = usize::try_from(distance + POINTER as i64).unwrap_or(BYTES);
        if let Some(bytes) = self.0.get_mut(at..at + 8) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// The cause as a signal, and nothing that only one side knows: as the reference emulator would store it.
    pub(crate) fn normalize(&mut self, signal_of: impl Fn(u64) -> u64) {
        self.set(Word::TrapValue as i64, 0);
        let cause = self.get(Word::Cause as i64);
        if cause != 0 {
            self.set(Word::Cause as i64, signal_of(cause));
        }
    }

    /// What differs from `other`: a name, and this one's and the other's value.
    pub(crate) fn differences(&self, other: &Self, layout: &Layout) -> Vec<(String, u64, u64)> {
        let scratch = (0..SCRATCH as i64 / 8).map(|n| 8 * n - POINTER as i64);
        let scratch = scratch.map(|at| (at, format!("scratch{at:+}")));
        let rest = [(Word::Cause, "signal"), (Word::TrapPc, "pc"), (Word::TrapValue, "tval")]
            .map(|(word, name)| (word as i64, name.to_owned()));
        let registers = layout.0.iter().map(|register| (register.at, register.name.clone()));
        registers
            .chain(rest)
            .chain(scratch)
            .map(|(at, name)| (name, self.get(at), other.get(at)))
            .filter(|(_, a, b)| a != b)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout(vec![Register { name: "a0".into(), at: Word::x(10), kind: Kind::Integer }])
    }

    #[test]
    fn differences_are_named() {
        let first = Record::random(&mut Random::new(1, 0), &layout());
        let mut second = first.clone();
        assert!(first.differences(&second, &layout()).is_empty());
        second.set(Word::x(10), !first.get(Word::x(10)));
        second.set(-256, !first.get(-256));
        let names: Vec<_> =
            first.differences(&second, &layout()).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["a0", "scratch-256"]);
    }

    #[test]
    fn causes_become_signals() {
        let mut record = Record::random(&mut Random::new(1, 0), &layout());
        record.set(Word::Cause as i64, 6);
        record.set(Word::TrapValue as i64, 0x123);
        record.normalize(|cause| cause + 1);
        assert_eq!((record.get(Word::Cause as i64), record.get(Word::TrapValue as i64)), (7, 0));
    }

    #[test]
    fn nothing_lies_outside() {
        let mut record = Record::random(&mut Random::new(1, 0), &layout());
        let before = record.clone();
        record.set(BYTES as i64, 1);
        record.set(-257, 1);
        assert!(record == before && record.get(BYTES as i64) == 0 && Record::from_bytes(&[0; 8]).is_err());
    }
}
