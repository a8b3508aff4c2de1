//! PSTATE: saving, restoring, exception returns, and the mode word made of it (the manual, D1.4 and D1.6).

use crate::{
    Cpu, Mode, debug,
    mode::mmu,
    system::{hcr, sctlr},
};
use isomer_ir::{MmuIndex, softfloat::Round, state::NO_RESERVATION};

/// Bits of SPSR_ELx.
pub(crate) mod spsr {
    /// Stack pointer selection.
    pub(crate) const SP: u64 = 1;
    /// Lowest bit of the exception level.
    pub(crate) const EL_SHIFT: u32 = 2;
    /// AArch32 state.
    pub(crate) const NRW: u64 = 1 << 4;
    /// D, A, I, F.
    pub(crate) const DAIF: u64 = 0x3c0;
    /// Lowest bit of BTYPE.
    pub(crate) const BTYPE_SHIFT: u32 = 10;
    /// SSBS.
    pub(crate) const SSBS: u64 = 1 << 12;
    /// Illegal execution state.
    pub(crate) const IL: u64 = 1 << 20;
    /// Software step.
    pub(crate) const SS: u64 = 1 << 21;
    /// PAN.
    pub(crate) const PAN: u64 = 1 << 22;
    /// UAO.
    pub(crate) const UAO: u64 = 1 << 23;
    /// DIT.
    pub(crate) const DIT: u64 = 1 << 24;
    /// Bits of SPSR_ELx that mean something here.
    pub(crate) const MASK: u64 = 0xf1f0_1fdf;
}

/// PSTATE.D, A, I and F in DAIF's places.
pub(crate) mod daif {
    /// Debug exceptions masked.
    pub(crate) const D: u64 = 1 << 9;
    /// SError masked.
    pub(crate) const A: u64 = 1 << 8;
    /// IRQ masked.
    pub(crate) const I: u64 = 1 << 7;
    /// FIQ masked.
    pub(crate) const F: u64 = 1 << 6;
}

/// Bits of FPCR.
pub(crate) mod fpcr {
    /// Flush half-precision subnormals.
    pub(crate) const FZ16: u32 = 1 << 19;
    /// Lowest bit of RMode.
    pub(crate) const RMODE_SHIFT: u32 = 22;
    /// Flush subnormals.
    pub(crate) const FZ: u32 = 1 << 24;
    /// Default NaN.
    pub(crate) const DN: u32 = 1 << 25;
    /// Alternative half precision.
    pub(crate) const AHP: u32 = 1 << 26;
    /// What is implemented.
    pub(crate) const MASK: u32 = AHP | DN | FZ | 3 << RMODE_SHIFT | FZ16;
}

const fn bit(condition: bool, bit: u32) -> u32 {
    if condition { bit } else { 0 }
}

impl Cpu {
    /// PSTATE in SPSR_ELx's layout.
    pub fn spsr_value(&self) -> u64 {
        let flag = |condition: bool, bit: u64| if condition { bit } else { 0 };
        let [n, z, c, v] = self.nzcv;
        n << 31
            | z << 30
            | c << 29
            | v << 28
            | flag(self.dit, spsr::DIT)
            | flag(self.uao, spsr::UAO)
            | flag(self.pan, spsr::PAN)
            | flag(self.ss, spsr::SS)
            | flag(self.il, spsr::IL)
            | flag(self.ssbs, spsr::SSBS)
            | u64::from(self.btype & 3) << spsr::BTYPE_SHIFT
            | self.daif & spsr::DAIF
            | u64::from(self.el) << spsr::EL_SHIFT
            | u64::from(self.spsel)
    }

    /// Switches to another exception level and stack pointer; the mode word is the caller's business.
    pub fn set_level(&mut self, el: u8, spsel: bool) {
        self.sp_el[self.sp_bank()] = self.sp;
        (self.el, self.spsel) = (el & 3, spsel);
        self.sp = self.sp_el[self.sp_bank()];
    }

