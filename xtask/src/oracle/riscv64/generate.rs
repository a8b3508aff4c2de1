//! Random instruction sequences, made from the guest's decode table.
//!
//! Every row of the table is as likely as any other; fields are random within what the row allows. What would lead
//! out of the sequence is built with care: accesses go to the record's scratch bytes through a base register set just
//! before, jumps go to known places, loops count down in a register that nothing in them writes. Branches go over
//! whole items, so that an item can be taken out of a sequence and the rest still runs.

use super::{assembler::Table, known, layout};
use crate::oracle::{
    random::Random,
    record::{self, Record},
    subject::{Generate, Item, Sequence},
};
use anyhow::{Context, Result};
use isomer_riscv64::{
    Extensions, Riscv64,
    encoding::{self, Encoding, Field},
};

/// How a row is made safe to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    /// As it is.
    Plain,
    /// Its address comes from rs1.
    Memory,
    Csr,
    Branch,
    /// Only by the builders of control flow, of reserved pairs, or not at all.
    Special,
    /// Illegal in user mode, or a breakpoint.
    Trapping,
}

impl Class {
    fn of(row: Encoding) -> Self {
        match row.name() {
            "ecall" | "jal" | "jalr" | "c.j" | "c.jr" | "c.jalr" => Self::Special,
            "lr.w" | "lr.d" | "sc.w" | "sc.d" => Self::Special,
            "ebreak" | "c.ebreak" | "mret" | "sret" | "wfi" => Self::Trapping,
            name if name.starts_with("sfence") || name.starts_with("sinval") => Self::Trapping,
            name if name.starts_with("csr") => Self::Csr,
            _ if row.operands().ends_with("address") => Self::Branch,
            _ if row.operands().contains("(rs1)") => Self::Memory,
            _ => Self::Plain,
        }
    }
}

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

/// Makes sequences and the states they run from.
pub(crate) struct Generator<'a> {
    table: &'a Table,
    ext: Extensions,
    random: Random,
    usual: Vec<(Encoding, Class)>,
    branches: Vec<Encoding>,
    trapping: Vec<Encoding>,
    float_loads: Vec<Encoding>,
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
        let keeper = self.random.between(1, 31) as u8;
        let kept = Kept(0).and(keeper).and(0);
        let mut sequence = Sequence { keeper, items: Vec::new() };
        for _ in 0..self.random.between(ITEMS.0, ITEMS.1) {
            sequence.items.push(self.item(keeper, kept, 0)?);
        }
        if self.random.percent(8) {
            sequence.items.push(self.trap(kept)?);
        }
        Ok(sequence)
    }
}

impl<'a> Generator<'a> {
    /// A generator for a model's instructions.
    pub(crate) fn new(table: &'a Table, guest: &Riscv64, random: Random) -> Self {
        let all: Vec<Encoding> = Encoding::all().collect();
        let rows = || all.iter().copied().filter(|row| row.enabled(guest.ext));
        let of = |class| rows().filter(|row| Class::of(*row) == class).collect();
        let usual = rows().map(|row| (row, Class::of(row)));
        Self {
            table,
            ext: guest.ext,
            random,
            usual: usual
                .filter(|(_, class)| matches!(class, Class::Plain | Class::Memory | Class::Csr))
                .collect(),
            branches: of(Class::Branch),
            trapping: rows()
                .filter(|row| Class::of(*row) == Class::Trapping && !known::is_lenient(*row))
                .collect(),
            float_loads: rows().filter(|row| matches!(row.name(), "flh" | "flw" | "fld" | "c.fld")).collect(),
            all,
            busy: [0; 5],
        }
    }

    fn item(&mut self, keeper: u8, kept: Kept, depth: u32) -> Result<Item> {
        let control = if depth < DEEPEST { 12 } else { 0 };
        match self.random.below(88 + control) {
            0..=3 => self.reserved_pair(keeper, kept),
            4..=9 => {
                let row = self.random.pick(&self.float_loads);
                self.access(row, keeper, kept)
            }
            10..88 => self.usual(keeper, kept),
            88..=91 => self.skip(keeper, kept, depth),
            92..=93 => self.repeat(keeper, kept, depth),
            94..=95 => self.detour(keeper, kept, depth),
            96..=97 => self.call(keeper, kept, depth),
            _ => self.computed_jump(keeper, kept, depth),
        }
    }

