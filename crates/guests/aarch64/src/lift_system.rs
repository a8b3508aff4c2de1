//! Calls, exception returns, system register accesses, hints, barriers and maintenance (the manual, C3.2 and C5).

use crate::{
    helpers_system::SystemHelper as H,
    lift::Lift,
    mode::Key,
    operands::operands,
    privileged::Field,
    regs::slot,
    sysop::{self, ZERO_BYTES},
    sysreg::{key, key_of},
    trap::{self, syndrome},
};
use isomer_ir::{Slot, Terminal, Type, Value, op::BinOp, types::Order};

operands! {
    /// A 16-bit immediate.
    Imm16 { imm: u32 = imm16 }
    /// One general register.
    One { rt: u8 = Rt }
    /// What a barrier orders.
    Barrier { kind: u8 = CRm }
}

// --- calls

/// `svc`, and `brk`: exceptions with an immediate, at every level.
pub(crate) fn call(l: &mut Lift<'_>, o: Imm16, class: u32) {
    l.trap(syndrome(class, o.imm), None);
}

/// `hvc` and `smc`: not EL0's.
pub(crate) fn call_up(l: &mut Lift<'_>, o: Imm16, class: u32) {
    if l.mode.el() == 0 {
        return l.undefined();
    }
    call(l, o, class);
}

/// Debug state and single-stepping by it do not exist: `hlt`, `dcps1` and their kin are undefined.
pub(crate) fn undefined(l: &mut Lift<'_>, _: ()) {
    l.undefined();
}

// --- exception returns

pub(crate) fn eret(l: &mut Lift<'_>, _: ()) {
    let zero = l.imm(0);
    l.exception_return(zero, false);
}

/// `eretaa`, `eretab`: ELR_ELx is authenticated with SP.
pub(crate) fn eret_authenticated(l: &mut Lift<'_>, _: (), key: Key) {
    if l.mode.el() == 0 {
        return l.undefined();
    }
    let (elr, modifier) = (l.call(H::Elr.id(), &[]), l.x_sp(31));
    if let Some(pc) = l.authenticate(key, elr, modifier) {
        l.exception_return(pc, true);
    }
}

impl Lift<'_> {
    fn exception_return(&mut self, pc: Value, authenticated: bool) {
        if self.mode.el() == 0 {
            return self.undefined();
        }
        let authenticated = self.imm(i64::from(authenticated));
        let pc = self.call(H::Eret.id(), &[pc, authenticated]);
        self.b.end(Terminal::ExitIndirect { pc });
    }

    fn encoding(&mut self) -> Value {
        let insn = self.insn;
        self.imm(i64::from(insn))
    }

    /// The slot of a register that is one, as this mode sees it.
    fn register_slot(&self, key: u16) -> Option<Slot> {
        let el = self.mode.el();
        match key {
            TPIDR_EL0 => Some(slot::TPIDR_EL0),
            TPIDR_EL1 if el > 0 => Some(slot::TPIDR_EL1),
            TPIDR_EL2 if el == 2 => Some(slot::TPIDR_EL2),
            SP_EL0 if el > 0 && self.mode.own_stack() => Some(slot::SP_EL0),
            _ => None,
        }
    }

    /// FPCR and FPSR trap as FP instructions do.
    fn is_trapped_fp(&self, key: u16) -> bool {
        matches!(key, FPCR | FPSR) && self.mode.fp_trapped()
    }
}

// --- system registers

const TPIDR_EL0: u16 = key(3, 3, 13, 0, 2);
const TPIDRRO_EL0: u16 = key(3, 3, 13, 0, 3);
const TPIDR_EL1: u16 = key(3, 0, 13, 0, 4);
const TPIDR_EL2: u16 = key(3, 4, 13, 0, 2);
const SP_EL0: u16 = key(3, 0, 4, 1, 0);
const CURRENT_EL: u16 = key(3, 0, 4, 2, 2);
const NZCV: u16 = key(3, 3, 4, 2, 0);
const DAIF: u16 = key(3, 3, 4, 2, 1);
const FPCR: u16 = key(3, 3, 4, 4, 0);
const FPSR: u16 = key(3, 3, 4, 4, 1);

pub(crate) fn mrs(l: &mut Lift<'_>, o: One) {
    let key = key_of(u64::from(l.insn));
    let el = l.mode.el();
    let value = match key {
        _ if l.is_trapped_fp(key) => return l.trap(trap::FP_ACCESS, None),
        TPIDRRO_EL0 => l.b.get(slot::TPIDRRO_EL0),
        CURRENT_EL if el > 0 => l.imm(i64::from(el) << 2),
        DAIF if el > 0 => l.b.get(slot::DAIF),
        NZCV => read_nzcv(l),
        _ => match l.register_slot(key) {
            Some(slot) => l.b.get(slot),
            None => {
                let insn = l.encoding();
                l.call(H::Mrs.id(), &[insn])
            }
        },
    };
    l.set_x(o.rt, value);
}

pub(crate) fn msr(l: &mut Lift<'_>, o: One) {
    let key = key_of(u64::from(l.insn));
    if l.is_trapped_fp(key) {
        return l.trap(trap::FP_ACCESS, None);
    }
    let value = l.x(o.rt);
    if let Some(slot) = l.register_slot(key) {
        return l.b.set(slot, value);
    }
    match key {
        NZCV => return write_nzcv(l, value),
        DAIF if l.mode.el() > 0 => return l.call_void(H::WriteDaif.id(), &[value]),
        _ => {}
    }
    let insn = l.encoding();
    l.call_void(H::Msr.id(), &[insn, value]);
    if !is_inert(key) {
        l.exit();
    }
}

