//! Architectural state of one hart, the slots lifters name, and the mode word (volume I, 2.1 and 20.1; volume II, 2.2).
#![allow(unsafe_code, reason = "the CPU is declared plain data here")]

use isomer_ir::{CpuHeader, CpuState, MmuIndex, Slot, SlotDesc, Type, softfloat::Round};
use std::{fmt::Write, mem::offset_of};

/// A privilege mode, by its encoding (volume II, 1.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum Privilege {
    /// U.
    User = 0,
    /// S.
    Supervisor = 1,
    /// M; harts reset into it.
    #[default]
    Machine = 3,
}

impl Privilege {
    /// The mode an encoding names; the reserved 2 reads as U, which `mstatus.MPP` never holds.
    pub const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            3 => Self::Machine,
            1 => Self::Supervisor,
            _ => Self::User,
        }
    }
}

/// Fields of `mstatus`, most of which `sstatus` shows too (volume II, 3.1.6).
pub mod mstatus {
    /// Supervisor interrupts enabled.
    pub const SIE: u64 = 1 << 1;
    /// Machine interrupts enabled.
    pub const MIE: u64 = 1 << 3;
    /// SIE before the trap.
    pub const SPIE: u64 = 1 << 5;
    /// MIE before the trap.
    pub const MPIE: u64 = 1 << 7;
    /// Previous privilege, S traps.
    pub const SPP: u64 = 1 << 8;
    /// Vector unit status.
    pub const VS: u64 = 3 << 9;
    /// Previous privilege, M traps.
    pub const MPP: u64 = 3 << 11;
    /// Lowest bit of [`MPP`].
    pub const MPP_SHIFT: u32 = 11;
    /// Floating-point unit status: 0 off, 1 initial, 2 clean, 3 dirty.
    pub const FS: u64 = 3 << 13;
    /// Lowest bit of [`FS`].
    pub const FS_SHIFT: u32 = 13;
    /// Other extensions' status.
    pub const XS: u64 = 3 << 15;
    /// Loads and stores use MPP's privilege.
    pub const MPRV: u64 = 1 << 17;
    /// S may access U pages.
    pub const SUM: u64 = 1 << 18;
    /// Executable pages are readable.
    pub const MXR: u64 = 1 << 19;
    /// Trap virtual memory management.
    pub const TVM: u64 = 1 << 20;
    /// Trap `wfi`.
    pub const TW: u64 = 1 << 21;
    /// Trap `sret`.
    pub const TSR: u64 = 1 << 22;
    /// User XLEN, 2 = 64.
    pub const UXL: u64 = 3 << 32;
    /// Supervisor XLEN, 2 = 64.
    pub const SXL: u64 = 3 << 34;
    /// FS, VS or XS is dirty; read-only.
    pub const SD: u64 = 1 << 63;
}

/// Fields of `menvcfg` and `senvcfg` (volume II, 3.1.18 and 10.1.10).
pub mod envcfg {
    /// Fence of I/O implies memory.
    pub const FIOM: u64 = 1;
    /// `cbo.inval`: 0 traps, 1 flushes, 3 invalidates.
    pub const CBIE: u64 = 3 << 4;
    /// `cbo.clean` and `cbo.flush` enabled.
    pub const CBCFE: u64 = 1 << 6;
    /// `cbo.zero` enabled.
    pub const CBZE: u64 = 1 << 7;
    /// Hardware updates A and D bits (Svadu); `menvcfg` only.
    pub const ADUE: u64 = 1 << 61;
    /// Page-based memory types (Svpbmt); `menvcfg` only.
    pub const PBMTE: u64 = 1 << 62;
    /// `stimecmp` (Sstc); `menvcfg` only.
    pub const STCE: u64 = 1 << 63;
}

/// Translation regimes of data accesses. Fetches use [`mmu::U`], [`mmu::S`] and [`mmu::M`].
pub mod mmu {
    use isomer_ir::MmuIndex;
    /// As U-mode.
    pub const U: MmuIndex = MmuIndex(0);
    /// As S-mode, user pages out of bounds (SUM = 0).
    pub const S: MmuIndex = MmuIndex(1);
    /// As S-mode with SUM = 1.
    pub const S_SUM: MmuIndex = MmuIndex(2);
    /// As M-mode: physical, PMP applies where locked.
    pub const M: MmuIndex = MmuIndex(3);
    /// How many there are.
    pub const COUNT: usize = 4;
}

