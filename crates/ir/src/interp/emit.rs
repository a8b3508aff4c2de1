//! Third step of compilation, forwards: where each value lives, and the words.

use super::{
    code::{Code, ColdOp, CompileError, HEAD_WORDS, InsnAt, Meta},
    facts::{Ext, Facts, Opnd, direct_unit},
    select::{End, Sel, Selection, branch_opcode, select},
    word::{Extra, Opc},
};
use crate::{
    block::{Block, Terminal},
    op::Op,
    state::{DIRECT_UNITS, SlotDesc, TEMP_UNITS},
    types::{Slot, Type, Value},
};

/// First unit of [`crate::CpuHeader::temps`].
const FIRST_TEMP: u8 = 8;
/// The last temporary is always 0.
pub(super) const ZERO_UNIT: u8 = FIRST_TEMP + TEMP_UNITS as u8 - 1;
/// No unit.
const NOWHERE: u8 = 0;
/// How many instructions behind its definition a `Set` of a value is looked for.
const SET_WINDOW: usize = 24;
const NOBODY: u32 = u32::MAX;

type Result<T> = std::result::Result<T, CompileError>;

impl Code {
    /// Compiles a block.
    pub fn compile(block: &Block) -> Result<Self> {
        let insns = u8::try_from(block.insn_count).map_err(|_| CompileError::TooComplex)?;
        let facts = Facts::new(block);
        let selection = select(&facts);
        let mut emitter = Emitter {
            facts: &facts,
            block,
            selection: &selection,
            words: Vec::with_capacity(HEAD_WORDS + block.insts.len() + 4),
            last: None,
            cold: Vec::new(),
            insns: Vec::with_capacity(block.insn_count as usize),
            free: ((1 << TEMP_UNITS) - 1) << FIRST_TEMP & !(1 << ZERO_UNIT),
            home: vec![NOWHERE; block.value_types.len()],
            int_at: [NOBODY; DIRECT_UNITS],
            vector_at: [NOBODY; DIRECT_UNITS],
            extended: Vec::new(),
            guarded: false,
            position: 0,
        };
        emitter.words.resize(HEAD_WORDS, 0);
        for index in 0..block.insts.len() {
            emitter.position = index as u32;
            emitter.instruction(index)?;
        }
        emitter.position = block.insts.len() as u32;
        let links = emitter.terminal(insns)?;
        let meta = Meta {
            cold: emitter.cold.into_boxed_slice(),
            insns: emitter.insns.into_boxed_slice(),
            fp: block.fp,
            home: 0,
        };
        Ok(Self::new(emitter.words, links, meta))
    }
}

struct Emitter<'a> {
    facts: &'a Facts<'a>,
    block: &'a Block,
    selection: &'a Selection,
    words: Vec<u64>,
    /// Index and code of the last operation that may become the first of a pair.
    last: Option<(usize, Opc)>,
    cold: Vec<ColdOp>,
    insns: Vec<InsnAt>,
    /// Free temporaries, a bit a unit.
    free: u64,
    /// By root value: the unit it is in, [`NOWHERE`] before its definition and after its end.
    home: Vec<u8>,
    /// The integer and the vector that live in a slot's unit(s), by first unit.
    int_at: [u32; DIRECT_UNITS],
    vector_at: [u32; DIRECT_UNITS],
    /// Temporaries that hold extended operands or constants of the operation at hand only.
    extended: Vec<u8>,
    /// The mode may change in this block, so that its successors are looked up every time.
    guarded: bool,
    position: u32,
}

