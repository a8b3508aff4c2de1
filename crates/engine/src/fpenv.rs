//! The host's floating-point control and status while compiled code runs: the guest's rounding, and its sticky flags.
#![allow(unsafe_code)]

use isomer_ir::{softfloat::Round, state::CpuHeader};

/// Is there a host mode for the guest's dynamic rounding? Compiled code may not run otherwise.
pub(crate) fn has_rounding(header: &CpuHeader) -> bool {
    header.rounding < Round::NearestAway as u8
}

#[cfg(target_arch = "x86_64")]
mod host {
    use isomer_ir::{softfloat::Flags, state::CpuHeader};
    use std::arch::asm;

    /// All exceptions masked, round to nearest, no flags, no flushing: as Rust expects it.
    const DEFAULT: u32 = 0x1f80;
    /// IE, DE, ZE, OE, UE, PE.
    const STICKY: u32 = 0x3f;
    /// `CpuHeader::rounding` (nearest, zero, down, up) in MXCSR.RC.
    const ROUNDING: [u32; 4] = [0 << 13, 3 << 13, 1 << 13, 2 << 13];

    fn set(mxcsr: u32) {
        // SAFETY: every value given keeps exceptions masked; who calls this restores `DEFAULT` before other Rust code
        // computes with floating point.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack, readonly)) }
    }

    fn get() -> u32 {
        let mut mxcsr = 0_u32;
        // SAFETY: stores four bytes to a live variable.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack)) }
        mxcsr
    }

    /// Enters the guest's rounding, with no flags.
    pub(crate) fn enter(header: &CpuHeader) {
        set(DEFAULT | ROUNDING[usize::from(header.rounding & 3)]);
    }

    /// Back to Rust's; the guest's flags join the header's.
    pub(crate) fn leave(header: &mut CpuHeader) {
        let mxcsr = get();
        if mxcsr != DEFAULT {
            set(DEFAULT);
        }
        if mxcsr & STICKY != 0 {
            let flag = |bit: u32, flag: Flags| if mxcsr >> bit & 1 != 0 { flag.bits() } else { 0 };
            header.fp_flags |= flag(0, Flags::NV)
                | flag(2, Flags::DZ)
                | flag(3, Flags::OF)
                | flag(4, Flags::UF)
                | flag(5, Flags::NX);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod host {
    use isomer_ir::state::CpuHeader;

    /// Compiled code computes nothing with this host's floating point.
    pub(crate) fn enter(_: &CpuHeader) {}
    pub(crate) fn leave(_: &mut CpuHeader) {}
}

pub(crate) use host::{enter, leave};