/// The mode word: everything about a hart's state that changes what its instructions are lifted to.
///
/// | bits  | meaning |
/// |-------|---------|
/// | 1:0   | privilege: 0 U, 1 S, 3 M |
/// | 2     | reserved for virtualization mode V |
/// | 4:3   | FS: 0 off, 1 initial or clean (a write must call `mark_fs_dirty`), 2 dirty |
/// | 6:5   | VS the same way; 0 until the vector extension exists |
/// | 7     | `frm` holds a reserved value: instructions with dynamic rounding are illegal |
/// | 10:8  | [`MmuIndex`] of data accesses |
/// | 11    | `cbo.clean` and `cbo.flush` are enabled |
/// | 12    | `cbo.zero` is enabled |
/// | 13    | `cbo.inval` is enabled (flushing or invalidating: the same without a cache) |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mode(pub u32);

/// FS as far as lifting goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FpState {
    Off,
    Clean,
    Dirty,
}

impl Mode {
    const FS_SHIFT: u32 = 3;
    const FRM_INVALID: u32 = 1 << 7;
    const MMU_SHIFT: u32 = 8;
    const CBCFE: u32 = 1 << 11;
    const CBZE: u32 = 1 << 12;
    const CBIE: u32 = 1 << 13;

    /// Bits 1:0.
    pub const fn privilege(self) -> Privilege {
        Privilege::from_bits(self.0 as u64)
    }
    /// Bits 4:3.
    pub(crate) const fn fp(self) -> FpState {
        match (self.0 >> Self::FS_SHIFT) & 3 {
            0 => FpState::Off,
            1 => FpState::Clean,
            _ => FpState::Dirty,
        }
    }
    /// Bit 7.
    pub const fn frm_invalid(self) -> bool {
        self.0 & Self::FRM_INVALID != 0
    }
    /// Bits 10:8.
    pub const fn data_mmu(self) -> MmuIndex {
        MmuIndex((self.0 >> Self::MMU_SHIFT) as u8 & 7)
    }
    /// Bit 11.
    pub const fn cbo_clean_enabled(self) -> bool {
        self.0 & Self::CBCFE != 0
    }
    /// Bit 12.
    pub const fn cbo_zero_enabled(self) -> bool {
        self.0 & Self::CBZE != 0
    }
    /// Bit 13.
    pub const fn cbo_inval_enabled(self) -> bool {
        self.0 & Self::CBIE != 0
    }
}

/// PMP entries there is room for; the model says how many exist.
pub const PMP_ENTRIES: usize = 64;