    /// One to four items.
    fn body(&mut self, keeper: u8, kept: Kept, depth: u32) -> Result<Item> {
        let mut body = Vec::new();
        for _ in 0..self.random.between(1, 4) {
            body.extend(self.item(keeper, kept, depth + 1)?);
        }
        Ok(body)
    }

    /// Any instruction that does not end the sequence.
    fn usual(&mut self, keeper: u8, kept: Kept) -> Result<Item> {
        let (row, class) = self.random.pick(&self.usual);
        match class {
            Class::Memory => self.access(row, keeper, kept),
            Class::Csr => self.csr(row, kept),
            _ => {
                let Some(insn) = self.plain(row, kept) else { return Ok(Vec::new()) };
                let mut item = bytes(row, insn);
                if known::is_skipped_unless_read(row) {
                    let rd = row.get(insn, Field::Rd);
                    let fields = [(Field::Rs1, i64::from(keeper)), (Field::Rs2, rd)];
                    item.extend(self.table.encode("fsd", &fields)?.to_le_bytes());
                }
                Ok(item)
            }
        }
    }

    /// An instruction of `row` that writes none of `kept`; `None` if luck was against it.
    fn plain(&mut self, row: Encoding, kept: Kept) -> Option<u32> {
        (0..32).find_map(|_| {
            let insn = self.fill(row);
            let fine = row.is(self.ext, insn) && written(row, insn) & kept.0 & !1 == 0;
            (fine && known::difference(row, insn).is_none()).then_some(insn)
        })
    }

    /// Random fields: registers preferably busy ones, rounding modes preferably valid ones.
    fn fill(&mut self, row: Encoding) -> u32 {
        let mut insn = row.fill(self.random.bits() as u32);
        for field in [Field::Rd, Field::Rs1, Field::Rs2, Field::Rs3] {
            if self.random.percent(55) {
                let register = self.random.pick(&self.busy);
                insn = row.set(insn, field, register.into()).unwrap_or(insn);
            }
        }
        if row.has(Field::Rm) && self.random.percent(99) {
            let mode = self.random.pick(&[0, 1, 2, 3, 4, 7, 7, 7]);
            insn = row.set(insn, Field::Rm, mode).unwrap_or(insn);
        }
        insn
    }

    /// A register that may be written and is not x0.
    fn register(&mut self, kept: Kept) -> u8 {
        let first = self.random.between(1, 31) as u8;
        (0..31).map(|n| 1 + (first + n) % 31).find(|n| !kept.has(*n)).unwrap_or(0)
    }

    fn access(&mut self, row: Encoding, keeper: u8, kept: Kept) -> Result<Item> {
        for _ in 0..32 {
            let Some(insn) = self.plain(row, kept) else { continue };
            if let Some(item) = self.based(row, insn, keeper, kept)? {
                return Ok(item);
            }
        }
        Ok(Vec::new())
    }

    /// `insn` behind what makes its base register point to scratch bytes; `None` if that cannot be.
    fn based(&mut self, row: Encoding, insn: u32, keeper: u8, kept: Kept) -> Result<Option<Item>> {
        let base = row.get(insn, Field::Rs1) as u8;
        let align = self.alignment(row);
        let place = self.random.between(record::ACCESSIBLE.0, record::ACCESSIBLE.1) & !(align - 1);
        if base == keeper {
            // The immediate alone must do; where it is scaled or missing, take it as it is.
            let insn = row.set(insn, Field::Imm, place).unwrap_or(insn);
            let imm = row.get(insn, Field::Imm);
            let inside = (record::ACCESSIBLE.0..=record::ACCESSIBLE.1).contains(&imm);
            let fine = inside && row.is(self.ext, insn) && imm & (align - 1) == 0;
            return Ok(fine.then(|| bytes(row, insn)));
        }
        let distance = place - row.get(insn, Field::Imm);
        if kept.has(base) || !(-2048..2048).contains(&distance) {
            return Ok(None);
        }
        let fields = [(Field::Rd, base.into()), (Field::Rs1, keeper.into()), (Field::Imm, distance)];
        let mut item = self.table.encode("addi", &fields)?.to_le_bytes().to_vec();
        item.extend(bytes(row, insn));
        Ok(Some(item))
    }

    /// To how many bytes an access must be aligned, now and then less: what only traps for being misaligned is
    /// seldom worth it.
    fn alignment(&mut self, row: Encoding) -> i64 {
        let natural = match row.name() {
            name if name.ends_with(".q") => 16,
            name if name.ends_with(".d") => 8,
            name if name.ends_with(".w") => 4,
            _ if self.random.percent(50) => 8,
            _ => 1,
        };
        if self.random.percent(2) { 1 } else { natural }
    }

