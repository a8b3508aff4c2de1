//! Random instruction sequences, made from the guest's decode table.
//!
//! Every row of the table is as likely as any other; fields are random within what the row allows. What would lead
//! out of the sequence is built with care: accesses go to the record's scratch bytes through a base register set just
//! before, jumps go to known places, loops count down in a register that nothing in them writes. Branches go over
//! whole items, so that an item can be taken out of a sequence and the rest still runs.

use super::{
    access::{Access, Moves, Offset},
    class::Class,
    code::{self, CLREX, reg, sysreg},
    known, layout,
};
use crate::oracle::{
    random::Random,
    record::{self, Record},
    subject::{Generate, Item, Sequence},
};
use anyhow::Result;
use isomer_aarch64::{
    Aarch64,
    encoding::{self, Encoding, Field},
};

/// Registers that must not be written.
#[derive(Clone, Copy)]
struct Kept(u32);

impl Kept {
    const fn and(self, register: u8) -> Self {
        Self(self.0 | 1 << register)
    }
    const fn has(self, register: u8) -> bool {
        self.0 >> register & 1 != 0
    }
}

/// How much of a program is in one sequence.
const ITEMS: (i64, i64) = (24, 44);
/// Items within items within items.
const DEEPEST: u32 = 2;
/// The link register.
const LINK: u8 = 30;
/// The registers of programs, and what of them can be written: the bits that both sides have.
const PROGRAM_REGISTERS: [(u32, [u16; 2]); 3] =
    [(sysreg::FPCR, [0, 0x07c8]), (sysreg::FPSR, [0x009f, 0x0800]), (sysreg::NZCV, [0, 0xf000])];

/// Makes sequences and the states they run from.
pub(super) struct Generator<'a> {
    guest: &'a Aarch64,
    random: Random,
    plain: Vec<Encoding>,
    accesses: Vec<Encoding>,
    branches: Vec<Encoding>,
    all: Vec<Encoding>,
    /// Registers used more often than others, so that results are used.
    busy: [u8; 5],
}

impl Generate for Generator<'_> {
    fn input(&mut self) -> Record {
        Record::random(&mut self.random, layout())
    }

    fn sequence(&mut self) -> Result<Sequence> {
        self.busy = std::array::from_fn(|_| self.random.below(32) as u8);
        let keeper = self.random.between(1, 29) as u8;
        let kept = Kept(0).and(keeper);
        let mut sequence = Sequence { keeper, items: Vec::new() };
        for _ in 0..self.random.between(ITEMS.0, ITEMS.1) {
            let words = self.item(keeper, kept, 0);
            sequence.items.push(bytes(&words));
        }
        if self.random.percent(8) {
            let words = self.trap(kept);
            sequence.items.push(bytes(&words));
        }
        Ok(sequence)
    }
}

impl<'a> Generator<'a> {
    /// A generator for a model's instructions.
    pub(super) fn new(guest: &'a Aarch64, random: Random) -> Self {
        let all: Vec<Encoding> = Encoding::all().collect();
        let of = |wanted: fn(Class) -> bool| {
            let rows = all.iter().copied();
            rows.filter(|row| row.enabled(guest) && !known::is_left_out(*row) && wanted(Class::of(*row)))
                .collect()
        };
        Self {
            guest,
            random,
            plain: of(|class| !class.is_access() && class != Class::Branch),
            accesses: of(|class| class.is_access() && class != Class::Exclusive),
            branches: all
                .iter()
                .copied()
                .filter(|row| row.has(Field::imm19) || row.has(Field::imm14))
                .filter(|row| Class::of(*row) == Class::Branch)
                .collect(),
            all,
            busy: [0; 5],
        }
    }

    fn item(&mut self, keeper: u8, kept: Kept, depth: u32) -> Vec<u32> {
        let control = if depth < DEEPEST { 12 } else { 0 };
        match self.random.below(88 + control) {
            0..=3 => self.exclusive_pair(keeper, kept),
            4..=7 => self.program_register(kept),
            8 if known::zeroes_alike(self.guest) => self.zero_block(keeper, kept),
            8 => self.program_register(kept),
            9..=28 => self.access(keeper, kept),
            29..88 => {
                let row = self.random.pick(&self.plain);
                self.plain(row, kept).into_iter().collect()
            }
            88..=91 => self.skip(keeper, kept, depth),
            92..=93 => self.repeat(keeper, kept, depth),
            94..=95 => self.detour(keeper, kept, depth),
            96..=97 => self.call(keeper, kept, depth),
            _ => self.computed_jump(keeper, kept, depth),
        }
    }

