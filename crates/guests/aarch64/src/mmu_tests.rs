//! Page walks over built tables: every granule, size, level and right.

use super::*;
use crate::{mode::mmu::*, trap::ec};
use std::{cell::RefCell, collections::HashMap};

/// Memory of 8-byte words below 2^52.
#[derive(Default)]
struct Memory(RefCell<HashMap<u64, u64>>);

impl PhysMemory for Memory {
    fn load(&self, gpa: Gpa, _size: usize) -> Option<u64> {
        (gpa.0 < 1 << 52).then(|| self.0.borrow().get(&gpa.0).copied().unwrap_or(0))
    }
    fn compare_exchange(&self, gpa: Gpa, _size: usize, old: u64, new: u64) -> Option<bool> {
        let same = self.load(gpa, 8)? == old;
        if same {
            self.0.borrow_mut().insert(gpa.0, new);
        }
        Some(same)
    }
}

impl Memory {
    fn set(&self, at: u64, value: u64) {
        self.0.borrow_mut().insert(at, value);
    }
    fn get(&self, at: u64) -> u64 {
        self.0.borrow().get(&at).copied().unwrap_or(0)
    }
}

/// How descriptors hold address bits above 47.
#[derive(Clone, Copy, PartialEq, Debug)]
enum High {
    None,
    Lpa,
    Lpa2,
}

fn place(high: High, address: u64) -> u64 {
    match high {
        High::None => address,
        High::Lpa => address & ((1 << 48) - 1) | (address >> 48 & 0xf) << 12,
        High::Lpa2 => address & ((1 << 50) - 1) | (address >> 50 & 3) << 8,
    }
}

const TABLES: u64 = 0x1000_0000;
const LEAF: u64 = 1 | 1 << 10;
const READ_ONLY: u64 = 1 << 7;
const USER: u64 = 1 << 6;

/// Builds the chain of tables for `va` by hand: the first table is at [`TABLES`], the next ones `step` behind each
/// other. Gives where the leaf is.
fn build(memory: &Memory, granule: u32, bits: u32, va: u64, leaf: u64, leaf_level: i32, high: High) -> u64 {
    let stride = granule - 3;
    let levels = (bits - granule).div_ceil(stride) as i32;
    let step = 1u64 << granule;
    let mut table = TABLES;
    for level in 4 - levels..=3 {
        let shift = granule + (3 - level) as u32 * stride;
        let width = if level == 4 - levels { bits - shift } else { stride };
        let at = table + (va >> shift & ((1 << width) - 1)) * 8;
        if level == leaf_level {
            memory.set(at, leaf | if level == 3 { 2 } else { 0 });
            return at;
        }
        table += step;
        memory.set(at, place(high, table) | 3);
    }
    unreachable!("the leaf's level is below the first table's");
}

/// TCR_EL1 for both halves alike, 52-bit output addresses where there are such.
fn tcr(granule: u32, bits: u32, lpa2: bool) -> u64 {
    let (tg0, tg1) = match granule {
        12 => (0, 2),
        14 => (2, 1),
        _ => (1, 3),
    };
    let size = u64::from(64 - bits);
    size | size << 16 | tg0 << 14 | tg1 << 30 | 6 << 32 | u64::from(lpa2) << 59
}

fn cpu(guest: &Aarch64, tcr: u64) -> Cpu {
    let mut cpu = guest.reset(0, 0);
    cpu.sys.sctlr[1] |= sctlr::M;
    cpu.sys.tcr[1] = tcr;
    (cpu.sys.ttbr0[1], cpu.sys.ttbr1[1]) = (TABLES, TABLES);
    cpu
}

type Outcome = Result<Page, (u32, u32)>;

/// The page, or class and status of the abort.
fn go(guest: &Aarch64, cpu: &Cpu, memory: &Memory, va: u64, access: Access, mmu: MmuIndex) -> Outcome {
    walk(guest, cpu, memory, (Gva(va), 1), access, mmu).map_err(|trap| (trap.class(), trap.syndrome & 0x3f))
}

