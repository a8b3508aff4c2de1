//! Address translation, stage 1 and the whole (the manual, D8: "The AArch64 Virtual Memory System Architecture").
//!
//! The contiguous bit is a hint and is not taken: TLB entries are as large as their descriptor. Memory types are
//! reported by `at` only.

use crate::{
    Aarch64, Cpu, Features, Trap, debug,
    mmu_stage2::{self, Stage2},
    mmu_table::{FaultKind, Geometry, Leaf, TableFault, desc, output_bits},
    mode::mmu as index,
    system::{hcr, sctlr},
    trap::{ec, syndrome},
};
use isomer_core::{Gpa, Gva};
use isomer_ir::{Access, MmuIndex, Page, guest::PhysMemory};
use std::sync::atomic::Ordering;

/// Bits of stage 1 descriptors (the manual, D8.3.1).
mod s1 {
    pub(super) const USER: u64 = 1 << 6;
    pub(super) const READ_ONLY: u64 = 1 << 7;
    pub(super) const NOT_GLOBAL: u64 = 1 << 11;
    pub(super) const GUARDED: u64 = 1 << 50;
    pub(super) const PXN: u64 = 1 << 53;
    pub(super) const UXN: u64 = 1 << 54;
    pub(super) const PXN_TABLE: u64 = 1 << 59;
    pub(super) const UXN_TABLE: u64 = 1 << 60;
    pub(super) const NO_USER_TABLE: u64 = 1 << 61;
    pub(super) const READ_ONLY_TABLE: u64 = 1 << 62;
}

/// The page size with translation off: a gigabyte.
const FLAT_SHIFT: u8 = 30;
/// Attempts to update a descriptor that others change at the same time.
const UPDATES: u32 = 64;

/// A translation that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    /// Why.
    pub(crate) table: TableFault,
    /// The intermediate physical address, if stage 2 failed.
    pub(crate) ipa: Option<u64>,
    /// Stage 2 failed for an access of stage 1's walk.
    pub(crate) walk: bool,
    /// The access of the walk was a write.
    pub(crate) walk_write: bool,
}

impl From<TableFault> for Fault {
    fn from(table: TableFault) -> Self {
        Self { table, ipa: None, walk: false, walk_write: false }
    }
}

/// What may be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rights {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) execute: bool,
}

impl Rights {
    pub(crate) const ALL: Self = Self { read: true, write: true, execute: true };

    pub(crate) const fn allow(self, access: Access) -> bool {
        match access {
            Access::Load => self.read,
            Access::Store => self.write,
            Access::Fetch => self.execute,
        }
    }
}

/// A translation that succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Translation {
    /// The output address.
    pub(crate) address: u64,
    /// log2 of the size over which it holds.
    pub(crate) shift: u8,
    /// What may be done without another walk.
    pub(crate) rights: Rights,
    /// The same for every ASID.
    pub(crate) global: bool,
    /// The MAIR byte.
    pub(crate) attributes: u8,
    /// SH.
    pub(crate) shareability: u8,
    /// A guarded page (BTI).
    pub(crate) guarded: bool,
}

/// Which regime an index names: the level whose registers rule it, whether as EL0, and whether PAN applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Regime {
    pub(crate) el: usize,
    pub(crate) user: bool,
    pub(crate) pan: bool,
    /// There are two ranges of addresses and ASIDs.
    pub(crate) two_ranges: bool,
}

impl Regime {
    pub(crate) const fn of(mmu: MmuIndex) -> Self {
        let (el, user, pan, two_ranges) = match mmu {
            index::E10_0 => (1, true, false, true),
            index::E10_1 => (1, false, false, true),
            index::E10_1_PAN => (1, false, true, true),
            index::E20_0 => (2, true, false, true),
            index::E20_2 => (2, false, false, true),
            index::E20_2_PAN => (2, false, true, true),
            _ => (2, false, false, false),
        };
        Self { el, user, pan, two_ranges }
    }
}

