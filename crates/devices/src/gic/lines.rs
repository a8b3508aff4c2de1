//! The state of 32 interrupts, a bit each, and the registers that show it: the same in distributors of both versions
//! and in GICv3's redistributors (IHI 0048B, 4.3; IHI 0069H, 12.9 and 12.11).

use super::PRIORITY_MASK;
use serde::{Deserialize, Serialize};

/// 32 interrupts whose numbers start at a multiple of 32.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lines {
    /// Group 1 rather than 0.
    pub(crate) group: u32,
    pub(crate) enabled: u32,
    /// Pending by an edge or a register write; what a high level adds is not in here.
    pub(crate) latched: u32,
    /// Inputs.
    pub(crate) level: u32,
    pub(crate) active: u32,
    /// Edge-triggered rather than level-sensitive.
    pub(crate) edge: u32,
    pub(crate) priority: [u8; 32],
}

/// A number (0 to 31) among the 32, and its priority.
pub(crate) type Best = (u8, u32);

impl Lines {
    /// 32 of a CPU's own interrupts: SGIs are edge-triggered and cannot be otherwise.
    pub(crate) fn private() -> Self {
        Self { edge: 0xffff, ..Self::default() }
    }

    pub(crate) fn pending(&self) -> u32 {
        self.latched | self.level & !self.edge
    }

    /// Pending, enabled and not being handled, of the groups in `groups` (bit 0: group 0, bit 1: group 1).
    pub(crate) fn candidates(&self, groups: u32) -> u32 {
        let of_groups =
            if groups & 1 != 0 { !self.group } else { 0 } | if groups & 2 != 0 { self.group } else { 0 };
        self.pending() & self.enabled & !self.active & of_groups
    }

    /// The candidate to be handled first: of the lowest priority value, then of the lowest number.
    pub(crate) fn best(&self, mut candidates: u32) -> Option<Best> {
        let mut best: Option<Best> = None;
        while candidates != 0 {
            let number = candidates.trailing_zeros();
            candidates &= candidates - 1;
            let priority = self.priority[number as usize];
            if best.is_none_or(|(other, _)| priority < other) {
                best = Some((priority, number));
            }
        }
        best
    }

    /// An input changes.
    pub(crate) fn set_input(&mut self, number: u32, level: bool) {
        let bit = 1 << number;
        if level {
            self.latched |= bit & !self.level & self.edge;
            self.level |= bit;
        } else {
            self.level &= !bit;
        }
    }

    /// A CPU starts to handle it: pending no more, unless its level is still high.
    pub(crate) fn activate(&mut self, number: u32) {
        self.latched &= !(1 << number);
        self.active |= 1 << number;
    }

    pub(crate) fn is_possible(&self) -> bool {
        self.priority.iter().all(|priority| priority & !PRIORITY_MASK == 0)
    }
}

/// What a register with a field for each interrupt means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
    Priority,
    Config,
}

/// Where each array of registers starts, and bits an interrupt. Each has room for 1024 interrupts.
const ARRAYS: [(u64, u64, Field); 9] = [
    (0x080, 1, Field::Group),
    (0x100, 1, Field::SetEnable),
    (0x180, 1, Field::ClearEnable),
    (0x200, 1, Field::SetPending),
    (0x280, 1, Field::ClearPending),
    (0x300, 1, Field::SetActive),
    (0x380, 1, Field::ClearActive),
    (0x400, 8, Field::Priority),
    (0xc00, 2, Field::Config),
];

/// One 32-bit register of an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) field: Field,
    /// Which 32 interrupts.
    pub(crate) bank: usize,
    /// The first of them that the register shows.
    pub(crate) first: u32,
}

/// The register at a 4-byte-aligned offset, if it belongs to an array.
pub(crate) fn place(offset: u64) -> Option<Place> {
    let of_array = |&&(start, bits, _): &&(u64, u64, Field)| (start..start + bits * 128).contains(&offset);
    let &(start, bits, field) = ARRAYS.iter().find(of_array)?;
    let interrupt = (offset - start) * 8 / bits;
    Some(Place { field, bank: (interrupt / 32) as usize, first: (interrupt % 32) as u32 })
}

impl Lines {
    /// What the register shows.
    pub(crate) fn read(&self, field: Field, first: u32) -> u32 {
        match field {
            Field::Group => self.group,
            Field::SetEnable | Field::ClearEnable => self.enabled,
            Field::SetPending | Field::ClearPending => self.pending(),
            Field::SetActive | Field::ClearActive => self.active,
            Field::Priority => {
                let at = first as usize;
                u32::from_le_bytes([0, 1, 2, 3].map(|n| self.priority.get(at + n).copied().unwrap_or(0)))
            }
            Field::Config => {
                (0..16).fold(0, |value, n| value | (self.edge >> (first + n) & 1) << (2 * n + 1))
            }
        }
    }

