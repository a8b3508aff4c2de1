//! Calls, returns, CSR accesses, fences and may-be-operations (volume I, 2.7, 2.8, 6, 7, 16, 17; volume II, 3.3, 11, 12).

use crate::{
    Privilege, cause, csr,
    helpers::Helper,
    lift::Lift,
    operands::{Csr, Fence, I, R, R1, U},
    regs::{FpState, mstatus, slot},
};
use isomer_ir::{
    Slot, Terminal, Type, Value,
    op::{BinOp, Cond},
    types::Order,
};

pub(crate) fn ecall(l: &mut Lift<'_>) {
    let cause = match l.mode.privilege() {
        Privilege::User => cause::ECALL_U,
        Privilege::Supervisor => cause::ECALL_S,
        Privilege::Machine => cause::ECALL_M,
    };
    l.trap(cause, None);
}

pub(crate) fn ebreak(l: &mut Lift<'_>) {
    let address = l.pc_rel(0);
    l.trap(cause::BREAKPOINT, Some(address));
}

/// No effect.
pub(crate) fn nop(_: &mut Lift<'_>) {}

/// No effect, whatever the immediate.
pub(crate) fn c_nop(_: &mut Lift<'_>, _: I) {}

// --- privileged

pub(crate) fn mret(l: &mut Lift<'_>) {
    if l.mode.privilege() != Privilege::Machine {
        return l.illegal();
    }
    l.trap_return(Helper::Mret);
}

pub(crate) fn sret(l: &mut Lift<'_>) {
    if l.mode.privilege() == Privilege::User {
        return l.illegal();
    }
    l.trap_return(Helper::Sret);
}

pub(crate) fn wfi(l: &mut Lift<'_>) {
    let insn = l.insn_bits();
    l.call_void(Helper::Wfi, &[insn]);
    l.exit();
}

/// `sfence.vma` and `sinval.vma`: the latter is done at once, which it may be.
pub(crate) fn sfence_vma(l: &mut Lift<'_>, o: R) {
    if l.mode.privilege() == Privilege::User {
        return l.illegal();
    }
    let args = [l.insn_bits(), l.x(o.rs1), l.x(o.rs2)];
    l.call_void(Helper::SfenceVma, &args);
    l.exit();
}

/// `sfence.w.inval` and `sfence.inval.ir`: invalidations are never held back, so there is nothing to order.
pub(crate) fn sfence_inval(l: &mut Lift<'_>) {
    if l.mode.privilege() == Privilege::User {
        l.illegal();
    }
}

impl Lift<'_> {
    fn trap_return(&mut self, helper: Helper) {
        let insn = self.insn_bits();
        let pc = self.call(helper, &[insn]);
        self.b.end(Terminal::ExitIndirect { pc });
    }
}

// --- CSR accesses (volume I, 6.1: what is read and what is written)

pub(crate) fn csrrw(l: &mut Lift<'_>, o: Csr) {
    let value = l.x(o.rs1);
    l.csr_write(o, value);
}

pub(crate) fn csrrwi(l: &mut Lift<'_>, o: Csr) {
    let value = l.imm(i64::from(o.uimm));
    l.csr_write(o, value);
}

pub(crate) fn csrrs(l: &mut Lift<'_>, o: Csr) {
    let mask = (o.rs1 != 0).then(|| l.x(o.rs1));
    l.csr_modify(Helper::CsrSet, o, mask);
}

pub(crate) fn csrrsi(l: &mut Lift<'_>, o: Csr) {
    let mask = (o.uimm != 0).then(|| l.imm(i64::from(o.uimm)));
    l.csr_modify(Helper::CsrSet, o, mask);
}

pub(crate) fn csrrc(l: &mut Lift<'_>, o: Csr) {
    let mask = (o.rs1 != 0).then(|| l.x(o.rs1));
    l.csr_modify(Helper::CsrClear, o, mask);
}

pub(crate) fn csrrci(l: &mut Lift<'_>, o: Csr) {
    // Of what fits into the immediate only SIE is in `sstatus`.
    if o.csr == SSTATUS
        && u64::from(o.uimm) & mstatus::SIE != 0
        && l.mode.privilege() >= Privilege::Supervisor
    {
        return l.mask_interrupts(o);
    }
    let mask = (o.uimm != 0).then(|| l.imm(i64::from(o.uimm)));
    l.csr_modify(Helper::CsrClear, o, mask);
}

impl Lift<'_> {
    /// `csrrw` and `csrrwi`, which do not read when rd is x0.
    fn csr_write(&mut self, o: Csr, value: Value) {
        if let Some((slot, mask)) = self.plain_csr(o.csr) {
            let old = self.b.get(slot);
            self.set_plain_csr(slot, mask, value);
            return self.set_x(o.rd, old);
        }
        let args = self.csr_args(value);
        if o.rd == 0 {
            self.call_void(Helper::CsrWrite, &args);
        } else {
            let old = self.call(Helper::CsrSwap, &args);
            self.set_x(o.rd, old);
        }
        self.after_csr_write(o.csr);
    }

    /// The setting and clearing forms, which do not write when the operand is x0 or a zero immediate.
    fn csr_modify(&mut self, helper: Helper, o: Csr, mask: Option<Value>) {
        if let Some((slot, writable)) = self.plain_csr(o.csr) {
            let old = self.b.get(slot);
            if let Some(bits) = mask {
                let op = if helper == Helper::CsrSet { BinOp::Or } else { BinOp::AndNot };
                let new = self.b.bin(op, old, bits);
                self.set_plain_csr(slot, writable, new);
            }
            return self.set_x(o.rd, old);
        }
        if o.csr == SSTATUS && self.mode.privilege() >= Privilege::Supervisor && mask.is_none() {
            let status = self.sstatus();
            return self.set_x(o.rd, status);
        }
        let (helper, operand) = match mask {
            Some(mask) => (helper, mask),
            None => (Helper::CsrRead, self.imm(0)),
        };
        let args = self.csr_args(operand);
        let old = self.call(helper, &args);
        self.set_x(o.rd, old);
        if mask.is_some() {
            self.after_csr_write(o.csr);
        }
    }

    /// The slot of a CSR that is no more than one, if this mode may access it.
    fn plain_csr(&self, csr: u16) -> Option<(Slot, u64)> {
        let allowed = self.mode.privilege() as u16 >= csr >> 8 & 3;
        slot::csr(csr).filter(|_| allowed)
    }

    /// What cannot be written is 0.
    fn set_plain_csr(&mut self, slot: Slot, mask: u64, value: Value) {
        let value = if mask == u64::MAX { value } else { self.b.bin_imm(BinOp::And, value, mask) };
        self.b.set(slot, value);
    }

    /// `sstatus` as it is read.
    fn sstatus(&mut self) -> Value {
        let status = self.b.get(slot::MSTATUS);
        let fs = self.b.bin_imm(BinOp::And, status, mstatus::FS);
        let dirty = self.imm(mstatus::FS as i64);
        let dirty = self.b.compare(Cond::Eq, fs, dirty);
        let dirty = self.b.zext(Type::I64, dirty);
        let dirty = self.b.bin_imm(BinOp::Shl, dirty, mstatus::SD.trailing_zeros().into());
        let status = self.b.bin_imm(BinOp::And, status, csr::SSTATUS_WRITABLE);
        let status = self.b.bin_imm(BinOp::Or, status, csr::UXL_64);
        self.b.or(status, dirty)
    }

    /// `csrrci sstatus, 2` and its like, which mask interrupts: nothing else can change, and nothing has to look.
    fn mask_interrupts(&mut self, o: Csr) {
        if o.rd != 0 {
            let old = self.sstatus();
            self.set_x(o.rd, old);
        }
        let status = self.b.get(slot::MSTATUS);
        let status = self.b.bin_imm(BinOp::And, status, !mstatus::SIE);
        self.b.set(slot::MSTATUS, status);
    }

    /// Encoding and operand.
    fn csr_args(&mut self, operand: Value) -> [Value; 2] {
        [self.insn_bits(), operand]
    }

    /// Most writes may change the mode, the address space or what interrupts are pending. Those of the status registers
    /// rarely do, and say so ([`crate::csr`]): kernels mask interrupts with them all the time.
    fn after_csr_write(&mut self, csr: u16) {
        const FFLAGS: u16 = 0x001;
        const MSTATUS: u16 = 0x300;
        let marks_nothing = csr == FFLAGS && self.mode.fp() == FpState::Dirty;
        if matches!(csr, SSTATUS | MSTATUS) {
            let offset = self.next();
            self.b.end(Terminal::Attend { offset });
        } else if slot::csr(csr).is_none() && !marks_nothing {
            self.exit();
        }
    }
}

