//! Address translation: Sv39, Sv48, Sv57, Svnapot, Svpbmt, Svade and Svadu (volume II, chapter 12).

use crate::{
    Cpu, Extensions, Privilege, Riscv64, Trap, pmp,
    regs::{self, envcfg, mstatus},
    trap::cause,
};
use isomer_core::{Gpa, Gva};
use isomer_ir::{Access, MmuIndex, Page, guest::PhysMemory};

/// Bits of a page-table entry (volume II, 12.4.1).
mod pte {
    pub(super) const V: u64 = 1;
    pub(super) const R: u64 = 1 << 1;
    pub(super) const W: u64 = 1 << 2;
    pub(super) const X: u64 = 1 << 3;
    pub(super) const U: u64 = 1 << 4;
    pub(super) const G: u64 = 1 << 5;
    pub(super) const A: u64 = 1 << 6;
    pub(super) const D: u64 = 1 << 7;
    pub(super) const PPN: u64 = ((1 << 44) - 1) << 10;
    pub(super) const RESERVED: u64 = 0x7f << 54;
    pub(super) const PBMT: u64 = 3 << 61;
    pub(super) const N: u64 = 1 << 63;
}

/// The page size with translation off, for permissions that PMP makes uniform: a gigabyte.
const BARE_SHIFT: u8 = 30;
/// The one size of a naturally aligned power-of-two page: 64 KiB.
const NAPOT_SHIFT: u8 = 16;

/// Levels of the page table `satp` names; `None` for bare.
fn levels(satp: u64) -> Option<u32> {
    match satp >> 60 {
        8 => Some(3),
        9 => Some(4),
        10 => Some(5),
        _ => None,
    }
}

/// Who accesses what, and how a refusal is told.
struct Request<'a> {
    guest: &'a Riscv64,
    cpu: &'a Cpu,
    gva: Gva,
    len: u32,
    access: Access,
    mmu: MmuIndex,
}

