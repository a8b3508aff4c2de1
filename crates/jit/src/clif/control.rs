//! How compiled code goes on: inside the region, to other compiled code, or back to the engine.

use super::{
    graph::is_return,
    translate::{Rare, Translator, memory},
};
use crate::abi::{self, ExitReason, JUMP_FOLD, JumpEntry, mode_tag};
use cranelift_codegen::ir::{
    self, Block, InstBuilder,
    condcodes::IntCC,
    types::{I32, I64},
};
use cranelift_frontend::FunctionBuilder;
use isomer_ir::{
    Inst, Terminal, Type,
    guest::Effects,
    state::CpuHeader,
    types::{HelperId, Value},
};
use std::mem::offset_of;

/// Blocks that all exits of a region share.
pub(super) struct Exits {
    /// Asks the jump cache: pc, left.
    jump: Block,
    jump_used: bool,
    /// Returns to the engine: reason, pc, left.
    leave: Block,
}

impl Exits {
    pub(super) fn new(b: &mut FunctionBuilder<'_>) -> Self {
        let (jump, leave) = (b.create_block(), b.create_block());
        for _ in 0..2 {
            b.append_block_param(jump, I64);
        }
        for _ in 0..3 {
            b.append_block_param(leave, I64);
        }
        Self { jump, jump_used: false, leave }
    }
}

/// The byte offset of pc's entry in the jump cache, whose mask is given: [`abi::jump_index`].
pub(crate) fn jump_offset(b: &mut FunctionBuilder<'_>, pc: ir::Value, mask: ir::Value) -> ir::Value {
    const ENTRY_LOG: i64 = size_of::<JumpEntry>().trailing_zeros() as i64;
    let folded = b.ins().ushr_imm_s(pc, i64::from(JUMP_FOLD));
    let mixed = b.ins().bxor(pc, folded);
    let index = b.ins().band(mixed, mask);
    b.ins().ishl_imm_s(index, ENTRY_LOG - 1)
}

impl Translator<'_, '_> {
    // --- terminals

    pub(super) fn terminal(&mut self, terminal: &Terminal) {
        let insns = self.region.blocks[self.at].block.insn_count;
        if !matches!(terminal, Terminal::Trap { .. }) {
            let left = self.left_after(insns);
            self.b.def_var(self.left, left);
        }
        match *terminal {
            Terminal::Jump { offset, .. } => self.go(offset),
            Terminal::Branch { c, taken, not_taken } => {
                let c = self.bits(c);
                let (yes, no) = (self.b.create_block(), self.b.create_block());
                self.b.ins().brif(c, yes, &[], no, &[]);
                let (dirty, available) = (self.dirty.clone(), self.available.clone());
                for (block, offset) in [(no, not_taken), (yes, taken)] {
                    self.dirty = dirty.clone();
                    self.available = available.clone();
                    self.b.switch_to_block(block);
                    self.b.seal_block(block);
                    self.go(offset);
                }
            }
            Terminal::Indirect { pc, .. } => {
                let pc = self.bits(pc);
                if is_return(terminal) {
                    self.guard_returns(pc);
                }
                self.write_dirty();
                self.jump_to(pc);
            }
            Terminal::Exit { offset } => {
                let pc = self.delta(offset);
                let pc = self.pc_plus(pc);
                self.leave(ExitReason::Exit, pc);
            }
            // Whatever comes next looks at its entry, which a block of this region would not.
            Terminal::Attend { offset } => {
                let pc = self.delta(offset);
                let pc = self.pc_plus(pc);
                self.write_dirty();
                self.jump_to(pc);
            }
            Terminal::ExitIndirect { pc } => {
                let pc = self.bits(pc);
                self.leave(ExitReason::Exit, pc);
            }
            Terminal::Trap { code, value } => {
                let value = match value {
                    Some(value) => self.bits(value),
                    None => self.iconst(Type::I64, 0),
                };
                self.trap(code, value);
            }
        }
    }

    /// What is left when `insns` more instructions are done.
    fn left_after(&mut self, insns: u32) -> ir::Value {
        let left = self.b.use_var(self.left);
        if insns == 0 { left } else { self.b.ins().iadd_imm_s(left, -i64::from(insns)) }
    }

    /// Goes on `offset` bytes from the present block's entry.
    fn go(&mut self, offset: i64) {
        let place = self.region.blocks[self.at].place(offset);
        match place.and_then(|place| self.region.index.get(&place).copied()) {
            Some(to) => self.go_to(to),
            None => {
                let pc = self.delta(offset);
                let pc = self.pc_plus(pc);
                self.write_dirty();
                self.jump_to(pc);
            }
        }
    }

    /// Goes on at another block of the region.
    fn go_to(&mut self, to: usize) {
        if self.graph.predecessors[to] == 1 {
            self.inherited.insert(to, self.dirty.clone());
        } else {
            self.write_dirty();
        }
        if self.graph.backward.contains(&(self.at, to)) {
            self.prepare_again(to);
            self.close_loop(to);
        } else {
            self.prepare(to);
            self.b.ins().jump(self.blocks[to], &[]);
        }
    }

