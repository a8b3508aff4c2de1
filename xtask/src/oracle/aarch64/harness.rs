//! The harness in A64 code. On a bare machine it sets EL1 up (translation, so that memory is normal; FP; a counter of
//! instructions) and runs the sequences at EL0.

use super::code::{
    CLREX, Code, DSB_SY, ERET, ISB, NE, TLBI_VMALLE1, add, br, branch_if, compare, ldr, ldr_q, mrs, msr, reg,
    str, str_q, sysreg,
};
use crate::oracle::{
    image::{BASE, Harness, TABLES, Variable, call},
    record::{self, Word, signal},
    subject::Sequence,
};
use anyhow::Result;
use std::ops::Range;

/// From a table of vectors to that of exceptions from EL0.
const VECTOR: u64 = 0x400;
/// The class of `svc`.
const SVC_CLASS: u32 = 0x15;
const SAVED: i64 = Variable::Saved as i64;
const CURRENT: i64 = Variable::Current as i64;

/// `struct ucontext`: where `uc_mcontext.pc` is.
const UCONTEXT_PC: i64 = 440;

/// Records' status words.
pub(super) const FPCR: i64 = Word::status(0);
pub(super) const FPSR: i64 = Word::status(1);
pub(super) const NZCV: i64 = Word::status(2);

/// Page tables (the manual, D8.3): 2 MiB blocks, the data for EL0 and EL1 to write, the code for both to execute.
mod block {
    pub(super) const TABLE: u64 = 3;
    pub(super) const DATA: u64 = 1 | 1 << 6 | 3 << 8 | 1 << 10 | 1 << 53 | 1 << 54;
    pub(super) const CODE: u64 = 1 | 3 << 6 | 3 << 8 | 1 << 10;
    pub(super) const SHIFT: u32 = 21;
    /// As many as a branch reaches.
    pub(super) const CODE_BLOCKS: u64 = 64;
}

/// 39 bits of addresses for the lower range only, pages of 4 KiB, memory that is cached and shared, 40 physical bits.
const TCR: u64 = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32;
/// Attribute 0 is normal memory.
const MAIR: u64 = 0xff;
/// SCTLR_EL1 as Linux has it for programs: M, C, I, DZE, UCT, nTWI, nTWE, UCI; SPAN, so that EL1 reaches the data; SA0 is
/// off, for QEMU does not check.
const SCTLR: u64 = 1 | 1 << 2 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | 1 << 23 | 1 << 26;

/// All of it.
pub(super) fn make(base: u64, records: Range<u64>) -> Result<Harness> {
    let mut code = Code::new(base);
    code.pad_to(base + VECTOR);
    let bare_trap = code.here();
    let insns_a_trap = trap_handler(&mut code);
    let signal_handler = code.here();
    handle_signal(&mut code);
    let done = code.here();
    code.write_and_exit(records.start, records.end, call::WRITE, call::EXIT);
    let next = code.here();
    next_record(&mut code, done)?;
    let linux_entry = code.here();
    enter_linux(&mut code, next)?;
    let bare_entry = code.here();
    enter_bare(&mut code, base, next);
    let (mut prologues, mut epilogues) = (vec![0], vec![0]);
    let first = code.here();
    for keeper in 1..31 {
        prologues.push(code.here());
        prologue(&mut code, keeper);
        epilogues.push(code.here());
        epilogue(&mut code, keeper, next)?;
    }
    let state = (code.here() - first) / 4 / 30;
    Ok(Harness {
        code: code.bytes,
        bare_entry,
        bare_trap,
        linux_entry,
        signal_handler,
        prologues,
        epilogues,
        words: tables(base),
        // The driver, the keeper's pointer and the jump to the epilogue as well.
        insns_a_record: state + 9 + 2 + 1,
        insns_a_trap,
    })
}

/// The words of the page tables.
fn tables(code: u64) -> Vec<(u64, u64)> {
    let second = TABLES + 4096;
    let mut words = vec![(TABLES + (BASE >> 30 & 511) * 8, second | block::TABLE)];
    let (first, from, end) = (BASE >> block::SHIFT, code >> block::SHIFT, BASE >> block::SHIFT | 511);
    for number in first..=end.min(from + block::CODE_BLOCKS) {
        let flags = if number < from { block::DATA } else { block::CODE };
        words.push((second + (number & 511) * 8, number << block::SHIFT | flags));
    }
    words
}

/// What stands in front of each sequence and behind it.
pub(super) fn place(at: u64, sequence: &Sequence, epilogue: u64) -> Result<Vec<u8>> {
    let mut code = Code::new(at);
    load_pointer(&mut code, sequence.keeper);
    code.bytes.extend(sequence.bytes());
    code.jump(epilogue)?;
    Ok(code.bytes)
}

fn load_pointer(code: &mut Code, register: u8) {
    code.page(register, BASE);
    code.add([ldr(register, register, CURRENT)]);
}

/// Goes to the next record, or to `done`. All registers are free here.
fn next_record(code: &mut Code, done: u64) -> Result<()> {
    use reg::{X9, X10, X11};
    code.page(X9, BASE);
    code.add([
        ldr(X10, X9, CURRENT),
        add(X10, X10, record::BYTES as i64),
        str(X10, X9, CURRENT),
        ldr(X11, X9, Variable::End as i64),
        compare(X10, X11),
        branch_if(NE, 8),
    ]);
    code.jump(done)?;
    code.add([ldr(X11, X10, Word::Prologue as i64), br(X11)]);
    Ok(())
}