/// One hart. Every CSR field holds what is stored, not what a read gives: masks, views (`sstatus`) and computed bits
/// (`mip` lines, SD) are the CSR file's business.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Cpu {
    /// What engines know of; `fp_flags` is `fflags`.
    pub header: CpuHeader,
    /// x0 (kept 0) to x31.
    pub x: [u64; 32],
    /// f0 to f31; narrower values are NaN-boxed (volume I, 21.2).
    pub f: [u64; 32],

    /// The hart's privilege.
    pub privilege: Privilege,
    /// `frm` as written; 5 to 7 are kept although they make dynamic rounding illegal. The header's `rounding`
    /// follows valid values only.
    pub frm: u8,
    /// `mhartid`.
    pub hartid: u64,
    /// See [`mod@mstatus`]; SD is computed.
    pub mstatus: u64,
    /// `misa`.
    pub misa: u64,
    /// `medeleg`.
    pub medeleg: u64,
    /// `mideleg`.
    pub mideleg: u64,
    /// `mie`.
    pub mie: u64,
    /// The bits of `mip` that software wrote; external lines and timers are or-ed in on reading.
    pub mip: u64,
    /// `mtvec`.
    pub mtvec: u64,
    /// `mscratch`.
    pub mscratch: u64,
    /// `mepc`.
    pub mepc: u64,
    /// `mcause`.
    pub mcause: u64,
    /// `mtval`.
    pub mtval: u64,
    /// `mcounteren`.
    pub mcounteren: u64,
    /// `mcountinhibit`.
    pub mcountinhibit: u64,
    /// `menvcfg`.
    pub menvcfg: u64,
    /// `mseccfg`.
    pub mseccfg: u64,
    /// `mcycle` minus the header's instruction count (the count at inhibition while inhibited).
    pub mcycle: u64,
    /// `minstret`, kept the same way.
    pub minstret: u64,
    /// `mhpmcounter3` and up at index 3 and up, as of `hpm_settled`: see [`crate::counters`].
    pub mhpmcounter: [u64; 32],
    /// `mhpmevent3` and up at index 3 and up.
    pub mhpmevent: [u64; 32],
    /// Programmable counters that have an event and are not inhibited, a bit each as in `mcountinhibit`.
    pub hpm_active: u64,
    /// The header's instruction count up to which `mhpmcounter` has counted; meaningless without active counters.
    pub hpm_settled: u64,
    /// `mstateen0` to `mstateen3`.
    pub mstateen: [u64; 4],
    /// `pmpcfg`, a byte an entry.
    pub pmpcfg: [u8; PMP_ENTRIES],
    /// `pmpaddr`.
    pub pmpaddr: [u64; PMP_ENTRIES],

    /// `stvec`.
    pub stvec: u64,
    /// `sscratch`.
    pub sscratch: u64,
    /// `sepc`.
    pub sepc: u64,
    /// `scause`.
    pub scause: u64,
    /// `stval`.
    pub stval: u64,
    /// `scounteren`.
    pub scounteren: u64,
    /// `senvcfg`.
    pub senvcfg: u64,
    /// `satp`.
    pub satp: u64,
    /// `stimecmp`.
    pub stimecmp: u64,
    /// `sstateen0` to `sstateen3`.
    pub sstateen: [u64; 4],
    /// State of the entropy source behind `seed`.
    pub seed: u64,
}

// SAFETY: `repr(C)`, the header comes first, and the slots name `x` and `f` only, which are plain integers.
unsafe impl CpuState for Cpu {
    fn header(&self) -> &CpuHeader {
        &self.header
    }
    fn header_mut(&mut self) -> &mut CpuHeader {
        &mut self.header
    }
}

impl Default for Cpu {
    /// All zero, in M-mode: not yet a reset state, which depends on the model.
    fn default() -> Self {
        let mut cpu = Self {
            header: CpuHeader::default(),
            x: [0; 32],
            f: [0; 32],
            privilege: Privilege::Machine,
            frm: 0,
            hartid: 0,
            mstatus: 0,
            misa: 0,
            medeleg: 0,
            mideleg: 0,
            mie: 0,
            mip: 0,
            mtvec: 0,
            mscratch: 0,
            mepc: 0,
            mcause: 0,
            mtval: 0,
            mcounteren: 0,
            mcountinhibit: 0,
            menvcfg: 0,
            mseccfg: 0,
            mcycle: 0,
            minstret: 0,
            mhpmcounter: [0; 32],
            mhpmevent: [0; 32],
            hpm_active: 0,
            hpm_settled: 0,
            mstateen: [0; 4],
            pmpcfg: [0; PMP_ENTRIES],
            pmpaddr: [0; PMP_ENTRIES],
            stvec: 0,
            sscratch: 0,
            sepc: 0,
            scause: 0,
            stval: 0,
            scounteren: 0,
            senvcfg: 0,
            satp: 0,
            stimecmp: 0,
            sstateen: [0; 4],
            seed: 0,
        };
        cpu.update_mode();
        cpu
    }
}