    /// Which stack pointer is in use.
    pub fn sp_bank(&self) -> usize {
        if self.spsel { usize::from(self.el & 3) } else { 0 }
    }

    /// Does `bits` name a state that an exception return at this level may go to (the manual, D1.4.4.1)?
    fn is_legal_return(&self, bits: u64) -> bool {
        let el = (bits >> spsr::EL_SHIFT) as u8 & 3;
        let exists = match el {
            0 => bits & spsr::SP == 0,
            1 => !self.sys.tge(),
            2 => self.sys.has_el2,
            _ => false,
        };
        bits & (spsr::NRW | 2) == 0 && exists && el <= self.el
    }

    /// `eret`: restores PSTATE from SPSR_ELx and gives the pc to continue at.
    pub fn exception_return(&mut self) -> u64 {
        let level = usize::from(self.el & 3);
        let (bits, pc) = (self.sys.spsr[level], self.sys.elr[level]);
        let legal = self.is_legal_return(bits);
        let to = if legal { (bits >> spsr::EL_SHIFT) as u8 & 3 } else { self.el };
        let stepping = debug::return_steps(self, to, bits);
        if legal {
            self.set_level(to, bits & spsr::SP != 0);
        }
        for (shift, flag) in [31, 30, 29, 28].into_iter().zip(&mut self.nzcv) {
            *flag = bits >> shift & 1;
        }
        self.daif = bits & spsr::DAIF;
        self.pan = bits & spsr::PAN != 0;
        self.uao = bits & spsr::UAO != 0;
        self.dit = bits & spsr::DIT != 0;
        self.ssbs = bits & spsr::SSBS != 0;
        self.btype = if legal { (bits >> spsr::BTYPE_SHIFT) as u8 & 3 } else { 0 };
        self.il = !legal || bits & spsr::IL != 0;
        self.ss = stepping && bits & spsr::SS != 0;
        self.stepped = false;
        self.event = true;
        self.wait_until = u64::MAX;
        self.header.reserve_host = NO_RESERVATION;
        self.update_mode();
        pc
    }

    /// The translation regime of this level's fetches and data accesses.
    fn regime(&self) -> MmuIndex {
        match (self.el, self.sys.e2h()) {
            (0, _) if self.sys.in_host() => mmu::E20_0,
            (0, _) => mmu::E10_0,
            (1, _) if self.pan => mmu::E10_1_PAN,
            (1, _) => mmu::E10_1,
            (_, false) => mmu::E2,
            (_, true) if self.pan => mmu::E20_2_PAN,
            (_, true) => mmu::E20_2,
        }
    }

    /// The translation regime of `ldtr` and `sttr` (the manual, "AArch64.IsUnprivAccessPriv").
    fn unprivileged_regime(&self) -> MmuIndex {
        let own = self.regime();
        match self.el {
            1 if !self.uao => mmu::E10_0,
            2 if self.sys.in_host() && !self.uao => mmu::E20_0,
            _ => own,
        }
    }

    /// Do FP and SIMD instructions trap, and to which level (the manual, "CheckFPAdvSIMDEnabled64")?
    pub fn fp_trap_level(&self) -> Option<u8> {
        let sys = &self.sys;
        if self.el < 2 && !sys.in_host() {
            let enabled = match sys.cpacr >> 20 & 3 {
                3 => true,
                1 => self.el == 1,
                _ => false,
            };
            if !enabled {
                return Some(1);
            }
        }
        if !sys.has_el2 {
            return None;
        }
        let trapped = if sys.e2h() {
            match sys.cptr >> 20 & 3 {
                3 => false,
                1 => self.el == 0 && sys.tge(),
                _ => true,
            }
        } else {
            sys.cptr & 1 << 10 != 0
        };
        trapped.then_some(2)
    }

