//! The mode word: everything about a PE's state that changes what its instructions are lifted to, and the translation
//! regimes of memory accesses.

use isomer_ir::MmuIndex;

/// Translation regimes, as memory accesses name them.
///
/// Fetches and data accesses of an exception level use the same index; unprivileged loads and stores (`ldtr`, `sttr`)
/// use [`Mode::unprivileged_mmu`].
pub mod mmu {
    use isomer_ir::MmuIndex;
    /// EL1&0, as EL0.
    pub const E10_0: MmuIndex = MmuIndex(0);
    /// EL1&0, as EL1.
    pub const E10_1: MmuIndex = MmuIndex(1);
    /// EL1&0, as EL1 with PSTATE.PAN = 1.
    pub const E10_1_PAN: MmuIndex = MmuIndex(2);
    /// EL2&0 (HCR_EL2.E2H = 1), as EL0.
    pub const E20_0: MmuIndex = MmuIndex(3);
    /// EL2&0, as EL2.
    pub const E20_2: MmuIndex = MmuIndex(4);
    /// EL2&0, as EL2 with PSTATE.PAN = 1.
    pub const E20_2_PAN: MmuIndex = MmuIndex(5);
    /// EL2 (HCR_EL2.E2H = 0).
    pub const E2: MmuIndex = MmuIndex(6);
    /// How many there are.
    pub const COUNT: usize = 7;
}

/// The mode word.
///
/// | bits  | meaning |
/// |-------|---------|
/// | 1:0   | exception level |
/// | 4:2   | [`MmuIndex`] of fetches and ordinary data accesses |
/// | 7:5   | [`MmuIndex`] of unprivileged accesses (`ldtr`, `sttr`; PSTATE.UAO is in it) |
/// | 8     | FP and SIMD instructions trap (CPACR_EL1.FPEN, CPTR_EL2); which EL takes it is found when it does |
/// | 9     | every misaligned data access faults (SCTLR_ELx.A, or the MMU is off and memory is Device) |
/// | 10    | a misaligned SP as base of an access faults (SCTLR_ELx.SA, SA0) |
/// | 11    | data accesses are big-endian (SCTLR_ELx.EE, E0E) |
/// | 12    | FPCR.DN: default NaN |
/// | 13    | FPCR.FZ: single and double subnormals are flushed |
/// | 14    | FPCR.FZ16: half subnormals are flushed |
/// | 15    | guarded pages are in use: indirect branches set `btype`, blocks check and clear it at their entry |
/// | 17:16 | top byte ignored in branch destinations of the lower (16) and the upper (17) half of addresses |
/// | 21:18 | PAuth keys enabled: IA (18), IB, DA, DB (SCTLR_ELx.EnIA ...); a disabled key makes its instructions move nothing |
/// | 22    | PAuth instructions trap to EL2 (HCR_EL2.API = 0) |
/// | 23    | software step is active: see [`Mode::single_step`] |
/// | 24    | `paciasp` and `pacibsp` are no landing pads for BTYPE 3 (SCTLR_ELx.BT0, BT1) |
/// | 25    | misaligned ordered accesses inside 16 bytes or not never fault (SCTLR_ELx.nAA) |
/// | 26    | `dc zva` is allowed (DCZID_EL0.DZP = 0 and no trap) |
/// | 27    | SP is SP_ELx, not SP_EL0 (PSTATE.SP) |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mode(pub u32);

/// The pointer authentication keys that SCTLR_ELx switches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Key {
    /// Instruction key A.
    IA,
    /// Instruction key B.
    IB,
    /// Data key A.
    DA,
    /// Data key B.
    DB,
}