    /// A guest writes the bits in `mask` of the register; interrupts not in `exist` stay as they are.
    pub(crate) fn write(&mut self, field: Field, first: u32, value: u32, mask: u32, exist: u32) {
        let set = value & mask & exist;
        match field {
            Field::Group => self.group = self.group & !(mask & exist) | set,
            Field::SetEnable => self.enabled |= set,
            Field::ClearEnable => self.enabled &= !set,
            Field::SetPending => self.latched |= set,
            Field::ClearPending => self.latched &= !set,
            Field::SetActive => self.active |= set,
            Field::ClearActive => self.active &= !set,
            Field::Priority => {
                let bytes = value.to_le_bytes().into_iter().zip(mask.to_le_bytes());
                for (number, (byte, mask)) in (first..32).zip(bytes) {
                    if mask != 0 && exist >> number & 1 != 0 {
                        self.priority[number as usize] = byte & PRIORITY_MASK;
                    }
                }
            }
            Field::Config => {
                for n in 0..16 {
                    let bit = 1u32 << (first + n);
                    if mask >> (2 * n + 1) & 1 != 0 && exist & bit != 0 {
                        self.edge = self.edge & !bit | if value >> (2 * n + 1) & 1 != 0 { bit } else { 0 };
                    }
                }
            }
        }
    }
}

/// A guest access as accesses to 32-bit registers: `(offset, bits of it, the value's place in the register)`. Accesses
/// that are not aligned to their size reach nothing.
pub(crate) fn words(offset: u64, size: usize) -> impl Iterator<Item = (u64, u32, u32)> {
    let aligned = matches!(size, 1 | 2 | 4 | 8) && offset.is_multiple_of(size as u64);
    let count = if !aligned { 0 } else { size.div_ceil(4) as u64 };
    let shift = (offset % 4 * 8) as u32;
    let mask = if size >= 4 { u32::MAX } else { ((1 << (8 * size)) - 1) << shift };
    (0..count).map(move |n| (offset / 4 * 4 + 4 * n, mask, shift))
}

/// Reads `size` bytes of 32-bit registers.
pub(crate) fn read_words(offset: u64, size: usize, mut read: impl FnMut(u64) -> u32) -> u64 {
    let parts = words(offset, size).enumerate();
    parts.fold(0, |value, (n, (at, mask, shift))| value | u64::from((read(at) & mask) >> shift) << (32 * n))
}

/// Writes `size` bytes to 32-bit registers: `write(offset, value, mask)`.
pub(crate) fn write_words(offset: u64, size: usize, value: u64, mut write: impl FnMut(u64, u32, u32)) {
    for (n, (at, mask, shift)) in words(offset, size).enumerate() {
        write(at, ((value >> (32 * n)) as u32) << shift & mask, mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_found() {
        let at = |offset, field, bank, first| assert_eq!(place(offset), Some(Place { field, bank, first }));
        at(0x80, Field::Group, 0, 0);
        at(0x17c, Field::SetEnable, 31, 0);
        at(0x420, Field::Priority, 1, 0);
        at(0x444, Field::Priority, 2, 4);
        at(0xc04, Field::Config, 0, 16);
        at(0xc08, Field::Config, 1, 0);
        assert_eq!((place(0x7c), place(0x800), place(0xd00)), (None, None, None));
    }

    #[test]
    fn fields_are_read_back() {
        let mut lines = Lines::default();
        lines.write(Field::SetEnable, 0, 0xff, u32::MAX, 0xf0);
        assert_eq!(lines.read(Field::ClearEnable, 0), 0xf0);
        lines.write(Field::Priority, 8, 0xaabb_ccdd, 0x00ff_ff00, u32::MAX);
        assert_eq!(lines.read(Field::Priority, 8), 0x00b8_c800);
        lines.write(Field::Config, 16, 0xffff_fffe, u32::MAX, u32::MAX);
        assert_eq!((lines.edge, lines.read(Field::Config, 16)), (0xffff_0000, 0xaaaa_aaaa));
        lines.write(Field::Config, 16, 0, 0xff, u32::MAX);
        assert_eq!(lines.edge, 0xfff0_0000);
    }

    #[test]
    fn edges_are_latched_and_levels_are_not() {
        let mut lines = Lines { edge: 1, enabled: 3, ..Lines::default() };
        for number in 0..2 {
            lines.set_input(number, true);
            lines.set_input(number, false);
        }
        assert_eq!(lines.pending(), 1);
        lines.set_input(1, true);
        assert_eq!(lines.candidates(1), 3);
        lines.activate(0);
        lines.activate(1);
        assert_eq!((lines.pending(), lines.candidates(1)), (2, 0));
    }

    #[test]
    fn accesses_are_split_into_words() {
        assert_eq!(words(0x10, 8).collect::<Vec<_>>(), [(0x10, u32::MAX, 0), (0x14, u32::MAX, 0)]);
        assert_eq!(words(0x13, 1).collect::<Vec<_>>(), [(0x10, 0xff00_0000, 24)]);
        assert_eq!(words(0x12, 4).count(), 0);
        let mut written = Vec::new();
        write_words(0x11, 1, 0xab, |at, value, mask| written.push((at, value, mask)));
        assert_eq!(written, [(0x10, 0xab00, 0xff00)]);
        assert_eq!(read_words(0x8, 8, |at| at as u32), 0x0000_000c_0000_0008);
    }
}
