//! Branches (Arm ARM, C4.1.94) and branch target identification (D8.5.1 and "BTypeCompatible").

use crate::{
    helpers_integer::IntegerHelper,
    lift::Lift,
    mode::Key,
    operands::{CompareBranch, CondBranch, Jump, Register, TestBranch},
    pauth::Modifier,
    regs::slot,
    trap,
};
use isomer_ir::{
    LinkHint, Terminal, Type, Value,
    op::{BinOp, Cond},
};

/// What a branch to a register is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// `br`.
    Plain,
    /// `blr`.
    Call,
    /// `ret`.
    Return,
}

/// The link register.
const LR: u8 = 30;

impl Lift<'_> {
    /// Ends the block with a conditional branch over `words`.
    fn branch_if(&mut self, c: Value, words: i64) {
        let (taken, not_taken) = (self.relative(words * 4), self.next());
        self.b.end(Terminal::Branch { c, taken, not_taken });
    }

    /// Writes x30 and gives the hint that goes with it.
    fn link(&mut self) -> LinkHint {
        let next = self.next();
        let value = self.b.pc_rel(next);
        self.set_x(LR, value);
        LinkHint::Call { return_offset: next }
    }

    /// Ends the block with a branch to an address (Arm ARM, "BranchTo").
    fn branch_to(&mut self, pc: Value, n: u8, to: To) {
        let hint = match to {
            To::Plain => LinkHint::None,
            To::Call => self.link(),
            To::Return => LinkHint::Return,
        };
        let pc = self.branch_address(pc);
        if self.mode.guarded() && to != To::Return {
            let btype = match to {
                To::Call => 2,
                _ if n == 16 || n == 17 => 1,
                _ => {
                    let source = self.pc_rel(0);
                    self.b.set(slot::BRANCH_SOURCE, source);
                    3
                }
            };
            let btype = self.b.iconst(Type::I8, btype);
            self.b.set(slot::BTYPE, btype);
        }
        // The exception is the destination's: what the branch does is done.
        let low = self.b.trunc(Type::I8, pc);
        let low = self.b.bin_imm(BinOp::And, low, 3);
        self.b.trap_if(low, trap::PC_ALIGNMENT, pc);
        self.b.end(Terminal::Indirect { pc, hint });
    }

    /// The destination without an ignored top byte (Arm ARM, "AArch64.BranchAddr"): copies of bit 55 in its place.
    pub(crate) fn branch_address(&mut self, pc: Value) -> Value {
        let (lower, upper) = (self.mode.ignores_top_byte(false), self.mode.ignores_top_byte(true));
        if !lower && !upper {
            return pc;
        }
        let extended = self.b.extract(pc, 0, 56, true);
        match (lower, upper) {
            (true, true) => extended,
            // Addresses of the other half stay as they are: bit 55 makes the extension all ones there.
            (true, false) => self.b.and(pc, extended),
            _ => self.b.or(pc, extended),
        }
    }

    /// At a block's entry: is this instruction a landing pad for what PSTATE.BTYPE says? Then clears BTYPE.
    pub(crate) fn check_landing(&mut self) {
        let refused = refused_landings(self.insn, self.mode.strict_landing());
        if refused != 0 {
            let btype = self.b.get(slot::BTYPE);
            let (btype, refused) = (self.b.zext(Type::I64, btype), self.imm(refused));
            self.call_void(IntegerHelper::CheckLanding.id(), &[btype, refused]);
        }
        let none = self.b.iconst(Type::I8, 0);
        self.b.set(slot::BTYPE, none);
    }
}