    /// One to four items.
    fn body(&mut self, keeper: u8, kept: Kept, depth: u32) -> Vec<u32> {
        (0..self.random.between(1, 4)).flat_map(|_| self.item(keeper, kept, depth + 1)).collect()
    }

    /// An instruction of `row` that writes none of `kept`; `None` if luck was against it.
    fn plain(&mut self, row: Encoding, kept: Kept) -> Option<u32> {
        (0..32).find_map(|_| {
            let insn = self.fill(row);
            let written = Field::Rd.of(insn) as u8;
            (row.is(self.guest, insn) && !kept.has(written)).then_some(insn)
        })
    }

    /// Random fields: registers preferably busy ones.
    fn fill(&mut self, row: Encoding) -> u32 {
        let mut insn = row.fill(self.random.bits() as u32);
        for field in [Field::Rd, Field::Rn, Field::Rm, Field::Ra] {
            if row.has(field) && self.random.percent(55) {
                let register = self.random.pick(&self.busy);
                insn = field.with(insn, register.into());
            }
        }
        insn
    }

    /// A general register that may be written; not 31.
    fn register(&mut self, kept: Kept) -> u8 {
        let first = self.random.below(31) as u8;
        (0..31).map(|n| (first + n) % 31).find(|n| !kept.has(*n)).unwrap_or(0)
    }

    /// A place in the scratch bytes for an access of up to 64 bytes: aligned to 16 where it must be, else how it comes.
    fn place(&mut self, is_aligned: bool) -> i64 {
        let align = match self.random.below(4) {
            _ if is_aligned => 16,
            0 | 1 => 8,
            2 => 16,
            _ => 1,
        };
        self.random.between(record::ACCESSIBLE.0, record::ACCESSIBLE.1 - 48) & -align
    }

    /// A load or store behind what makes its registers point to scratch bytes.
    fn access(&mut self, keeper: u8, kept: Kept) -> Vec<u32> {
        let row = self.random.pick(&self.accesses);
        let Some(access) = Access::of(row) else { return self.literal(row, kept) };
        for _ in 0..32 {
            let mut insn = self.fill(row);
            let base = if self.random.percent(15) { reg::R31 } else { self.register(kept) };
            insn = Field::Rn.with(insn, base.into());
            let mut setup = Vec::new();
            let offset = match access.offset {
                Offset::None => 0,
                Offset::Fixed(offset) => offset,
                Offset::Scaled(shift) => {
                    insn = Field::imm12.with(insn, self.random.below(48) as u32);
                    i64::from(Field::imm12.of(insn)) << shift
                }
                Offset::Bytes => Field::imm9.signed(insn),
                Offset::Pair(shift) => Field::imm7.signed(insn) << shift,
                Offset::Register(shift) => {
                    let index = self.register(kept.and(if base == reg::R31 { keeper } else { base }));
                    insn = Field::Rm.with(insn, index.into());
                    let is_negative = Field::option.of(insn) & 4 != 0 && self.random.percent(50);
                    let number = self.random.below(20) as u16;
                    setup.push(if is_negative {
                        code::movn(index, number)
                    } else {
                        code::movz(index, number, 0)
                    });
                    // A negative number is all ones above, which `uxtw` and `sxtw` both read from 32 bits.
                    let value = if is_negative { !i64::from(number) } else { i64::from(number) };
                    value << if Field::S.of(insn) != 0 { shift } else { 0 }
                }
            };
            let distance =
                self.place(access.is_aligned) - if access.moves == Moves::After { 0 } else { offset };
            let fits = distance.abs() < 4096;
            let written = access.written(row, insn);
            if fits && row.is(self.guest, insn) && access.is_predictable(row, insn) && written & kept.0 == 0 {
                setup.insert(0, code::add(base, keeper, distance));
                setup.push(insn);
                return setup;
            }
        }
        Vec::new()
    }

