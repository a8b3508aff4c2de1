//! Architectural state of one PE and the slots lifters name (the manual, B1.2 and D1.1).
#![allow(unsafe_code, reason = "the CPU is declared plain data here")]

use crate::system::Sys;
use isomer_ir::{CpuHeader, CpuState, SlotDesc, Type};
use std::{cell::Cell, fmt::Write, mem::offset_of};

/// One PE. What lifted code touches comes first; everything else is the system modules' business.
///
/// The header's `fp_flags` are FPSR's cumulative bits but QC, and `rounding` follows FPCR.RMode.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Cpu {
    /// What engines know of.
    pub header: CpuHeader,
    /// x0 to x30.
    pub x: [u64; 31],
    /// The stack pointer in use; its entry in `sp_el` is stale.
    pub sp: u64,
    /// v0 to v31, low half first.
    pub v: [[u64; 2]; 32],
    /// PSTATE.DAIF in bits 9:6, as `mrs daif` gives it.
    pub daif: u64,
    /// TPIDR_EL0.
    pub tpidr_el0: u64,
    /// TPIDRRO_EL0.
    pub tpidrro_el0: u64,
    /// TPIDR_EL1.
    pub tpidr_el1: u64,
    /// TPIDR_EL2.
    pub tpidr_el2: u64,
    /// SP_EL0 to SP_EL3 but the one in use.
    pub sp_el: [u64; 4],
    /// What the last `ldxp` of 64-bit registers loaded, for `stxp` to compare.
    pub exclusive_pair: [u64; 2],
    /// Where the last `br` that set BTYPE to 3 was: it counts as 1 if its page is not guarded.
    pub branch_source: u64,
    /// PSTATE.N, Z, C, V: 0 or 1, each in eight bytes that engines can name as they name registers.
    pub nzcv: [u64; 4],
    /// FPSR.QC: 0 or 1.
    pub qc: u8,
    /// PSTATE.BTYPE: 0 to 3.
    pub btype: u8,

    /// The current exception level.
    pub el: u8,
    /// PSTATE.SP: use SP_ELx, not SP_EL0.
    pub spsel: bool,
    /// PSTATE.PAN.
    pub pan: bool,
    /// PSTATE.UAO.
    pub uao: bool,
    /// PSTATE.DIT.
    pub dit: bool,
    /// PSTATE.SSBS.
    pub ssbs: bool,
    /// PSTATE.SS: software step.
    pub ss: bool,
    /// PSTATE.IL: illegal execution state.
    pub il: bool,
    /// The instruction that software step allows has begun.
    pub stepped: bool,
    /// FPSR.IDC as of the last change of FPCR.FZ; the header's denormal bit counts only while flushing.
    pub idc: bool,
    /// The event register (`wfe`).
    pub event: bool,
    /// A fetch has met a guarded page ([`crate::Mode::guarded`] follows at the next change of the mode).
    pub guarded: Cell<bool>,
    /// FPCR, where its fields are implemented.
    pub fpcr: u32,
    /// The PE's number in the machine; MPIDR_EL1 is made from it.
    pub index: u32,
    /// The counter value that ends a timed wait (`wfit`).
    pub wait_until: u64,
    /// Timer and overflow lines as last told to the interrupt controller ([`crate::interrupts`]).
    pub told: Cell<u32>,
    /// System registers.
    pub sys: Sys,
}

// SAFETY: `repr(C)`, the header comes first, and the slots name integers only, in which any bits are valid.
unsafe impl CpuState for Cpu {
    fn header(&self) -> &CpuHeader {
        &self.header
    }
    fn header_mut(&mut self) -> &mut CpuHeader {
        &mut self.header
    }
}

impl Default for Cpu {
    /// All zero, at EL1 with SP_EL1 and interrupts masked: not yet a reset state, which depends on the model.
    fn default() -> Self {
        Self {
            header: CpuHeader::default(),
            x: [0; 31],
            sp: 0,
            v: [[0; 2]; 32],
            daif: 0x3c0,
            tpidr_el0: 0,
            tpidrro_el0: 0,
            tpidr_el1: 0,
            tpidr_el2: 0,
            sp_el: [0; 4],
            exclusive_pair: [0; 2],
            branch_source: 0,
            nzcv: [0; 4],
            qc: 0,
            btype: 0,
            el: 1,
            spsel: true,
            pan: false,
            uao: false,
            dit: false,
            ssbs: false,
            ss: false,
            il: false,
            stepped: false,
            idc: false,
            event: false,
            guarded: Cell::new(false),
            fpcr: 0,
            index: 0,
            wait_until: u64::MAX,
            told: Cell::new(0),
            sys: Sys::default(),
        }
    }
}