impl Cpu {
    /// Recomputes the header's mode word and rounding. To be called after any change of privilege, `mstatus`, `frm`,
    /// `menvcfg` or `senvcfg`.
    pub fn update_mode(&mut self) {
        let frm = Round::from_frm(self.frm);
        if let Some(round) = frm {
            self.header.rounding = round as u8;
        }
        let fs = match (self.mstatus & mstatus::FS) >> mstatus::FS_SHIFT {
            0 => 0,
            3 => 2,
            _ => 1,
        };
        let bit = |condition: bool, bit: u32| if condition { bit } else { 0 };
        let enabled = self.effective_envcfg();
        self.header.mode = self.privilege as u32
            | fs << Mode::FS_SHIFT
            | bit(frm.is_none(), Mode::FRM_INVALID)
            | u32::from(self.data_mmu().0) << Mode::MMU_SHIFT
            | bit(enabled & envcfg::CBCFE != 0, Mode::CBCFE)
            | bit(enabled & envcfg::CBZE != 0, Mode::CBZE)
            | bit(enabled & envcfg::CBIE != 0, Mode::CBIE);
    }

    /// The environment configuration that binds this privilege: S is bound by `menvcfg`, U by `senvcfg` too.
    fn effective_envcfg(&self) -> u64 {
        match self.privilege {
            Privilege::Machine => u64::MAX,
            Privilege::Supervisor => self.menvcfg,
            Privilege::User => self.menvcfg & self.senvcfg,
        }
    }

    /// The privilege of loads and stores: MPRV lends MPP's to M-mode (volume II, 3.1.6.3).
    pub fn data_privilege(&self) -> Privilege {
        if self.privilege == Privilege::Machine && self.mstatus & mstatus::MPRV != 0 {
            Privilege::from_bits(self.mstatus >> mstatus::MPP_SHIFT)
        } else {
            self.privilege
        }
    }

    /// The translation regime of loads and stores.
    pub fn data_mmu(&self) -> MmuIndex {
        match self.data_privilege() {
            Privilege::User => mmu::U,
            Privilege::Supervisor if self.mstatus & mstatus::SUM == 0 => mmu::S,
            Privilege::Supervisor => mmu::S_SUM,
            Privilege::Machine => mmu::M,
        }
    }
}

/// Slot numbers: x0 to x31 are 0 to 31, f0 to f31 are 32 to 63.
pub mod slot {
    use super::Slot;
    /// Integer register `n`; lifters never name x0.
    pub const fn x(n: u8) -> Slot {
        Slot(n as u16 & 31)
    }
    /// Floating-point register `n`.
    pub const fn f(n: u8) -> Slot {
        Slot(32 + (n as u16 & 31))
    }
    /// `mstatus` as it is kept; see [`super::Cpu::mstatus`].
    pub const MSTATUS: Slot = Slot(64);
    /// The CSR's slot and the bits that can be written, where that is all there is to it.
    pub const fn csr(number: u16) -> Option<(Slot, u64)> {
        let all = u64::MAX;
        let (slot, mask) = match number {
            0x140 => (65, all),
            0x141 => (66, !1),
            0x142 => (67, all),
            0x143 => (68, all),
            0x340 => (69, all),
            0x341 => (70, !1),
            0x342 => (71, all),
            0x343 => (72, all),
            _ => return None,
        };
        Some((Slot(slot), mask))
    }
}

/// ABI names of the integer registers (RISC-V psABI, 1.1).
pub const X_NAMES: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6",
    "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
];

/// ABI names of the floating-point registers (RISC-V psABI, 1.2).
pub const F_NAMES: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4",
    "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8",
    "ft9", "ft10", "ft11",
];

const SLOT_NAMES: [&str; 64] = [
    "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
    "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30",
    "x31", "f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11", "f12", "f13", "f14",
    "f15", "f16", "f17", "f18", "f19", "f20", "f21", "f22", "f23", "f24", "f25", "f26", "f27", "f28", "f29",
    "f30", "f31",
];

/// CSRs that are slots.
const CSR_SLOTS: [(&str, usize); 9] = [
    ("mstatus", offset_of!(Cpu, mstatus)),
    ("sscratch", offset_of!(Cpu, sscratch)),
    ("sepc", offset_of!(Cpu, sepc)),
    ("scause", offset_of!(Cpu, scause)),
    ("stval", offset_of!(Cpu, stval)),
    ("mscratch", offset_of!(Cpu, mscratch)),
    ("mepc", offset_of!(Cpu, mepc)),
    ("mcause", offset_of!(Cpu, mcause)),
    ("mtval", offset_of!(Cpu, mtval)),
];