/// The values of BTYPE, a bit each, that `insn` is no landing pad for: `bti` says what it takes, `paciasp` and `pacibsp`
/// are `bti c` (and, unless `strict`, take 3 as well), `brk` and `hlt` take all, anything else takes 0 only.
fn refused_landings(insn: u32, strict: bool) -> i64 {
    const ALL: i64 = 0b1110;
    match insn {
        0xd503_245f => 0b1000,
        0xd503_249f => 0b0100,
        0xd503_24df => 0,
        0xd503_233f | 0xd503_237f => {
            if strict {
                0b1000
            } else {
                0
            }
        }
        _ if insn & 0xffe0_001f == 0xd420_0000 || insn & 0xffe0_001f == 0xd440_0000 => 0,
        _ => ALL,
    }
}

/// `b`.
pub(crate) fn b(l: &mut Lift<'_>, o: Jump) {
    let offset = l.relative(o.words * 4);
    l.b.end(Terminal::Jump { offset, hint: LinkHint::None });
}

/// `bl`.
pub(crate) fn bl(l: &mut Lift<'_>, o: Jump) {
    let hint = l.link();
    let offset = l.relative(o.words * 4);
    l.b.end(Terminal::Jump { offset, hint });
}

/// `b.cond`.
pub(crate) fn b_cond(l: &mut Lift<'_>, o: CondBranch) {
    if o.cond >= 14 {
        return b(l, Jump { words: o.words });
    }
    let c = l.condition(o.cond);
    l.branch_if(c, o.words);
}

/// `cbz`, `cbnz`.
pub(crate) fn cbz(l: &mut Lift<'_>, o: CompareBranch, cond: Cond) {
    let (value, zero) = (l.r(o.sf, o.rt), l.constant(o.sf, 0));
    let c = l.b.compare(cond, value, zero);
    l.branch_if(c, o.words);
}

/// `tbz`, `tbnz`.
pub(crate) fn tbz(l: &mut Lift<'_>, o: TestBranch, set: bool) {
    let value = l.x(o.rt);
    let bit = l.b.extract(value, o.high << 5 | o.low, 1, false);
    let bit = l.b.trunc(Type::I8, bit);
    let c = if set { bit } else { l.not(bit) };
    l.branch_if(c, o.words);
}

/// `br`, `blr`, `ret`.
pub(crate) fn branch_register(l: &mut Lift<'_>, o: Register, to: To) {
    let pc = l.x(o.rn);
    l.branch_to(pc, o.rn, to);
}

/// `braa` and its kin, `retaa`, `retab`: the destination is authenticated first.
pub(crate) fn branch_authenticated(l: &mut Lift<'_>, o: Register, to: To, key: Key, modifier: Modifier) {
    let pc = l.x(o.rn);
    let modifier = match modifier {
        Modifier::Zero => l.imm(0),
        Modifier::Register => l.x_sp(o.rm),
        Modifier::StackPointer => l.x_sp(31),
    };
    let Some(pc) = l.authenticate(key, pc, modifier) else {
        return;
    };
    l.branch_to(pc, o.rn, to);
}

/// `retaa`, `retab`: x30, authenticated against SP.
pub(crate) fn return_authenticated(l: &mut Lift<'_>, _: (), key: Key) {
    let o = Register { rn: LR, rm: 31 };
    branch_authenticated(l, o, To::Return, key, Modifier::StackPointer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn landing_pads_are_told_apart() {
        assert_eq!(refused_landings(0xd503_241f, false), 0b1110, "bti takes no indirect branch");
        assert_eq!(refused_landings(0xd503_245f, false), 0b1000, "bti c");
        assert_eq!(refused_landings(0xd503_249f, false), 0b0100, "bti j");
        assert_eq!(refused_landings(0xd503_24df, false), 0, "bti jc");
        assert_eq!(refused_landings(0xd503_233f, false), 0, "paciasp");
        assert_eq!(refused_landings(0xd503_233f, true), 0b1000, "paciasp, SCTLR_ELx.BT = 1");
        assert_eq!(refused_landings(0xd503_201f, false), 0b1110, "nop");
        assert_eq!(refused_landings(0xd420_0020, false), 0, "brk #1");
    }
}