/// Registers whose value concerns nothing that a block is lifted or translated by: those of exceptions, identification
/// of software, timers, and the interrupt controller, which raise attention by themselves where that is due.
const fn is_inert(key: u16) -> bool {
    const fn of(op1: u16, crn: u16, crm: u16, op2: u16) -> u16 {
        self::key(3, op1, crn, crm, op2)
    }
    // The same register of EL1, EL2 and EL12.
    let folded = if matches!(key >> 11 & 7, 4 | 5) && key >> 14 == 3 { key & !(7 << 11) } else { key };
    const SPSR: u16 = of(0, 4, 0, 0);
    const ELR: u16 = of(0, 4, 0, 1);
    const SP: u16 = of(0, 4, 1, 0);
    const ESR: u16 = of(0, 5, 2, 0);
    const FAR: u16 = of(0, 6, 0, 0);
    const PAR: u16 = of(0, 7, 4, 0);
    const CONTEXTIDR: u16 = of(0, 13, 0, 1);
    const PMR: u16 = of(0, 4, 6, 0);
    matches!(folded, SPSR | ELR | SP | ESR | FAR | PAR | CONTEXTIDR | PMR | FPSR)
        || matches!((key >> 7 & 15, key >> 3 & 15), (12, 8..=12) | (14, _))
}

fn read_nzcv(l: &mut Lift<'_>) -> Value {
    let mut value = l.imm(0);
    for (flag, bit) in l.nzcv().into_iter().zip([31, 30, 29, 28]) {
        let flag = l.b.zext(Type::I64, flag);
        value = l.b.deposit(value, flag, bit, 1);
    }
    value
}

fn write_nzcv(l: &mut Lift<'_>, value: Value) {
    let flags = [31, 30, 29, 28].map(|bit| {
        let flag = l.b.extract(value, bit, 1, false);
        l.b.trunc(Type::I8, flag)
    });
    l.set_nzcv(flags);
}

/// `msr` with an immediate: fields of PSTATE.
pub(crate) fn msr_immediate(l: &mut Lift<'_>, o: Barrier) {
    let Some(field) = Field::of(l.guest, l.insn) else { return l.undefined() };
    if l.mode.el() == 0 && !field.is_users() {
        return l.undefined();
    }
    if field == Field::DaifSet && l.mode.el() > 0 {
        let daif = l.b.get(slot::DAIF);
        let daif = l.b.bin_imm(BinOp::Or, daif, u64::from(o.kind) << 6);
        return l.b.set(slot::DAIF, daif);
    }
    let insn = l.encoding();
    l.call_void(H::MsrImmediate.id(), &[insn]);
    if field.changes_mode() {
        l.exit();
    }
}

/// `sys`: maintenance of caches and TLBs, address translation.
pub(crate) fn sys(l: &mut Lift<'_>, o: One) {
    if sysop::is_zva(l.insn) && l.mode.zva_allowed() {
        return zero_block(l, o.rt);
    }
    let (insn, value) = (l.encoding(), l.x(o.rt));
    l.call_void(H::Sys.id(), &[insn, value]);
}

/// `dc zva`: a naturally aligned block of zeros.
fn zero_block(l: &mut Lift<'_>, rt: u8) {
    let address = l.x(rt);
    let base = l.b.bin_imm(BinOp::And, address, !(ZERO_BYTES - 1));
    let zero = l.b.vconst(0);
    let flags = l.plain();
    for offset in (0..ZERO_BYTES).step_by(16) {
        let at = l.b.bin_imm(BinOp::Add, base, offset);
        l.b.store(Type::V128, at, zero, flags);
    }
}

// --- hints and barriers

/// Does nothing.
pub(crate) fn nothing(_: &mut Lift<'_>, _: ()) {}

pub(crate) fn wfi(l: &mut Lift<'_>, _: ()) {
    let zero = l.imm(0);
    l.call_void(H::Wfi.id(), &[zero, zero]);
    l.exit();
}

pub(crate) fn wfe(l: &mut Lift<'_>, _: ()) {
    let zero = l.imm(0);
    l.call_void(H::Wfe.id(), &[zero]);
    l.exit();
}

pub(crate) fn wfit(l: &mut Lift<'_>, o: One) {
    let (timed, until) = (l.imm(1), l.x(o.rt));
    l.call_void(H::Wfi.id(), &[timed, until]);
    l.exit();
}

pub(crate) fn wfet(l: &mut Lift<'_>, _: One) {
    let timed = l.imm(1);
    l.call_void(H::Wfe.id(), &[timed]);
    l.exit();
}

pub(crate) fn event(l: &mut Lift<'_>, _: ()) {
    l.call_void(H::Event.id(), &[]);
}

pub(crate) fn clrex(l: &mut Lift<'_>, _: Barrier) {
    l.call_void(H::Clrex.id(), &[]);
}

/// What a barrier's type orders (the manual, C6.2 "DMB"): loads before all, stores before stores, or all before all.
fn order(kind: u8) -> Order {
    match kind & 3 {
        1 => Order::Acquire,
        2 => Order::Release,
        _ => Order::SeqCst,
    }
}

pub(crate) fn dmb(l: &mut Lift<'_>, o: Barrier) {
    l.b.fence(order(o.kind));
}

/// `dsb`: TLB maintenance is complete only behind one that waits for everything.
pub(crate) fn dsb(l: &mut Lift<'_>, o: Barrier) {
    let order = order(o.kind);
    l.b.fence(order);
    if order == Order::SeqCst {
        l.call_void(H::Dsb.id(), &[]);
        // Nothing of this block may run before the wait.
        let offset = l.next();
        l.b.end(Terminal::Jump { offset, hint: isomer_ir::LinkHint::None });
    }
}

pub(crate) fn isb(l: &mut Lift<'_>, _: Barrier) {
    l.call_void(H::Isb.id(), &[]);
    l.exit();
}