impl Emitter<'_> {
    fn word(&mut self, op: Opc, d: u8, a: u8, b: u8, imm: i32) {
        let here = self.words.len();
        let before = self.last.replace((here, op));
        if let Some((index, first)) = before
            && index + 1 == here
            && let Some(pair) = Opc::paired(first, op)
        {
            self.words[index] = self.words[index] & !0xff | pair as u64;
            self.last = None;
        }
        let imm = u64::from(imm as u32) << 32;
        self.words.push(imm | u64::from(b) << 24 | u64::from(a) << 16 | u64::from(d) << 8 | op as u64);
    }

    fn extra(&mut self, extra: Extra) {
        self.words.push(u64::from(extra.hi as u32) << 32 | u64::from(extra.lo as u32));
    }

    // --- temporaries and homes

    fn alloc(&mut self, ty: Type) -> Result<u8> {
        let candidates = if ty == Type::V128 { self.free & self.free >> 1 } else { self.free };
        if candidates == 0 {
            return Err(CompileError::TooComplex);
        }
        let unit = candidates.trailing_zeros() as u8;
        self.free &= !(units_of(ty) << unit);
        Ok(unit)
    }

    fn release(&mut self, unit: u8, ty: Type) {
        if (FIRST_TEMP..ZERO_UNIT).contains(&unit) {
            self.free |= units_of(ty) << unit;
        }
    }

    fn root_type(&self, root: u32) -> Type {
        self.block.type_of(Value(root))
    }

    fn lives_beyond(&self, root: u32, position: u32) -> bool {
        self.selection.last_use[root as usize] > position + 1
    }

    fn settle(&mut self, root: u32, unit: u8) {
        self.home[root as usize] = unit;
        if unit > ZERO_UNIT {
            match self.root_type(root) {
                Type::V128 => self.vector_at[usize::from(unit)] = root,
                _ => self.int_at[usize::from(unit)] = root,
            }
        }
    }

    /// Ends values whose last use is the present operation.
    fn end(&mut self, operand: Opnd) {
        if let Opnd::Unit(root, _) = operand {
            self.end_root(root);
        }
    }

    fn end_root(&mut self, root: u32) {
        if self.lives_beyond(root, self.position) {
            return;
        }
        let unit = std::mem::replace(&mut self.home[root as usize], NOWHERE);
        if unit > ZERO_UNIT {
            for at in [&mut self.int_at, &mut self.vector_at] {
                if at[usize::from(unit)] == root {
                    at[usize::from(unit)] = NOBODY;
                }
            }
        }
        self.release(unit, self.root_type(root));
    }

    fn end_extended(&mut self) {
        while let Some(unit) = self.extended.pop() {
            self.release(unit, Type::I64);
        }
    }

    /// Moves a value out of a slot that is about to change, if it is needed behind the present operation.
    fn evict(&mut self, root: u32, unit: usize) -> Result<()> {
        if root == NOBODY || usize::from(self.home[root as usize]) != unit {
            return Ok(());
        }
        let unit = std::mem::replace(&mut self.home[root as usize], NOWHERE);
        if !self.lives_beyond(root, self.position) {
            return Ok(());
        }
        if self.facts.root_konst(root).is_none() {
            let ty = self.root_type(root);
            let temp = self.alloc(ty)?;
            self.word(if ty == Type::V128 { Opc::Mov2 } else { Opc::Mov }, temp, unit, 0, 0);
            self.home[root as usize] = temp;
        }
        Ok(())
    }

    /// Before the bytes of a slot change.
    fn evict_bytes(&mut self, desc: &SlotDesc) -> Result<()> {
        let first = (desc.offset / 8) as usize;
        let last = ((desc.offset + desc.ty.bytes() - 1) / 8) as usize;
        for unit in first..=last.min(DIRECT_UNITS - 1) {
            let int = std::mem::replace(&mut self.int_at[unit], NOBODY);
            self.evict(int, unit)?;
            for start in [unit.saturating_sub(1), unit] {
                let vector = std::mem::replace(&mut self.vector_at[start], NOBODY);
                self.evict(vector, start)?;
            }
        }
        Ok(())
    }

    /// Before anything may happen to slots.
    fn evict_all(&mut self) -> Result<()> {
        for unit in usize::from(ZERO_UNIT) + 1..DIRECT_UNITS {
            let int = std::mem::replace(&mut self.int_at[unit], NOBODY);
            self.evict(int, unit)?;
            let vector = std::mem::replace(&mut self.vector_at[unit], NOBODY);
            self.evict(vector, unit)?;
        }
        Ok(())
    }

    fn load_constant(&mut self, unit: u8, bits: u64) {
        match i32::try_from(bits as i64) {
            Ok(imm) => self.word(Opc::Li, unit, 0, 0, imm),
            Err(_) => {
                self.word(Opc::Li64, unit, 0, 0, 0);
                self.words.push(bits);
            }
        }
    }

    /// The unit of a root value; constants get one when first asked for.
    fn unit_of_root(&mut self, root: u32) -> Result<u8> {
        let unit = self.home[root as usize];
        if unit != NOWHERE {
            return Ok(unit);
        }
        // A value without a home is a constant, or used before its definition: no well-formed block does that.
        let bits = self.facts.root_konst(root).ok_or(CompileError::TooComplex)?;
        if bits == 0 {
            return Ok(ZERO_UNIT);
        }
        let unit = self.alloc(Type::I64)?;
        self.load_constant(unit, bits);
        self.home[root as usize] = unit;
        Ok(unit)
    }

    fn unit(&mut self, operand: Opnd) -> Result<u8> {
        match operand {
            Opnd::None => Ok(0),
            Opnd::Raw(field) => Ok(field),
            Opnd::Unit(root, Ext::Any) => self.unit_of_root(root),
            Opnd::Unit(root, ext) => {
                let from = self.unit_of_root(root)?;
                let temp = self.alloc(Type::I64)?;
                self.extended.push(temp);
                self.word(extension(ext), temp, from, 0, 0);
                Ok(temp)
            }
            Opnd::Konst(0) => Ok(ZERO_UNIT),
            Opnd::Konst(bits) => {
                let temp = self.alloc(Type::I64)?;
                self.extended.push(temp);
                self.load_constant(temp, bits);
                Ok(temp)
            }
        }
    }

    // --- destinations

    fn slot(&self, slot: Slot) -> &'static SlotDesc {
        &self.block.slots[usize::from(slot.0)]
    }

    /// The slot that `value`, defined here, may be written to at once: it is set to it before anybody could see the
    /// difference.
    fn early_slot(&self, value: Value) -> Option<&'static SlotDesc> {
        let set = self.selection.first_set[value.0 as usize] as usize;
        let Op::Set { slot, .. } = self.block.insts.get(set)?.op else { return None };
        let desc = self.slot(slot);
        direct_unit(desc)?;
        let here = self.position as usize;
        let same_kind = (desc.ty == Type::V128) == (self.block.type_of(value) == Type::V128);
        if !same_kind || set <= here || set - here > SET_WINDOW {
            return None;
        }
        let between = here + 1..set;
        let blocked =
            self.block.insts[between.clone()].iter().zip(&self.selection.sels[between]).any(|(inst, sel)| {
                match inst.op {
                    Op::Get { slot } => !matches!(sel, Sel::Nothing) && self.slot(slot).overlaps(desc),
                    Op::Set { slot, .. } => self.slot(slot).overlaps(desc),
                    Op::Call { .. } => true,
                    ref op => op.may_fault(),
                }
            });
        (!blocked).then_some(desc)
    }

    /// Where the result `value` goes. Operands must have been read and not yet ended when this is called with
    /// `early`, which may move values out of the way first.
    fn early_destination(&mut self, value: Value) -> Result<Option<u8>> {
        let Some(desc) = self.early_slot(value) else { return Ok(None) };
        self.evict_bytes(desc)?;
        Ok(direct_unit(desc))
    }

    /// A temporary for a result that does not go to a slot at once.
    fn destination(&mut self, value: Value, early: Option<u8>) -> Result<u8> {
        let unit = match early {
            Some(unit) => unit,
            None => self.alloc(self.block.type_of(value))?,
        };
        if self.selection.last_use[value.0 as usize] > 0 {
            self.settle(value.0, unit);
        }
        Ok(unit)
    }

    /// Frees the temporary of a result nobody uses.
    fn drop_unused(&mut self, value: Value, unit: u8) {
        if self.selection.last_use[value.0 as usize] == 0 {
            self.release(unit, self.block.type_of(value));
        }
    }

    // --- operations

    fn instruction(&mut self, index: usize) -> Result<()> {
        let inst = self.block.insts[index];
        match (inst.op, self.selection.sels[index]) {
            (Op::InsnStart { offset, .. }, _) => {
                self.insns.push(InsnAt { word: self.words.len() as u32, offset });
                Ok(())
            }
            (Op::Get { slot }, Sel::Slot) => self.get(slot, inst.first),
            (Op::Set { slot, value }, Sel::Slot) => self.set(slot, value),
            (Op::Call { .. }, Sel::Slot) => self.call(&inst.op, inst.first),
            (op, Sel::Cold) => self.cold(&op, index),
            (_, Sel::PcRel(offset)) => {
                let early = self.early_destination(inst.first)?;
                let d = self.destination(inst.first, early)?;
                self.pc_rel(d, offset);
                Ok(())
            }
            (_, Sel::Hot { opc, a, b, c, imm }) => self.hot(inst.first, index, opc, [a, b, c], imm),
            _ => Ok(()),
        }
    }

    fn pc_rel(&mut self, d: u8, offset: i64) {
        match i32::try_from(offset) {
            Ok(imm) => self.word(Opc::PcRel, d, 0, 0, imm),
            Err(_) => {
                self.word(Opc::PcRel64, d, 0, 0, 0);
                self.words.push(offset as u64);
            }
        }
    }

    fn hot(&mut self, result: Value, index: usize, opc: Opc, operands: [Opnd; 3], imm: i32) -> Result<()> {
        let [a, b, c] = operands;
        let (ua, ub, uc) = (self.unit(a)?, self.unit(b)?, self.unit(c)?);
        let has_result = self.block.results(&self.block.insts[index]).next().is_some();
        let early = if has_result { self.early_destination(result)? } else { None };
        operands.into_iter().for_each(|operand| self.end(operand));
        self.end_extended();
        let d = match (has_result, c) {
            (true, _) => self.destination(result, early)?,
            (false, Opnd::Raw(field)) => field,
            (false, _) => 0,
        };
        let imm = if matches!(c, Opnd::None | Opnd::Raw(_)) { imm } else { imm | i32::from(uc) };
        self.word(opc, d, ua, ub, imm);
        if has_result {
            self.drop_unused(result, d);
        }
        Ok(())
    }

    fn cold(&mut self, op: &Op, index: usize) -> Result<()> {
        let facts = self.facts;
        let mut cold = ColdOp {
            op: *op,
            operands: [0; 5],
            operand_count: 0,
            vectors: 0,
            d: [0; 3],
            result_count: 0,
            vector_result: false,
        };
        let mut operands = [Opnd::None; 5];
        let mut count = 0;
        op.for_each_operand(|v| {
            operands[count] = facts.extended(v, is_sign_extension(op));
            cold.vectors |= u8::from(self.block.type_of(v) == Type::V128) << count;
            count += 1;
        });
        for (unit, operand) in cold.operands.iter_mut().zip(&operands[..count]) {
            *unit = self.unit(*operand)?;
        }
        cold.operand_count = count as u8;
        let results = || facts.block.results(&facts.block.insts[index]).enumerate();
        let mut early = [None; 3];
        for (i, (value, _)) in results() {
            early[i] = self.early_destination(value)?;
        }
        operands.into_iter().for_each(|operand| self.end(operand));
        self.end_extended();
        for (i, (value, ty)) in results() {
            cold.d[i] = self.destination(value, early[i])?;
            cold.result_count += 1;
            cold.vector_result = ty == Type::V128;
        }
        results().for_each(|(i, (value, _))| self.drop_unused(value, cold.d[i]));
        self.word(Opc::Cold, 0, 0, 0, self.cold.len() as i32);
        self.cold.push(cold);
        Ok(())
    }

    fn get(&mut self, slot: Slot, value: Value) -> Result<()> {
        let desc = self.slot(slot);
        if let Some(unit) = direct_unit(desc) {
            self.settle(value.0, unit);
            return Ok(());
        }
        let early = self.early_destination(value)?;
        let d = self.destination(value, early)?;
        let (opcodes, offset) = far_slot(desc)?;
        self.word(opcodes.0, d, 0, 0, offset);
        if desc.ty == Type::V128 {
            self.word(opcodes.0, d + 1, 0, 0, offset + 8);
        }
        Ok(())
    }

    fn set(&mut self, slot: Slot, value: Value) -> Result<()> {
        let desc = self.slot(slot);
        self.guarded |= (desc.offset as usize) < size_of::<crate::CpuHeader>();
        let root = self.facts.root(value);
        let Some(unit) = direct_unit(desc) else {
            let a = self.unit_of_root(root)?;
            self.evict_bytes(desc)?;
            self.end_root(root);
            let (opcodes, offset) = far_slot(desc)?;
            self.word(opcodes.1, 0, a, 0, offset);
            if desc.ty == Type::V128 {
                self.word(opcodes.1, 0, a + 1, 0, offset + 8);
            }
            return Ok(());
        };
        if self.home[root as usize] == unit {
            // Already there: computed in place, or set to what was read from it.
            self.end_root(root);
            return Ok(());
        }
        if let Some(bits) = self.facts.konst(value) {
            self.evict_bytes(desc)?;
            self.load_constant(unit, bits);
            if Some(bits) == self.facts.root_konst(root) {
                self.move_home(root, unit);
            }
            self.end_root(root);
            return Ok(());
        }
        let a = self.unit_of_root(root)?;
        self.evict_bytes(desc)?;
        self.word(if desc.ty == Type::V128 { Opc::Mov2 } else { Opc::Mov }, unit, a, 0, 0);
        if (FIRST_TEMP..ZERO_UNIT).contains(&a)
            && (desc.ty == Type::V128) == (self.root_type(root) == Type::V128)
        {
            self.move_home(root, unit);
        }
        self.end_root(root);
        Ok(())
    }

    fn move_home(&mut self, root: u32, unit: u8) {
        let before = self.home[root as usize];
        self.release(before, self.root_type(root));
        self.settle(root, unit);
    }

    fn call(&mut self, op: &Op, result: Value) -> Result<()> {
        let Op::Call { helper, args, result: ty } = *op else { return Ok(()) };
        self.guarded = true;
        let mut units = [ZERO_UNIT; 4];
        let mut operands = [Opnd::None; 4];
        for (i, arg) in args.into_iter().enumerate() {
            if let Some(arg) = arg {
                operands[i] = self.facts.extended(arg, false);
                units[i] = self.unit(operands[i])?;
            }
        }
        self.evict_all()?;
        operands.into_iter().for_each(|operand| self.end(operand));
        self.end_extended();
        let d = match ty {
            Some(Type::V128) => return Err(CompileError::TooComplex),
            Some(_) => {
                let early = self.early_destination(result)?;
                self.destination(result, early)?
            }
            None => {
                // It is written all the same.
                let scratch = self.alloc(Type::I64)?;
                self.release(scratch, Type::I64);
                scratch
            }
        };
        let number = (self.insns.len().saturating_sub(1)) as u16;
        let [low, high] = number.to_le_bytes();
        self.word(Opc::Call, d, low, high, i32::from(helper.0));
        self.words.push(u64::from(u32::from_le_bytes(units)));
        if ty.is_some() {
            self.drop_unused(result, d);
        }
        Ok(())
    }

    // --- terminals

    /// Emits the terminal; the number of links, which are the last words.
    fn terminal(&mut self, insns: u8) -> Result<u32> {
        match (self.block.terminal, self.selection.end) {
            (Terminal::Jump { offset, .. }, _) => match i32::try_from(offset) {
                Ok(imm) => {
                    if self.guarded {
                        self.word(Opc::JumpGuarded, insns, 0, 0, imm);
                        return Ok(0);
                    }
                    self.word(Opc::Jump, insns, 0, 0, imm);
                    self.words.push(0);
                    return Ok(1);
                }
                Err(_) => {
                    let pc = self.far_pc(offset)?;
                    self.word(Opc::JumpInd, insns, pc, 0, 0);
                }
            },
            (Terminal::Branch { taken, not_taken, .. }, end) => {
                return self.branch(insns, taken, not_taken, end);
            }
            (Terminal::Indirect { .. }, End::Indirect { a, imm, mask }) => {
                let a = self.unit(a)?;
                self.word(Opc::JumpInd, insns, a, mask, imm);
            }
            (Terminal::Exit { offset } | Terminal::Attend { offset }, _) => match i32::try_from(offset) {
                Ok(imm) => self.word(Opc::Exit, insns, 0, 0, imm),
                Err(_) => {
                    let pc = self.far_pc(offset)?;
                    self.word(Opc::ExitInd, insns, pc, 0, 0);
                }
            },
            (Terminal::ExitIndirect { .. }, End::Plain(pc)) => {
                let pc = self.unit(pc)?;
                self.word(Opc::ExitInd, insns, pc, 0, 0);
            }
            (Terminal::Trap { code, .. }, End::Plain(value)) => {
                let value = self.unit(value)?;
                self.word(Opc::Trap, insns, value, 0, code as i32);
            }
            _ => return Err(CompileError::TooComplex),
        }
        Ok(0)
    }

    fn far_pc(&mut self, offset: i64) -> Result<u8> {
        let temp = self.alloc(Type::I64)?;
        self.pc_rel(temp, offset);
        Ok(temp)
    }

    fn branch(&mut self, insns: u8, taken: i64, not_taken: i64, end: End) -> Result<u32> {
        let (Ok(near), Ok(lo)) = (i32::try_from(taken), i32::try_from(not_taken)) else {
            return self.far_branch(insns, taken, not_taken, end);
        };
        match end {
            End::Test(test) if !self.guarded => {
                let (a, b) = (self.unit(test.a)?, self.unit(test.b)?);
                self.word(branch_opcode(&test), insns, a, b, near);
                self.extra(Extra { lo, hi: test.imm });
            }
            end => {
                let a = self.condition(end)?;
                self.word(if self.guarded { Opc::BrNzGuarded } else { Opc::BrNz }, insns, a, 0, near);
                self.extra(Extra { lo, hi: 0 });
                if self.guarded {
                    return Ok(0);
                }
            }
        }
        self.words.extend([0, 0]);
        Ok(2)
    }

    /// The unit with the branch condition in its low byte.
    fn condition(&mut self, end: End) -> Result<u8> {
        match end {
            End::Test(test) => {
                let (a, b) = (self.unit(test.a)?, self.unit(test.b)?);
                let d = self.alloc(Type::I64)?;
                self.word(
                    super::select::set_opcode(test.cond, test.narrow, test.b == Opnd::None),
                    d,
                    a,
                    b,
                    test.imm,
                );
                Ok(d)
            }
            End::Bool(c) | End::Plain(c) | End::Indirect { a: c, .. } => self.unit(c),
        }
    }

    fn far_branch(&mut self, insns: u8, taken: i64, not_taken: i64, end: End) -> Result<u32> {
        let c = self.condition(end)?;
        let (a, b) = (self.far_pc(taken)?, self.far_pc(not_taken)?);
        self.word(Opc::SelNz, a, a, b, i32::from(c));
        self.word(Opc::JumpInd, insns, a, 0, 0);
        Ok(0)
    }
}