    fn csr(&mut self, row: Encoding, kept: Kept) -> Result<Item> {
        const FRM: i64 = 2;
        let csr = self.random.between(1, 3);
        let Some(insn) = self.plain_csr(row, csr, kept) else { return Ok(Vec::new()) };
        let mut item = bytes(row, insn);
        if csr != 1 && self.random.percent(75) {
            // What was written may be no rounding mode, which would make the rest of the sequence trap.
            let fields = [(Field::Csr, FRM), (Field::Imm, self.random.between(0, 4))];
            item.extend(self.table.encode("csrrwi", &fields)?.to_le_bytes());
        }
        Ok(item)
    }

    fn plain_csr(&mut self, row: Encoding, csr: i64, kept: Kept) -> Option<u32> {
        let insn = self.plain(row, kept)?;
        row.set(insn, Field::Csr, csr)
    }

    /// Load-reserved and store-conditional to the same place, or a store-conditional without reservation.
    fn reserved_pair(&mut self, keeper: u8, kept: Kept) -> Result<Item> {
        let (load, store, align) =
            if self.random.percent(50) { ("lr.w", "sc.w", 4) } else { ("lr.d", "sc.d", 8) };
        let base = self.register(kept);
        let inside = kept.and(base);
        let distance = self.random.between(record::ACCESSIBLE.0, record::ACCESSIBLE.1) & !(align - 1);
        let fields = [(Field::Rd, base.into()), (Field::Rs1, keeper.into()), (Field::Imm, distance)];
        let mut item = self.table.encode("addi", &fields)?.to_le_bytes().to_vec();
        let load = self.table.row(load)?;
        let store = self.table.row(store)?;
        let loaded = self.plain(load, inside).and_then(|insn| load.set(insn, Field::Rs1, base.into()));
        if let Some(insn) = loaded.filter(|_| self.random.percent(85)) {
            item.extend(bytes(load, insn));
            for _ in 0..self.random.below(3) {
                let (row, class) = self.random.pick(&self.usual);
                let fine = !known::drops_reservation(row) && !known::is_skipped_unless_read(row);
                if class == Class::Plain && fine {
                    item.extend(self.plain(row, inside).map(|insn| bytes(row, insn)).unwrap_or_default());
                }
            }
        }
        let stored = self.plain(store, kept).and_then(|insn| store.set(insn, Field::Rs1, base.into()));
        item.extend(stored.map(|insn| bytes(store, insn)).unwrap_or_default());
        Ok(item)
    }

    /// A conditional branch over some items.
    fn skip(&mut self, keeper: u8, kept: Kept, depth: u32) -> Result<Item> {
        let body = self.body(keeper, kept, depth)?;
        let row = self.random.pick(&self.branches);
        let distance = (row.bytes() + body.len()) as i64;
        let insn = self.fill(row);
        // Compressed branches may not reach.
        let Some(insn) = row.set(insn, Field::Imm, distance) else { return Ok(body) };
        Ok([bytes(row, insn), body].concat())
    }

    /// Items run up to five times.
    fn repeat(&mut self, keeper: u8, kept: Kept, depth: u32) -> Result<Item> {
        let counter = self.register(kept);
        let body = self.body(keeper, kept.and(counter), depth)?;
        let addi = |rs1: u8, imm: i64| {
            let fields = [(Field::Rd, counter.into()), (Field::Rs1, rs1.into()), (Field::Imm, imm)];
            self.table.encode("addi", &fields)
        };
        let mut item = addi(0, self.random.between(1, 5))?.to_le_bytes().to_vec();
        let start = item.len();
        item.extend(body);
        item.extend(addi(counter, -1)?.to_le_bytes());
        let back = start as i64 - item.len() as i64;
        let (short, long) = (self.table.row("c.bnez")?, self.table.row(self.random.pick(&["bne", "bltu"]))?);
        let compressed = short
            .set(short.fill(0), Field::Rs1, counter.into())
            .and_then(|insn| short.set(insn, Field::Imm, back))
            .filter(|insn| short.is(self.ext, *insn));
        match compressed {
            Some(insn) => item.extend(bytes(short, insn)),
            None => {
                // bne counter, x0 and bltu x0, counter
                let counted = if long.name() == "bne" { Field::Rs1 } else { Field::Rs2 };
                let fields = [(counted, i64::from(counter)), (Field::Imm, back)];
                item.extend(self.table.encode(long.name(), &fields)?.to_le_bytes());
            }
        }
        Ok(item)
    }

