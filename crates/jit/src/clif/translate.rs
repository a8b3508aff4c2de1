//! One region into one Cranelift function.

use super::{
    Facts,
    graph::Graph,
    pages::Sharing,
    slots::{Choice, Keep, SlotSet},
};
use crate::{CompileError, abi, host::HostFeatures, region::Region};
use cranelift_codegen::{
    ir::{
        self, AbiParam, Block, InstBuilder, MemFlagsData, SigRef, Signature, Type as ClifType, UserFuncName,
        types::{F32, F64, I8, I8X16, I16, I32, I64},
    },
    isa::{CallConv, TargetIsa},
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use isomer_ir::{
    Inst, Op, SlotDesc, Type,
    types::{FpModel, Value},
};
use rustc_hash::FxHashMap;
use std::mem::offset_of;

/// The Cranelift type that carries a value of an IR type.
pub(super) const fn clif_type(ty: Type) -> ClifType {
    match ty {
        Type::I8 => I8,
        Type::I16 => I16,
        Type::I32 => I32,
        Type::I64 => I64,
        Type::V128 => I8X16,
    }
}

/// Accesses to the CPU, the context and host memory: always mapped; never assumed aligned.
pub(crate) const fn memory() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

/// A value's forms: as bits, and as a floating-point number of the same width.
#[derive(Clone, Copy, Default)]
pub(super) struct Forms {
    pub(super) bits: Option<ir::Value>,
    pub(super) float: Option<ir::Value>,
}

/// The context's functions, as in [`abi::Context::by_words`].
#[derive(Clone, Copy)]
pub(super) enum Rare {
    Access,
    Call,
    Compute,
}

/// Signatures of what compiled code calls.
pub(super) struct Signatures {
    /// Other compiled code.
    pub(super) code: SigRef,
    /// The context's functions.
    pub(super) rare: SigRef,
    /// [`abi::Context::elsewhere`].
    pub(super) elsewhere: SigRef,
}

/// The `tail` signature of compiled code.
pub(crate) fn code_signature() -> Signature {
    let mut signature = Signature::new(CallConv::Tail);
    signature.params = vec![AbiParam::new(I64); 4];
    signature.returns = vec![AbiParam::new(I64)];
    signature
}

/// The signature of [`abi::Context::elsewhere`].
pub(crate) fn elsewhere_signature() -> Signature {
    let mut signature = code_signature();
    signature.params.push(AbiParam::new(I64));
    signature
}

/// The register-preserving signature of the context's functions.
pub(crate) fn rare_signature(params: usize) -> Signature {
    let mut signature = Signature::new(CallConv::PreserveAll);
    signature.params = vec![AbiParam::new(I64); params];
    signature
}

/// A region being translated.
pub(super) struct Translator<'a, 'f> {
    pub(super) b: FunctionBuilder<'f>,
    pub(super) region: &'a Region,
    pub(super) graph: Graph,
    pub(super) facts: Facts,
    pub(super) features: HostFeatures,
    pub(super) slots: &'static [SlotDesc],
    choice: Choice,
    vars: Vec<Option<Variable>>,
    pub(super) cpu: ir::Value,
    pub(super) cx: ir::Value,
    pub(super) left: Variable,
    pub(super) signatures: Signatures,
    /// Cranelift's block for each block of the region.
    pub(super) blocks: Vec<Block>,
    /// Slots that are not in memory yet when a block with one predecessor begins.
    pub(super) inherited: FxHashMap<usize, SlotSet>,
    /// Slots whose value is known whichever way a block is reached.
    pub(super) known: FxHashMap<usize, SlotSet>,
    pub(super) exits: super::control::Exits,

    // The block being translated.
    pub(super) at: usize,
    pub(super) fp: FpModel,
    pub(super) values: Vec<Forms>,
    pub(super) sharing: Sharing,
    /// Slots whose value is not in memory yet.
    pub(super) dirty: SlotSet,
    /// Slots whose variable holds their value; others are read from the CPU first.
    pub(super) available: SlotSet,
    /// Bytes from the block's entry to the running instruction, and how many came before it.
    pub(super) insn_offset: u32,
    pub(super) retired: u32,
    started: bool,
}

/// Fills `func` with the region.
pub(super) fn translate(
    func: &mut ir::Function,
    builder: &mut FunctionBuilderContext,
    isa: &dyn TargetIsa,
    region: &Region,
    facts: Facts,
    features: HostFeatures,
) -> Result<(), CompileError> {
    func.name = UserFuncName::user(0, 0);
    func.signature = code_signature();
    let Some(first) = region.blocks.first() else {
        return Err(CompileError::Nothing("no blocks"));
    };
    let slots = first.block.slots;
    let fp = first.block.fp;
    let mut b = FunctionBuilder::new(func, builder);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    b.seal_block(entry);
    let params = b.block_params(entry);
    let (cpu, cx, left_in, pc) = (params[0], params[1], params[2], params[3]);
    let left = b.declare_var(I64);
    b.def_var(left, left_in);
    // Rarely needed, so not worth a register.
    b.ins().store(memory(), pc, cx, offset_of!(abi::Context, entry_pc) as i32);
    let code = b.import_signature(code_signature());
    let rare = b.import_signature(rare_signature(2));
    let elsewhere = b.import_signature(elsewhere_signature());
    let blocks = region.blocks.iter().map(|_| b.create_block()).collect();
    let exits = super::control::Exits::new(&mut b);
    let mut translator = Translator {
        b,
        region,
        graph: Graph::of(region),
        facts,
        features,
        slots,
        choice: Choice::of(region, slots),
        vars: vec![None; slots.len()],
        cpu,
        cx,
        left,
        signatures: Signatures { code, rare, elsewhere },
        blocks,
        inherited: FxHashMap::default(),
        known: FxHashMap::default(),
        available: SlotSet::default(),
        exits,
        at: 0,
        fp,
        values: Vec::new(),
        sharing: Sharing::default(),
        dirty: SlotSet::default(),
        insn_offset: 0,
        retired: 0,
        started: false,
    };
    translator.run()?;
    translator.b.seal_all_blocks();
    translator.b.finalize(isa.frontend_config());
    Ok(())
}

impl Translator<'_, '_> {
    fn run(&mut self) -> Result<(), CompileError> {
        self.declare_slots();
        self.prepare(0);
        self.poll_and_go(0);
        let order = self.graph.order.clone();
        for at in order {
            self.block(at)?;
        }
        self.finish_exits();
        Ok(())
    }

    fn block(&mut self, at: usize) -> Result<(), CompileError> {
        let region = self.region;
        let block = &region.blocks[at].block;
        self.at = at;
        self.fp = block.fp;
        self.values.clear();
        self.values.resize(block.value_types.len(), Forms::default());
        self.sharing = Sharing::of(block);
        self.dirty = self.inherited.remove(&at).unwrap_or_default();
        self.available = self.known.get(&at).cloned().unwrap_or_default();
        (self.insn_offset, self.retired, self.started) = (0, 0, false);
        let clif = self.blocks[at];
        self.b.switch_to_block(clif);
        if !self.graph.backward.iter().any(|edge| edge.1 == at) {
            // All predecessors are done.
            self.b.seal_block(clif);
        }
        for inst in &block.insts {
            self.inst(inst)?;
        }
        self.terminal(&block.terminal);
        Ok(())
    }

    fn inst(&mut self, inst: &Inst) -> Result<(), CompileError> {
        match inst.op {
            Op::InsnStart { offset, .. } => {
                self.insn_offset = offset;
                self.retired += u32::from(self.started);
                self.started = true;
            }
            Op::Get { slot } => {
                let forms = self.get_slot(usize::from(slot.0));
                self.values[inst.first.0 as usize] = forms;
            }
            Op::Set { slot, value } => self.set_slot(usize::from(slot.0), value),
            Op::PcRel { offset } => {
                let delta = self.delta(offset);
                let value = self.pc_plus(delta);
                self.define(inst.first, value);
            }
            Op::Load { .. }
            | Op::Store { .. }
            | Op::Rmw { .. }
            | Op::Cas { .. }
            | Op::CasPair { .. }
            | Op::LoadReserve { .. }
            | Op::StoreCond { .. }
            | Op::Fence { .. } => self.memory_op(inst)?,
            Op::FpBinary { .. }
            | Op::FpSqrt { .. }
            | Op::FpFma { .. }
            | Op::FpCompare { .. }
            | Op::FpConvert { .. }
            | Op::FpToInt { .. }
            | Op::FpFromInt { .. }
            | Op::FpRound { .. } => {
                self.float_op(inst)?;
                self.keep_alive(inst.first);
            }
            Op::ConstVec { .. }
            | Op::VecUnary { .. }
            | Op::VecBinary { .. }
            | Op::VecSelect { .. }
            | Op::VecShift { .. }
            | Op::VecSplat { .. }
            | Op::VecGet { .. }
            | Op::VecSet { .. }
            | Op::VecShuffle { .. }
            | Op::VecFpBinary { .. }
            | Op::VecFpFma { .. }
            | Op::VecFpSqrt { .. }
            | Op::VecFpCompare { .. } => self.vector_op(inst)?,
            Op::Call { helper, args, result } => self.call_helper(inst, helper, args, result),
            Op::TrapIf { c, code, value } => self.trap_if(c, code, value),
            _ => self.int_op(inst)?,
        }
        Ok(())
    }

    /// Sees to it that the result of a floating-point operation is computed even if nobody reads it: its flags count.
    fn keep_alive(&mut self, value: Value) {
        if !self.choice.needed[self.at][value.0 as usize] {
            let forms = self.forms(value);
            if let Some(result) = forms.float.or(forms.bits) {
                let scratch = offset_of!(abi::Context, values) as i32 + 16 * 3;
                self.b.ins().store(memory(), result, self.cx, scratch);
            }
        }
    }

    // --- values

    /// The type of a value of the present block.
    pub(super) fn type_of(&self, value: Value) -> Type {
        self.region.blocks[self.at].block.type_of(value)
    }

    /// A value's bits.
    pub(super) fn bits(&mut self, value: Value) -> ir::Value {
        let forms = self.values[value.0 as usize];
        if let Some(bits) = forms.bits {
            return bits;
        }
        let ty = clif_type(self.type_of(value));
        let bits = match forms.float {
            Some(float) => self.b.ins().bitcast(ty, MemFlagsData::new(), float),
            // Verified blocks define values before they use them.
            None => self.b.ins().iconst(I64, 0),
        };
        self.values[value.0 as usize].bits = Some(bits);
        bits
    }

    /// A value as a floating-point number of its width.
    pub(super) fn float(&mut self, value: Value) -> ir::Value {
        if let Some(float) = self.values[value.0 as usize].float {
            return float;
        }
        let bits = self.bits(value);
        let ty = if self.type_of(value) == Type::I32 { F32 } else { F64 };
        let float = self.b.ins().bitcast(ty, MemFlagsData::new(), bits);
        self.values[value.0 as usize].float = Some(float);
        float
    }

    /// The forms a value has already.
    pub(super) fn forms(&self, value: Value) -> Forms {
        self.values[value.0 as usize]
    }

    /// Is a value of the present block used as floating point only?
    pub(super) fn wants_float(&self, value: Value) -> bool {
        self.choice.float[self.at][value.0 as usize]
    }

    pub(super) fn define(&mut self, value: Value, bits: ir::Value) {
        self.values[value.0 as usize] = Forms { bits: Some(bits), float: None };
    }

    pub(super) fn define_float(&mut self, value: Value, float: ir::Value) {
        self.values[value.0 as usize] = Forms { bits: None, float: Some(float) };
    }

    pub(super) fn iconst(&mut self, ty: Type, bits: u64) -> ir::Value {
        self.b.ins().iconst(clif_type(ty), (bits & ty.mask()) as i64)
    }

    /// Bytes from the region's entry to `offset` bytes behind the present block's entry.
    pub(super) fn delta(&self, offset: i64) -> i64 {
        let blocks = &self.region.blocks;
        (i64::from(blocks[self.at].offset) - i64::from(blocks[0].offset)).wrapping_add(offset)
    }

    /// The virtual pc `delta` bytes from the region's entry.
    pub(super) fn pc_plus(&mut self, delta: i64) -> ir::Value {
        let entry = self.b.ins().load(I64, memory(), self.cx, offset_of!(abi::Context, entry_pc) as i32);
        if delta == 0 { entry } else { self.b.ins().iadd_imm_s(entry, delta) }
    }

    // --- guest registers

    fn declare_slots(&mut self) {
        for slot in 0..self.slots.len() {
            let ty = match self.choice.keep[slot] {
                Keep::Register => clif_type(self.slots[slot].ty),
                Keep::Double => F64,
                Keep::Unused | Keep::Memory => continue,
            };
            self.vars[slot] = Some(self.b.declare_var(ty));
        }
    }

    /// Reads a slot from the CPU unless its variable holds it already.
    fn make_available(&mut self, slot: usize, var: Variable) {
        if !self.available.contains(slot) {
            let double = self.choice.keep[slot] == Keep::Double;
            let ty = if double { F64 } else { clif_type(self.slots[slot].ty) };
            let value = self.b.ins().load(ty, memory(), self.cpu, self.slots[slot].offset as i32);
            self.b.def_var(var, value);
            self.available.insert(slot);
        }
    }

    /// Before a backward edge to block `to`: makes available what was so when it was entered.
    pub(super) fn prepare_again(&mut self, to: usize) {
        for slot in self.known.get(&to).map(SlotSet::members).unwrap_or_default() {
            if let Some(var) = self.vars[slot] {
                self.make_available(slot, var);
            }
        }
    }

    /// Before the present block goes on at block `to` but for a backward edge: loads what a loop that begins there reads,
    /// and notes what is available on this way.
    pub(super) fn prepare(&mut self, to: usize) {
        if let Some(reads) = self.graph.loop_reads.get(&to) {
            for slot in reads.members() {
                if let Some(var) = self.vars[slot] {
                    self.make_available(slot, var);
                }
            }
        }
        match self.known.get_mut(&to) {
            Some(known) => known.keep_only(&self.available),
            None => drop(self.known.insert(to, self.available.clone())),
        }
    }

    fn get_slot(&mut self, slot: usize) -> Forms {
        if let Some(var) = self.vars[slot] {
            self.make_available(slot, var);
        }
        match (self.choice.keep[slot], self.vars[slot]) {
            (Keep::Double, Some(var)) => Forms { bits: None, float: Some(self.b.use_var(var)) },
            (_, Some(var)) => Forms { bits: Some(self.b.use_var(var)), float: None },
            (_, None) => {
                let (ty, offset) = (clif_type(self.slots[slot].ty), self.slots[slot].offset as i32);
                let value = self.b.ins().load(ty, memory(), self.cpu, offset);
                Forms { bits: Some(value), float: None }
            }
        }
    }

    fn set_slot(&mut self, slot: usize, value: Value) {
        match (self.choice.keep[slot], self.vars[slot]) {
            (Keep::Double, Some(var)) => {
                let float = self.float(value);
                if self.dirty.contains(slot) {
                    // What nobody reads was computed nevertheless: its flags count.
                    let old = self.b.use_var(var);
                    self.b.ins().store(memory(), old, self.cpu, self.slots[slot].offset as i32);
                }
                self.b.def_var(var, float);
                self.dirty.insert(slot);
                self.available.insert(slot);
            }
            (_, Some(var)) => {
                let bits = self.bits(value);
                self.b.def_var(var, bits);
                self.dirty.insert(slot);
                self.available.insert(slot);
            }
            (_, None) => {
                let bits = self.bits(value);
                let offset = self.slots[slot].offset as i32;
                self.b.ins().store(memory(), bits, self.cpu, offset);
            }
        }
    }

    /// Writes what is not in memory yet, in the present block of the function; it stays due elsewhere.
    pub(super) fn write_dirty(&mut self) {
        for slot in self.dirty.members() {
            if let Some(var) = self.vars[slot] {
                let value = self.b.use_var(var);
                self.b.ins().store(memory(), value, self.cpu, self.slots[slot].offset as i32);
            }
        }
    }

    /// The same for good: before an operation that may leave.
    pub(super) fn flush(&mut self) {
        self.write_dirty();
        self.dirty.clear();
    }

    // --- out-of-line calls

    /// Calls one of the context's functions.
    pub(super) fn call_rare(&mut self, function: Rare, x: ir::Value, y: ir::Value) {
        let words = offset_of!(abi::Context, words) as i32;
        self.b.ins().store(memory(), x, self.cx, words);
        self.b.ins().store(memory(), y, self.cx, words + 8);
        let offset = offset_of!(abi::Context, by_words) + 8 * function as usize;
        let function = self.b.ins().load(I64, memory(), self.cx, offset as i32);
        self.b.ins().call_indirect(self.signatures.rare, function, &[self.cpu, self.cx]);
    }

    /// Leaves an operation to the evaluator; its results are then in the context's values.
    pub(super) fn compute(&mut self, op: &Op, operands: &[ir::Value]) -> Result<(), CompileError> {
        let Some(packed) = crate::cold::pack(op) else {
            return Err(CompileError::Nothing("an operation has no code"));
        };
        let values = offset_of!(abi::Context, values) as i32;
        for (i, &operand) in operands.iter().enumerate() {
            let wide = self.widen(operand);
            self.b.ins().store(memory(), wide, self.cx, values + 16 * i as i32);
        }
        let packed = self.b.ins().iconst(I64, packed as i64);
        let rules = self.b.ins().iconst(I64, crate::cold::pack_rules(self.fp) as i64);
        self.call_rare(Rare::Compute, packed, rules);
        Ok(())
    }

    /// Result `index` of [`Self::compute`], or of the other functions.
    pub(super) fn result(&mut self, ty: ClifType, index: usize) -> ir::Value {
        let at = offset_of!(abi::Context, values) as i32 + 16 * index as i32;
        self.b.ins().load(ty, memory(), self.cx, at)
    }

    /// Zero-extended to 64 bits; vectors and floats as they are (floats occupy the low bytes).
    pub(super) fn widen(&mut self, value: ir::Value) -> ir::Value {
        let ty = self.b.func.dfg.value_type(value);
        if ty.is_int() && ty.bits() < 64 { self.b.ins().uextend(I64, value) } else { value }
    }

    /// An operation left to the evaluator entirely.
    pub(super) fn compute_all(&mut self, inst: &Inst) -> Result<(), CompileError> {
        let mut operands = Vec::new();
        inst.op.for_each_operand(|value| operands.push(value));
        let operands: Vec<ir::Value> = operands.into_iter().map(|value| self.bits(value)).collect();
        self.compute(&inst.op, &operands)?;
        let results: Vec<(Value, Type)> = self.region.blocks[self.at].block.results(inst).collect();
        for (i, (value, ty)) in results.into_iter().enumerate() {
            let result = self.result(clif_type(ty), i);
            self.define(value, result);
        }
        Ok(())
    }
}
