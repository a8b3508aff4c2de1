//! Exceptions: what they report and where they go (the manual, D1.3 and D24.2.40 "ESR_ELx").

use crate::{
    Aarch64, Cpu, Features, debug, interrupts,
    interrupts::line,
    model::Conduit,
    pmu,
    pstate::daif,
    system::{hcr, sctlr},
    timer,
};
use isomer_core::Gva;
use isomer_ir::Access;
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
pub const FP_ACCESS: u32 = syndrome(ec::FP_ACCESS, 0x1e0_0000);
/// The code of a pointer authentication instruction while [`crate::Mode::pauth_trapped`].
pub const PAUTH_ACCESS: u32 = syndrome(ec::PAUTH, 0);
/// The code of an access through a misaligned SP ([`crate::Mode::sp_aligned`]).
pub const SP_ALIGNMENT: u32 = syndrome(ec::SP_ALIGN, 0);
/// The code of a branch to a misaligned pc; the value is that pc.
pub const PC_ALIGNMENT: u32 = syndrome(ec::PC_ALIGN, 0);

/// Bits of a data abort's syndrome.
pub(crate) mod iss {
    /// The instruction is described (ISV).
    pub(crate) const ISV: u32 = 1 << 24;
    /// Stage 2 failed for an access of stage 1's walk.
    pub(crate) const S1PTW: u32 = 1 << 7;
    /// It was a write.
    pub(crate) const WNR: u32 = 1 << 6;
}

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

/// The status codes of aborts that no table walk makes.
pub(crate) mod status {
    pub(crate) const EXTERNAL: u32 = 0x10;
    pub(crate) const ALIGNMENT: u32 = 0x21;
}

fn abort(gva: Gva, access: Access, status: u32) -> Trap {
    let class = if access == Access::Fetch { ec::INSN_ABORT } else { ec::DATA_ABORT };
    let write = u32::from(access == Access::Store) << 6;
    Trap::with_far(syndrome(class, status | write), gva.0)
}

/// A misaligned data access that must be aligned.
pub(crate) fn misaligned(gva: Gva, access: Access) -> Trap {
    match access {
        Access::Fetch => Trap::with_far(PC_ALIGNMENT, gva.0),
        _ => abort(gva, access, status::ALIGNMENT),
    }
}

/// An access to a physical address that nobody answers for: a synchronous external abort.
pub(crate) fn external(gva: Gva, access: Access) -> Trap {
    abort(gva, access, status::EXTERNAL)
}

/// Does `trap`, taken at EL0 or EL1, go to EL2 (the manual, D1.3.5 and the classes' own rules)?
fn goes_to_el2(cpu: &Cpu, trap: &Trap) -> bool {
    let bits = cpu.sys.hcr();
    let general = cpu.el == 0 && cpu.sys.tge();
    let external = trap.syndrome & 0x3f == status::EXTERNAL;
    let by_class = match trap.class() {
        ec::HVC | ec::PAUTH => true,
        ec::SMC => bits & hcr::TSC != 0,
        ec::FP_ACCESS => cpu.fp_trap_level() == Some(2),
        ec::BREAKPOINT | ec::STEP | ec::WATCHPOINT | ec::BRK => debug::taker(cpu) == 2,
        ec::INSN_ABORT | ec::DATA_ABORT => external && bits & hcr::TEA != 0,
        _ => false,
    };
    trap.to_el2 || general || by_class
}

/// The level that takes a trap.
fn taker(cpu: &Cpu, trap: &Trap) -> u8 {
    if !cpu.sys.has_el2 {
        return 1;
    }
    let bits = cpu.sys.hcr();
    let to_el2 = match trap.kind {
        Kind::Synchronous => goes_to_el2(cpu, trap),
        Kind::Irq => bits & (hcr::IMO | hcr::TGE) != 0,
        Kind::Fiq => bits & (hcr::FMO | hcr::TGE) != 0,
        Kind::SError => bits & (hcr::AMO | hcr::TGE) != 0,
        Kind::VirtualIrq | Kind::VirtualFiq | Kind::VirtualSError => false,
    };
    if to_el2 || cpu.el == 2 { 2 } else { 1 }
}