    /// Forward over some items, back to them, and forward again.
    fn detour(&mut self, keeper: u8, kept: Kept, depth: u32) -> Result<Item> {
        let body = self.body(keeper, kept, depth)?;
        let (first, second, third) = (self.jal(kept)?, self.jal(kept)?, self.jal(kept)?);
        let len = |(row, _): (Encoding, u32)| row.bytes() as i64;
        let to = |(row, insn): (Encoding, u32), distance: i64| {
            row.set(insn, Field::Imm, distance).map(|insn| bytes(row, insn)).context("a jump does not reach")
        };
        let body_len = body.len() as i64;
        let over = to(first, len(first) + body_len + len(second))?;
        let on = to(second, len(second) + len(third))?;
        let back = to(third, -(body_len + len(second)))?;
        Ok([over, body, on, back].concat())
    }

    /// `jal` or `c.j`, the distance still to be set.
    fn jal(&mut self, kept: Kept) -> Result<(Encoding, u32)> {
        let short = self.table.row("c.j")?;
        if short.enabled(self.ext) && self.random.percent(40) {
            return Ok((short, short.fill(0)));
        }
        let row = self.table.row("jal")?;
        let link = if self.random.percent(50) { 0 } else { self.register(kept) };
        Ok((row, self.table.encode("jal", &[(Field::Rd, link.into())])?))
    }

    /// A call of some items that lie behind it, and the return.
    fn call(&mut self, keeper: u8, kept: Kept, depth: u32) -> Result<Item> {
        let link = if self.random.percent(60) && !kept.has(1) { 1 } else { self.register(kept) };
        let body = self.body(keeper, kept.and(link), depth)?;
        let (over, jump) = self.jal(kept.and(link))?;
        let short = self.table.row("c.jr")?;
        let back = match short.set(short.fill(0), Field::Rs1, link.into()) {
            Some(insn) if short.is(self.ext, insn) && self.random.percent(50) => bytes(short, insn),
            _ => self.table.encode("jalr", &[(Field::Rs1, link.into())])?.to_le_bytes().to_vec(),
        };
        let to = 4 + over.bytes() as i64;
        let call = self.table.encode("jal", &[(Field::Rd, link.into()), (Field::Imm, to)])?;
        let behind = (over.bytes() + body.len() + back.len()) as i64;
        let jump = over.set(jump, Field::Imm, behind).context("a jump does not reach")?;
        Ok([call.to_le_bytes().to_vec(), bytes(over, jump), body, back].concat())
    }

    /// A jump through a register over some items, which are never run.
    fn computed_jump(&mut self, keeper: u8, kept: Kept, depth: u32) -> Result<Item> {
        let body = self.body(keeper, kept, depth)?;
        let target = self.register(kept);
        let short = self.table.row(self.random.pick(&["c.jr", "c.jalr"]))?;
        let compressed = short
            .set(short.fill(0), Field::Rs1, target.into())
            .filter(|insn| short.is(self.ext, *insn) && written(short, *insn) & kept.0 & !1 == 0)
            .filter(|_| self.random.percent(50));
        // auipc target, 0; addi target, target, first; jalr rd, rest(target)
        let whole = 8 + if compressed.is_some() { short.bytes() } else { 4 } + body.len();
        let rest = if compressed.is_some() { 0 } else { self.random.between(-1000, 1000) };
        let first = whole as i64 - rest;
        let mut item = self.table.encode("auipc", &[(Field::Rd, target.into())])?.to_le_bytes().to_vec();
        let fields = [(Field::Rd, target.into()), (Field::Rs1, target.into()), (Field::Imm, first)];
        item.extend(self.table.encode("addi", &fields)?.to_le_bytes());
        match compressed {
            Some(insn) => item.extend(bytes(short, insn)),
            None => {
                let link = if self.random.percent(50) { 0 } else { self.register(kept) };
                // The lowest bit of the sum does not count.
                let imm = rest | self.random.between(0, 1);
                let fields = [(Field::Rd, link.into()), (Field::Rs1, target.into()), (Field::Imm, imm)];
                item.extend(self.table.encode("jalr", &fields)?.to_le_bytes());
            }
        }
        item.extend(body);
        Ok(item)
    }

