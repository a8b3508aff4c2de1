//! Exceptions: what they report and where they go (the manual, D1.3 and D24.2.40 "ESR_ELx").

use std::fmt;

/// Exception classes: bits 31:26 of ESR_ELx.
pub mod ec {
    /// Undefined instruction and whatever has no other class.
    pub const UNKNOWN: u32 = 0x00;
    /// Trapped `wfi` or `wfe`.
    pub const WFX: u32 = 0x01;
    /// FP or SIMD access while CPACR_EL1.FPEN or CPTR_EL2 forbid it.
    pub const FP_ACCESS: u32 = 0x07;
    /// Trapped pointer authentication.
    pub const PAUTH: u32 = 0x09;
    /// Branch target exception.
    pub const BTI: u32 = 0x0d;
    /// Illegal execution state.
    pub const ILLEGAL_STATE: u32 = 0x0e;
    /// `svc`.
    pub const SVC: u32 = 0x15;
    /// `hvc`.
    pub const HVC: u32 = 0x16;
    /// `smc`.
    pub const SMC: u32 = 0x17;
    /// Trapped `msr`, `mrs` or system instruction.
    pub const SYSREG: u32 = 0x18;
    /// `eret` trapped by HCR_EL2.NV or fine-grained traps.
    pub const ERET: u32 = 0x1a;
    /// Failed authentication (FEAT_FPAC).
    pub const FPAC: u32 = 0x1c;
    /// Instruction abort from a lower level; one more: from the same level.
    pub const INSN_ABORT: u32 = 0x20;
    /// Misaligned pc.
    pub const PC_ALIGN: u32 = 0x22;
    /// Data abort from a lower level; one more: from the same level.
    pub const DATA_ABORT: u32 = 0x24;
    /// Misaligned SP.
    pub const SP_ALIGN: u32 = 0x26;
    /// SError.
    pub const SERROR: u32 = 0x2f;
    /// Breakpoint from a lower level; one more: from the same level.
    pub const BREAKPOINT: u32 = 0x30;
    /// Software step from a lower level; one more: from the same level.
    pub const STEP: u32 = 0x32;
    /// Watchpoint from a lower level; one more: from the same level.
    pub const WATCHPOINT: u32 = 0x34;
    /// `brk`.
    pub const BRK: u32 = 0x3c;
}

/// ESR_ELx.IL: the instruction is 32 bits long.
pub const IL: u32 = 1 << 25;

/// A syndrome: class, IL, and the class's own 25 bits. It is what lifters give as trap code
/// ([`isomer_ir::Terminal::Trap`], [`isomer_ir::Op::TrapIf`]); the trap's value is FAR_ELx, where the class has one.
pub const fn syndrome(ec: u32, iss: u32) -> u32 {
    ec << 26 | IL | iss
}

/// The code of an undefined instruction.
pub const UNDEFINED: u32 = syndrome(ec::UNKNOWN, 0);
/// The code of an FP or SIMD instruction while [`crate::Mode::fp_trapped`].
pub const FP_ACCESS: u32 = syndrome(ec::FP_ACCESS, 0x1e0_0000 & !(1 << 24) | 1 << 24);
/// The code of a pointer authentication instruction while [`crate::Mode::pauth_trapped`].
pub const PAUTH_ACCESS: u32 = syndrome(ec::PAUTH, 0);
/// The code of an access through a misaligned SP ([`crate::Mode::sp_aligned`]).
pub const SP_ALIGNMENT: u32 = syndrome(ec::SP_ALIGN, 0);
/// The code of a branch to a misaligned pc; the value is that pc.
pub const PC_ALIGNMENT: u32 = syndrome(ec::PC_ALIGN, 0);

/// What kind of exception it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Synchronous; the syndrome's class says which.
    Synchronous,
    /// IRQ.
    Irq,
    /// FIQ.
    Fiq,
    /// SError.
    SError,
    /// Virtual IRQ (HCR_EL2.VI or the virtual CPU interface).
    VirtualIrq,
    /// Virtual FIQ.
    VirtualFiq,
    /// Virtual SError.
    VirtualSError,
}

/// An exception with what it reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trap {
    /// Synchronous or which interrupt.
    pub kind: Kind,
    /// It goes to EL2 whatever the routing registers say of its class (trapped accesses, stage 2 faults).
    pub to_el2: bool,
    /// ESR_ELx as for the same level; `take` makes it "from a lower level".
    pub syndrome: u32,
    /// FAR_ELx, for the classes that write it.
    pub far: u64,
    /// HPFAR_EL2, for stage 2 faults.
    pub hpfar: u64,
}

impl Trap {
    /// A synchronous exception without an address.
    pub const fn new(syndrome: u32) -> Self {
        Self::with_far(syndrome, 0)
    }
    /// A synchronous exception with an address.
    pub const fn with_far(syndrome: u32, far: u64) -> Self {
        Self { kind: Kind::Synchronous, to_el2: false, syndrome, far, hpfar: 0 }
    }
    /// An undefined instruction.
    pub const fn undefined() -> Self {
        Self::new(UNDEFINED)
    }
    /// The exception class.
    pub const fn class(&self) -> u32 {
        self.syndrome >> 26
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Synchronous => {
                write!(
                    f,
                    "exception class {:#04x} (esr {:#010x}, far {:#x})",
                    self.class(),
                    self.syndrome,
                    self.far
                )
            }
            kind => write!(f, "{kind:?}"),
        }
    }
}