/// Does the operation want its operand with the sign? All other out-of-line operations want zeros.
pub(super) const fn is_sign_extension(op: &Op) -> bool {
    matches!(op, Op::Sext { .. })
}

/// A value's units, as a mask from bit 0.
const fn units_of(ty: Type) -> u64 {
    if matches!(ty, Type::V128) { 0b11 } else { 0b1 }
}

fn extension(ext: Ext) -> Opc {
    match ext {
        Ext::Any | Ext::Zero(Type::I64 | Type::V128) | Ext::Sign(Type::I64 | Type::V128) => Opc::Mov,
        Ext::Zero(Type::I8) => Opc::Zext8,
        Ext::Zero(Type::I16) => Opc::Zext16,
        Ext::Zero(Type::I32) => Opc::Zext32,
        Ext::Sign(Type::I8) => Opc::Sext8,
        Ext::Sign(Type::I16) => Opc::Sext16,
        Ext::Sign(Type::I32) => Opc::Sext32,
    }
}

/// Opcodes that read and write a slot which cannot be an operand, and its byte offset.
fn far_slot(desc: &SlotDesc) -> Result<((Opc, Opc), i32)> {
    let temps = 64..size_of::<crate::CpuHeader>() as u32;
    let offset = i32::try_from(desc.offset).map_err(|_| CompileError::TooComplex)?;
    if temps.contains(&desc.offset) || temps.contains(&(desc.offset + desc.ty.bytes() - 1)) {
        return Err(CompileError::TooComplex);
    }
    let opcodes = match desc.ty {
        Type::I8 => (Opc::Get8, Opc::Set8),
        Type::I16 => (Opc::Get16, Opc::Set16),
        Type::I32 => (Opc::Get32, Opc::Set32),
        Type::I64 | Type::V128 => (Opc::Get64, Opc::Set64),
    };
    Ok((opcodes, offset))
}
