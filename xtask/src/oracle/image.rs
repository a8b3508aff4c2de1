//! The program: a harness around many sequences, with one record a run, as memory to load and as an ELF file.
//!
//! It runs as a static Linux program, which writes its records to standard output, and in the user mode of a bare
//! machine, where a system call ends it and the records are read from memory. For every record in turn the harness
//! loads the registers, runs the sequence and stores the registers.

use super::{
    record::{self, Record, Word},
    subject::{Sequence, Subject},
};
use anyhow::{Context, Result};

/// Where the data begins; the code follows on 2 MiB of its own. Far from numbers that sequences are likely to make: a stack
/// pointer into the signal stack would leave no room for a signal.
pub(crate) const BASE: u64 = 0x2a_5a00_0000;
const PAGE: u64 = 4096;
/// What page tables tell apart most cheaply.
const CODE_ALIGN: u64 = 2 << 20;
const SIGNAL_STACK_BYTES: u64 = 64 << 10;
/// For the bare machine's page tables.
pub(crate) const TABLES: u64 = BASE + PAGE + SIGNAL_STACK_BYTES;
const TABLES_BYTES: u64 = 2 * PAGE;

/// The harness's variables, by their distance from [`BASE`].
#[derive(Clone, Copy)]
#[repr(u64)]
pub(crate) enum Variable {
    /// Pointer of the record that runs.
    Current = 0,
    /// Pointer behind the last record.
    End = 8,
    /// Not 0 once a bare machine has run all.
    Done = 16,
    /// The instructions it has retired then.
    Instructions = 24,
    /// Registers saved in the bare machine's trap handler.
    Saved = 32,
    /// `stack_t` (sigaltstack(2)).
    SignalStack = 64,
    /// The kernel's `struct sigaction`.
    SignalAction = 96,
}

/// Linux system calls of architectures that came late.
pub(crate) mod call {
    pub(crate) const WRITE: i64 = 64;
    pub(crate) const EXIT: i64 = 93;
    pub(crate) const SIGALTSTACK: i64 = 132;
    pub(crate) const SIGACTION: i64 = 134;
}

/// `SA_SIGINFO | SA_ONSTACK`.
const SIGNAL_FLAGS: u64 = 0x0800_0004;

/// The code around the sequences.
#[derive(Debug, Default)]
pub(crate) struct Harness {
    pub(crate) code: Vec<u8>,
    /// Where a bare machine begins.
    pub(crate) bare_entry: u64,
    /// Where its traps go.
    pub(crate) bare_trap: u64,
    /// Where a Linux program begins.
    pub(crate) linux_entry: u64,
    pub(crate) signal_handler: u64,
    /// By keeper: what loads the state of the current record and goes to its sequence, and what stores the state and goes on.
    pub(crate) prologues: Vec<u64>,
    pub(crate) epilogues: Vec<u64>,
    /// Words of the data, by address.
    pub(crate) words: Vec<(u64, u64)>,
    /// Instructions of the harness for each record.
    pub(crate) insns_a_record: u64,
    /// Those for each trap.
    pub(crate) insns_a_trap: u64,
}

/// A program ready to run.
#[derive(Debug)]
pub(crate) struct Image {
    data: Vec<u8>,
    pub(crate) harness: Harness,
    records: usize,
    elf: (u16, u32),
}