#[test]
fn every_granule_size_and_level_translates() {
    let guest = Aarch64::max();
    let sizes = [
        (12, false, vec![25, 30, 36, 39, 42, 48]),
        (12, true, vec![39, 48, 49, 52]),
        (14, false, vec![25, 36, 47, 48]),
        (14, true, vec![36, 48, 52]),
        (16, false, vec![29, 36, 42, 48, 52]),
    ];
    let mut tried = 0;
    for (granule, lpa2, all_bits) in sizes {
        for bits in all_bits {
            let cpu = cpu(&guest, tcr(granule, bits, lpa2));
            let first = 4 - (bits - granule).div_ceil(granule - 3) as i32;
            let highest = match (granule, lpa2) {
                (12, false) | (14 | 16, true) | (16, false) => 1,
                (12, true) => 0,
                _ => 2,
            };
            for level in first.max(highest)..=3 {
                for upper in [false, true] {
                    let memory = Memory::default();
                    let low = 0x000a_bcde_f012_3456_u64 & ((1 << bits) - 1);
                    let va = if upper { low | u64::MAX << bits } else { low };
                    let shift = granule + (3 - level) as u32 * (granule - 3);
                    let high = match (granule, lpa2) {
                        (16, _) => High::Lpa,
                        (_, true) => High::Lpa2,
                        _ => High::None,
                    };
                    let top = if high == High::None { 0 } else { 0xb << 48 };
                    let output = (0x0000_8765_4321_0000 | top) & (u64::MAX << shift);
                    build(&memory, granule, bits, va, place(high, output) | LEAF, level, high);
                    let page = go(&guest, &cpu, &memory, va, Access::Load, E10_1);
                    let expected = (output | va & ((1 << shift) - 1)) & !0xfff;
                    let what = format!("granule {granule} bits {bits} level {level} lpa2 {lpa2}");
                    let page = page.unwrap_or_else(|fault| panic!("{what}: {fault:x?}"));
                    assert_eq!((page.gpa.0, u32::from(page.shift)), (expected, shift), "{what}");
                    // The neighbour is not mapped.
                    let next = va ^ 1 << shift;
                    if bits > shift + 1 {
                        assert!(go(&guest, &cpu, &memory, next, Access::Load, E10_1).is_err(), "{what}");
                    }
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn addresses_outside_both_ranges_fault_at_level_0() {
    let guest = Aarch64::max();
    let memory = Memory::default();
    let mut cpu = cpu(&guest, tcr(12, 39, false));
    for va in [1 << 39, 0x00ff_ffff_ffff_f000, 0xff00_0000_0000_0000, 1 << 63] {
        assert_eq!(go(&guest, &cpu, &memory, va, Access::Load, E10_1), Err((ec::DATA_ABORT, 4)), "{va:#x}");
        assert_eq!(go(&guest, &cpu, &memory, va, Access::Fetch, E10_1), Err((ec::INSN_ABORT, 4)), "{va:#x}");
    }
    // Switched-off walks, and reserved sizes.
    build(&memory, 12, 39, 0x1000, 0x8000 | LEAF, 3, High::None);
    assert!(go(&guest, &cpu, &memory, 0x1000, Access::Load, E10_1).is_ok());
    cpu.sys.tcr[1] |= 1 << 7;
    assert_eq!(go(&guest, &cpu, &memory, 0x1000, Access::Load, E10_1), Err((ec::DATA_ABORT, 4)));
    for size in [0, 11, 49, 63] {
        cpu.sys.tcr[1] = tcr(12, 39, false) & !0x3f | size;
        assert_eq!(
            go(&guest, &cpu, &memory, 0x1000, Access::Load, E10_1),
            Err((ec::DATA_ABORT, 4)),
            "{size}"
        );
    }
}

#[test]
fn faults_name_their_level() {
    let guest = Aarch64::max();
    for (level, bits) in [(0, 48), (1, 48), (2, 48), (3, 48)] {
        let memory = Memory::default();
        let cpu = cpu(&guest, tcr(12, bits, false));
        if level > 0 {
            // A table chain that ends at `level` with nothing.
            let at = build(&memory, 12, bits, 0, 0, 3, High::None);
            let mut table = TABLES;
            for _ in 0..level {
                table += 0x1000;
            }
            memory.set(if level == 3 { at } else { table }, 0);
        }
        let expected = Err((ec::DATA_ABORT, 4 | level));
        assert_eq!(go(&guest, &cpu, &memory, 0, Access::Load, E10_1), expected);
    }
    // Level -1 has codes of its own.
    let cpu = cpu(&guest, tcr(12, 52, true));
    let memory = Memory::default();
    assert_eq!(go(&guest, &cpu, &memory, 0, Access::Load, E10_1), Err((ec::DATA_ABORT, 0b101011)));
}

#[test]
fn table_addresses_beyond_the_output_size_fault() {
    let guest = Aarch64::max();
    let memory = Memory::default();
    let mut cpu = cpu(&guest, tcr(12, 39, false) & !(7 << 32));
    let at = build(&memory, 12, 39, 0, 1 << 40 | LEAF, 3, High::None);
    assert_eq!(go(&guest, &cpu, &memory, 0, Access::Load, E10_1), Err((ec::DATA_ABORT, 3)));
    memory.set(at, 1 << 31 | LEAF | 2);
    assert!(go(&guest, &cpu, &memory, 0, Access::Load, E10_1).is_ok());
    cpu.sys.ttbr0[1] = 1 << 33;
    assert_eq!(go(&guest, &cpu, &memory, 0, Access::Load, E10_1), Err((ec::DATA_ABORT, 0)));
}

#[test]
fn tables_outside_memory_are_external_aborts() {
    struct Nothing;
    impl PhysMemory for Nothing {
        fn load(&self, _: Gpa, _: usize) -> Option<u64> {
            None
        }
        fn compare_exchange(&self, _: Gpa, _: usize, _: u64, _: u64) -> Option<bool> {
            None
        }
    }
    let guest = Aarch64::max();
    let cpu = cpu(&guest, tcr(12, 39, false));
    let trap = walk(&guest, &cpu, &Nothing, (Gva(0), 1), Access::Store, E10_1).unwrap_err();
    assert_eq!((trap.class(), trap.syndrome & 0x7f), (ec::DATA_ABORT, 0x55));
}

/// Read, write and execute of EL1, EL1 with PAN, and EL0, for a descriptor's attributes.
fn rights_of(guest: &Aarch64, cpu: &Cpu, attributes: u64, table: u64) -> [String; 3] {
    let memory = Memory::default();
    build(&memory, 12, 39, 0x1000, 0x8000 | LEAF | attributes, 3, High::None);
    memory.set(TABLES, memory.get(TABLES) | table);
    [E10_1, E10_1_PAN, E10_0].map(|mmu| {
        let letter = |access, letter: &str| {
            let allowed = go(guest, cpu, &memory, 0x1000, access, mmu);
            if let Err(fault) = allowed {
                assert_eq!(fault.1, 15, "{fault:x?}");
            }
            if allowed.is_ok() { letter } else { "-" }.to_owned()
        };
        letter(Access::Load, "r") + &letter(Access::Store, "w") + &letter(Access::Fetch, "x")
    })
}

#[test]
fn access_permissions_are_the_manuals_table() {
    let guest = Aarch64::max();
    let mut cpu = cpu(&guest, tcr(12, 39, false));
    const PXN: u64 = 1 << 53;
    const UXN: u64 = 1 << 54;
    let table: [(u64, u64, [&str; 3]); 13] = [
        (0, 0, ["rwx", "rwx", "--x"]),
        (USER, 0, ["rw-", "---", "rwx"]),
        (READ_ONLY, 0, ["r-x", "r-x", "--x"]),
        (READ_ONLY | USER, 0, ["r-x", "--x", "r-x"]),
        (PXN, 0, ["rw-", "rw-", "--x"]),
        (UXN, 0, ["rwx", "rwx", "---"]),
        (READ_ONLY | USER | UXN | PXN, 0, ["r--", "---", "r--"]),
        (USER | UXN, 0, ["rw-", "---", "rw-"]),
        // Hierarchical: no EL0 access, read-only, UXN, PXN.
        (USER, 1 << 61, ["rwx", "rwx", "--x"]),
        (USER, 1 << 62, ["r-x", "--x", "r-x"]),
        (USER, 3 << 61, ["r-x", "r-x", "--x"]),
        (READ_ONLY, 1 << 60, ["r-x", "r-x", "---"]),
        (READ_ONLY, 1 << 59, ["r--", "r--", "--x"]),
    ];
    for (attributes, tables, expected) in table {
        assert_eq!(rights_of(&guest, &cpu, attributes, tables), expected, "{attributes:#x} {tables:#x}");
    }
    // Hierarchical permissions switched off.
    cpu.sys.tcr[1] |= 1 << 41;
    assert_eq!(rights_of(&guest, &cpu, USER, 0xf << 59), ["rw-", "---", "rwx"]);
    // Writable memory is not executable.
    cpu.sys.sctlr[1] |= sctlr::WXN;
    assert_eq!(rights_of(&guest, &cpu, 0, 0), ["rw-", "rw-", "--x"]);
    assert_eq!(rights_of(&guest, &cpu, USER, 0), ["rw-", "---", "rw-"]);
    // PAN bars memory that EL0 may only execute, if asked to.
    cpu.sys.sctlr[1] |= sctlr::EPAN;
    assert_eq!(rights_of(&guest, &cpu, READ_ONLY, 0), ["r-x", "--x", "--x"]);
}

#[test]
fn access_flag_and_dirty_state_are_updated_where_hardware_does() {
    let guest = Aarch64::max();
    let mut cpu = cpu(&guest, tcr(12, 39, false));
    let memory = Memory::default();
    let at = build(&memory, 12, 39, 0x1000, 0x8000 | 1 | READ_ONLY | desc::DBM, 3, High::None);
    let load = |cpu: &Cpu, access| go(&guest, cpu, &memory, 0x1000, access, E10_1);
    assert_eq!(load(&cpu, Access::Load), Err((ec::DATA_ABORT, 0b1011)));
    cpu.sys.tcr[1] |= 1 << 39;
    assert_eq!(load(&cpu, Access::Store), Err((ec::DATA_ABORT, 15)));
    assert_eq!(memory.get(at) & desc::AF, 0);
    let page = load(&cpu, Access::Load).unwrap();
    assert!(page.load && !page.store && memory.get(at) & desc::AF != 0);
    cpu.sys.tcr[1] |= 1 << 40;
    let page = load(&cpu, Access::Load).unwrap();
    assert!(!page.store && memory.get(at) & READ_ONLY != 0);
    let page = load(&cpu, Access::Store).unwrap();
    assert!(page.store && memory.get(at) & READ_ONLY == 0);
    // A core without the feature ignores both switches.
    let old = Aarch64::by_name("cortex-a57").unwrap();
    memory.set(at, memory.get(at) & !desc::AF);
    assert_eq!(go(&old, &cpu, &memory, 0x1000, Access::Load, E10_1), Err((ec::DATA_ABORT, 0b1011)));
}

#[test]
fn tags_are_ignored_where_tcr_says_so() {
    let guest = Aarch64::max();
    let mut cpu = cpu(&guest, tcr(12, 39, false) | 1 << 37);
    let memory = Memory::default();
    build(&memory, 12, 39, 0x1000, 0x8000 | LEAF | USER, 3, High::None);
    let tagged = 0x5a00_0000_0000_1000;
    assert!(!guest.tags_seen.load(Ordering::SeqCst));
    assert!(go(&guest, &cpu, &memory, 0x1000, Access::Load, E10_0).is_ok());
    assert!(!guest.tags_seen.load(Ordering::SeqCst));
    assert_eq!(go(&guest, &cpu, &memory, tagged, Access::Load, E10_0).unwrap().gpa, Gpa(0x8000));
    assert!(guest.tags_seen.load(Ordering::SeqCst));
    assert!(go(&guest, &cpu, &memory, tagged, Access::Fetch, E10_0).is_ok());
    cpu.sys.tcr[1] |= 1 << 51;
    assert!(go(&guest, &cpu, &memory, tagged, Access::Fetch, E10_0).is_err());
    // The upper range has its own switch.
    assert!(go(&guest, &cpu, &memory, 0x5aff_ff80_0000_1000, Access::Load, E10_0).is_err());
}

#[test]
fn e0pd_hides_a_range_from_el0() {
    let guest = Aarch64::max();
    let cpu = cpu(&guest, tcr(12, 39, false) | 1 << 56);
    let memory = Memory::default();
    let kernel = 0xffff_ff80_0000_1000;
    build(&memory, 12, 39, 0x1000, 0x8000 | LEAF | USER, 3, High::None);
    assert!(go(&guest, &cpu, &memory, kernel, Access::Load, E10_1).is_ok());
    assert_eq!(go(&guest, &cpu, &memory, kernel, Access::Load, E10_0), Err((ec::DATA_ABORT, 4)));
    assert!(go(&guest, &cpu, &memory, 0x1000, Access::Load, E10_0).is_ok());
}

#[test]
fn translation_off_is_flat() {
    let guest = Aarch64::max();
    let cpu = guest.reset(0, 0);
    let memory = Memory::default();
    let page = go(&guest, &cpu, &memory, 0x4567_8000, Access::Fetch, E10_1).unwrap();
    assert_eq!((page.gpa, page.store), (Gpa(0x4567_8000), true));
    assert_eq!(go(&guest, &cpu, &memory, 1 << 52, Access::Load, E10_1), Err((ec::DATA_ABORT, 0)));
}

#[test]
fn hypervisors_and_hosts_have_their_own_regimes() {
    let guest = Aarch64::max().with_el2(true);
    let mut cpu = guest.reset(0, 0);
    let memory = Memory::default();
    build(&memory, 12, 39, 0x1000, 0x8000 | LEAF | USER, 3, High::None);
    cpu.sys.sctlr[2] |= sctlr::M;
    cpu.sys.ttbr0[2] = TABLES;
    // E2H = 0: one range, AP[1] does not matter, 40-bit output.
    cpu.sys.tcr[2] = 25 | 2 << 16;
    let page = go(&guest, &cpu, &memory, 0x1000, Access::Store, E2).unwrap();
    assert!(page.store && page.fetch);
    assert!(go(&guest, &cpu, &memory, 0xffff_ff80_0000_1000, Access::Load, E2).is_err());
    // E2H = 1: two ranges.
    cpu.sys.hcr = hcr::E2H | hcr::TGE;
    cpu.sys.tcr[2] = tcr(12, 39, false);
    cpu.sys.ttbr1[2] = TABLES;
    let kernel = 0xffff_ff80_0000_1000;
    assert!(go(&guest, &cpu, &memory, kernel, Access::Store, E20_2).is_ok());
    assert_eq!(go(&guest, &cpu, &memory, kernel, Access::Load, E20_2_PAN), Err((ec::DATA_ABORT, 15)));
    assert!(go(&guest, &cpu, &memory, 0x1000, Access::Fetch, E20_0).is_ok());
}

/// VTCR_EL2 for 4 KiB tables that start at level 1, and 39 bits.
const VTCR: u64 = 25 | 1 << 6 | 2 << 16;
const STAGE_2: u64 = 0x2000_0000;

#[test]
fn stage_2_translates_tables_and_pages_of_stage_1() {
    let guest = Aarch64::max().with_el2(true);
    let mut cpu = cpu(&guest, tcr(12, 39, false));
    (cpu.sys.hcr, cpu.sys.vtcr, cpu.sys.vttbr) = (hcr::VM | hcr::RW, VTCR, STAGE_2);
    let memory = Memory::default();
    // Stage 1 in intermediate addresses: the page at 0x1000 is 0x5000_0000.
    build(&memory, 12, 39, 0x1000, 0x5000_0000 | LEAF | USER, 3, High::None);
    let fault = |va, access| walk(&guest, &cpu, &memory, (Gva(va), 1), access, E10_1).unwrap_err();
    let trap = fault(0x1234, Access::Load);
    // Nothing maps stage 1's first table: stage 2 fault on the walk.
    assert!(trap.to_el2);
    assert_eq!((trap.syndrome & 0xff, trap.hpfar), (0x85, TABLES >> 8));
    // A gigabyte block, one to one, for the tables; a block for the page.
    memory.set(STAGE_2, LEAF | 3 << 6);
    let trap = fault(0x1234, Access::Store);
    assert_eq!((trap.syndrome & 0xff, trap.hpfar, trap.far), (0x45, 0x5000_0000 >> 8, 0x1234));
    memory.set(STAGE_2 + 8, 0x8000_0000 | LEAF | 1 << 6);
    let page = go(&guest, &cpu, &memory, 0x1234, Access::Load, E10_1).unwrap();
    assert_eq!((page.gpa, page.shift, page.load, page.store), (Gpa(0x9000_0000), 12, true, false));
    assert_eq!(fault(0x1234, Access::Store).syndrome & 0xff, 0x4d);
    // Execute-never by level (XN = 01: EL0 only).
    memory.set(STAGE_2 + 8, 0x8000_0000 | LEAF | 3 << 6 | 1 << 53);
    assert!(go(&guest, &cpu, &memory, 0x1234, Access::Fetch, E10_0).is_ok());
    assert_eq!(go(&guest, &cpu, &memory, 0x1234, Access::Fetch, E10_1), Err((ec::INSN_ABORT, 15)));
}

#[test]
fn stage_2_may_start_with_concatenated_tables() {
    let guest = Aarch64::max().with_el2(true);
    let mut cpu = guest.reset(0, 0);
    // 40 bits from level 1: two tables side by side.
    (cpu.sys.hcr, cpu.sys.vtcr, cpu.sys.vttbr) = (hcr::VM, 24 | 1 << 6 | 2 << 16, STAGE_2);
    let memory = Memory::default();
    memory.set(STAGE_2 + 600 * 8, 0x40_0000_0000 | LEAF | 3 << 6);
    let page = go(&guest, &cpu, &memory, 600 << 30 | 0x5000, Access::Store, E10_1).unwrap();
    assert_eq!((page.gpa, page.shift), (Gpa(0x40_0000_5000), 30));
    // Seventeen would be too many.
    cpu.sys.vtcr = (64 - 44) | 1 << 6 | 4 << 16;
    assert_eq!(go(&guest, &cpu, &memory, 0, Access::Load, E10_1), Err((ec::DATA_ABORT, 4)));
}

#[test]
fn stage_2_updates_its_descriptors() {
    let guest = Aarch64::max().with_el2(true);
    let mut cpu = guest.reset(0, 0);
    (cpu.sys.hcr, cpu.sys.vtcr, cpu.sys.vttbr) = (hcr::VM, VTCR | 3 << 21, STAGE_2);
    let memory = Memory::default();
    memory.set(STAGE_2, 1 | 1 << 6 | desc::DBM);
    let page = go(&guest, &cpu, &memory, 0x1000, Access::Load, E10_1).unwrap();
    assert!(!page.store && memory.get(STAGE_2) & desc::AF != 0 && memory.get(STAGE_2) & 1 << 7 == 0);
    let page = go(&guest, &cpu, &memory, 0x1000, Access::Store, E10_1).unwrap();
    assert!(page.store && memory.get(STAGE_2) & 1 << 7 != 0);
}

#[test]
fn big_endian_tables_are_read_as_such() {
    let guest = Aarch64::max();
    let mut cpu = cpu(&guest, tcr(12, 39, false) | 1 << 39);
    let memory = Memory::default();
    let at = build(&memory, 12, 39, 0x1000, 0x8000 | 1, 3, High::None);
    let swapped: Vec<_> = memory.0.borrow().iter().map(|(&at, value)| (at, value.swap_bytes())).collect();
    memory.0.borrow_mut().extend(swapped);
    assert!(go(&guest, &cpu, &memory, 0x1000, Access::Load, E10_1).is_err());
    cpu.sys.sctlr[1] |= sctlr::EE;
    assert_eq!(go(&guest, &cpu, &memory, 0x1000, Access::Load, E10_1).unwrap().gpa, Gpa(0x8000));
    assert!(memory.get(at).swap_bytes() & desc::AF != 0);
}

#[test]
fn a_guarded_page_is_noticed_on_fetch() {
    let guest = Aarch64::max();
    let cpu = cpu(&guest, tcr(12, 39, false));
    let memory = Memory::default();
    build(&memory, 12, 39, 0x1000, 0x8000 | LEAF | 1 << 50, 3, High::None);
    go(&guest, &cpu, &memory, 0x1000, Access::Load, E10_1).unwrap();
    assert!(!cpu.guarded.get());
    go(&guest, &cpu, &memory, 0x1000, Access::Fetch, E10_1).unwrap();
    assert!(cpu.guarded.get());
}

#[test]
fn random_set_ups_never_panic() {
    let mut state = 0x1234_5678_9abc_def0_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for model in [Aarch64::max().with_el2(true), Aarch64::by_name("cortex-a57").unwrap().with_el2(true)] {
        for _ in 0..20_000 {
            let mut cpu = model.reset(0, 0);
            let sys = &mut cpu.sys;
            for el in 1..3 {
                (sys.tcr[el], sys.ttbr0[el], sys.ttbr1[el]) = (random(), random(), random());
                sys.sctlr[el] = random() | sctlr::M;
            }
            (sys.hcr, sys.vtcr, sys.vttbr) = (random(), random(), random());
            let memory = Memory::default();
            for slot in 0..4 {
                memory.set(sys.ttbr0[1] & 0xffff_ffff_f000 | (slot * 8), random() | 3);
            }
            let va = random() >> (random() & 63);
            let mmu = MmuIndex((random() % 7) as u8);
            let _ = walk(&model, &cpu, &memory, (Gva(va), 8), Access::Store, mmu);
        }
    }
}

#[test]
fn mappings_are_global_without_a_hypervisor_only() {
    for el2 in [false, true] {
        let guest = Aarch64::max().with_el2(el2);
        let cpu = guest.reset(0, 0);
        let page = walk(&guest, &cpu, &Memory::default(), (Gva(0x1000), 4), Access::Load, E10_1).unwrap();
        assert_eq!(page.global, !el2);
    }
}