    /// A load from the code nearby.
    fn literal(&mut self, row: Encoding, kept: Kept) -> Vec<u32> {
        let distance = self.random.between(-6, 6) as u32;
        let insn = self.plain(row, kept).map(|insn| Field::imm19.with(insn, distance));
        insn.into_iter().collect()
    }

    /// `dc zva` of 64 bytes of the scratch.
    fn zero_block(&mut self, keeper: u8, kept: Kept) -> Vec<u32> {
        const DC_ZVA: u32 = 0xd50b_7420;
        let base = self.register(kept);
        let place = self.random.between(record::ACCESSIBLE.0, record::ACCESSIBLE.1);
        vec![code::add(base, keeper, place), DC_ZVA | u32::from(base)]
    }

    /// Reads or writes a register of programs.
    fn program_register(&mut self, kept: Kept) -> Vec<u32> {
        let (register, mask) = self.random.pick(&PROGRAM_REGISTERS);
        let t = self.register(kept);
        if self.random.percent(50) {
            return vec![code::mrs(t, register)];
        }
        let [low, high] = mask.map(|mask| mask & self.random.bits() as u16);
        let movk = 0xf280_0000 | 1 << 21 | u32::from(high) << 5 | u32::from(t);
        vec![code::movz(t, low, 0), movk, code::msr(register, t)]
    }

    /// An exclusive load and a store to the same place, or a store without a load.
    fn exclusive_pair(&mut self, keeper: u8, kept: Kept) -> Vec<u32> {
        let base = self.register(kept);
        let inside = kept.and(base);
        let (size, ordered) = (self.random.below(4) as u32, self.random.bits() as u32 & 0x8000);
        let is_pair = self.random.percent(30);
        let (load, store) = match is_pair {
            true => (0x887f_0000 | (size & 1) << 30, 0x8820_0000 | (size & 1) << 30),
            false => (size << 30 | 0x085f_7c00, size << 30 | 0x0800_7c00),
        };
        let rn = u32::from(base) << 5;
        let mut words = vec![code::add(base, keeper, self.place(true))];
        if self.random.percent(85) {
            let (first, second) = self.two_registers(inside);
            let second = if is_pair { u32::from(second) << 10 } else { 0 };
            words.push(load | ordered | second | rn | u32::from(first));
            for _ in 0..self.random.below(3) {
                let row = self.random.pick(&self.plain);
                words
                    .extend(self.plain(row, inside).filter(|insn| insn & 0xffff_f0ff != CLREX & 0xffff_f0ff));
            }
        }
        let (status, first) = self.two_registers(inside);
        let second = if is_pair { u32::from(self.other_than(status)) << 10 } else { 0 };
        words.push(store | ordered | u32::from(status) << 16 | second | rn | u32::from(first));
        words
    }

    /// Two different registers that may be written.
    fn two_registers(&mut self, kept: Kept) -> (u8, u8) {
        let first = self.register(kept);
        (first, self.register(kept.and(first)))
    }

    /// Any register but one.
    fn other_than(&mut self, register: u8) -> u8 {
        (register + 1 + self.random.below(30) as u8) % 31
    }

    /// A conditional branch over some items.
    fn skip(&mut self, keeper: u8, kept: Kept, depth: u32) -> Vec<u32> {
        let mut body = self.body(keeper, kept, depth);
        let row = self.random.pick(&self.branches);
        let words = body.len() as u32 + 1;
        let field = if row.has(Field::imm14) { Field::imm14 } else { Field::imm19 };
        let insn = field.with(self.fill(row), words);
        body.insert(0, insn);
        body
    }

    /// Items run up to five times.
    fn repeat(&mut self, keeper: u8, kept: Kept, depth: u32) -> Vec<u32> {
        let counter = self.register(kept);
        let body = self.body(keeper, kept.and(counter), depth);
        let back = -4 * (body.len() as i64 + 1);
        let mut words = vec![code::movz(counter, self.random.between(1, 5) as u16, 0)];
        words.extend(body);
        words.extend([code::add(counter, counter, -1), code::branch_nonzero(counter, back)]);
        words
    }

    /// Forward over some items, back to them, and forward again.
    fn detour(&mut self, keeper: u8, kept: Kept, depth: u32) -> Vec<u32> {
        let body = self.body(keeper, kept, depth);
        let len = 4 * body.len() as i64;
        let mut words = vec![code::branch(len + 8, self.links(kept))];
        words.extend(body);
        words.extend([code::branch(8, self.links(kept)), code::branch(-(len + 4), self.links(kept))]);
        words
    }

