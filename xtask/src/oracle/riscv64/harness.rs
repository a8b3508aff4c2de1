//! The harness in riscv64 code (volume I, and volume II for the bare machine's trap handler).

use super::assembler::{Code, Table, reg};
use crate::oracle::{
    image::{BASE, Harness, Variable, call},
    record::{self, Word, signal},
    subject::Sequence,
};
use anyhow::Result;
use isomer_riscv64::encoding::Field;
use std::ops::Range;

const FFLAGS_FRM: u16 = 0x003;
const SAVED_SP: i64 = Variable::Saved as i64;
const SAVED_GP: i64 = SAVED_SP + 8;
/// `pc` in riscv64's `struct ucontext`.
const UCONTEXT_PC: i64 = 176;

mod csr {
    pub(super) const MSTATUS: u16 = 0x300;
    pub(super) const MSCRATCH: u16 = 0x340;
    pub(super) const MEPC: u16 = 0x341;
    pub(super) const MCAUSE: u16 = 0x342;
    pub(super) const MTVAL: u16 = 0x343;
    pub(super) const MINSTRET: u16 = 0xb02;
}

/// All of it. A bare machine begins with the first record, in user mode.
pub(super) fn make(table: &Table, base: u64, records: Range<u64>) -> Result<Harness> {
    let mut code = Code::new(table, base);
    let bare_trap = code.here();
    trap_handler(&mut code)?;
    // Without the branch that ends everything.
    let insns_a_trap = (code.here() - bare_trap) / 4 - 4;
    let signal_handler = code.here();
    handle_signal(&mut code)?;
    let done = code.here();
    write_and_exit(&mut code, records)?;
    let next = code.here();
    next_record(&mut code, done)?;
    let linux_entry = code.here();
    enter_linux(&mut code, next)?;
    let (mut prologues, mut epilogues) = (vec![0], vec![0]);
    let first = code.here();
    for keeper in 1..32 {
        prologues.push(code.here());
        prologue(&mut code, keeper)?;
        epilogues.push(code.here());
        epilogue(&mut code, keeper, next)?;
    }
    let state = (code.here() - first) / 4 / 31;
    Ok(Harness {
        code: code.bytes,
        bare_entry: next,
        bare_trap,
        linux_entry,
        signal_handler,
        prologues,
        epilogues,
        words: Vec::new(),
        // The driver, the keeper's pointer and the jump to the epilogue as well.
        insns_a_record: state + 9 + 2 + 1,
        insns_a_trap,
    })
}

/// A sequence between the pointer's load into its keeper and the jump to its epilogue.
pub(super) fn place(table: &Table, at: u64, sequence: &Sequence, epilogue: u64) -> Result<Vec<u8>> {
    let mut code = Code::new(table, at);
    code.load(sequence.keeper, BASE + Variable::Current as u64)?;
    code.bytes.extend(sequence.bytes());
    code.jump(epilogue)?;
    Ok(code.bytes)
}

/// Goes to the next record, or to `done`. All registers are free here.
fn next_record(code: &mut Code<'_>, done: u64) -> Result<()> {
    use reg::{T0, T1, T2, ZERO};
    code.address(T0, BASE)?;
    code.imm("ld", T1, T0, Variable::Current as i64)?;
    code.imm("addi", T1, T1, record::BYTES as i64)?;
    code.pair("sd", T0, T1, Variable::Current as i64)?;
    code.imm("ld", T2, T0, Variable::End as i64)?;
    code.pair("bne", T1, T2, 8)?;
    code.jump(done)?;
    code.imm("ld", T2, T1, Word::Prologue as i64)?;
    code.imm("jalr", ZERO, T2, 0)
}

/// Loads the state of the current record and jumps to its sequence.
fn prologue(code: &mut Code<'_>, keeper: u8) -> Result<()> {
    let temporary = other(keeper);
    code.load(keeper, BASE + Variable::Current as u64)?;
    code.imm("ld", temporary, keeper, Word::Status as i64)?;
    code.csr("csrrw", reg::ZERO, FFLAGS_FRM, temporary)?;
    for n in 0..32 {
        code.imm("fld", n, keeper, Word::f(n))?;
    }
    for n in (1..32).filter(|n| *n != keeper) {
        code.imm("ld", n, keeper, Word::x(n))?;
    }
    code.imm("ld", keeper, keeper, Word::Sequence as i64)?;
    code.imm("jalr", reg::ZERO, keeper, 0)
}

/// Stores the state into the current record, drops any reservation, and goes on.
fn epilogue(code: &mut Code<'_>, keeper: u8, next: u64) -> Result<()> {
    for n in (1..32).filter(|n| *n != keeper) {
        code.pair("sd", keeper, n, Word::x(n))?;
    }
    for n in 0..32 {
        code.pair("fsd", keeper, n, Word::f(n))?;
    }
    let temporary = other(keeper);
    code.csr("csrrs", temporary, FFLAGS_FRM, reg::ZERO)?;
    code.pair("sd", keeper, temporary, Word::Status as i64)?;
    code.imm("addi", temporary, keeper, Word::X0 as i64)?;
    code.three("sc.d", reg::ZERO, temporary, reg::ZERO)?;
    code.jump(next)
}