/// The slot table, in the order of [`slot`].
pub(crate) static SLOTS: [SlotDesc; 64 + CSR_SLOTS.len()] = {
    let mut slots = [SlotDesc { name: "", offset: 0, ty: Type::I64 }; 64 + CSR_SLOTS.len()];
    let mut csr = 0;
    while csr < CSR_SLOTS.len() {
        let (name, offset) = CSR_SLOTS[csr];
        slots[64 + csr] = SlotDesc { name, offset: offset as u32, ty: Type::I64 };
        csr += 1;
    }
    let mut n = 0;
    while n < 64 {
        let base = if n < 32 { offset_of!(Cpu, x) } else { offset_of!(Cpu, f) };
        slots[n] = SlotDesc { name: SLOT_NAMES[n], offset: (base + n % 32 * 8) as u32, ty: Type::I64 };
        n += 1;
    }
    slots
};

/// Registers for people, four to a line.
pub(crate) fn describe(cpu: &Cpu) -> String {
    let mut text = format!(" pc {:016x}  {:?}  mstatus {:016x}\n", cpu.header.pc, cpu.privilege, cpu.mstatus);
    for (n, name) in X_NAMES.iter().enumerate() {
        let end = if n % 4 == 3 { '\n' } else { ' ' };
        let _ = write!(text, "{name:>4} {:016x}{end}", cpu.x[n]);
    }
    let _ = writeln!(text, "mcause {:x} mepc {:016x} mtval {:016x}", cpu.mcause, cpu.mepc, cpu.mtval);
    let _ = writeln!(text, "scause {:x} sepc {:016x} stval {:016x}", cpu.scause, cpu.sepc, cpu.stval);
    let _ = writeln!(text, "  satp {:016x} stvec {:016x} mtvec {:016x}", cpu.satp, cpu.stvec, cpu.mtvec);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_follows_mstatus() {
        let mut cpu = Cpu::default();
        assert_eq!(Mode(cpu.header.mode).privilege(), Privilege::Machine);
        assert_eq!(Mode(cpu.header.mode).data_mmu(), mmu::M);
        assert_eq!(Mode(cpu.header.mode).fp(), FpState::Off);

        cpu.mstatus = mstatus::MPRV | mstatus::SUM | 1 << mstatus::MPP_SHIFT | 3 << mstatus::FS_SHIFT;
        cpu.update_mode();
        assert_eq!(Mode(cpu.header.mode).data_mmu(), mmu::S_SUM);
        assert_eq!(Mode(cpu.header.mode).fp(), FpState::Dirty);
        assert!(Mode(cpu.header.mode).cbo_zero_enabled());

        cpu.privilege = Privilege::User;
        cpu.menvcfg = envcfg::CBZE | envcfg::CBCFE;
        cpu.senvcfg = envcfg::CBZE;
        cpu.update_mode();
        assert_eq!(Mode(cpu.header.mode).data_mmu(), mmu::U);
        assert!(Mode(cpu.header.mode).cbo_zero_enabled());
        assert!(!Mode(cpu.header.mode).cbo_clean_enabled());
    }

    #[test]
    fn reserved_frm_keeps_the_last_valid_rounding() {
        let mut cpu = Cpu { frm: 2, ..Cpu::default() };
        cpu.update_mode();
        assert_eq!(cpu.header.rounding, Round::Down as u8);
        assert!(!Mode(cpu.header.mode).frm_invalid());
        cpu.frm = 5;
        cpu.update_mode();
        assert_eq!(cpu.header.rounding, Round::Down as u8);
        assert!(Mode(cpu.header.mode).frm_invalid());
    }

    #[test]
    fn slots_lie_where_the_registers_are() {
        let cpu = Cpu::default();
        let base = std::ptr::from_ref(&cpu).addr();
        for n in 0..32 {
            assert_eq!(base + SLOTS[n].offset as usize, std::ptr::from_ref(&cpu.x[n]).addr());
            assert_eq!(base + SLOTS[n + 32].offset as usize, std::ptr::from_ref(&cpu.f[n]).addr());
        }
    }
}