    /// Should a branch link, which writes x30?
    fn links(&mut self, kept: Kept) -> bool {
        !kept.has(LINK) && self.random.percent(30)
    }

    /// A call of some items that lie behind it, and the return.
    fn call(&mut self, keeper: u8, kept: Kept, depth: u32) -> Vec<u32> {
        if kept.has(LINK) {
            return Vec::new();
        }
        let body = self.body(keeper, kept.and(LINK), depth);
        let over = 4 * (body.len() as i64 + 2);
        let mut words = match self.random.percent(50) {
            true => vec![code::branch(8, true)],
            false => {
                let target = self.register(kept.and(LINK));
                vec![code::adr(target, 12), code::blr(target)]
            }
        };
        words.push(code::branch(over, false));
        words.extend(body);
        words.push(code::ret(LINK));
        words
    }

    /// A jump through a register over some items, which are never run.
    fn computed_jump(&mut self, keeper: u8, kept: Kept, depth: u32) -> Vec<u32> {
        let body = self.body(keeper, kept, depth);
        let target = self.register(kept);
        let jump = match self.random.below(3) {
            0 if !kept.has(LINK) => code::blr(target),
            1 => code::ret(target),
            _ => code::br(target),
        };
        let mut words = vec![code::adr(target, 4 * (body.len() as i64 + 2)), jump];
        words.extend(body);
        words
    }

    /// Something that traps: no instruction of this model, or not at EL0.
    fn trap(&mut self, kept: Kept) -> Vec<u32> {
        const BRK: u32 = 0xd420_0000;
        for _ in 0..64 {
            let insn = match self.random.below(8) {
                0 => return vec![BRK | (self.random.bits() as u32 & 0xffff) << 5],
                1 => return vec![self.random.bits() as u32 & 0xffff],
                2 => {
                    let register = self.random.pick(&[sysreg::SCTLR_EL1, sysreg::ELR_EL1, sysreg::VBAR_EL1]);
                    return vec![code::mrs(self.register(kept), register)];
                }
                3 => return vec![code::ERET],
                4 => self.random.bits() as u32,
                _ => {
                    // Near an instruction: one or two bits off.
                    let row = self.random.pick(&self.all);
                    let mut insn = self.fill(row);
                    for _ in 0..self.random.below(3) {
                        insn ^= 1 << self.random.below(32);
                    }
                    insn
                }
            };
            if !encoding::is_decoded(self.guest, insn) && !known::is_foreign(insn) {
                return vec![insn];
            }
        }
        Vec::new()
    }
}

fn bytes(words: &[u32]) -> Item {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::aarch64::Arm;
    use crate::oracle::subject::Subject;
    use std::collections::BTreeSet;

    fn sequences(arm: &Arm, seed: u64, count: usize) -> Result<Vec<Sequence>> {
        let mut generator = Generator::new(arm.guest(), Random::new(seed, 0));
        (0..count).map(|_| generator.sequence()).collect()
    }

    #[test]
    fn a_seed_makes_the_same_sequences() -> Result<()> {
        let arm = Arm::new("max")?;
        let bytes = |seed| -> Result<Vec<u8>> {
            Ok(sequences(&arm, seed, 20)?.iter().flat_map(Sequence::bytes).collect())
        };
        assert_eq!(bytes(1)?, bytes(1)?);
        assert_ne!(bytes(1)?, bytes(2)?);
        Ok(())
    }

    #[test]
    fn every_row_comes_up() -> Result<()> {
        let arm = Arm::new("max")?;
        let mut seen = BTreeSet::new();
        for sequence in sequences(&arm, 1, 3000)? {
            for word in sequence.bytes().collect::<Vec<_>>().chunks_exact(4) {
                let insn = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                seen.extend(Encoding::of(arm.guest(), insn).map(Encoding::name));
            }
        }
        let wanted = Encoding::all().filter(|row| row.enabled(arm.guest()) && !known::is_left_out(*row));
        let missing: BTreeSet<_> = wanted.map(Encoding::name).filter(|name| !seen.contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        Ok(())
    }
}
