//! Translation tables as both stages walk them: geometry, descriptors' addresses, levels (the manual, D8.2 and D8.3).

/// Why a translation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum FaultKind {
    /// An address has more bits than it may.
    AddressSize = 0,
    /// No mapping.
    Translation = 4,
    /// The access flag is clear and hardware does not set it.
    AccessFlag = 8,
    /// The mapping does not allow the access.
    Permission = 12,
    /// A table lies where there is no memory.
    External = 20,
}

/// A failed translation: why, and at which level (-1 to 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TableFault {
    pub(crate) kind: FaultKind,
    pub(crate) level: i8,
}

impl TableFault {
    /// The fault status code of ESR_ELx.IFSC and DFSC.
    pub(crate) const fn status(self) -> u32 {
        match (self.kind, self.level) {
            (FaultKind::AddressSize, -1) => 0b101001,
            (FaultKind::Translation, -1) => 0b101011,
            (FaultKind::External, -1) => 0b010011,
            (kind, level) => kind as u32 | level as u32 & 3,
        }
    }
}

/// Bits of descriptors that both stages share.
pub(crate) mod desc {
    pub(crate) const VALID: u64 = 1;
    pub(crate) const TABLE: u64 = 1 << 1;
    pub(crate) const AF: u64 = 1 << 10;
    pub(crate) const DBM: u64 = 1 << 51;
    /// PXN of stage 1's tables; the four bits above are APTable and UXNTable.
    pub(crate) const TABLE_ATTRIBUTES: u64 = 0xf << 59;
}

/// What a walk starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Geometry {
    /// log2 of the granule: 12, 14 or 16.
    pub(crate) granule: u32,
    /// Bits of the input address that are translated.
    pub(crate) input_bits: u32,
    /// Bits an output address may have.
    pub(crate) output_bits: u32,
    /// Level of the first table.
    pub(crate) start: i8,
    /// Descriptors hold 52-bit addresses as FEAT_LPA2 lays them out.
    pub(crate) lpa2: bool,
    /// Descriptors hold 52-bit addresses as FEAT_LPA lays them out (64 KiB granule).
    pub(crate) lpa: bool,
}

/// Where a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    /// The descriptor.
    pub(crate) desc: u64,
    /// Where it lies, in the walk's own address space.
    pub(crate) at: u64,
    /// Its level.
    pub(crate) level: i8,
    /// The output address.
    pub(crate) output: u64,
    /// log2 of what the descriptor maps.
    pub(crate) shift: u8,
    /// [`desc::TABLE_ATTRIBUTES`] of all tables on the way, or-ed.
    pub(crate) inherited: u64,
}

impl Geometry {
    /// Bits one full table resolves.
    const fn stride(&self) -> u32 {
        self.granule - 3
    }

    /// log2 of what an entry at `level` maps.
    const fn shift(&self, level: i8) -> u32 {
        self.granule + (3 - level) as u32 * self.stride()
    }

    /// The start level that `input_bits` alone ask for (stage 1).
    pub(crate) const fn start_of(granule: u32, input_bits: u32) -> i8 {
        let stride = granule - 3;
        4 - (input_bits - granule).div_ceil(stride) as i8
    }

    /// Table base address held in a TTBR, or why it is none.
    pub(crate) fn base(&self, ttbr: u64) -> Result<u64, TableFault> {
        let entries_bits = self.input_bits.saturating_sub(self.shift(self.start));
        let wide = self.lpa || self.lpa2;
        let align_bits = (entries_bits + 3).max(if wide { 6 } else { 4 });
        let mut base = ttbr & 0x0000_ffff_ffff_fffe & (u64::MAX << align_bits);
        if wide {
            base |= (ttbr >> 2 & 0xf) << 48;
        }
        self.check_output(base, 0)?;
        Ok(base)
    }

    fn check_output(&self, address: u64, level: i8) -> Result<(), TableFault> {
        match address >> self.output_bits {
            0 => Ok(()),
            _ => Err(TableFault { kind: FaultKind::AddressSize, level }),
        }
    }

    /// The address in a descriptor whose low `shift` bits are not part of it.
    fn output(&self, desc: u64, shift: u32) -> u64 {
        let low = u64::MAX << shift;
        if self.lpa2 {
            desc & 0x0003_ffff_ffff_f000 & low | (desc >> 8 & 3) << 50
        } else if self.lpa {
            desc & 0x0000_ffff_ffff_0000 & low | (desc >> 12 & 0xf) << 48
        } else {
            desc & 0x0000_ffff_ffff_f000 & low
        }
    }

    /// May a descriptor at `level` map memory?
    const fn has_blocks(&self, level: i8) -> bool {
        match (self.granule, level) {
            (_, 3) | (12, 1 | 2) | (14 | 16, 2) => true,
            (12, 0) | (14, 1) => self.lpa2,
            (16, 1) => self.lpa,
            _ => false,
        }
    }

    /// Walks from the table at `base` for `address`, whose bits above `input_bits` do not matter. `read` gives the
    /// descriptor at an address, or fails its own way.
    pub(crate) fn walk<E: From<TableFault>>(
        &self,
        base: u64,
        address: u64,
        mut read: impl FnMut(u64, i8) -> Result<u64, E>,
    ) -> Result<Leaf, E> {
        let mut table = base;
        let mut inherited = 0;
        let mut top = self.input_bits;
        let mut level = self.start;
        loop {
            let shift = self.shift(level);
            let index = address >> shift & ((1u64 << top.saturating_sub(shift)) - 1);
            let at = table + index * 8;
            let desc = read(at, level)?;
            let fault = |kind| Err(TableFault { kind, level }.into());
            if desc & desc::VALID == 0 {
                return fault(FaultKind::Translation);
            }
            if level < 3 && desc & desc::TABLE != 0 {
                inherited |= desc & desc::TABLE_ATTRIBUTES;
                table = self.output(desc, self.granule);
                self.check_output(table, level)?;
                top = shift;
                level += 1;
                continue;
            }
            if !self.has_blocks(level) || level == 3 && desc & desc::TABLE == 0 {
                return fault(FaultKind::Translation);
            }
            let frame = self.output(desc, shift);
            self.check_output(frame, level)?;
            let output = frame | address & ((1 << shift) - 1);
            return Ok(Leaf { desc, at, level, output, shift: shift as u8, inherited });
        }
    }
}

/// Output address size that a PS or IPS field asks for, at most what is implemented.
pub(crate) fn output_bits(field: u64, implemented: u32) -> u32 {
    let asked = match field & 7 {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        _ => 52,
    };
    asked.min(implemented)
}