/// Calls that nobody is there to answer are undefined instructions.
fn without_callee(cpu: &Cpu, trap: Trap) -> Trap {
    let answered = match trap.class() {
        ec::HVC => cpu.sys.has_el2 && (cpu.el == 2 || cpu.sys.hcr() & hcr::HCD == 0),
        ec::SMC => cpu.el == 1 && cpu.sys.hcr() & hcr::TSC != 0,
        _ => true,
    };
    if trap.kind != Kind::Synchronous || answered { trap } else { Trap::undefined() }
}

/// A branch to a misaligned pc is complete: the exception is that of the instruction there, unless the branch was stepped.
fn after_branch(cpu: &mut Cpu, trap: Trap) -> Trap {
    if trap.kind != Kind::Synchronous || trap.class() != ec::PC_ALIGN {
        return trap;
    }
    cpu.header.pc = trap.far;
    debug::step_pending(cpu).unwrap_or(trap)
}

/// Takes an exception (the manual, D1.3.2 "AArch64.TakeException").
pub(crate) fn take(guest: &Aarch64, cpu: &mut Cpu, trap: Trap) {
    pmu::settle(cpu, cpu.header.insns);
    let trap = after_branch(cpu, without_callee(cpu, trap));
    let from = cpu.el;
    let to = taker(cpu, &trap);
    let level = usize::from(to);
    let synchronous = trap.kind == Kind::Synchronous;
    let class = if synchronous { trap.class() } else { ec::UNKNOWN };
    let is_call = synchronous && matches!(class, ec::SVC | ec::HVC);
    if cpu.stepped && (is_call || !synchronous || class == ec::STEP) {
        // The instruction that was stepped is complete.
        cpu.ss = false;
    }
    cpu.stepped = false;
    let sys = &mut cpu.sys;
    sys.elr[level] = cpu.header.pc.wrapping_add(if is_call { 4 } else { 0 });
    if synchronous {
        let has_same_level_class =
            matches!(class, ec::INSN_ABORT | ec::DATA_ABORT | ec::BREAKPOINT | ec::STEP | ec::WATCHPOINT);
        let same = u32::from(has_same_level_class && from == to) << 26;
        sys.esr[level] = u64::from(trap.syndrome + same);
        if matches!(class, ec::INSN_ABORT | ec::DATA_ABORT | ec::PC_ALIGN | ec::WATCHPOINT) {
            sys.far[level] = trap.far;
        }
        if trap.to_el2 {
            sys.hpfar = trap.hpfar;
        }
    } else if matches!(trap.kind, Kind::SError | Kind::VirtualSError) {
        sys.esr[level] = u64::from(syndrome(ec::SERROR, trap.syndrome & 0x1ff_ffff));
    }
    cpu.sys.spsr[level] = cpu.spsr_value();
    enter(guest, cpu, to);
    let source = match (from == to, cpu.sys.spsr[level] & 1) {
        (true, 0) => 0,
        (true, _) => 0x200,
        (false, _) => 0x400,
    };
    let kind = match trap.kind {
        Kind::Synchronous => 0,
        Kind::Irq | Kind::VirtualIrq => 0x80,
        Kind::Fiq | Kind::VirtualFiq => 0x100,
        Kind::SError | Kind::VirtualSError => 0x180,
    };
    cpu.header.pc = cpu.sys.vbar[level].wrapping_add(source + kind);
}

/// PSTATE as exception entry to level `to` leaves it.
fn enter(guest: &Aarch64, cpu: &mut Cpu, to: u8) {
    cpu.set_level(to, true);
    let control = cpu.sys.sctlr[usize::from(to)];
    let sets_pan = to == 1 || cpu.sys.in_host();
    if sets_pan && control & sctlr::SPAN == 0 && guest.has(Features::PAN) {
        cpu.pan = true;
    }
    cpu.uao = false;
    cpu.ss = false;
    cpu.il = false;
    cpu.btype = 0;
    cpu.daif = daif::D | daif::A | daif::I | daif::F;
    cpu.ssbs = control & sctlr::DSSBS != 0 && guest.has(Features::SSBS);
    cpu.update_mode();
}

/// A physical or virtual interrupt, by how it is masked.
struct Source {
    kind: Kind,
    mask: u64,
    asserted: bool,
}

