//! The way in, the ways out, helpers and traps.

use super::{
    Done, Gen, argument,
    cold::Held,
    context,
    enc::{Alu, Patch, Rm, Shift, cc, one, reg::*, two},
    header,
};
use crate::abi::{Context, ExitReason, JUMP_FOLD, JumpEntry, mode_tag};
use isomer_ir::{CpuHeader, Terminal, Type, Value, types::HelperId};
use std::mem::offset_of;

/// Jumps at the entry to the exits that run nothing.
#[derive(Debug, Default)]
pub(super) struct Exits {
    leave: Vec<Patch>,
    hot: Option<Patch>,
}

/// Jumps at the end of the block.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    /// The jump cache has nothing.
    lookup: Vec<Patch>,
    /// rax says why.
    out: Vec<Patch>,
}

const ENTRY_SHIFT: u32 = size_of::<JumpEntry>().trailing_zeros();
const _: () = assert!(size_of::<JumpEntry>().is_power_of_two() && 2 * JUMP_FOLD < u32::BITS);

impl Gen<'_> {
    /// Polls, and counts down.
    pub(super) fn entry(&mut self, hot: Option<u16>) -> Exits {
        let mut exits = Exits::default();
        self.asm.test(true, RDX, RDX);
        exits.leave.push(self.asm.jcc(cc::LE));
        self.asm.load(RAX, context(offset_of!(Context, attention)), 8, false, true);
        self.asm.cmp_imm(4, Rm::Mem(RAX, 0), 0);
        exits.leave.push(self.asm.jcc(cc::NE));
        if let Some(index) = hot {
            let counter = context(offset_of!(Context, hot) + 4 * usize::from(index));
            self.asm.load(RAX, counter, 4, false, false);
            self.asm.alu_imm(Alu::Sub, false, Rm::Reg(RAX), 1);
            exits.hot = Some(self.asm.jcc(cc::B));
            self.asm.store(RAX, counter, 4);
        }
        exits
    }

    /// What follows the last operation.
    pub(super) fn terminal(&mut self) -> Done<Transfers> {
        let mut transfers = Transfers::default();
        match self.block.terminal {
            // What comes next looks at its entry.
            Terminal::Jump { offset, .. } | Terminal::Attend { offset } => {
                self.retire();
                self.go_on(offset, &mut transfers);
            }
            Terminal::Branch { c, taken, not_taken } => self.branch(c, taken, not_taken, &mut transfers)?,
            Terminal::Indirect { pc, .. } => {
                self.copy_to(RCX, pc);
                self.retire();
                self.follow(&mut transfers);
            }
            Terminal::Trap { code, value } => {
                let held = match value {
                    Some(v) => self.settle_int(v)?,
                    None => Held::Imm(0),
                };
                self.put_trap(code, held);
                self.back_to(self.site);
                self.out(ExitReason::Trap, &mut transfers);
            }
            Terminal::Exit { offset } => {
                self.retire();
                self.pc_plus(RCX, offset);
                self.out(ExitReason::Exit, &mut transfers);
            }
            Terminal::ExitIndirect { pc } => {
                self.copy_to(RCX, pc);
                self.retire();
                self.out(ExitReason::Exit, &mut transfers);
            }
        }
        Ok(transfers)
    }

    /// Takes the block's instructions from those left. Flags stay.
    fn retire(&mut self) {
        self.asm.lea(RDX, RDX, -(self.block.insn_count as i32));
    }

    fn out(&mut self, reason: ExitReason, transfers: &mut Transfers) {
        self.asm.mov_imm(RAX, reason as u64);
        transfers.out.push(self.asm.jmp());
    }

    fn branch(&mut self, c: Value, taken: i64, not_taken: i64, transfers: &mut Transfers) -> Done {
        if let Some(truth) = self.constant(c) {
            self.retire();
            self.go_on(if truth != 0 { taken } else { not_taken }, transfers);
            return Ok(());
        }
        let mut cond = self.condition(c)?;
        self.retire();
        let (mut taken, mut not_taken) = (taken, not_taken);
        if not_taken == 0 {
            (taken, not_taken) = (not_taken, taken);
            cond ^= 1;
        }
        if taken == 0 {
            self.asm.jcc_to(cond, 0);
            self.go_on(not_taken, transfers);
            return Ok(());
        }
        // A branch that the host can predict, then one probe for both ways.
        let over = self.asm.jcc_short(cond);
        self.pc_plus(RCX, not_taken);
        let join = self.asm.jmp_short();
        self.asm.short_here(over);
        self.pc_plus(RCX, taken);
        self.asm.short_here(join);
        self.follow(transfers);
        Ok(())
    }

    /// The truth value `c` as a condition code: the flags hold it afterwards. Not for constants.
    pub(super) fn condition(&mut self, c: Value) -> Done<u8> {
        match self.flags.take() {
            Some((v, cond)) if v == c => Ok(cond),
            _ => {
                let c = self.int(c)?;
                self.asm.test(false, c, c);
                Ok(cc::NE)
            }
        }
    }

    /// On to a place at a fixed distance.
    fn go_on(&mut self, offset: i64, transfers: &mut Transfers) {
        if offset == 0 {
            self.asm.jmp_to(0);
            return;
        }
        self.pc_plus(RCX, offset);
        self.follow(transfers);
    }

    /// On to the code for pc, if the jump cache has it; the index is [`crate::abi::jump_index`].
    fn follow(&mut self, transfers: &mut Transfers) {
        let asm = &mut self.asm;
        let place = RAX;
        asm.mov32(place, RCX);
        asm.shift_imm(Shift::Shr, 4, place, JUMP_FOLD as u8);
        asm.alu(Alu::Xor, false, place, Rm::Reg(RCX));
        asm.alu(Alu::And, false, place, context(offset_of!(Context, jump_mask)));
        asm.shift_imm(Shift::Shl, 4, place, (ENTRY_SHIFT - 1) as u8);
        asm.alu(Alu::Add, true, place, context(offset_of!(Context, jumps)));
        asm.cmp(8, RCX, Rm::Mem(RAX, offset_of!(JumpEntry, pc) as i32));
        transfers.lookup.push(asm.jcc(cc::NE));
        let mode = Rm::Mem(RAX, offset_of!(JumpEntry, mode) as i32);
        let tag = mode_tag(self.block.mode);
        match i32::try_from(tag as i64) {
            Ok(wanted) => asm.cmp_imm(8, mode, wanted),
            Err(_) => {
                asm.mov_imm(R8, tag);
                asm.cmp(8, R8, mode);
            }
        }
        transfers.lookup.push(asm.jcc(cc::NE));
        asm.op(one(0xff), false, 4, Rm::Mem(RAX, offset_of!(JumpEntry, entry) as i32));
    }

    /// The exits, each a number in rax, then what they share.
    pub(super) fn exit_stubs(&mut self, exits: Exits, transfers: Transfers, mut ways_out: Vec<Patch>) {
        ways_out.extend(transfers.out);
        if !transfers.lookup.is_empty() {
            transfers.lookup.into_iter().for_each(|patch| self.asm.patch_here(patch));
            self.asm.mov_imm(R8, mode_tag(self.block.mode));
            self.asm.op(one(0xff), false, 4, context(offset_of!(Context, elsewhere)));
        }
        let stubs = [(exits.hot.into_iter().collect(), ExitReason::Hot), (exits.leave, ExitReason::Leave)];
        for (from, reason) in stubs {
            if from.is_empty() {
                continue;
            }
            from.into_iter().for_each(|patch| self.asm.patch_here(patch));
            self.asm.mov_imm(RAX, reason as u64);
            if reason != ExitReason::Leave {
                ways_out.push(self.asm.jmp());
            }
        }
        ways_out.into_iter().for_each(|patch| self.asm.patch_here(patch));
        self.leave();
    }

    // --- helpers and traps

    pub(super) fn call(
        &mut self,
        helper: HelperId,
        args: [Option<Value>; 4],
        result: Option<Type>,
        first: Value,
    ) -> Done {
        self.leave_slots()?;
        for (index, arg) in args.into_iter().enumerate() {
            let held = match arg {
                Some(v) => self.settle(v)?,
                None => Held::Imm(0),
            };
            self.put_argument(index, held);
        }
        self.asm.store(RCX, header(offset_of!(CpuHeader, pc)), 8);
        let count = self.int_temp()?;
        self.asm.load(count, context(offset_of!(Context, insns_end)), 8, false, true);
        self.asm.alu(Alu::Sub, true, count, Rm::Reg(RDX));
        if self.site.retired != 0 {
            self.asm.alu_imm(Alu::Add, true, Rm::Reg(count), self.site.retired as i32);
        }
        self.asm.store(count, header(offset_of!(CpuHeader, insns)), 8);
        self.alloc.give_back(super::Class::Int, count);
        self.asm.push(RCX);
        self.asm.push(RDX);
        self.asm.push(RDX);
        self.asm.mov_imm(RDX, u64::from(helper.0));
        self.asm.mov_imm(RCX, 0);
        self.asm.op(one(0xff), false, 2, context(offset_of!(Context, call)));
        self.asm.pop(RDX);
        self.asm.pop(RDX);
        self.asm.pop(RCX);
        self.leave_on_fault(self.site);
        if let Some(ty) = result {
            let reg = self.define(first)?;
            self.asm.load(reg, argument(0, 0), ty.bytes(), false, true);
        }
        Ok(())
    }

    /// `v` in a general register, or an immediate of 64 bits.
    fn settle_int(&mut self, v: Value) -> Done<Held> {
        match self.imm(v) {
            Some(imm) => Ok(Held::Imm(imm)),
            None => Ok(Held::Int(self.int(v)?)),
        }
    }

    pub(super) fn trap_if(&mut self, c: Value, code: u32, value: Value) -> Done {
        let held = self.settle_int(value)?;
        let from = match self.constant(c) {
            Some(0) => return Ok(()),
            Some(_) => self.asm.jmp(),
            None => {
                let cond = self.condition(c)?;
                self.asm.jcc(cond)
            }
        };
        self.cold.push(super::Cold::Trap { from, code, value: held, site: self.site });
        Ok(())
    }

    // --- floating-point state, for slots that name it

    /// Adds the sticky flags in MXCSR (SDM volume 1, 10.2.3) to the header's.
    pub(super) fn merge_flags(&mut self) -> Done {
        /// Bits of MXCSR (IE DE ZE OE UE PE) and of the header.
        const FLAGS: [(u8, u8); 6] = [(5, 0), (4, 1), (3, 2), (2, 3), (0, 4), (1, 5)];
        let (all, bit) = (self.int_temp()?, self.int_temp()?);
        self.asm.op(two(0xae), false, 3, argument(0, 0));
        self.asm.load(all, argument(0, 0), 4, false, false);
        for (from, to) in FLAGS {
            self.asm.mov32(bit, all);
            self.asm.shift_imm(Shift::Shr, 4, bit, from);
            self.asm.alu_imm(Alu::And, false, Rm::Reg(bit), 1);
            self.asm.shift_imm(Shift::Shl, 4, bit, to);
            self.asm.op_byte(one(0x08), bit, header(offset_of!(CpuHeader, fp_flags)));
        }
        Ok(())
    }

    /// MXCSR as the header says: its rounding direction, no flags (they are in the header).
    pub(super) fn reload_rounding(&mut self) -> Done {
        /// RC for nearest, zero, down, up, two bits each.
        const RC: u64 = 0b10_01_11_00;
        let word = self.int_temp()?;
        self.asm.push(RCX);
        self.asm.load(RCX, header(offset_of!(CpuHeader, rounding)), 1, false, false);
        self.asm.alu_imm(Alu::And, false, Rm::Reg(RCX), 3);
        self.asm.alu(Alu::Add, false, RCX, Rm::Reg(RCX));
        self.asm.mov_imm(word, RC);
        self.asm.shift_cl(Shift::Shr, 4, word);
        self.asm.pop(RCX);
        self.asm.alu_imm(Alu::And, false, Rm::Reg(word), 3);
        self.asm.shift_imm(Shift::Shl, 4, word, 13);
        self.asm.alu_imm(Alu::Or, false, Rm::Reg(word), 0x1f80);
        self.asm.store(word, argument(0, 0), 4);
        self.asm.op(two(0xae), false, 2, argument(0, 0));
        Ok(())
    }
}