impl Request<'_> {
    fn privilege(&self) -> Privilege {
        match self.mmu {
            regs::mmu::U => Privilege::User,
            regs::mmu::M => Privilege::Machine,
            _ => Privilege::Supervisor,
        }
    }

    fn page_fault(&self) -> Trap {
        let cause = match self.access {
            Access::Load => cause::LOAD_PAGE,
            Access::Store => cause::STORE_PAGE,
            Access::Fetch => cause::FETCH_PAGE,
        };
        Trap { cause, tval: self.gva.0 }
    }

    fn access_fault(&self) -> Trap {
        let cause = match self.access {
            Access::Load => cause::LOAD_ACCESS,
            Access::Store => cause::STORE_ACCESS,
            Access::Fetch => cause::FETCH_ACCESS,
        };
        Trap { cause, tval: self.gva.0 }
    }

    /// What the entry's R, W, X, U bits let this regime do, as PMP-style bits; A and D aside.
    fn permissions(&self, entry: u64) -> u8 {
        let user_page = entry & pte::U != 0;
        let (data, fetch) = match self.mmu {
            regs::mmu::U => (user_page, user_page),
            regs::mmu::S => (!user_page, !user_page),
            _ => (true, !user_page),
        };
        let readable = entry & pte::R != 0 || (self.cpu.mstatus & mstatus::MXR != 0 && entry & pte::X != 0);
        let bit = |yes: bool, bit: u8| if yes { bit } else { 0 };
        bit(data && readable, pmp::cfg::R)
            | bit(data && entry & pte::W != 0, pmp::cfg::W)
            | bit(fetch && entry & pte::X != 0, pmp::cfg::X)
    }

    fn needed(&self) -> u8 {
        match self.access {
            Access::Load => pmp::cfg::R,
            Access::Store => pmp::cfg::W,
            Access::Fetch => pmp::cfg::X,
        }
    }

    /// Does hardware set A and D, or does their absence fault?
    fn hardware_updates(&self) -> bool {
        let has = |ext| self.guest.ext.contains(ext);
        match (has(Extensions::SVADU), has(Extensions::SVADE)) {
            (true, true) => self.cpu.menvcfg & envcfg::ADUE != 0,
            (false, true) => false,
            _ => true,
        }
    }

    /// Is the entry well-formed for a leaf (or a pointer) at `level`?
    fn is_valid(&self, entry: u64, level: u32) -> bool {
        let has = |ext| self.guest.ext.contains(ext);
        let leaf = entry & (pte::R | pte::X) != 0;
        let memory_type = entry & pte::PBMT;
        let memory_types = has(Extensions::SVPBMT) && self.cpu.menvcfg & envcfg::PBMTE != 0;
        if entry & pte::V == 0 || entry & (pte::R | pte::W) == pte::W || entry & pte::RESERVED != 0 {
            return false;
        }
        if memory_type != 0 && (!memory_types || memory_type == pte::PBMT) {
            return false;
        }
        if !leaf {
            return entry & (pte::A | pte::D | pte::U | pte::N) == 0 && memory_type == 0 && level > 0;
        }
        let ppn = (entry & pte::PPN) >> 10;
        if entry & pte::N != 0 && !(has(Extensions::SVNAPOT) && level == 0 && ppn & 0xf == 8) {
            return false;
        }
        ppn & ((1 << (9 * level)) - 1) == 0
    }

    /// The page a leaf gives, once physical protection agrees.
    fn finish(&self, gpa: Gpa, shift: u8, permissions: u8, global: bool) -> Result<Page, Trap> {
        let entries = self.guest.pmp_entries();
        let (allowed, shift) = pmp::check(self.cpu, entries, (gpa, self.len), self.privilege(), shift);
        if allowed & self.needed() == 0 {
            return Err(self.access_fault());
        }
        let permissions = permissions & allowed;
        Ok(Page {
            gpa: gpa.page_base(),
            shift,
            load: permissions & pmp::cfg::R != 0,
            store: permissions & pmp::cfg::W != 0,
            fetch: permissions & pmp::cfg::X != 0,
            global,
        })
    }

    /// May the walker itself read (or write) the entry at `gpa`? It does so as S-mode.
    fn may_walk(&self, gpa: Gpa, needed: u8) -> bool {
        let entries = self.guest.pmp_entries();
        pmp::check(self.cpu, entries, (gpa, 8), Privilege::Supervisor, 12).0 & needed != 0
    }

    fn walk(&self, memory: &dyn PhysMemory, levels: u32) -> Result<Page, Trap> {
        let gva = self.gva.0;
        let unused_bits = 64 - (12 + 9 * levels);
        if ((gva << unused_bits) as i64 >> unused_bits) as u64 != gva {
            return Err(self.page_fault());
        }
        let mut table = (self.cpu.satp & ((1 << 44) - 1)) << 12;
        let mut level = levels;
        let mut global = false;
        while level > 0 {
            level -= 1;
            let index = (gva >> (12 + 9 * level)) & 0x1ff;
            let at = Gpa(table + index * 8);
            if !self.may_walk(at, pmp::cfg::R) {
                return Err(self.access_fault());
            }
            let entry = memory.load(at, 8).ok_or_else(|| self.access_fault())?;
            if !self.is_valid(entry, level) {
                return Err(self.page_fault());
            }
            global |= entry & pte::G != 0;
            if entry & (pte::R | pte::X) == 0 {
                table = ((entry & pte::PPN) >> 10) << 12;
                continue;
            }
            let permissions = self.permissions(entry);
            if permissions & self.needed() == 0 {
                return Err(self.page_fault());
            }
            let wanted = entry | pte::A | if self.access == Access::Store { pte::D } else { 0 };
            if wanted != entry {
                if !self.hardware_updates() {
                    return Err(self.page_fault());
                }
                if !self.may_walk(at, pmp::cfg::W) {
                    return Err(self.access_fault());
                }
                match memory.compare_exchange(at, 8, entry, wanted) {
                    Some(true) => {}
                    // Somebody changed the entry meanwhile: look at it again.
                    Some(false) => {
                        level += 1;
                        continue;
                    }
                    None => return Err(self.access_fault()),
                }
            }
            let shift = if entry & pte::N != 0 { NAPOT_SHIFT } else { (12 + 9 * level) as u8 };
            let offset_mask = (1u64 << shift) - 1;
            let frame = ((entry & pte::PPN) >> 10) << 12;
            let gpa = Gpa(frame & !offset_mask | gva & offset_mask);
            let clean = if wanted & pte::D == 0 { pmp::cfg::W } else { 0 };
            return self.finish(gpa, shift, permissions & !clean, global);
        }
        Err(self.page_fault())
    }
}