    /// Enters a block of the region unless the engine wants compiled code to return, or nothing is left.
    pub(super) fn poll_and_go(&mut self, to: usize) {
        let attention = self.b.ins().load(I64, memory(), self.cx, offset_of!(abi::Context, attention) as i32);
        let asked = self.b.ins().load(I32, memory(), attention, 0);
        let (next, stop) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(asked, stop, &[], next, &[]);
        self.b.switch_to_block(next);
        self.b.seal_block(next);
        self.enter_unless_done(to, stop);
    }

    /// Closes a loop unless nothing is left. That is soon enough to notice that the engine wants something.
    fn close_loop(&mut self, to: usize) {
        let stop = self.b.create_block();
        self.enter_unless_done(to, stop);
    }

    fn enter_unless_done(&mut self, to: usize, stop: Block) {
        let left = self.b.use_var(self.left);
        let done = self.b.ins().icmp_imm_s(IntCC::SignedLessThanOrEqual, left, 0);
        self.b.ins().brif(done, stop, &[], self.blocks[to], &[]);
        self.b.switch_to_block(stop);
        self.b.seal_block(stop);
        self.b.set_cold_block(stop);
        let blocks = &self.region.blocks;
        let pc = self.pc_plus(i64::from(blocks[to].offset) - i64::from(blocks[0].offset));
        // The edge's stores are done already.
        self.leave_with(ExitReason::Leave, pc, left);
    }

    /// A return: to the callers in this region without a detour.
    fn guard_returns(&mut self, pc: ir::Value) {
        let (dirty, available) = (self.dirty.clone(), self.available.clone());
        for site in self.graph.return_sites.clone() {
            let blocks = &self.region.blocks;
            let delta = i64::from(blocks[site].offset) - i64::from(blocks[0].offset);
            let expected = self.pc_plus(delta);
            let same = self.b.ins().icmp(IntCC::Equal, pc, expected);
            let (yes, no) = (self.b.create_block(), self.b.create_block());
            self.b.ins().brif(same, yes, &[], no, &[]);
            self.b.switch_to_block(yes);
            self.b.seal_block(yes);
            self.dirty = dirty.clone();
            self.available = available.clone();
            self.go_to(site);
            self.b.switch_to_block(no);
            self.b.seal_block(no);
        }
        (self.dirty, self.available) = (dirty, available);
    }

    // --- exits

    /// Transfers to whatever code the jump cache has for `pc`.
    fn jump_to(&mut self, pc: ir::Value) {
        self.exits.jump_used = true;
        let left = self.b.use_var(self.left);
        self.b.ins().jump(self.exits.jump, &[pc.into(), left.into()]);
    }

    /// Returns to the engine; slots are written, `left` is up to date.
    fn leave(&mut self, reason: ExitReason, pc: ir::Value) {
        self.write_dirty();
        let left = self.b.use_var(self.left);
        self.leave_with(reason, pc, left);
    }

    fn leave_with(&mut self, reason: ExitReason, pc: ir::Value, left: ir::Value) {
        let reason = self.b.ins().iconst(I64, reason as i64);
        self.b.ins().jump(self.exits.leave, &[reason.into(), pc.into(), left.into()]);
    }

    /// Leaves at the running instruction, in a block of its own.
    pub(super) fn leave_at_insn(&mut self, reason: ExitReason) {
        let pc = self.delta(self.insn_offset.into());
        let pc = self.pc_plus(pc);
        let left = self.left_after(self.retired);
        self.leave_with(reason, pc, left);
    }

    /// Takes the guest's trap `code` at the running instruction.
    fn trap(&mut self, code: u32, value: ir::Value) {
        self.write_dirty();
        let code = self.b.ins().iconst(I64, i64::from(code));
        self.b.ins().store(memory(), code, self.cx, offset_of!(abi::Context, trap_code) as i32);
        self.b.ins().store(memory(), value, self.cx, offset_of!(abi::Context, trap_value) as i32);
        self.leave_at_insn(ExitReason::Trap);
    }

    pub(super) fn trap_if(&mut self, c: Value, code: u32, value: Value) {
        let (c, value) = (self.bits(c), self.bits(value));
        let value = self.widen(value);
        let (yes, no) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(c, yes, &[], no, &[]);
        self.b.switch_to_block(yes);
        self.b.seal_block(yes);
        self.b.set_cold_block(yes);
        self.trap(code, value);
        self.b.switch_to_block(no);
        self.b.seal_block(no);
    }