    /// Recomputes the header's mode word and rounding. To be called after any change of PSTATE's mode bits, FPCR,
    /// SCTLR_ELx, TCR_ELx, HCR_EL2, CPACR_EL1, CPTR_EL2 and the debug controls.
    pub fn update_mode(&mut self) {
        let sys = &self.sys;
        let regime = sys.regime_el(self.el);
        let control = sys.sctlr[regime];
        let user = self.el == 0;
        let hcr_bits = sys.hcr();
        let on = |bit: u64| control & bit != 0;
        let stage1_off = !(on(sctlr::M) || self.el < 2 && hcr_bits & hcr::DC != 0);
        let pauth_trap = sys.has_el2 && self.el < 2 && !sys.in_host() && sys.hcr & hcr::API == 0;
        let (tbi0, tbi1) = crate::mmu::ignores_top_byte_of_code(self, self.el);
        let keys = [sctlr::ENIA, sctlr::ENIB, sctlr::ENDA, sctlr::ENDB];
        let key_bits = keys.iter().enumerate().fold(0, |bits, (n, &key)| bits | bit(on(key), 1 << n));
        let zva = !user || on(sctlr::DZE);
        let zva = zva && !(self.el < 2 && hcr_bits & hcr::TDZ != 0);
        self.header.mode = u32::from(self.el)
            | u32::from(self.regime().0) << Mode::MMU_SHIFT
            | u32::from(self.unprivileged_regime().0) << Mode::UNPRIVILEGED_SHIFT
            | bit(self.fp_trap_level().is_some(), Mode::FP_TRAP)
            | bit(on(sctlr::A) || stage1_off, Mode::ALIGN)
            | bit(on(if user { sctlr::SA0 } else { sctlr::SA }), Mode::SP_ALIGN)
            | bit(on(if user { sctlr::E0E } else { sctlr::EE }), Mode::BIG)
            | bit(self.fpcr & fpcr::DN != 0, Mode::DN)
            | bit(self.fpcr & fpcr::FZ != 0, Mode::FZ)
            | bit(self.fpcr & fpcr::FZ16 != 0, Mode::FZ16)
            | bit(self.guarded.get(), Mode::GUARDED)
            | bit(tbi0, Mode::TBI0)
            | bit(tbi1, Mode::TBI1)
            | key_bits << Mode::KEY_SHIFT
            | bit(pauth_trap, Mode::PAUTH_TRAP)
            | bit(debug::steps(self), Mode::STEP)
            | bit(on(if user { sctlr::BT0 } else { sctlr::BT1 }), Mode::BT)
            | bit(on(sctlr::NAA), Mode::NAA)
            | bit(zva, Mode::ZVA)
            | bit(self.spsel, Mode::SPSEL);
        self.header.rounding = match self.fpcr >> fpcr::RMODE_SHIFT & 3 {
            0 => Round::NearestEven,
            1 => Round::Up,
            2 => Round::Down,
            _ => Round::TowardZero,
        } as u8;
    }

    /// FPSR as `mrs` gives it. The header's bits are in softfloat's order; IDC counts only while flushing.
    pub fn fpsr(&self) -> u64 {
        let flags = u64::from(self.header.fp_flags);
        let idc = self.idc || self.fpcr & fpcr::FZ != 0 && flags & 32 != 0;
        // NX, UF, OF, DZ, NV (bits 0 to 4) are IXC, UFC, OFC, DZC, IOC (bits 4 to 0).
        let moved = (0..5).fold(0, |bits, n| bits | (flags >> n & 1) << (4 - n));
        u64::from(self.qc & 1) << 27 | u64::from(idc) << 7 | moved
    }

    /// Writes FPSR.
    pub fn set_fpsr(&mut self, value: u64) {
        self.qc = (value >> 27 & 1) as u8;
        self.idc = value & 1 << 7 != 0;
        self.header.fp_flags = (0..5).fold(0, |bits, n| bits | ((value >> (4 - n) & 1) as u8) << n);
    }