const SSTATUS: u16 = 0x100;

// --- fences

/// Device accesses count as memory accesses (volume I, 2.7).
pub(crate) fn fence(l: &mut Lift<'_>, o: Fence) {
    const READS: u8 = 0b1010;
    const WRITES: u8 = 0b0101;
    let after_reads = o.pred & READS != 0;
    let after_writes = o.pred & WRITES != 0;
    let before_reads = o.succ & READS != 0;
    let before_writes = o.succ & WRITES != 0;
    let order = match (after_reads || after_writes, before_reads || before_writes) {
        (false, _) | (_, false) => return,
        // Only a full fence keeps a load from passing an earlier store.
        _ if after_writes && before_reads => Order::SeqCst,
        _ if !after_writes => Order::Acquire,
        _ => Order::Release,
    };
    l.b.fence(order);
}

/// `fence.tso`: everything but a load passing an earlier store.
pub(crate) fn fence_tso(l: &mut Lift<'_>) {
    l.b.fence(Order::AcqRel);
}

pub(crate) fn fence_i(l: &mut Lift<'_>, _: I) {
    l.call_void(Helper::FenceI, &[]);
    l.exit();
}

// --- may-be-operations (Zimop), which give zero until an extension says otherwise

pub(crate) fn mop_r(l: &mut Lift<'_>, o: R1) {
    let zero = l.imm(0);
    l.set_x(o.rd, zero);
}

pub(crate) fn mop_rr(l: &mut Lift<'_>, o: R) {
    let zero = l.imm(0);
    l.set_x(o.rd, zero);
}

/// `c.mop.n` writes nothing.
pub(crate) fn c_mop(_: &mut Lift<'_>, _: U) {}