    /// Leaves with [`ExitReason::Fault`] if the function just called says so; every slot is in memory.
    pub(super) fn fault_if_told(&mut self) {
        let status = self.b.ins().load(I64, memory(), self.cx, offset_of!(abi::Context, status) as i32);
        let (yes, no) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(status, yes, &[], no, &[]);
        self.b.switch_to_block(yes);
        self.b.seal_block(yes);
        self.b.set_cold_block(yes);
        self.leave_at_insn(ExitReason::Fault);
        self.b.switch_to_block(no);
        self.b.seal_block(no);
    }

    /// The blocks shared by all exits.
    pub(super) fn finish_exits(&mut self) {
        let mode = mode_tag(self.region.blocks[0].block.mode);
        let (jump, leave) = (self.exits.jump, self.exits.leave);
        if self.exits.jump_used {
            self.b.switch_to_block(jump);
            self.b.seal_block(jump);
            let (pc, left) = (self.b.block_params(jump)[0], self.b.block_params(jump)[1]);
            self.probe_jump_cache(pc, left, mode);
        }
        self.b.switch_to_block(leave);
        self.b.seal_block(leave);
        self.b.set_cold_block(leave);
        let [reason, pc, left] = [0, 1, 2].map(|i| self.b.block_params(leave)[i]);
        self.b.ins().store(memory(), pc, self.cpu, offset_of!(CpuHeader, pc) as i32);
        self.b.ins().store(memory(), left, self.cx, offset_of!(abi::Context, left) as i32);
        self.b.ins().return_(&[reason]);
    }

    fn probe_jump_cache(&mut self, pc: ir::Value, left: ir::Value, mode: u64) {
        let jumps = self.b.ins().load(I64, memory(), self.cx, offset_of!(abi::Context, jumps) as i32);
        let mask = self.b.ins().load(I64, memory(), self.cx, offset_of!(abi::Context, jump_mask) as i32);
        let offset = jump_offset(&mut self.b, pc, mask);
        let entry = self.b.ins().iadd(jumps, offset);
        let (same_pc, found, missed) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let tag = self.b.ins().load(I64, memory(), entry, offset_of!(JumpEntry, pc) as i32);
        let same = self.b.ins().icmp(IntCC::Equal, tag, pc);
        self.b.ins().brif(same, same_pc, &[], missed, &[]);
        self.b.switch_to_block(same_pc);
        self.b.seal_block(same_pc);
        let tag = self.b.ins().load(I64, memory(), entry, offset_of!(JumpEntry, mode) as i32);
        let same = self.b.ins().icmp_imm_s(IntCC::Equal, tag, mode as i64);
        self.b.ins().brif(same, found, &[], missed, &[]);
        self.b.switch_to_block(found);
        self.b.seal_block(found);
        let code = self.b.ins().load(I64, memory(), entry, offset_of!(JumpEntry, entry) as i32);
        self.b.ins().return_call_indirect(self.signatures.code, code, &[self.cpu, self.cx, left, pc]);
        self.b.switch_to_block(missed);
        self.b.seal_block(missed);
        self.b.set_cold_block(missed);
        let mode = self.b.ins().iconst(I64, mode as i64);
        let elsewhere = self.b.ins().load(I64, memory(), self.cx, offset_of!(abi::Context, elsewhere) as i32);
        let args = [self.cpu, self.cx, left, pc, mode];
        self.b.ins().return_call_indirect(self.signatures.elsewhere, elsewhere, &args);
    }

    // --- helpers

    /// Calls a guest helper.
    pub(super) fn call_helper(
        &mut self,
        inst: &Inst,
        helper: HelperId,
        args: [Option<Value>; 4],
        result: Option<Type>,
    ) {
        let effects = (self.facts.effects)(helper);
        // Even a helper that promises to be pure may trap, and sees the CPU.
        self.flush();
        let delta = self.delta(0);
        let pc = self.pc_plus(delta);
        self.b.ins().store(memory(), pc, self.cpu, offset_of!(CpuHeader, pc) as i32);
        let end = self.b.ins().load(I64, memory(), self.cx, offset_of!(abi::Context, insns_end) as i32);
        let left = self.left_after(self.retired);
        let insns = self.b.ins().isub(end, left);
        self.b.ins().store(memory(), insns, self.cpu, offset_of!(CpuHeader, insns) as i32);
        let values = offset_of!(abi::Context, values) as i32;
        for (i, arg) in args.into_iter().enumerate() {
            let arg = match arg {
                Some(arg) => {
                    let bits = self.bits(arg);
                    self.widen(bits)
                }
                None => self.iconst(Type::I64, 0),
            };
            self.b.ins().store(memory(), arg, self.cx, values + 16 * i as i32);
        }
        let number = self.b.ins().iconst(I64, i64::from(helper.0));
        let zero = self.b.ins().iconst(I64, 0);
        self.call_rare(Rare::Call, number, zero);
        self.sharing.forget();
        self.fault_if_told();
        if let Some(ty) = result {
            let value = self.result(super::translate::clif_type(ty), 0);
            self.define(inst.first, value);
        }
        if effects == Effects::Any {
            self.available.clear();
        }
    }
}
