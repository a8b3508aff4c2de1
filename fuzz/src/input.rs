//! The bytes a fuzzer gives, as numbers and choices. Reading past the end gives zeros, so every input means something
//! and cutting one short never changes what came before.

/// What is left of an input.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Is everything used up?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `len` bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Everything left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// `size` bytes, up to 8, little-endian.
    pub fn uint(&mut self, size: usize) -> u64 {
        self.take(size.min(8)).iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.uint(1) as u8
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        self.uint(2) as u16
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        self.uint(4) as u32
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        self.uint(8)
    }

    /// The lowest bit of a byte.
    pub fn flag(&mut self) -> bool {
        self.u8() & 1 != 0
    }

    /// A number below `limit` (0 if that is 0), from a byte where one is enough.
    pub fn below(&mut self, limit: usize) -> usize {
        let number = self.uint(if limit <= 256 { 1 } else { 4 }) as usize;
        number.checked_rem(limit).unwrap_or(0)
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Any 64-bit number; small ones, powers of two and masks take one byte.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            small @ 0..=0x7f => small.into(),
            power @ 0x80..=0xbf => 1 << (power & 63),
            mask @ 0xc0..=0xdf => u64::MAX << (2 * (mask & 31)),
            mask @ 0xe0..=0xf7 => u64::MAX >> (8 * (mask & 7)),
            _ => self.u64(),
        }
    }
}