    /// Writes FPCR.
    pub fn set_fpcr(&mut self, value: u64) {
        self.idc |= self.fpcr & fpcr::FZ != 0 && self.header.fp_flags & 32 != 0;
        self.header.fp_flags &= 31;
        self.fpcr = value as u32 & fpcr::MASK;
        self.update_mode();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_restores_what_an_exception_saved() {
        let mut cpu = Cpu { nzcv: [1, 0, 1, 0], daif: daif::I, pan: true, uao: true, ..Cpu::default() };
        cpu.set_level(1, false);
        cpu.sp = 0x1000;
        cpu.sys.spsr[1] = cpu.spsr_value();
        cpu.sys.elr[1] = 0x8000;
        let before = cpu.spsr_value();
        cpu.set_level(1, true);
        cpu.sp = 0x2000;
        (cpu.nzcv, cpu.daif, cpu.pan, cpu.uao) = ([0; 4], 0x3c0, false, false);
        assert_eq!(cpu.exception_return(), 0x8000);
        assert_eq!((cpu.spsr_value(), cpu.sp, cpu.sp_el[1]), (before, 0x1000, 0x2000));
        assert_eq!(Mode(cpu.header.mode).mmu(), mmu::E10_1_PAN);
        assert_eq!(Mode(cpu.header.mode).unprivileged_mmu(), mmu::E10_1_PAN);
    }

    #[test]
    fn illegal_returns_set_il_and_stay() {
        for bits in [0x10, 0x2, 0x1, 0x9, 0xd] {
            let mut cpu = Cpu::default();
            cpu.sys.spsr[1] = bits | daif::F;
            cpu.exception_return();
            assert_eq!((cpu.il, cpu.el, cpu.spsel, cpu.daif), (true, 1, true, daif::F), "{bits:#x}");
        }
        let mut cpu = Cpu::default();
        cpu.sys.spsr[1] = 0;
        cpu.exception_return();
        assert_eq!((cpu.il, cpu.el), (false, 0));
    }

    #[test]
    fn floating_point_status_keeps_each_flag_in_its_place() {
        let mut cpu = Cpu::default();
        cpu.set_fpsr(0x0800_009f);
        assert_eq!((cpu.header.fp_flags, cpu.fpsr()), (31, 0x0800_009f));
        cpu.set_fpsr(1);
        assert_eq!((cpu.header.fp_flags, cpu.fpsr()), (16, 1));
        // A subnormal operand counts only where it was flushed.
        cpu.header.fp_flags |= 32;
        assert_eq!(cpu.fpsr(), 1);
        cpu.set_fpcr(u64::from(fpcr::FZ));
        assert_eq!(cpu.fpsr(), 1);
        cpu.header.fp_flags |= 32;
        assert_eq!(cpu.fpsr(), 0x81);
        cpu.set_fpcr(3 << fpcr::RMODE_SHIFT);
        assert_eq!((cpu.fpsr(), cpu.header.rounding), (0x81, Round::TowardZero as u8));
    }

    #[test]
    fn fp_traps_follow_cpacr_and_cptr() {
        let mut cpu = Cpu::default();
        assert_eq!(cpu.fp_trap_level(), Some(1));
        cpu.sys.cpacr = 1 << 20;
        assert_eq!(cpu.fp_trap_level(), None);
        cpu.set_level(0, false);
        assert_eq!(cpu.fp_trap_level(), Some(1));
        cpu.sys.cpacr = 3 << 20;
        cpu.sys.has_el2 = true;
        cpu.sys.cptr = 1 << 10;
        assert_eq!(cpu.fp_trap_level(), Some(2));
        cpu.sys.hcr = hcr::E2H | hcr::TGE;
        cpu.sys.cptr = 3 << 20;
        assert_eq!(cpu.fp_trap_level(), None);
    }
}