/// Slot numbers.
pub mod slot {
    use isomer_ir::Slot;
    /// x0 to x30.
    pub const fn x(n: u8) -> Slot {
        assert!(n < 31);
        Slot(n as u16)
    }
    /// The stack pointer in use.
    pub const SP: Slot = Slot(31);
    /// v0 to v31, V128.
    pub const fn v(n: u8) -> Slot {
        Slot(32 + (n as u16 & 31))
    }
    /// The low halves of v0 to v31, I64.
    pub const fn d(n: u8) -> Slot {
        Slot(64 + (n as u16 & 31))
    }
    /// The high halves of v0 to v31, I64.
    pub const fn d_high(n: u8) -> Slot {
        Slot(96 + (n as u16 & 31))
    }
    /// PSTATE.N, I64 of 0 or 1.
    pub const N: Slot = Slot(128);
    /// PSTATE.Z, I64.
    pub const Z: Slot = Slot(129);
    /// PSTATE.C, I64.
    pub const C: Slot = Slot(130);
    /// PSTATE.V, I64.
    pub const V: Slot = Slot(131);
    /// FPSR.QC, I8.
    pub const QC: Slot = Slot(132);
    /// PSTATE.BTYPE, I8; kept only while [`crate::Mode::guarded`].
    pub const BTYPE: Slot = Slot(133);
    /// PSTATE.DAIF in bits 9:6, I64.
    pub const DAIF: Slot = Slot(134);
    /// TPIDR_EL0, I64.
    pub const TPIDR_EL0: Slot = Slot(135);
    /// TPIDRRO_EL0, I64.
    pub const TPIDRRO_EL0: Slot = Slot(136);
    /// TPIDR_EL1, I64.
    pub const TPIDR_EL1: Slot = Slot(137);
    /// TPIDR_EL2, I64.
    pub const TPIDR_EL2: Slot = Slot(138);
    /// SP_EL0, I64; meaningful while another stack pointer is in use.
    pub const SP_EL0: Slot = Slot(139);
    /// First and second register of the last 64-bit `ldxp`, I64.
    pub const PAIR_FIRST: Slot = Slot(140);
    /// See [`PAIR_FIRST`].
    pub const PAIR_SECOND: Slot = Slot(141);
    /// Address of the last `br` that set BTYPE to 3, I64; kept only while [`crate::Mode::guarded`].
    pub const BRANCH_SOURCE: Slot = Slot(142);
    /// How many there are.
    pub const COUNT: usize = 143;
}

macro_rules! numbered {
    ($prefix:literal) => {
        [
            concat!($prefix, 0),
            concat!($prefix, 1),
            concat!($prefix, 2),
            concat!($prefix, 3),
            concat!($prefix, 4),
            concat!($prefix, 5),
            concat!($prefix, 6),
            concat!($prefix, 7),
            concat!($prefix, 8),
            concat!($prefix, 9),
            concat!($prefix, 10),
            concat!($prefix, 11),
            concat!($prefix, 12),
            concat!($prefix, 13),
            concat!($prefix, 14),
            concat!($prefix, 15),
            concat!($prefix, 16),
            concat!($prefix, 17),
            concat!($prefix, 18),
            concat!($prefix, 19),
            concat!($prefix, 20),
            concat!($prefix, 21),
            concat!($prefix, 22),
            concat!($prefix, 23),
            concat!($prefix, 24),
            concat!($prefix, 25),
            concat!($prefix, 26),
            concat!($prefix, 27),
            concat!($prefix, 28),
            concat!($prefix, 29),
            concat!($prefix, 30),
            concat!($prefix, 31),
        ]
    };
}

#[rustfmt::skip]
const X: [&str; 32] = numbered!("x");
#[rustfmt::skip]
const V: [&str; 32] = numbered!("v");
#[rustfmt::skip]
const D: [&str; 32] = numbered!("d");
#[rustfmt::skip]
const D_HIGH: [&str; 32] = numbered!("dh");