/// A register that is not the keeper.
const fn other(keeper: u8) -> u8 {
    if keeper == reg::T0 { reg::T1 } else { reg::T0 }
}

/// The bare machine's trap handler: notes the trap and ends the sequence; a call ends everything.
fn trap_handler(code: &mut Code<'_>) -> Result<()> {
    use reg::{GP, RA, SP, ZERO};
    const ECALL_U: i64 = 8;
    code.csr("csrrw", RA, csr::MSCRATCH, RA)?;
    code.address(RA, BASE)?;
    code.pair("sd", RA, SP, SAVED_SP)?;
    code.pair("sd", RA, GP, SAVED_GP)?;
    code.csr("csrrs", SP, csr::MCAUSE, ZERO)?;
    code.imm("addi", GP, ZERO, ECALL_U)?;
    code.pair("bne", SP, GP, 20)?;
    code.csr("csrrs", SP, csr::MINSTRET, ZERO)?;
    code.pair("sd", RA, SP, Variable::Instructions as i64)?;
    code.pair("sd", RA, GP, Variable::Done as i64)?;
    code.insn("jal", &[])?;
    code.imm("ld", GP, RA, Variable::Current as i64)?;
    code.pair("sd", GP, SP, Word::Cause as i64)?;
    code.csr("csrrs", SP, csr::MEPC, ZERO)?;
    code.pair("sd", GP, SP, Word::TrapPc as i64)?;
    code.csr("csrrs", SP, csr::MTVAL, ZERO)?;
    code.pair("sd", GP, SP, Word::TrapValue as i64)?;
    code.imm("ld", SP, GP, Word::Epilogue as i64)?;
    code.csr("csrrw", ZERO, csr::MEPC, SP)?;
    // FS from dirty to clean, so that code lifted for both is run.
    code.insn("lui", &[(Field::Rd, SP.into()), (Field::Imm, 1 << 13)])?;
    code.csr("csrrc", ZERO, csr::MSTATUS, SP)?;
    code.imm("ld", SP, RA, SAVED_SP)?;
    code.imm("ld", GP, RA, SAVED_GP)?;
    code.csr("csrrs", RA, csr::MSCRATCH, ZERO)?;
    code.insn("mret", &[])
}

/// The same for Linux: `handler(signal, siginfo, ucontext)`.
fn handle_signal(code: &mut Code<'_>) -> Result<()> {
    use reg::{A0, A2, RA, T0, T1, ZERO};
    code.load(T0, BASE + Variable::Current as u64)?;
    code.pair("sd", T0, A0, Word::Cause as i64)?;
    code.imm("ld", T1, A2, UCONTEXT_PC)?;
    code.pair("sd", T0, T1, Word::TrapPc as i64)?;
    code.imm("ld", T1, T0, Word::Epilogue as i64)?;
    code.pair("sd", A2, T1, UCONTEXT_PC)?;
    code.imm("jalr", ZERO, RA, 0)
}

/// Writes the records to standard output and exits, with 1 if that failed.
fn write_and_exit(code: &mut Code<'_>, records: Range<u64>) -> Result<()> {
    use reg::{A0, A1, A2, A7, S0, S1, ZERO};
    code.address(S0, records.start)?;
    code.address(S1, records.end)?;
    let again = code.here();
    code.imm("addi", A0, ZERO, 1)?;
    code.imm("addi", A1, S0, 0)?;
    code.three("sub", A2, S1, S0)?;
    system_call(code, call::WRITE)?;
    code.pair("blt", A0, ZERO, 12)?;
    code.three("add", S0, S0, A0)?;
    code.pair("bne", S0, S1, again.wrapping_sub(code.here()).cast_signed())?;
    code.three("slt", A0, S0, S1)?;
    code.imm("addi", A7, ZERO, call::EXIT)?;
    code.insn("ecall", &[])
}

/// Installs the signal handler, then begins.
fn enter_linux(code: &mut Code<'_>, next: u64) -> Result<()> {
    use reg::{A0, A1, A2, A3, ZERO};
    code.address(A0, BASE + Variable::SignalStack as u64)?;
    code.imm("addi", A1, ZERO, 0)?;
    system_call(code, call::SIGALTSTACK)?;
    for signal in signal::ALL {
        code.imm("addi", A0, ZERO, signal as i64)?;
        code.address(A1, BASE + Variable::SignalAction as u64)?;
        code.imm("addi", A2, ZERO, 0)?;
        code.imm("addi", A3, ZERO, 8)?;
        system_call(code, call::SIGACTION)?;
    }
    code.jump(next)
}

fn system_call(code: &mut Code<'_>, number: i64) -> Result<()> {
    code.imm("addi", reg::A7, reg::ZERO, number)?;
    code.insn("ecall", &[])
}