/// TCR_ELx for one range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Control {
    size: u32,
    granule: Option<u32>,
    disabled: bool,
    top_byte_ignored: bool,
    /// The same for fetches.
    top_byte_ignored_code: bool,
    output: u64,
    update_access: bool,
    update_dirty: bool,
    flat_permissions: bool,
    no_user: bool,
    wide: bool,
    share: u8,
}

const fn granule(field: u64, upper: bool) -> Option<u32> {
    match (upper, field & 3) {
        (false, 0) | (true, 2) => Some(12),
        (false, 1) | (true, 3) => Some(16),
        (false, 2) | (true, 1) => Some(14),
        _ => None,
    }
}

impl Control {
    /// TCR_EL1, and TCR_EL2 of a host.
    fn two_ranges(tcr: u64, upper: bool) -> Self {
        let bit = |n: u32| tcr >> n & 1 != 0;
        let n = upper as u32;
        let half = if upper { tcr >> 16 } else { tcr };
        let ignored = bit(37 + n);
        Self {
            size: (half & 0x3f) as u32,
            granule: granule(half >> 14, upper),
            disabled: half & 1 << 7 != 0,
            top_byte_ignored: ignored,
            top_byte_ignored_code: ignored && !bit(51 + n),
            output: tcr >> 32 & 7,
            update_access: bit(39),
            update_dirty: bit(39) && bit(40),
            flat_permissions: bit(41 + n),
            no_user: bit(55 + n),
            wide: bit(59),
            share: (half >> 12 & 3) as u8,
        }
    }

    /// TCR_EL2 of a hypervisor.
    fn one_range(tcr: u64) -> Self {
        let bit = |n: u32| tcr >> n & 1 != 0;
        Self {
            size: (tcr & 0x3f) as u32,
            granule: granule(tcr >> 14, false),
            disabled: false,
            top_byte_ignored: bit(20),
            top_byte_ignored_code: bit(20) && !bit(29),
            output: tcr >> 16 & 7,
            update_access: bit(21),
            update_dirty: bit(21) && bit(22),
            flat_permissions: bit(24),
            no_user: false,
            wide: bit(32),
            share: (tcr >> 12 & 3) as u8,
        }
    }

    fn of(cpu: &Cpu, regime: Regime, upper: bool) -> Self {
        let tcr = cpu.sys.tcr[regime.el];
        if regime.two_ranges { Self::two_ranges(tcr, upper) } else { Self::one_range(tcr) }
    }
}

/// Is the top byte of branch destinations ignored at level `el`, for the lower and the upper range?
pub(crate) fn ignores_top_byte_of_code(cpu: &Cpu, el: u8) -> (bool, bool) {
    let level = cpu.sys.regime_el(el);
    let two_ranges = level == 1 || cpu.sys.e2h();
    let regime = Regime { el: level, user: el == 0, pan: false, two_ranges };
    let ignored = |upper| Control::of(cpu, regime, upper).top_byte_ignored_code;
    (ignored(false), two_ranges && ignored(true))
}

/// The address as it is translated: with its top byte replaced where that is ignored.
pub(crate) fn untagged(cpu: &Cpu, gva: u64, access: Access, mmu: MmuIndex) -> u64 {
    let regime = Regime::of(mmu);
    let upper = gva >> 55 & 1 != 0;
    let control = Control::of(cpu, regime, upper && regime.two_ranges);
    let ignored = match access {
        Access::Fetch => control.top_byte_ignored_code,
        _ => control.top_byte_ignored,
    };
    match (ignored, upper && regime.two_ranges) {
        (false, _) => gva,
        (true, true) => gva | 0xff << 56,
        (true, false) => gva & (u64::MAX >> 8),
    }
}

