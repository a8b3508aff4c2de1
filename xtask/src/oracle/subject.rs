//! What the comparison has to be told about each instruction set: one folder implements it.

use super::{
    image::{Harness, Image},
    random::Random,
    record::{Layout, Record},
};
use anyhow::Result;
use isomer_ir::Guest;
use std::{ops::Range, sync::Arc};

/// Code that can be placed anywhere.
pub(crate) type Item = Vec<u8>;

/// Items that run one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    /// The register that holds the record's pointer, which no item writes.
    pub(crate) keeper: u8,
    pub(crate) items: Vec<Item>,
}

impl Sequence {
    pub(crate) fn bytes(&self) -> impl Iterator<Item = u8> {
        self.items.iter().flatten().copied()
    }
}

/// What makes sequences and the states they run from.
pub(crate) trait Generate {
    /// The next sequence.
    ///
    /// # Errors
    /// When the decode table lacks an instruction that this needs.
    fn sequence(&mut self) -> Result<Sequence>;
    /// A state to run from.
    fn input(&mut self) -> Record;
}

/// An instruction set, with the CPU model to compare.
pub(crate) trait Subject {
    /// The guest.
    type Guest: Guest;

    /// QEMU's user-mode emulation of it, as Debian names the program.
    const QEMU: &'static str;
    /// The ELF header's machine and flags.
    const ELF: (u16, u32);

    /// The guest with what both sides have.
    fn guest(&self) -> &Arc<Self::Guest>;
    /// The same CPU, as QEMU's option `-cpu`.
    fn qemu_cpu(&self) -> String;
    /// Makes sequences.
    fn generator(&self, random: Random) -> Box<dyn Generate + '_>;
    /// Where a record has which register.
    fn layout(&self) -> &Layout;
    /// The code around the sequences, at `base`.
    ///
    /// # Errors
    /// When an instruction cannot be encoded.
    fn harness(&self, base: u64, records: Range<u64>) -> Result<Harness>;
    /// Appends a sequence at `at`: behind the load of the record's pointer into the keeper, in front of a jump to `epilogue`.
    ///
    /// # Errors
    /// When the jump does not reach.
    fn place(&self, at: u64, sequence: &Sequence, epilogue: u64) -> Result<Vec<u8>>;
    /// The CPU that runs the program without an operating system.
    fn bare_cpu(&self, image: &Image) -> <Self::Guest as Guest>::Cpu;
    /// The signal that Linux would send for a trap's cause as the bare machine's handler notes it.
    fn signal_of(&self, cause: u64) -> u64;
    /// The classes of instructions that a sequence is made of, for the tally; none where they are not told apart.
    fn classes(&self, _sequence: &Sequence) -> Vec<&'static str> {
        Vec::new()
    }
}