const fn desc(name: &'static str, offset: usize, ty: Type) -> SlotDesc {
    SlotDesc { name, offset: offset as u32, ty }
}

/// The slot table, in the order of [`slot`].
pub(crate) static SLOTS: [SlotDesc; slot::COUNT] = {
    let mut slots = [desc("", 0, Type::I64); slot::COUNT];
    let mut n = 0;
    while n < 32 {
        slots[n] = desc(if n == 31 { "sp" } else { X[n] }, offset_of!(Cpu, x) + n * 8, Type::I64);
        slots[32 + n] = desc(V[n], offset_of!(Cpu, v) + n * 16, Type::V128);
        slots[64 + n] = desc(D[n], offset_of!(Cpu, v) + n * 16, Type::I64);
        slots[96 + n] = desc(D_HIGH[n], offset_of!(Cpu, v) + n * 16 + 8, Type::I64);
        n += 1;
    }
    slots[128] = desc("n", offset_of!(Cpu, nzcv), Type::I64);
    slots[129] = desc("z", offset_of!(Cpu, nzcv) + 8, Type::I64);
    slots[130] = desc("c", offset_of!(Cpu, nzcv) + 16, Type::I64);
    slots[131] = desc("v", offset_of!(Cpu, nzcv) + 24, Type::I64);
    slots[132] = desc("qc", offset_of!(Cpu, qc), Type::I8);
    slots[133] = desc("btype", offset_of!(Cpu, btype), Type::I8);
    slots[134] = desc("daif", offset_of!(Cpu, daif), Type::I64);
    slots[135] = desc("tpidr_el0", offset_of!(Cpu, tpidr_el0), Type::I64);
    slots[136] = desc("tpidrro_el0", offset_of!(Cpu, tpidrro_el0), Type::I64);
    slots[137] = desc("tpidr_el1", offset_of!(Cpu, tpidr_el1), Type::I64);
    slots[138] = desc("tpidr_el2", offset_of!(Cpu, tpidr_el2), Type::I64);
    slots[139] = desc("sp_el0", offset_of!(Cpu, sp_el), Type::I64);
    slots[140] = desc("pair_first", offset_of!(Cpu, exclusive_pair), Type::I64);
    slots[141] = desc("pair_second", offset_of!(Cpu, exclusive_pair) + 8, Type::I64);
    slots[142] = desc("branch_source", offset_of!(Cpu, branch_source), Type::I64);
    slots
};

const _: () = {
    // x30 and sp are neighbours, and the lifted part starts where the header ends.
    assert!(offset_of!(Cpu, x) == size_of::<CpuHeader>());
    assert!(offset_of!(Cpu, sp) == offset_of!(Cpu, x) + 31 * 8);
    assert!(offset_of!(Cpu, nzcv) + 32 <= isomer_ir::state::DIRECT_UNITS * 8);
};

/// Registers for people, four to a line.
pub(crate) fn describe(cpu: &Cpu) -> String {
    let flag = |n: usize| if cpu.nzcv[n] != 0 { ["N", "Z", "C", "V"][n] } else { "-" };
    let mut text = format!(
        "  pc {:016x}  EL{}{} {}{}{}{} daif {:x}\n",
        cpu.header.pc,
        cpu.el,
        if cpu.spsel { "h" } else { "t" },
        flag(0),
        flag(1),
        flag(2),
        flag(3),
        cpu.daif >> 6
    );
    for (n, value) in cpu.x.iter().chain([&cpu.sp]).enumerate() {
        let end = if n % 4 == 3 { '\n' } else { ' ' };
        let _ = write!(text, "{:>4} {value:016x}{end}", SLOTS[n].name);
    }
    for el in if cpu.sys.has_el2 { 1..3 } else { 1..2 } {
        let sys = &cpu.sys;
        let _ = writeln!(
            text,
            "EL{el} esr {:08x} far {:016x} elr {:016x} spsr {:08x} vbar {:016x}\n    sctlr {:x} tcr {:x} ttbr0 {:x} ttbr1 {:x}",
            sys.esr[el],
            sys.far[el],
            sys.elr[el],
            sys.spsr[el],
            sys.vbar[el],
            sys.sctlr[el],
            sys.tcr[el],
            sys.ttbr0[el],
            sys.ttbr1[el]
        );
    }
    text
}