/// One translation in progress.
pub(crate) struct Walker<'a> {
    pub(crate) guest: &'a Aarch64,
    pub(crate) cpu: &'a Cpu,
    pub(crate) memory: &'a dyn PhysMemory,
    pub(crate) access: Access,
    pub(crate) regime: Regime,
    /// Stage 2, where it applies.
    pub(crate) stage2: Option<Stage2>,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(
        guest: &'a Aarch64,
        cpu: &'a Cpu,
        memory: &'a dyn PhysMemory,
        access: Access,
        mmu: MmuIndex,
    ) -> Self {
        let regime = Regime::of(mmu);
        let stage2 = if regime.el == 1 { mmu_stage2::of(guest, cpu) } else { None };
        Self { guest, cpu, memory, access, regime, stage2 }
    }

    /// Is stage 1 translation on?
    fn stage1_on(&self) -> bool {
        let bits = self.cpu.sys.hcr();
        let overridden = self.regime.el == 1 && bits & (hcr::DC | hcr::TGE) != 0;
        self.cpu.sys.sctlr[self.regime.el] & sctlr::M != 0 && !overridden
    }

    /// Stage 1 and stage 2. `gva` is untagged.
    pub(crate) fn translate(&self, gva: u64) -> Result<Translation, Fault> {
        let first = self.stage1(gva)?;
        let Some(stage2) = &self.stage2 else { return Ok(first) };
        let second = stage2.translate(self, first.address, self.access)?;
        Ok(Translation {
            address: second.address,
            shift: first.shift.min(second.shift),
            rights: Rights {
                read: first.rights.read && second.rights.read,
                write: first.rights.write && second.rights.write,
                execute: first.rights.execute && second.rights.execute,
            },
            ..first
        })
    }

    /// Stage 1 alone.
    pub(crate) fn stage1(&self, gva: u64) -> Result<Translation, Fault> {
        if self.stage1_on() { self.tables(gva) } else { self.flat(gva) }
    }

    /// Translation off: addresses are physical (or stage 2's input), data is Device memory unless HCR_EL2.DC.
    fn flat(&self, gva: u64) -> Result<Translation, Fault> {
        if gva >> self.guest.physical_bits() != 0 {
            return Err(TableFault { kind: FaultKind::AddressSize, level: 0 }.into());
        }
        let cacheable = self.regime.el == 1 && self.cpu.sys.hcr() & hcr::DC != 0;
        let attributes = match self.access {
            _ if cacheable => 0xff,
            Access::Fetch if self.cpu.sys.sctlr[self.regime.el] & sctlr::I != 0 => 0xaa,
            Access::Fetch => 0x44,
            _ => 0,
        };
        Ok(Translation {
            address: gva,
            shift: FLAT_SHIFT,
            rights: Rights::ALL,
            global: true,
            attributes,
            shareability: if cacheable { 0 } else { 2 },
            guarded: false,
        })
    }

    /// The geometry of the tables for a range, and its input size in bits; `None` for reserved sizes.
    fn geometry(&self, control: &Control) -> Option<Geometry> {
        // A granule that is not there is as good as any that is.
        let granule = self.guest.usable_granule(control.granule);
        let has = |feature| self.guest.has(feature);
        let lpa2 = control.wide && granule != 16 && has(Features::LPA2);
        let lpa = granule == 16 && has(Features::LPA) && control.output == 6;
        let smallest = if lpa2 || granule == 16 && has(Features::LVA) { 12 } else { 16 };
        let largest = match granule {
            _ if !has(Features::TTST) => 39,
            16 => 47,
            _ => 48,
        };
        if !(smallest..=largest).contains(&control.size) {
            return None;
        }
        let input_bits = 64 - control.size;
        let implemented = self.guest.physical_bits().min(if lpa2 || lpa { 52 } else { 48 });
        Some(Geometry {
            granule,
            input_bits,
            output_bits: output_bits(control.output, implemented),
            start: Geometry::start_of(granule, input_bits),
            lpa2,
            lpa,
        })
    }

    fn tables(&self, gva: u64) -> Result<Translation, Fault> {
        let none = TableFault { kind: FaultKind::Translation, level: 0 };
        let upper = gva >> 55 & 1 != 0;
        let control = Control::of(self.cpu, self.regime, upper && self.regime.two_ranges);
        let geometry = self.geometry(&control).ok_or(none)?;
        let high = gva >> geometry.input_bits;
        let expected = if upper && self.regime.two_ranges { u64::MAX >> geometry.input_bits } else { 0 };
        if high != expected || control.disabled || self.regime.user && control.no_user {
            return Err(none.into());
        }
        let registers =
            if upper && self.regime.two_ranges { &self.cpu.sys.ttbr1 } else { &self.cpu.sys.ttbr0 };
        let base = geometry.base(registers[self.regime.el])?;
        for _ in 0..UPDATES {
            let leaf = geometry.walk(base, gva, |at, level| self.read_descriptor(at, level))?;
            if let Some(translation) = self.leaf(&control, leaf)? {
                return Ok(translation);
            }
        }
        Err(TableFault { kind: FaultKind::AccessFlag, level: 3 }.into())
    }

    /// Where a table of stage 1 really lies.
    fn table_address(&self, at: u64, write: bool) -> Result<Gpa, Fault> {
        let Some(stage2) = &self.stage2 else { return Ok(Gpa(at)) };
        let access = if write { Access::Store } else { Access::Load };
        match stage2.translate(self, at, access) {
            Ok(second) => Ok(Gpa(second.address)),
            Err(fault) => Err(Fault { walk: true, walk_write: write, ..fault }),
        }
    }

    fn read_descriptor(&self, at: u64, level: i8) -> Result<u64, Fault> {
        let gpa = self.table_address(at, false)?;
        let external = TableFault { kind: FaultKind::External, level };
        let value = self.memory.load(gpa, 8).ok_or(external)?;
        let big = self.cpu.sys.sctlr[self.regime.el] & sctlr::EE != 0;
        Ok(if big { value.swap_bytes() } else { value })
    }

    /// Replaces a descriptor; false if somebody else changed it.
    fn update_descriptor(&self, leaf: &Leaf, new: u64) -> Result<bool, Fault> {
        let gpa = self.table_address(leaf.at, true)?;
        let big = self.cpu.sys.sctlr[self.regime.el] & sctlr::EE != 0;
        let order = |value: u64| if big { value.swap_bytes() } else { value };
        let external = TableFault { kind: FaultKind::External, level: leaf.level };
        let replaced = self.memory.compare_exchange(gpa, 8, order(leaf.desc), order(new));
        replaced.ok_or_else(|| external.into())
    }

    /// Checks a leaf and updates its access flag and dirty state; `None` if it changed meanwhile.
    fn leaf(&self, control: &Control, leaf: Leaf) -> Result<Option<Translation>, Fault> {
        let fault = |kind| Err(TableFault { kind, level: leaf.level }.into());
        let hardware_access = control.update_access && self.guest.has(Features::HAF);
        let hardware_dirty = control.update_dirty && self.guest.has(Features::HDBS);
        if leaf.desc & desc::AF == 0 && !hardware_access {
            return fault(FaultKind::AccessFlag);
        }
        let inherited =
            if control.flat_permissions && self.guest.has(Features::HPDS) { 0 } else { leaf.inherited };
        let writable_clean = hardware_dirty && leaf.desc & desc::DBM != 0;
        let rights = self.rights(leaf.desc, inherited, writable_clean);
        if !rights.allow(self.access) {
            return fault(FaultKind::Permission);
        }
        let clean = leaf.desc & s1::READ_ONLY != 0;
        let dirties = self.access == Access::Store && clean && writable_clean;
        let new = (leaf.desc | desc::AF) & !if dirties { s1::READ_ONLY } else { 0 };
        if new != leaf.desc && !self.update_descriptor(&leaf, new)? {
            return Ok(None);
        }
        let attribute_index = leaf.desc >> 2 & 7;
        Ok(Some(Translation {
            address: leaf.output,
            shift: leaf.shift,
            rights: Rights { write: rights.write && (!clean || dirties), ..rights },
            global: !self.regime.two_ranges || leaf.desc & s1::NOT_GLOBAL == 0,
            attributes: (self.cpu.sys.mair[self.regime.el] >> (attribute_index * 8)) as u8,
            shareability: if control.wide { control.share } else { (leaf.desc >> 8 & 3) as u8 },
            guarded: leaf.desc & s1::GUARDED != 0 && self.guest.has(Features::BTI),
        }))
    }

    /// The rights of the accessing level (the manual, D8.4.1). `writable_clean`: a read-only descriptor is merely clean.
    fn rights(&self, desc: u64, inherited: u64, writable_clean: bool) -> Rights {
        let control = self.cpu.sys.sctlr[self.regime.el];
        let read_only = desc & s1::READ_ONLY != 0 && !writable_clean || inherited & s1::READ_ONLY_TABLE != 0;
        let wxn = control & sctlr::WXN != 0;
        let uxn = desc & s1::UXN != 0 || inherited & s1::UXN_TABLE != 0;
        if !self.regime.two_ranges {
            let write = !read_only;
            return Rights { read: true, write, execute: !(uxn || wxn && write) };
        }
        let user_data = desc & s1::USER != 0 && inherited & s1::NO_USER_TABLE == 0;
        let user_write = user_data && !read_only;
        if self.regime.user {
            return Rights { read: user_data, write: user_write, execute: !(uxn || wxn && user_write) };
        }
        let pxn = desc & s1::PXN != 0 || inherited & s1::PXN_TABLE != 0;
        let enhanced = control & sctlr::EPAN != 0 && self.guest.has(Features::PAN3) && !uxn;
        let barred = self.regime.pan && (user_data || enhanced);
        let execute = !(pxn || user_write || wxn && !read_only);
        Rights { read: !barred, write: !barred && !read_only, execute }
    }
}