impl Image {
    /// Lays out `sequences`, each with the states it runs from.
    ///
    /// # Errors
    /// When there are too many for the harness's jumps to reach.
    pub(crate) fn new<S: Subject>(subject: &S, sequences: &[(&Sequence, &[Record])]) -> Result<Self> {
        let records: usize = sequences.iter().map(|(_, inputs)| inputs.len()).sum();
        let start = TABLES + TABLES_BYTES;
        let end = start + (records * record::BYTES) as u64;
        let code = end.next_multiple_of(CODE_ALIGN);
        let mut harness = subject.harness(code, start..end)?;

        let mut data = vec![0; (start - BASE) as usize];
        let mut set = |at: u64, value: u64| {
            data[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
        };
        let pointer = start + record::POINTER as u64;
        set(Variable::Current as u64, pointer - record::BYTES as u64);
        set(Variable::End as u64, pointer + (records * record::BYTES) as u64);
        set(Variable::SignalStack as u64, BASE + PAGE);
        set(Variable::SignalStack as u64 + 16, SIGNAL_STACK_BYTES);
        set(Variable::SignalAction as u64, harness.signal_handler);
        set(Variable::SignalAction as u64 + 8, SIGNAL_FLAGS);
        for &(address, value) in &harness.words {
            set(address - BASE, value);
        }
        for (sequence, inputs) in sequences {
            let at = code + harness.code.len() as u64;
            let of =
                |list: &[u64]| list.get(usize::from(sequence.keeper)).copied().context("no such register");
            let (prologue, epilogue) = (of(&harness.prologues)?, of(&harness.epilogues)?);
            harness.code.extend(subject.place(at, sequence, epilogue)?);
            for input in *inputs {
                let mut record = (*input).clone();
                record.set(Word::Sequence as i64, at);
                record.set(Word::Prologue as i64, prologue);
                record.set(Word::Epilogue as i64, epilogue);
                data.extend_from_slice(record.bytes());
            }
        }
        Ok(Self { data, harness, records, elf: S::ELF })
    }

    /// What to load where.
    pub(crate) fn segments(&self) -> [(u64, &[u8]); 2] {
        [(BASE, &self.data), (self.code_base(), &self.harness.code)]
    }

    /// The memory a bare machine needs: its first address and its size.
    pub(crate) fn memory(&self) -> (u64, u64) {
        (BASE, (self.code_base() + self.harness.code.len() as u64 - BASE).next_multiple_of(PAGE))
    }

    fn code_base(&self) -> u64 {
        (BASE + self.data.len() as u64).next_multiple_of(CODE_ALIGN)
    }

    /// Where the records are, and how many bytes.
    pub(crate) fn records(&self) -> (u64, usize) {
        (TABLES + TABLES_BYTES, self.records * record::BYTES)
    }

    /// Addresses of: the pointer of the record that runs, whether a bare machine is done, and the instructions it has
    /// retired then.
    pub(crate) const fn progress() -> [u64; 3] {
        [BASE + Variable::Current as u64, BASE + Variable::Done as u64, BASE + Variable::Instructions as u64]
    }

    /// Number of the record whose pointer is `pointer`.
    pub(crate) fn record_at(&self, pointer: u64) -> usize {
        (pointer.saturating_sub(self.records().0) / record::BYTES as u64) as usize
    }

    /// A static executable (System V ABI, "Object Files", and its supplements).
    pub(crate) fn elf(&self) -> Vec<u8> {
        const HEADERS: u64 = 64 + 2 * 56;
        let (machine, elf_flags) = self.elf;
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        let halves = |elf: &mut Vec<u8>, values: &[u16]| {
            elf.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        };
        let words = |elf: &mut Vec<u8>, values: &[u64]| {
            elf.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        };
        halves(&mut elf, &[2, machine, 1, 0]);
        words(&mut elf, &[self.harness.linux_entry, 64, 0]);
        elf.extend(elf_flags.to_le_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{aarch64::Arm, random::Random, riscv64::Riscv};
    use object::{Object, ObjectSegment};

    fn image<S: Subject>(subject: &S, nop: &[u8], sequences: usize) -> Result<Image> {
        let nop = Sequence { keeper: 10, items: vec![nop.to_vec(); 300] };
        let input = [Record::random(&mut Random::new(1, 1), subject.layout())];
        let all: Vec<_> = (0..sequences).map(|_| (&nop, input.as_slice())).collect();
        Image::new(subject, &all)
    }

    #[test]
    fn the_elf_file_loads_what_the_bare_machine_gets() -> Result<()> {
        let images = [
            (image(&Riscv::new("max")?, &[1, 0], 2)?, object::Architecture::Riscv64),
            (image(&Arm::new("max")?, &[0x1f, 0x20, 0x03, 0xd5], 2)?, object::Architecture::Aarch64),
        ];
        for (image, architecture) in images {
            let elf = image.elf();
            let file = object::File::parse(elf.as_slice())?;
            assert_eq!(file.architecture(), architecture);
            let loaded: Vec<_> =
                file.segments().map(|s| Ok((s.address(), s.data()?))).collect::<Result<_>>()?;
            assert_eq!(loaded, image.segments());
            assert!(loaded[0].0 + loaded[0].1.len() as u64 <= loaded[1].0);
        }
        Ok(())
    }

    #[test]
    fn records_point_to_their_code() -> Result<()> {
        let image = image(&Riscv::new("max")?, &[1, 0], 3)?;
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
    fn too_much_code_is_an_error() -> Result<()> {
        assert!(image(&Riscv::new("max")?, &[1, 0], 2000).is_err());
        Ok(())
    }
}