fn sources(cpu: &Cpu, lines: u64) -> [Source; 5] {
    let bits = cpu.sys.hcr();
    let on = |number: u32| lines >> number & 1 != 0;
    let source = |kind, mask, asserted| Source { kind, mask, asserted };
    let virtual_irq = bits & hcr::IMO != 0 && (bits & hcr::VI != 0 || on(line::VIRTUAL_IRQ));
    let virtual_fiq = bits & hcr::FMO != 0 && (bits & hcr::VF != 0 || on(line::VIRTUAL_FIQ));
    [
        source(Kind::Fiq, daif::F, on(line::FIQ)),
        source(Kind::Irq, daif::I, on(line::IRQ)),
        source(Kind::VirtualFiq, daif::F, virtual_fiq),
        source(Kind::VirtualIrq, daif::I, virtual_irq),
        source(Kind::VirtualSError, daif::A, bits & (hcr::VSE | hcr::AMO) == hcr::VSE | hcr::AMO),
    ]
}

/// May an interrupt be taken now (the manual, D1.3.6, tables of asynchronous exception masking)?
fn is_taken(cpu: &Cpu, source: &Source) -> bool {
    let is_virtual = !matches!(source.kind, Kind::Irq | Kind::Fiq | Kind::SError);
    if !source.asserted || is_virtual && cpu.el >= 2 {
        return false;
    }
    let to = taker(cpu, &Trap { kind: source.kind, ..Trap::undefined() });
    let routed_down = cpu.el == 2 && !is_virtual && {
        let bits = cpu.sys.hcr();
        let route = if source.kind == Kind::Fiq { hcr::FMO } else { hcr::IMO };
        bits & (route | hcr::TGE) == 0
    };
    let maskable = to <= cpu.el || to == 1 || cpu.sys.in_host();
    !(routed_down || maskable && cpu.daif & source.mask != 0)
}

/// What to take before the next instruction: debug, illegal state, interrupts, in order of priority.
pub(crate) fn pending(guest: &Aarch64, cpu: &Cpu, lines: u64, now_ns: u64) -> Option<Trap> {
    interrupts::tell(guest, cpu, now_ns);
    if let Some(step) = debug::step_pending(cpu) {
        return Some(step);
    }
    if cpu.header.pc & 3 != 0 {
        return Some(Trap::with_far(PC_ALIGNMENT, cpu.header.pc));
    }
    if cpu.il {
        return Some(Trap::new(syndrome(ec::ILLEGAL_STATE, 0)));
    }
    let source = sources(cpu, lines).into_iter().find(|source| is_taken(cpu, source))?;
    let syndrome = if source.kind == Kind::VirtualSError { cpu.sys.vsesr as u32 & 0x1ff_ffff } else { 0 };
    Some(Trap { kind: source.kind, syndrome, ..Trap::undefined() })
}

/// Does an interrupt end `wfi`, masked or not? One that waits for its time does too.
pub(crate) fn wakes(guest: &Aarch64, cpu: &Cpu, lines: u64, now_ns: u64) -> bool {
    interrupts::tell(guest, cpu, now_ns);
    let timed_out = timer::count(guest, now_ns) >= cpu.wait_until;
    timed_out || sources(cpu, lines).iter().any(|source| source.asserted)
}

/// When a timer, or the end of a timed wait, is due.
pub(crate) fn deadline_ns(guest: &Aarch64, cpu: &Cpu) -> Option<u64> {
    let wait = (cpu.wait_until != u64::MAX)
        .then(|| isomer_core::clock::ticks_to_ns(cpu.wait_until, guest.counter_hz));
    timer::deadline_ns(guest, cpu).into_iter().chain(wait).min()
}

/// Is this a call of the firmware that the machine provides?
pub(crate) fn is_firmware_call(guest: &Aarch64, cpu: &Cpu, trap: &Trap) -> bool {
    if trap.kind != Kind::Synchronous || cpu.el == 0 {
        return false;
    }
    match guest.conduit() {
        Conduit::Hvc => trap.class() == ec::HVC,
        Conduit::Smc => trap.class() == ec::SMC && !(cpu.el == 1 && cpu.sys.hcr() & hcr::TSC != 0),
    }
}

#[cfg(test)]
#[path = "trap_tests.rs"]
mod tests;
