//! The program: a harness around many sequences, with one record a run, as memory to load and as an ELF file.
//!
//! It runs as a static Linux program, which writes its records to standard output, and in the user mode of a bare
//! machine, where the first `ecall` ends it and the records are read from memory. For every record in turn the
//! harness loads the registers, runs the sequence and stores the registers.

use super::{
    assembler::{Code, Table, reg},
    generate::Sequence,
    record::{self, Record, Word, signal},
};
use anyhow::{Context, Result};
use isomer_riscv64::encoding::Field;
use std::ops::Range;

/// Where the data begins; the code follows on a page of its own. Far from numbers that sequences are likely to make:
/// a stack pointer into the signal stack would leave no room for a signal.
const BASE: u64 = 0x2a_5a00_0000;
const PAGE: u64 = 4096;
const SIGNAL_STACK_BYTES: u64 = 64 << 10;
const FFLAGS_FRM: u16 = 0x003;

/// The harness's variables, by their distance from [`BASE`].
#[derive(Clone, Copy)]
#[repr(u64)]
enum Variable {
    /// Pointer of the record that runs.
    Current = 0,
    /// Pointer behind the last record.
    End = 8,
    /// Not 0 once a bare machine has run all.
    Done = 16,
    /// `minstret` then.
    Instructions = 24,
    /// Registers saved in the bare machine's trap handler.
    SavedSp = 32,
    SavedGp = 40,
    /// `stack_t` (sigaltstack(2)).
    SignalStack = 64,
    /// The kernel's `struct sigaction`.
    SignalAction = 96,
}

/// Linux system calls of riscv64.
mod call {
    pub(super) const WRITE: i64 = 64;
    pub(super) const EXIT: i64 = 93;
    pub(super) const SIGALTSTACK: i64 = 132;
    pub(super) const SIGACTION: i64 = 134;
}

/// `SA_SIGINFO | SA_ONSTACK`.
const SIGNAL_FLAGS: u64 = 0x0800_0004;
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

/// A program ready to run.
#[derive(Debug)]
pub(crate) struct Image {
    data: Vec<u8>,
    code: Vec<u8>,
    /// Where a bare machine begins, in user mode with floating point on.
    pub(crate) bare_entry: u64,
    /// Where its machine-mode traps go.
    pub(crate) bare_trap: u64,
    linux_entry: u64,
    records: usize,
    /// Instructions of the harness for each record.
    pub(crate) insns_a_record: u64,
    /// Those for each trap.
    pub(crate) insns_a_trap: u64,
}

/// Code addresses shared by all records.
struct Addresses {
    next: u64,
    /// By keeper.
    prologues: Vec<u64>,
    epilogues: Vec<u64>,
}