/// Translates one access; see [`isomer_ir::Guest::walk`].
pub(crate) fn walk(
    guest: &Riscv64,
    cpu: &Cpu,
    memory: &dyn PhysMemory,
    (gva, len): (Gva, u32),
    access: Access,
    mmu: MmuIndex,
) -> Result<Page, Trap> {
    let request = Request { guest, cpu, gva, len, access, mmu };
    match levels(cpu.satp) {
        Some(levels) if request.privilege() != Privilege::Machine => request.walk(memory, levels),
        // Physical addresses have 56 bits; higher ones name nothing.
        _ if gva.0 >> 56 != 0 => Err(request.access_fault()),
        _ => request.finish(Gpa(gva.0), BARE_SHIFT, pmp::ALL, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, collections::HashMap};

    #[derive(Default)]
    struct Tables(RefCell<HashMap<u64, u64>>);

    impl PhysMemory for Tables {
        fn load(&self, gpa: Gpa, _size: usize) -> Option<u64> {
            (gpa.0 < 1 << 40).then(|| self.0.borrow().get(&gpa.0).copied().unwrap_or(0))
        }
        fn compare_exchange(&self, gpa: Gpa, _size: usize, old: u64, new: u64) -> Option<bool> {
            let same = self.load(gpa, 8)? == old;
            if same {
                self.0.borrow_mut().insert(gpa.0, new);
            }
            Some(same)
        }
    }

    const RWX: u64 = pte::V | pte::R | pte::W | pte::X;

    /// Sv39 with its root at 0x1000, a table at 0x2000 for gigabyte 0, and one at 0x3000 for its first 2 MiB.
    fn setup(leaf: u64) -> (Riscv64, Cpu, Tables) {
        let mut cpu = Cpu { satp: 8 << 60 | 1, privilege: Privilege::Supervisor, ..Cpu::default() };
        cpu.pmpcfg[0] = 3 << 3 | pmp::ALL;
        cpu.pmpaddr[0] = u64::MAX >> 10;
        let tables = Tables::default();
        let pointer = |gpa: u64| (gpa >> 12) << 10 | pte::V;
        tables.0.borrow_mut().extend([
            (0x1000, pointer(0x2000)),
            (0x2000, pointer(0x3000)),
            (0x3000 + 8, leaf),
        ]);
        (Riscv64::max(), cpu, tables)
    }

    fn go(setup: &(Riscv64, Cpu, Tables), gva: u64, access: Access, mmu: MmuIndex) -> Result<Page, u64> {
        walk(&setup.0, &setup.1, &setup.2, (Gva(gva), 1), access, mmu).map_err(|trap| trap.cause)
    }

    #[test]
    fn a_clean_page_takes_its_dirty_bit_on_the_first_store() {
        let mut s = setup(0x8_0000 << 10 | RWX | pte::A);
        s.1.menvcfg |= envcfg::ADUE;
        let page = go(&s, 0x1234, Access::Load, regs::mmu::S).unwrap();
        assert_eq!((page.gpa, page.shift, page.load, page.store), (Gpa(0x8000_0000), 12, true, false));
        let page = go(&s, 0x1234, Access::Store, regs::mmu::S).unwrap();
        assert!(page.store && s.2.load(Gpa(0x3008), 8).unwrap() & pte::D != 0);
    }

    #[test]
    fn svade_faults_instead() {
        let s = setup(0x8_0000 << 10 | RWX);
        assert_eq!(go(&s, 0x1234, Access::Load, regs::mmu::S), Err(cause::LOAD_PAGE));
        assert_eq!(go(&s, 0x1234, Access::Fetch, regs::mmu::S), Err(cause::FETCH_PAGE));
    }

    #[test]
    fn user_pages_need_user_mode_or_sum() {
        let s = setup(0x8_0000 << 10 | RWX | pte::U | pte::A | pte::D);
        assert!(go(&s, 0x1000, Access::Store, regs::mmu::U).is_ok());
        assert_eq!(go(&s, 0x1000, Access::Store, regs::mmu::S), Err(cause::STORE_PAGE));
        assert!(go(&s, 0x1000, Access::Store, regs::mmu::S_SUM).is_ok());
        assert_eq!(go(&s, 0x1000, Access::Fetch, regs::mmu::S_SUM), Err(cause::FETCH_PAGE));
    }

    #[test]
    fn malformed_entries_fault() {
        let good = 0x8_0000 << 10 | RWX | pte::A | pte::D;
        for bad in
            [0, good & !pte::R, good | 1 << 54, good | pte::N, good | pte::PBMT, 0x8_0000 << 10 | pte::V]
        {
            assert_eq!(
                go(&setup(bad), 0x1000, Access::Load, regs::mmu::S),
                Err(cause::LOAD_PAGE),
                "{bad:#x}"
            );
        }
        assert_eq!(go(&setup(good), 1 << 39, Access::Load, regs::mmu::S), Err(cause::LOAD_PAGE));
        assert_eq!(go(&setup(good), 1 << 57, Access::Load, regs::mmu::M), Err(cause::LOAD_ACCESS));
    }

    #[test]
    fn napot_pages_are_64_kib() {
        let s = setup(0x8_0008 << 10 | RWX | pte::A | pte::D | pte::N);
        let page = go(&s, 0x1abc, Access::Load, regs::mmu::S).unwrap();
        assert_eq!((page.gpa, page.shift), (Gpa(0x8000_1000), 16));
    }

    #[test]
    fn superpages_must_be_aligned() {
        let s = setup(0);
        s.2.0.borrow_mut().insert(0x2000, 0x8_0000 << 10 | RWX | pte::A | pte::D);
        assert_eq!(go(&s, 0x12_3456, Access::Load, regs::mmu::S).unwrap().gpa, Gpa(0x8012_3000));
        s.2.0.borrow_mut().insert(0x2000, 0x8_0001 << 10 | RWX | pte::A | pte::D);
        assert_eq!(go(&s, 0x12_3456, Access::Load, regs::mmu::S), Err(cause::LOAD_PAGE));
    }
}
