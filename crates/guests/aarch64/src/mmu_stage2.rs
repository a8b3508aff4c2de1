//! Stage 2 translation of the EL1&0 regime (the manual, D8.2.3 and D8.4.2).

use crate::{
    Aarch64, Cpu, Features,
    mmu::{Fault, Rights, Walker},
    mmu_table::{FaultKind, Geometry, Leaf, TableFault, desc, output_bits},
    system::{hcr, sctlr},
};
use isomer_core::Gpa;
use isomer_ir::Access;

/// Bits of stage 2 descriptors.
mod s2 {
    pub(super) const READ: u64 = 1 << 6;
    pub(super) const WRITE: u64 = 1 << 7;
    pub(super) const XN_SHIFT: u32 = 53;
}

/// Attempts to update a descriptor that others change at the same time.
const UPDATES: u32 = 64;

/// Stage 2 as VTCR_EL2 and VTTBR_EL2 set it up; an invalid set-up faults every access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stage2 {
    geometry: Option<Geometry>,
    vttbr: u64,
    update_access: bool,
    update_dirty: bool,
}

/// What stage 2 makes of an intermediate address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Second {
    pub(crate) address: u64,
    pub(crate) shift: u8,
    pub(crate) rights: Rights,
}

/// Stage 2 if it is on.
pub(crate) fn of(guest: &Aarch64, cpu: &Cpu) -> Option<Stage2> {
    (cpu.sys.hcr() & (hcr::VM | hcr::DC) != 0).then(|| Stage2 {
        geometry: geometry(guest, cpu.sys.vtcr),
        vttbr: cpu.sys.vttbr,
        update_access: cpu.sys.vtcr & 1 << 21 != 0 && guest.has(Features::HAF),
        update_dirty: cpu.sys.vtcr & 3 << 21 == 3 << 21 && guest.has(Features::HDBS),
    })
}

fn geometry(guest: &Aarch64, vtcr: u64) -> Option<Geometry> {
    let granule = guest.usable_granule(match vtcr >> 14 & 3 {
        0 => Some(12),
        1 => Some(16),
        2 => Some(14),
        _ => None,
    });
    let lpa2 = granule != 16 && vtcr & 1 << 32 != 0 && guest.has(Features::LPA2);
    let lpa = granule == 16 && vtcr >> 16 & 7 == 6 && guest.has(Features::LPA);
    let size = (vtcr & 0x3f) as u32;
    let smallest = 64 - guest.physical_bits().min(if lpa2 || lpa { 52 } else { 48 });
    if !(smallest..=if guest.has(Features::TTST) { 48 } else { 39 }).contains(&size) {
        return None;
    }
    let input_bits = 64 - size;
    let field = (vtcr >> 6 & 3) as i8;
    let start = match granule {
        12 if lpa2 && vtcr & 1 << 33 != 0 => -1,
        12 if field == 3 => 3,
        12 => 2 - field,
        _ => 3 - field,
    };
    let geometry = Geometry {
        granule,
        input_bits,
        output_bits: output_bits(vtcr >> 16, guest.physical_bits().min(if lpa2 || lpa { 52 } else { 48 })),
        start,
        lpa2,
        lpa,
    };
    // Up to sixteen first tables may be concatenated, one level below where the size alone would start.
    let natural = Geometry::start_of(granule, input_bits);
    let resolved = granule + (4 - start) as u32 * (granule - 3);
    let fits = start == natural || start == natural + 1 && input_bits <= resolved + 4;
    (fits && (-1..=3).contains(&start)).then_some(geometry)
}

impl Stage2 {
    /// Translates an intermediate physical address for `access`.
    pub(crate) fn translate(&self, walker: &Walker<'_>, ipa: u64, access: Access) -> Result<Second, Fault> {
        self.walk(walker, ipa, access).map_err(|table| Fault {
            table,
            ipa: Some(ipa),
            walk: false,
            walk_write: false,
        })
    }

    fn walk(&self, walker: &Walker<'_>, ipa: u64, access: Access) -> Result<Second, TableFault> {
        let none = TableFault { kind: FaultKind::Translation, level: 0 };
        let geometry = self.geometry.ok_or(none)?;
        if ipa >> geometry.input_bits != 0 {
            return Err(none);
        }
        let base = geometry.base(self.vttbr)?;
        let big = walker.cpu.sys.sctlr[2] & sctlr::EE != 0;
        let order = |value: u64| if big { value.swap_bytes() } else { value };
        for _ in 0..UPDATES {
            let leaf = geometry.walk(base, ipa, |at, level| {
                let external = TableFault { kind: FaultKind::External, level };
                walker.memory.load(Gpa(at), 8).map(order).ok_or(external)
            })?;
            let (new, second) = self.leaf(walker, leaf, access)?;
            if new == leaf.desc {
                return Ok(second);
            }
            let external = TableFault { kind: FaultKind::External, level: leaf.level };
            if walker
                .memory
                .compare_exchange(Gpa(leaf.at), 8, order(leaf.desc), order(new))
                .ok_or(external)?
            {
                return Ok(second);
            }
        }
        Err(TableFault { kind: FaultKind::AccessFlag, level: 3 })
    }

    /// The descriptor as the access leaves it, and what it maps.
    fn leaf(&self, walker: &Walker<'_>, leaf: Leaf, access: Access) -> Result<(u64, Second), TableFault> {
        let fault = |kind| TableFault { kind, level: leaf.level };
        if leaf.desc & desc::AF == 0 && !self.update_access {
            return Err(fault(FaultKind::AccessFlag));
        }
        let clean = leaf.desc & s2::WRITE == 0;
        let writable_clean = self.update_dirty && leaf.desc & desc::DBM != 0;
        let xn = leaf.desc >> s2::XN_SHIFT & 3;
        let execute = match xn {
            _ if !walker.guest.has(Features::XNX) => xn & 2 == 0,
            0 => true,
            1 => walker.regime.user,
            2 => false,
            _ => !walker.regime.user,
        };
        let read = leaf.desc & s2::READ != 0;
        let rights = Rights { read, write: !clean || writable_clean, execute: execute && read };
        if !rights.allow(access) {
            return Err(fault(FaultKind::Permission));
        }
        let dirties = access == Access::Store && clean && writable_clean;
        let new = leaf.desc | desc::AF | if dirties { s2::WRITE } else { 0 };
        let rights = Rights { write: rights.write && (!clean || dirties), ..rights };
        Ok((new, Second { address: leaf.output, shift: leaf.shift, rights }))
    }
}