/// The exception of a failed translation for `access` to `far`.
pub(crate) fn trap(fault: Fault, far: u64, access: Access) -> Trap {
    let class = if access == Access::Fetch { ec::INSN_ABORT } else { ec::DATA_ABORT };
    let write = if fault.walk { fault.walk_write } else { access == Access::Store };
    let write = access != Access::Fetch && write;
    let status = fault.table.status() | u32::from(fault.walk) << 7 | u32::from(write) << 6;
    Trap {
        to_el2: fault.ipa.is_some(),
        hpfar: fault.ipa.map_or(0, |ipa| ipa >> 12 << 4),
        ..Trap::with_far(syndrome(class, status), far)
    }
}

/// Translates one access; see [`isomer_ir::Guest::walk`].
pub(crate) fn walk(
    guest: &Aarch64,
    cpu: &Cpu,
    memory: &dyn PhysMemory,
    (gva, len): (Gva, u32),
    access: Access,
    mmu: MmuIndex,
) -> Result<Page, Trap> {
    let address = untagged(cpu, gva.0, access, mmu);
    if address != gva.0 {
        // From now on, invalidation by address must reach aliases too.
        guest.tags_seen.store(true, Ordering::SeqCst);
    }
    let walker = Walker::new(guest, cpu, memory, access, mmu);
    let translation = walker.translate(address).map_err(|fault| trap(fault, gva.0, access))?;
    if translation.guarded && access == Access::Fetch {
        cpu.guarded.set(true);
    }
    // Under a hypervisor what is global is so within one VMID, and with stage 2 on or off: no ASID tells these apart.
    let page = Page {
        gpa: Gpa(translation.address).page_base(),
        shift: translation.shift,
        load: translation.rights.read,
        store: translation.rights.write,
        fetch: translation.rights.execute,
        global: translation.global && !(cpu.sys.has_el2 && walker.regime.el == 1),
    };
    debug::check(cpu, page, (address, len), access, walker.regime)
}

#[cfg(test)]
#[path = "mmu_tests.rs"]
mod tests;