    /// Something that traps: no instruction of this model, or not in user mode.
    fn trap(&mut self, kept: Kept) -> Result<Item> {
        for _ in 0..64 {
            match self.random.below(8) {
                0 => {
                    let row = self.random.pick(&self.trapping);
                    return Ok(bytes(row, self.fill(row)));
                }
                1 => {
                    let row = self.table.row(self.random.pick(&["csrrw", "csrrs", "csrrci"]))?;
                    let number = self.random.below(1 << 12) as i64;
                    let insn = self.plain(row, kept).and_then(|insn| row.set(insn, Field::Csr, number));
                    if let Some(insn) = insn.filter(|_| !known::is_user_csr(number)) {
                        return Ok(bytes(row, insn));
                    }
                }
                2 => {
                    let insn = self.random.bits() as u16;
                    if insn & 3 != 3 && !encoding::is_decoded(self.ext, insn.into()) {
                        return Ok(insn.to_le_bytes().to_vec());
                    }
                }
                _ => {
                    // Near an instruction: one or two bits off, or of an extension this model lacks.
                    let row = self.random.pick(&self.all);
                    let mut insn = self.fill(row);
                    for _ in 0..self.random.below(3) {
                        insn ^= 1 << self.random.between(2, row.bytes() as i64 * 8 - 1);
                    }
                    if !encoding::is_decoded(self.ext, insn) {
                        return Ok(bytes(row, insn));
                    }
                }
            }
        }
        Ok(Vec::new())
    }
}

/// An encoding of `row` as it lies in memory.
fn bytes(row: Encoding, insn: u32) -> Item {
    insn.to_le_bytes()[..row.bytes()].to_vec()
}

/// The integer registers an instruction writes, a bit each.
fn written(row: Encoding, insn: u32) -> u32 {
    if !row.has(Field::Rd) || row.operands().contains("frd") {
        return 0;
    }
    let rd = 1 << row.get(insn, Field::Rd);
    if row.name() == "amocas.q" { rd | rd << 1 } else { rd }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isomer_ir::Guest;
    use std::collections::BTreeSet;

    fn sequences(guest: &Riscv64, table: &Table, seed: u64) -> Result<Vec<Sequence>> {
        let mut generator = Generator::new(table, guest, Random::new(seed, 0));
        (0..300).map(|_| generator.sequence()).collect()
    }

    /// Mnemonics of straight-line items; jumps over others make no difference here.
    fn mnemonics(guest: &Riscv64, sequences: &[Sequence]) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        for item in sequences.iter().flat_map(|sequence| &sequence.items) {
            let mut at = 0;
            while at < item.len() {
                let (text, len) = guest.disassemble(&item[at..], 0);
                seen.extend(text.split([' ', '.']).next().map(str::to_owned));
                at += len.max(1);
            }
        }
        seen
    }

    #[test]
    fn a_seed_makes_the_same_sequences() -> Result<()> {
        let (guest, table) = (Riscv64::max(), Table::new());
        let bytes = |seed| -> Result<Vec<u8>> {
            Ok(sequences(&guest, &table, seed)?.iter().flat_map(Sequence::bytes).collect())
        };
        assert_eq!(bytes(1)?, bytes(1)?);
        assert_ne!(bytes(1)?, bytes(2)?);
        Ok(())
    }

    #[test]
    fn every_mnemonic_comes_up() -> Result<()> {
        let (guest, table) = (Riscv64::max(), Table::new());
        let seen = mnemonics(&guest, &sequences(&guest, &table, 1)?);
        let stem = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let expected: BTreeSet<String> = Encoding::all().map(|row| stem(row.name())).collect();
        let missing: Vec<_> = expected.difference(&seen).filter(|name| *name != "ecall").collect();
        // Those that trap are rare.
        assert!(missing.len() <= 6, "{missing:?}");
        Ok(())
    }

    #[test]
    fn a_smaller_model_gets_none_of_the_others_instructions() -> Result<()> {
        let (guest, table) = (Riscv64::rv64(), Table::new());
        let generator = Generator::new(&table, &guest, Random::new(1, 0));
        assert!(generator.usual.iter().all(|(row, _)| row.enabled(guest.ext)));
        assert!(
            generator.usual.len() < Generator::new(&table, &Riscv64::max(), Random::new(1, 0)).usual.len()
        );
        Ok(())
    }

    #[test]
    fn pairs_count_as_two_registers() -> Result<()> {
        let row = Table::new().row("amocas.q")?;
        let insn = row.set(row.fill(0), Field::Rd, 6).context("an even register")?;
        assert_eq!(written(row, insn), 0b1100_0000);
        Ok(())
    }
}
