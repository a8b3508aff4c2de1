//! Jumps and branches (volume I, 2.5). Targets are never misaligned: every model has the C extension.

use crate::{
    lift::Lift,
    operands::{B, I, U},
};
use isomer_ir::{
    LinkHint, Terminal,
    op::{BinOp, Cond},
};

/// Is it a link register by the return-address stack's rules (volume I, 2.5.1)?
const fn is_link(register: u8) -> bool {
    matches!(register, 1 | 5)
}

pub(crate) fn jal(l: &mut Lift<'_>, o: U) {
    let next = l.next();
    let link = l.b.pc_rel(next);
    l.set_x(o.rd, link);
    let hint = if is_link(o.rd) { LinkHint::Call { return_offset: next } } else { LinkHint::None };
    let offset = l.relative(o.imm);
    l.b.end(Terminal::Jump { offset, hint });
}

pub(crate) fn jalr(l: &mut Lift<'_>, o: I) {
    let address = l.address(o.rs1, o.imm);
    let pc = l.b.bin_imm(BinOp::And, address, !1);
    let next = l.next();
    let link = l.b.pc_rel(next);
    l.set_x(o.rd, link);
    let hint = match (is_link(o.rd), is_link(o.rs1)) {
        (false, true) => LinkHint::Return,
        (true, false) => LinkHint::Call { return_offset: next },
        (true, true) if o.rd == o.rs1 => LinkHint::Call { return_offset: next },
        // A coroutine switch pops and pushes; no hint says that.
        _ => LinkHint::None,
    };
    l.b.end(Terminal::Indirect { pc, hint });
}

macro_rules! branches {
    ($($name:ident $cond:ident)*) => {$(
        pub(crate) fn $name(l: &mut Lift<'_>, o: B) {
            let (a, b) = (l.x(o.rs1), l.x(o.rs2));
            let c = l.b.compare(Cond::$cond, a, b);
            let (taken, not_taken) = (l.relative(o.imm), l.next());
            l.b.end(Terminal::Branch { c, taken, not_taken });
        }
    )*};
}

branches! {
    beq Eq
    bne Ne
    blt LtS
    bge GeS
    bltu LtU
    bgeu GeU
}