impl Image {
    /// Lays out `sequences`, each with the states it runs from.
    ///
    /// # Errors
    /// When there are too many for the harness's jumps to reach.
    pub(crate) fn new(table: &Table, sequences: &[(&Sequence, &[Record])]) -> Result<Self> {
        let records: usize = sequences.iter().map(|(_, inputs)| inputs.len()).sum();
        let start = BASE + PAGE + SIGNAL_STACK_BYTES;
        let end = start + (records * record::BYTES) as u64;
        let mut code = Code::new(table, end.next_multiple_of(PAGE));

        let bare_trap = code.here();
        trap_handler(&mut code)?;
        // Without the branch that ends everything.
        let insns_a_trap = (code.here() - bare_trap) / 4 - 4;
        let signal_handler = code.here();
        handle_signal(&mut code)?;
        let done = code.here();
        write_and_exit(&mut code, start..end)?;
        let next = code.here();
        next_record(&mut code, done)?;
        let linux_entry = code.here();
        enter_linux(&mut code, next)?;
        let mut addresses = Addresses { next, prologues: vec![0], epilogues: vec![0] };
        let first = code.here();
        for keeper in 1..32 {
            addresses.prologues.push(code.here());
            prologue(&mut code, keeper)?;
            addresses.epilogues.push(code.here());
            epilogue(&mut code, keeper, next)?;
        }
        let state = (code.here() - first) / 4 / 31;

        let mut data = vec![0; (start - BASE) as usize];
        let mut set = |at: u64, value: u64| {
            data[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
        };
        let pointer = start + record::POINTER as u64;
        set(Variable::Current as u64, pointer - record::BYTES as u64);
        set(Variable::End as u64, pointer + (records * record::BYTES) as u64);
        set(Variable::SignalStack as u64, BASE + PAGE);
        set(Variable::SignalStack as u64 + 16, SIGNAL_STACK_BYTES);
        set(Variable::SignalAction as u64, signal_handler);
        set(Variable::SignalAction as u64 + 8, SIGNAL_FLAGS);
        for (sequence, inputs) in sequences {
            let at = place(&mut code, sequence, &addresses)?;
            for input in *inputs {
                let mut record = (*input).clone();
                record.set(Word::Sequence as i64, at);
                record.set(Word::Prologue as i64, addresses.prologues[usize::from(sequence.keeper)]);
                record.set(Word::Epilogue as i64, addresses.epilogues[usize::from(sequence.keeper)]);
                data.extend_from_slice(record.bytes());
            }
        }
        Ok(Self {
            data,
            code: code.bytes,
            bare_entry: addresses.next,
            bare_trap,
            linux_entry,
            records,
            // The driver, the keeper's pointer and the jump to the epilogue as well.
            insns_a_record: state + 9 + 2 + 1,
            insns_a_trap,
        })
    }

    /// What to load where.
    pub(crate) fn segments(&self) -> [(u64, &[u8]); 2] {
        [(BASE, &self.data), (self.code_base(), &self.code)]
    }

    /// The memory a bare machine needs: its first address and its size.
    pub(crate) fn memory(&self) -> (u64, u64) {
        (BASE, (self.code_base() + self.code.len() as u64 - BASE).next_multiple_of(PAGE))
    }

    fn code_base(&self) -> u64 {
        (BASE + self.data.len() as u64).next_multiple_of(PAGE)
    }

    /// Where the records are, and how many bytes.
    pub(crate) fn records(&self) -> (u64, usize) {
        (BASE + PAGE + SIGNAL_STACK_BYTES, self.records * record::BYTES)
    }

    /// Addresses of: the pointer of the record that runs, whether a bare machine is done, and its `minstret` then.
    pub(crate) const fn progress() -> [u64; 3] {
        [BASE + Variable::Current as u64, BASE + Variable::Done as u64, BASE + Variable::Instructions as u64]
    }

    /// Number of the record whose pointer is `pointer`.
    pub(crate) fn record_at(&self, pointer: u64) -> usize {
        (pointer.saturating_sub(self.records().0) / record::BYTES as u64) as usize
    }

    /// A static executable (System V ABI, "Object Files"; RISC-V ELF psABI).
    pub(crate) fn elf(&self) -> Vec<u8> {
        const HEADERS: u64 = 64 + 2 * 56;
        // e_machine RISC-V; e_flags: compressed code, double-precision calls.
        const FLAGS: u32 = 5;
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        let halves = |elf: &mut Vec<u8>, values: &[u16]| {
            elf.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        };
        let words = |elf: &mut Vec<u8>, values: &[u64]| {
            elf.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        };
        halves(&mut elf, &[2, 243, 1, 0]);
        words(&mut elf, &[self.linux_entry, 64, 0]);
        elf.extend(FLAGS.to_le_bytes());
        halves(&mut elf, &[64, 56, 2, 0, 0, 0]);
        let mut offset = HEADERS.next_multiple_of(PAGE);
        for ((address, bytes), flags) in self.segments().into_iter().zip([6u64, 5]) {
            let len = bytes.len() as u64;
            words(&mut elf, &[flags << 32 | 1, offset, address, address, len, len, PAGE]);
            offset = (offset + len).next_multiple_of(PAGE);
        }
        for (_, bytes) in self.segments() {
            elf.resize(elf.len().next_multiple_of(PAGE as usize), 0);
            elf.extend_from_slice(bytes);
        }
        elf
    }
}

/// A sequence between the pointer's load into its keeper and the jump to its epilogue.
fn place(code: &mut Code<'_>, sequence: &Sequence, addresses: &Addresses) -> Result<u64> {
    let at = code.here();
    code.load(sequence.keeper, BASE + Variable::Current as u64)?;
    code.bytes.extend(sequence.bytes());
    let epilogue = addresses.epilogues.get(usize::from(sequence.keeper)).context("no such register")?;
    code.jump(*epilogue)?;
    Ok(at)
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
    code.imm("ld", temporary, keeper, Word::Fcsr as i64)?;
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
    code.pair("sd", keeper, temporary, Word::Fcsr as i64)?;
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
    code.pair("sd", RA, SP, Variable::SavedSp as i64)?;
    code.pair("sd", RA, GP, Variable::SavedGp as i64)?;
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
    code.imm("ld", SP, RA, Variable::SavedSp as i64)?;
    code.imm("ld", GP, RA, Variable::SavedGp as i64)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::random::Random;
    use object::{Object, ObjectSegment};

    fn image(sequences: usize) -> Result<Image> {
        let table = Table::new();
        let nop = Sequence { keeper: 10, items: vec![vec![1, 0]; 300] };
        let input = [Record::random(&mut Random::new(1, 1))];
        let all: Vec<_> = (0..sequences).map(|_| (&nop, input.as_slice())).collect();
        Image::new(&table, &all)
    }

    #[test]
    fn the_elf_file_loads_what_the_bare_machine_gets() -> Result<()> {
        let image = image(2)?;
        let elf = image.elf();
        let file = object::File::parse(elf.as_slice())?;
        assert_eq!(file.architecture(), object::Architecture::Riscv64);
        let loaded: Vec<_> = file.segments().map(|s| Ok((s.address(), s.data()?))).collect::<Result<_>>()?;
        assert_eq!(loaded, image.segments());
        assert!(loaded[0].0 + loaded[0].1.len() as u64 <= loaded[1].0);
        Ok(())
    }

    #[test]
    fn records_point_to_their_code() -> Result<()> {
        let image = image(3)?;
        let (start, len) = image.records();
        let [(base, data), (code, _)] = image.segments();
        let at = (start - base) as usize;
        let records: Vec<_> =
            data[at..at + len].chunks(record::BYTES).map(Record::from_bytes).collect::<Result<_>>()?;
        assert_eq!(records.len(), 3);
        for record in &records {
            assert!(record.get(Word::Prologue as i64) >= code);
            assert!(record.get(Word::Sequence as i64) > record.get(Word::Epilogue as i64));
        }
        assert_ne!(records[0].get(Word::Sequence as i64), records[1].get(Word::Sequence as i64));
        Ok(())
    }

    #[test]
    fn too_much_code_is_an_error() {
        assert!(image(2000).is_err());
    }
}