impl Mode {
    pub(crate) const MMU_SHIFT: u32 = 2;
    pub(crate) const UNPRIVILEGED_SHIFT: u32 = 5;
    pub(crate) const FP_TRAP: u32 = 1 << 8;
    pub(crate) const ALIGN: u32 = 1 << 9;
    pub(crate) const SP_ALIGN: u32 = 1 << 10;
    pub(crate) const BIG: u32 = 1 << 11;
    pub(crate) const DN: u32 = 1 << 12;
    pub(crate) const FZ: u32 = 1 << 13;
    pub(crate) const FZ16: u32 = 1 << 14;
    pub(crate) const GUARDED: u32 = 1 << 15;
    pub(crate) const TBI0: u32 = 1 << 16;
    pub(crate) const TBI1: u32 = 1 << 17;
    pub(crate) const KEY_SHIFT: u32 = 18;
    pub(crate) const PAUTH_TRAP: u32 = 1 << 22;
    pub(crate) const STEP: u32 = 1 << 23;
    pub(crate) const BT: u32 = 1 << 24;
    pub(crate) const NAA: u32 = 1 << 25;
    pub(crate) const ZVA: u32 = 1 << 26;
    pub(crate) const SPSEL: u32 = 1 << 27;

    const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// The exception level, 0 to 3.
    pub const fn el(self) -> u8 {
        (self.0 & 3) as u8
    }
    /// Regime of fetches, loads and stores.
    pub const fn mmu(self) -> MmuIndex {
        MmuIndex((self.0 >> Self::MMU_SHIFT) as u8 & 7)
    }
    /// Regime of `ldtr`, `sttr` and their kin.
    pub const fn unprivileged_mmu(self) -> MmuIndex {
        MmuIndex((self.0 >> Self::UNPRIVILEGED_SHIFT) as u8 & 7)
    }
    /// FP and SIMD instructions take [`crate::trap::FP_ACCESS`].
    pub const fn fp_trapped(self) -> bool {
        self.has(Self::FP_TRAP)
    }
    /// Every misaligned data access faults.
    pub const fn aligned_only(self) -> bool {
        self.has(Self::ALIGN)
    }
    /// SP must be 16-byte aligned where it is the base of an access.
    pub const fn sp_aligned(self) -> bool {
        self.has(Self::SP_ALIGN)
    }
    /// Data accesses are big-endian.
    pub const fn big_endian(self) -> bool {
        self.has(Self::BIG)
    }
    /// FPCR.DN.
    pub const fn default_nan(self) -> bool {
        self.has(Self::DN)
    }
    /// FPCR.FZ.
    pub const fn flush_to_zero(self) -> bool {
        self.has(Self::FZ)
    }
    /// FPCR.FZ16.
    pub const fn flush_to_zero_half(self) -> bool {
        self.has(Self::FZ16)
    }
    /// Branch target identification matters: `br`, `blr` and their kin write the slot `btype`; the first instruction of
    /// every block (offset 0) checks it with the helper `bti_check` when it is not 0, and clears it.
    pub const fn guarded(self) -> bool {
        self.has(Self::GUARDED)
    }
    /// The top byte of a branch destination is replaced by copies of bit 55, if that bit is `upper`.
    pub const fn ignores_top_byte(self, upper: bool) -> bool {
        self.has(if upper { Self::TBI1 } else { Self::TBI0 })
    }
    /// Is this key's authentication switched on? (`pacga` always is.)
    pub const fn key_enabled(self, key: Key) -> bool {
        self.has(1 << (Self::KEY_SHIFT + key as u32))
    }
    /// PAuth instructions take [`crate::trap::PAUTH_ACCESS`].
    pub const fn pauth_trapped(self) -> bool {
        self.has(Self::PAUTH_TRAP)
    }
    /// Exactly one instruction is to be executed: its block starts with a call of the helper `step` and ends behind it.
    pub const fn single_step(self) -> bool {
        self.has(Self::STEP)
    }
    /// `paciasp` and `pacibsp` are not compatible with BTYPE 3.
    pub const fn strict_landing(self) -> bool {
        self.has(Self::BT)
    }
    /// SCTLR_ELx.nAA.
    pub const fn unaligned_ordered(self) -> bool {
        self.has(Self::NAA)
    }
    /// PSTATE.SP.
    pub const fn own_stack(self) -> bool {
        self.has(Self::SPSEL)
    }
    /// `dc zva` needs no check.
    pub const fn zva_allowed(self) -> bool {
        self.has(Self::ZVA)
    }
}