/// A register that is not the keeper.
const fn other(keeper: u8) -> u8 {
    if keeper == reg::X9 { reg::X10 } else { reg::X9 }
}

/// Loads the state of the current record and jumps to its sequence.
fn prologue(code: &mut Code, keeper: u8) {
    let temporary = other(keeper);
    load_pointer(code, keeper);
    for (at, register) in [(FPCR, sysreg::FPCR), (FPSR, sysreg::FPSR), (NZCV, sysreg::NZCV)] {
        code.add([ldr(temporary, keeper, at), msr(register, temporary)]);
    }
    code.add([ldr(temporary, keeper, Word::x(31)), add(reg::R31, temporary, 0)]);
    for n in 0..32 {
        code.add([ldr_q(n, keeper, Word::f(n))]);
    }
    for n in (0..31).filter(|n| *n != keeper) {
        code.add([ldr(n, keeper, Word::x(n))]);
    }
    code.add([ldr(keeper, keeper, Word::Sequence as i64), br(keeper)]);
}

/// Stores the state into the current record, drops any reservation, and goes on.
fn epilogue(code: &mut Code, keeper: u8, next: u64) -> Result<()> {
    for n in (0..31).filter(|n| *n != keeper) {
        code.add([str(n, keeper, Word::x(n))]);
    }
    for n in 0..32 {
        code.add([str_q(n, keeper, Word::f(n))]);
    }
    let temporary = other(keeper);
    for (at, register) in [(FPCR, sysreg::FPCR), (FPSR, sysreg::FPSR), (NZCV, sysreg::NZCV)] {
        code.add([mrs(temporary, register), str(temporary, keeper, at)]);
    }
    code.add([add(temporary, reg::R31, 0), str(temporary, keeper, Word::x(31)), CLREX]);
    code.jump(next)
}

/// The bare machine's handler of exceptions from EL0: notes the exception and ends the sequence; a call ends everything.
/// Gives the instructions of the first way.
fn trap_handler(code: &mut Code) -> u64 {
    use reg::{X0, X1, X2};
    let start = code.here();
    code.add([msr(sysreg::TPIDR_EL1, X0)]);
    code.page(X0, BASE);
    code.add([str(X1, X0, SAVED), str(X2, X0, SAVED + 8), mrs(X1, sysreg::ESR_EL1)]);
    // lsr x2, x1, #26
    code.add([0xd35a_fc22]);
    const ENDING: i64 = 4;
    code.unless_equal(X2, SVC_CLASS, ENDING);
    code.add([
        mrs(X1, sysreg::PMCCNTR_EL0),
        str(X1, X0, Variable::Instructions as i64),
        str(X2, X0, Variable::Done as i64),
        0x1400_0000,
    ]);
    code.add([
        ldr(X2, X0, CURRENT),
        str(X1, X2, Word::Cause as i64),
        mrs(X1, sysreg::ELR_EL1),
        str(X1, X2, Word::TrapPc as i64),
        mrs(X1, sysreg::FAR_EL1),
        str(X1, X2, Word::TrapValue as i64),
        ldr(X1, X2, Word::Epilogue as i64),
        msr(sysreg::ELR_EL1, X1),
        ldr(X1, X0, SAVED),
        ldr(X2, X0, SAVED + 8),
        mrs(X0, sysreg::TPIDR_EL1),
        ERET,
    ]);
    (code.here() - start) / 4 - ENDING as u64
}

/// The same for Linux: `handler(signal, siginfo, ucontext)`.
fn handle_signal(code: &mut Code) {
    use reg::{X0, X2, X9, X10, X30};
    load_pointer(code, X9);
    code.add([
        str(X0, X9, Word::Cause as i64),
        ldr(X10, X2, UCONTEXT_PC),
        str(X10, X9, Word::TrapPc as i64),
        ldr(X10, X9, Word::Epilogue as i64),
        str(X10, X2, UCONTEXT_PC),
        super::code::ret(X30),
    ]);
}

/// Installs the signal handler, then begins.
fn enter_linux(code: &mut Code, next: u64) -> Result<()> {
    use reg::{X0, X1, X2, X3};
    code.number(X0, BASE + Variable::SignalStack as u64);
    code.number(X1, 0);
    code.call(call::SIGALTSTACK);
    for signal in signal::ALL {
        code.number(X0, signal);
        code.number(X1, BASE + Variable::SignalAction as u64);
        code.number(X2, 0);
        code.number(X3, 8);
        code.call(call::SIGACTION);
    }
    code.jump(next)
}

/// From EL1 after reset to EL0.
fn enter_bare(code: &mut Code, vectors: u64, next: u64) {
    const X0: u8 = reg::X0;
    let set = |code: &mut Code, register, value| {
        code.number(X0, value);
        code.add([msr(register, X0)]);
    };
    set(code, sysreg::VBAR_EL1, vectors);
    set(code, sysreg::CPACR_EL1, 3 << 20);
    set(code, sysreg::MAIR_EL1, MAIR);
    set(code, sysreg::TCR_EL1, TCR);
    set(code, sysreg::TTBR0_EL1, TABLES);
    code.add([ISB, TLBI_VMALLE1, DSB_SY, ISB]);
    set(code, sysreg::SCTLR_EL1, SCTLR);
    code.add([ISB]);
    set(code, sysreg::SPSR_EL1, 0);
    set(code, sysreg::ELR_EL1, next);
    set(code, sysreg::PMCNTENSET_EL0, 1 << 31);
    set(code, sysreg::PMCR_EL0, 1 | 1 << 2 | 1 << 6);
    code.add([ERET]);
}
