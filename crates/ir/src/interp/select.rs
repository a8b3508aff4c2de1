//! Second step of compilation, backwards: what code computes each value that is needed, with patterns folded into
//! single operations, and how long each value lives.

use super::{
    emit::is_sign_extension,
    facts::{Ext, Facts, Opnd, SEXT, ZEXT, is_plain, sign_extend},
    float,
    word::Opc,
};
use crate::{
    block::Terminal,
    op::{BinOp, Cond, Op, UnOp},
    types::{Align, FpFormat, MemFlags, Type, Value},
};

/// What an instruction becomes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sel {
    /// Nothing: not needed, or computed by its users.
    Nothing,
    /// `opc d, a, b, imm`. `c` is a third operand: a unit goes into the low byte of `imm`,
    /// a raw field into `d`.
    Hot { opc: Opc, a: Opnd, b: Opnd, c: Opnd, imm: i32 },
    /// A guest code address.
    PcRel(i64),
    /// A load of a slot, a store to one, a helper call: as the operation says.
    Slot,
    /// An out-of-line operation.
    Cold,
}

/// What a branch condition or a compare comes down to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Test {
    pub(super) cond: Cond,
    /// Compare low halves.
    pub(super) narrow: bool,
    pub(super) a: Opnd,
    /// An operand, or nothing and then `imm` counts.
    pub(super) b: Opnd,
    pub(super) imm: i32,
}

/// What the terminal becomes.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Plain(Opnd),
    /// Branch if the low byte is not 0.
    Bool(Opnd),
    Test(Test),
    /// `(a + imm) & !mask`.
    Indirect {
        a: Opnd,
        imm: i32,
        mask: u8,
    },
}

/// Selected code and lifetimes.
pub(super) struct Selection {
    pub(super) sels: Vec<Sel>,
    pub(super) end: End,
    /// By root value: one more than the position of its last use; 0 for none. The terminal's position is the number
    /// of instructions.
    pub(super) last_use: Vec<u32>,
    /// By root value: the position of the first `Set` of it, `u32::MAX` for none.
    pub(super) first_set: Vec<u32>,
}

pub(super) fn select(facts: &Facts<'_>) -> Selection {
    let block = facts.block;
    let values = block.value_types.len();
    let mut selector = Selector {
        facts,
        position: block.insts.len() as u32,
        out: Selection {
            sels: vec![Sel::Nothing; block.insts.len()],
            end: End::Plain(Opnd::None),
            last_use: vec![0; values],
            first_set: vec![u32::MAX; values],
        },
    };
    selector.out.end = selector.terminal();
    for index in (0..block.insts.len()).rev() {
        selector.position = index as u32;
        selector.out.sels[index] = selector.instruction(index);
    }
    selector.out
}

/// Fits an immediate.
fn imm(value: i64) -> Option<i32> {
    i32::try_from(value).ok()
}

struct Selector<'a> {
    facts: &'a Facts<'a>,
    position: u32,
    out: Selection,
}

impl<'a> Selector<'a> {
    fn touch(&mut self, root: u32) {
        let last = &mut self.out.last_use[root as usize];
        *last = (*last).max(self.position + 1);
    }

    /// The value's unit as it is.
    fn unit(&mut self, v: Value) -> Opnd {
        let root = self.facts.root(v);
        self.touch(root);
        Opnd::Unit(root, Ext::Any)
    }

    /// The value extended to 64 bits.
    fn extended(&mut self, v: Value, signed: bool) -> Opnd {
        let operand = self.facts.extended(v, signed);
        if let Opnd::Unit(root, _) = operand {
            self.touch(root);
        }
        operand
    }

    fn instruction(&mut self, index: usize) -> Sel {
        let facts = self.facts;
        let inst = &facts.block.insts[index];
        let op = &inst.op;
        let effects = !(op.is_pure() || matches!(op, Op::Get { .. }));
        if !effects {
            let mut results = facts.block.results(inst);
            let first_is_view = facts.is_view(inst.first);
            if first_is_view || !results.any(|(v, _)| self.out.last_use[v.0 as usize] > 0) {
                return Sel::Nothing;
            }
        }
        match *op {
            Op::InsnStart { .. } | Op::Const { .. } => Sel::Nothing,
            Op::Get { .. } => Sel::Slot,
            Op::Set { value, .. } => {
                self.unit(value);
                self.out.first_set[facts.root(value) as usize] = self.position;
                Sel::Slot
            }
            Op::Call { args, .. } => {
                for arg in args.into_iter().flatten() {
                    self.extended(arg, false);
                }
                Sel::Slot
            }
            _ => match self.hot(op) {
                Some(sel) => sel,
                None => {
                    op.for_each_operand(|v| {
                        self.extended(v, is_sign_extension(op));
                    });
                    Sel::Cold
                }
            },
        }
    }

    /// An operation with its own opcode, or nothing. Marks no operand as used unless it gives one.
    fn hot(&mut self, op: &Op) -> Option<Sel> {
        let hot = |opc, a, b, imm| Some(Sel::Hot { opc, a, b, c: Opnd::None, imm });
        match *op {
            Op::PcRel { offset } => Some(Sel::PcRel(offset)),
            Op::Unary { op, ty, a } => self.unary(op, ty, a),
            Op::Binary { op, ty, a, b } => self.binary(op, ty, a, b),
            Op::Compare { cond, ty, a, b } => {
                let test = self.test(cond, ty, a, b)?;
                let opc = set_opcode(test.cond, test.narrow, test.b == Opnd::None);
                hot(opc, test.a, test.b, test.imm)
            }
            Op::Select { ty, c, a, b } if ty.is_int() => self.choice(c, a, b),
            Op::Zext { to, a } if to.is_int() => {
                let opc = match self.facts.block.type_of(a) {
                    Type::I8 => Opc::Zext8,
                    Type::I16 => Opc::Zext16,
                    _ => Opc::Zext32,
                };
                hot(opc, self.unit(a), Opnd::None, 0)
            }
            Op::Sext { to, a } if to.is_int() => {
                let opc = match self.facts.block.type_of(a) {
                    Type::I8 => Opc::Sext8,
                    Type::I16 => Opc::Sext16,
                    _ => Opc::Sext32,
                };
                hot(opc, self.unit(a), Opnd::None, 0)
            }
            Op::Extract { ty, a, lo, len, signed } if ty.is_int() => {
                Some(self.field(a, 64 - u32::from(lo) - u32::from(len), 64 - u32::from(len), signed))
            }
            Op::Deposit { ty, a, b, lo, len } if ty.is_int() => {
                let (a, b) = (self.unit(a), self.unit(b));
                hot(Opc::Deposit, a, b, i32::from(lo) | i32::from(len) << 8)
            }
            Op::Load { mem, signed, addr, flags, .. } if is_plain(flags, mem) => {
                let (a, imm) = self.address(addr);
                let opc = match (mem, signed) {
                    (Type::I8, false) => Opc::Ld8U,
                    (Type::I8, true) => Opc::Ld8S,
                    (Type::I16, false) => Opc::Ld16U,
                    (Type::I16, true) => Opc::Ld16S,
                    (Type::I32, false) => Opc::Ld32U,
                    (Type::I32, true) => Opc::Ld32S,
                    _ => Opc::Ld64,
                };
                hot(opc, a, Opnd::Raw(plain_flags(flags)), imm)
            }
            Op::Store { mem, addr, value, flags } if is_plain(flags, mem) => {
                let (a, imm) = self.address(addr);
                let b = self.unit(value);
                let opc = match mem {
                    Type::I8 => Opc::St8,
                    Type::I16 => Opc::St16,
                    Type::I32 => Opc::St32,
                    _ => Opc::St64,
                };
                Some(Sel::Hot { opc, a, b, c: Opnd::Raw(plain_flags(flags)), imm })
            }
            Op::TrapIf { c, code, value } => {
                let (a, b) = (self.unit(c), self.unit(value));
                hot(Opc::TrapIf, a, b, code as i32)
            }
            _ => self.float(op),
        }
    }

    fn float(&mut self, op: &Op) -> Option<Sel> {
        let (fmt, imm) = float::encode(op, self.facts.block.fp)?;
        let opc = if fmt == FpFormat::F32 { Opc::Fp32 } else { Opc::Fp64 };
        let mut operands = [Opnd::None; 3];
        let mut slots = operands.iter_mut();
        op.for_each_operand(|v| {
            if let Some(slot) = slots.next() {
                *slot = self.unit(v);
            }
        });
        let [a, b, c] = operands;
        Some(Sel::Hot { opc, a, b, c, imm })
    }

    /// Base and displacement.
    fn address(&mut self, addr: Value) -> (Opnd, i32) {
        if let Some(disp) = self.facts.konst(addr).and_then(|bits| imm(bits as i64)) {
            return (Opnd::Konst(0), disp);
        }
        match self.sum(addr) {
            Some((base, disp)) => (self.unit(base), disp),
            None => (self.unit(addr), 0),
        }
    }

    /// `v` as a 64-bit value plus a constant.
    fn sum(&self, v: Value) -> Option<(Value, i32)> {
        match self.defined_as(v)? {
            &Op::Binary { op: BinOp::Add, ty: Type::I64, a, b } => match self.facts.konst(b) {
                Some(k) => Some((a, imm(k as i64)?)),
                None => Some((b, imm(self.facts.konst(a)? as i64)?)),
            },
            _ => None,
        }
    }

    /// The operation that computes all 64 bits of `v`, seen through views.
    fn defined_as(&self, v: Value) -> Option<&'a Op> {
        let root = self.facts.root(v);
        (self.facts.block.type_of(Value(root)) == self.facts.block.type_of(v))
            .then(|| self.facts.def(Value(root)))?
    }

    /// `(a << left) >> right`.
    fn field(&mut self, a: Value, left: u32, right: u32, signed: bool) -> Sel {
        let opc = if signed { Opc::ExtS } else { Opc::ExtU };
        Sel::Hot {
            opc,
            a: self.unit(a),
            b: Opnd::Raw((left & 63) as u8),
            c: Opnd::None,
            imm: (right & 63) as i32,
        }
    }

    fn unary(&mut self, op: UnOp, ty: Type, a: Value) -> Option<Sel> {
        let opc = match (op, ty) {
            (UnOp::Not, _) => {
                return Some(Sel::Hot {
                    opc: Opc::XorI,
                    a: self.unit(a),
                    b: Opnd::None,
                    c: Opnd::None,
                    imm: -1,
                });
            }
            (UnOp::Neg, _) => {
                let opc = if ty == Type::I32 { Opc::SubW } else { Opc::Sub };
                let b = self.unit(a);
                return Some(Sel::Hot { opc, a: Opnd::Konst(0), b, c: Opnd::None, imm: 0 });
            }
            (UnOp::Clz, Type::I64) => Opc::Clz,
            (UnOp::Ctz, Type::I64) => Opc::Ctz,
            (UnOp::Popcnt, Type::I64) => Opc::Popcnt,
            (UnOp::Bswap, Type::I64) => Opc::Bswap,
            (UnOp::Clz, Type::I32) => Opc::Clz32,
            (UnOp::Ctz, Type::I32) => Opc::Ctz32,
            (UnOp::Popcnt, Type::I32) => Opc::Popcnt32,
            (UnOp::Bswap, Type::I32) => Opc::Bswap32,
            _ => return None,
        };
        Some(Sel::Hot { opc, a: self.unit(a), b: Opnd::None, c: Opnd::None, imm: 0 })
    }

    fn binary(&mut self, op: BinOp, ty: Type, a: Value, b: Value) -> Option<Sel> {
        if let Some(sel) = self.binary_imm(op, ty, a, b) {
            return Some(sel);
        }
        let commutes = matches!(op, BinOp::Add | BinOp::And | BinOp::Or | BinOp::Xor | BinOp::Mul);
        if commutes && let Some(sel) = self.binary_imm(op, ty, b, a) {
            return Some(sel);
        }
        if let Some(sel) = self.fused(op, ty, a, b) {
            return Some(sel);
        }
        let narrow_min = |selector: &mut Self, opc, signed| {
            let (a, b) = (selector.extended(a, signed), selector.extended(b, signed));
            Some(Sel::Hot { opc, a, b, c: Opnd::None, imm: 0 })
        };
        match op {
            BinOp::MinU => return narrow_min(self, Opc::MinU, false),
            BinOp::MaxU => return narrow_min(self, Opc::MaxU, false),
            BinOp::MinS => return narrow_min(self, Opc::MinS, true),
            BinOp::MaxS => return narrow_min(self, Opc::MaxS, true),
            _ => {}
        }
        let opc = binary_opcode(op, ty)?;
        let (a, b) = (self.unit(a), self.unit(b));
        Some(Sel::Hot { opc, a, b, c: Opnd::None, imm: 0 })
    }

    /// With the constant `b`.
    fn binary_imm(&mut self, op: BinOp, ty: Type, a: Value, b: Value) -> Option<Sel> {
        let bits = self.facts.konst(b)?;
        let signed = self.facts.konst_signed(b)?;
        let word = ty == Type::I32;
        let width = ty.bits();
        let amount = (bits % u64::from(width)) as u32;
        let pick = |narrow, wide| if word { narrow } else { wide };
        let whole = matches!(ty, Type::I32 | Type::I64);
        let (opc, value) = match op {
            BinOp::Add => (pick(Opc::AddIW, Opc::AddI), signed),
            BinOp::Sub => (pick(Opc::AddIW, Opc::AddI), sign_extend(ty, signed.wrapping_neg() as u64)),
            BinOp::Mul if !word => (Opc::MulI, signed),
            BinOp::And => match imm(signed) {
                Some(_) => (Opc::AndI, signed),
                None => return self.low_mask(a, signed as u64),
            },
            BinOp::AndNot => (Opc::AndI, !signed),
            BinOp::Or => (Opc::OrI, signed),
            BinOp::Xor => (Opc::XorI, signed),
            BinOp::Shl => match self.shifted_word(ty, a, amount) {
                Some(sel) => return Some(sel),
                None => (pick(Opc::ShlIW, Opc::ShlI), amount.into()),
            },
            BinOp::ShrU | BinOp::ShrS if whole => {
                if let (Type::I64, Some((inner, left))) = (ty, self.shift_left(a)) {
                    return Some(self.field(inner, left, amount, op == BinOp::ShrS));
                }
                let (wide, narrow) = match op {
                    BinOp::ShrU => (Opc::ShrUI, Opc::ShrUIW),
                    _ => (Opc::ShrSI, Opc::ShrSIW),
                };
                (pick(narrow, wide), amount.into())
            }
            // Narrow: from the top of the unit.
            BinOp::ShrU | BinOp::ShrS => {
                return Some(self.field(a, 64 - width, 64 - width + amount, op == BinOp::ShrS));
            }
            BinOp::Rotr if whole => (pick(Opc::RotrIW, Opc::RotrI), amount.into()),
            BinOp::Rotl if whole => (pick(Opc::RotrIW, Opc::RotrI), ((width - amount) % width).into()),
            _ => return None,
        };
        let imm = imm(value)?;
        Some(Sel::Hot { opc, a: self.unit(a), b: Opnd::None, c: Opnd::None, imm })
    }

    /// `a & mask` for a mask of low ones.
    fn low_mask(&mut self, a: Value, mask: u64) -> Option<Sel> {
        let ones = mask.trailing_ones();
        let all = ones > 0 && ones < 64 && mask == (1 << ones) - 1;
        all.then(|| self.field(a, 64 - ones, 64 - ones, false))
    }

    /// `v` as `inner << k`, 64 bits.
    fn shift_left(&self, v: Value) -> Option<(Value, u32)> {
        match self.defined_as(v)? {
            &Op::Binary { op: BinOp::Shl, ty: Type::I64, a, b } => {
                Some((a, (self.facts.konst(b)? & 63) as u32))
            }
            _ => None,
        }
    }

    /// `v` as the low half of another value, zero-extended.
    fn low_half(&self, v: Value) -> Option<Value> {
        match self.defined_as(v)? {
            &Op::Zext { to: Type::I64, a } if self.facts.block.type_of(a) == Type::I32 => Some(a),
            _ => None,
        }
    }

    /// `zext32(a) << amount`.
    fn shifted_word(&mut self, ty: Type, a: Value, amount: u32) -> Option<Sel> {
        let low = self.low_half(a).filter(|_| ty == Type::I64 && amount <= 32)?;
        Some(self.field(low, 32, 32 - amount, false))
    }

    /// Two operations in one.
    fn fused(&mut self, op: BinOp, ty: Type, a: Value, b: Value) -> Option<Sel> {
        match (op, ty) {
            (BinOp::Add, Type::I64) => self.shift_add(a, b).or_else(|| self.shift_add(b, a)),
            (BinOp::And, _) => {
                let (a, b) = match (self.inverted(a), self.inverted(b)) {
                    (_, Some(b)) => (a, b),
                    (Some(a), None) => (b, a),
                    _ => return None,
                };
                let (a, b) = (self.unit(a), self.unit(b));
                Some(Sel::Hot { opc: Opc::AndNot, a, b, c: Opnd::None, imm: 0 })
            }
            _ => None,
        }
    }

    fn inverted(&self, v: Value) -> Option<Value> {
        match self.defined_as(v)? {
            &Op::Unary { op: UnOp::Not, a, .. } => Some(a),
            _ => None,
        }
    }

    /// `(a << k) + b`, `a` perhaps a zero-extended low half.
    fn shift_add(&mut self, a: Value, b: Value) -> Option<Sel> {
        let (scaled, amount) = self.shift_left(a).unwrap_or((a, 0));
        let (opc, scaled) = match self.low_half(scaled) {
            Some(low) => (Opc::ShAddUw, low),
            None if amount > 0 => (Opc::ShAdd, scaled),
            None => return None,
        };
        let (a, b) = (self.unit(scaled), self.unit(b));
        Some(Sel::Hot { opc, a, b, c: Opnd::None, imm: amount as i32 })
    }

    /// `c ? a : b`.
    fn choice(&mut self, c: Value, a: Value, b: Value) -> Option<Sel> {
        if let Some(&Op::Compare { cond: cond @ (Cond::Eq | Cond::Ne), ty: Type::I64, a: x, b: zero }) =
            self.defined_as(c)
            && self.facts.konst(zero) == Some(0)
        {
            let (a, b) = if cond == Cond::Eq { (a, b) } else { (b, a) };
            let (a, b, c) = (self.unit(a), self.unit(b), self.unit(x));
            return Some(Sel::Hot { opc: Opc::SelEqz, a, b, c, imm: 0 });
        }
        let (a, b, c) = (self.unit(a), self.unit(b), self.unit(c));
        Some(Sel::Hot { opc: Opc::SelNz, a, b, c, imm: 0 })
    }

    /// A comparison of integers.
    fn test(&mut self, cond: Cond, ty: Type, a: Value, b: Value) -> Option<Test> {
        if !ty.is_int() {
            return None;
        }
        if self.facts.konst(b).is_none()
            && let Some(k) = self.facts.konst(a)
            && let Some((cond, k)) = swapped(cond, ty, k)
            && let Some(test) = self.test_with(cond, ty, b, None, Some(k))
        {
            return Some(test);
        }
        self.test_with(cond, ty, a, Some(b), self.facts.konst(b))
    }

    /// `a cond b`, where `b` has the constant value `konst` or has none; `b` is `None` if only the constant exists.
    fn test_with(
        &mut self,
        cond: Cond,
        ty: Type,
        a: Value,
        b: Option<Value>,
        konst: Option<u64>,
    ) -> Option<Test> {
        let signed = matches!(cond, Cond::LtS | Cond::GeS);
        let both =
            self.known_extension(a) & if konst.is_some() { ZEXT | SEXT } else { self.known_extension(b?) };
        // Sign extension keeps the unsigned order too.
        let as_signed = signed || both & SEXT != 0;
        let fits = both & if as_signed { SEXT } else { ZEXT } != 0;
        let narrow = ty == Type::I32 && !fits;
        let extended = konst.map(|k| if narrow || as_signed { sign_extend(ty, k) } else { k as i64 });
        let imm = extended.and_then(imm);
        if imm.is_none() && b.is_none() {
            return None;
        }
        let mut operand = |v| if narrow { self.unit(v) } else { self.extended(v, as_signed) };
        let a = operand(a);
        let b = match (imm, b) {
            (None, Some(b)) => operand(b),
            _ => Opnd::None,
        };
        Some(Test { cond, narrow, a, b, imm: imm.unwrap_or(0) })
    }

    /// How a comparison may see the value; constants come either way.
    fn known_extension(&self, v: Value) -> u8 {
        match self.facts.block.type_of(v) {
            Type::I64 | Type::V128 => ZEXT | SEXT,
            _ if self.facts.konst(v).is_some() => ZEXT | SEXT,
            _ => self.facts.repr(v),
        }
    }

    fn terminal(&mut self) -> End {
        match self.facts.block.terminal {
            Terminal::Jump { .. } | Terminal::Exit { .. } | Terminal::Attend { .. } => End::Plain(Opnd::None),
            Terminal::Trap { value, .. } => End::Plain(match value {
                Some(value) => self.extended(value, false),
                None => Opnd::Konst(0),
            }),
            Terminal::ExitIndirect { pc } => End::Plain(self.unit(pc)),
            Terminal::Indirect { pc, .. } => self.indirect(pc),
            Terminal::Branch { c, .. } => {
                if let Some(&Op::Compare { cond, ty, a, b }) = self.defined_as(c)
                    && let Some(test) = self.test(cond, ty, a, b)
                {
                    return End::Test(test);
                }
                End::Bool(self.unit(c))
            }
        }
    }

    fn indirect(&mut self, pc: Value) -> End {
        let (sum, mask) = match self.defined_as(pc) {
            Some(&Op::Binary { op: BinOp::And, ty: Type::I64, a, b }) => match self.facts.konst(b) {
                Some(k) if !k < 256 => (a, !k as u8),
                _ => (pc, 0),
            },
            _ => (pc, 0),
        };
        match self.sum(sum) {
            Some((base, imm)) => End::Indirect { a: self.unit(base), imm, mask },
            None => End::Indirect { a: self.unit(sum), imm: 0, mask },
        }
    }
}

/// `k cond b` as `b cond k`.
fn swapped(cond: Cond, ty: Type, k: u64) -> Option<(Cond, u64)> {
    let (inverse, max) = match cond {
        Cond::Eq | Cond::Ne => return Some((cond, k)),
        // k < b is b >= k + 1; k >= b is b < k + 1.
        Cond::LtU | Cond::GeU => (cond.inverse(), ty.mask()),
        Cond::LtS | Cond::GeS => (cond.inverse(), ty.mask() >> 1),
    };
    (k != max).then(|| (inverse, k.wrapping_add(1) & ty.mask()))
}

/// The flags of a plain access in one byte: bits 5:0 the regime, bit 6 whether it must be aligned.
pub(super) fn plain_flags(flags: MemFlags) -> u8 {
    flags.mmu.0 | if flags.align == Align::Natural { 1 << 6 } else { 0 }
}

/// Between two units. Narrow types use the 64-bit forms where only low bits count.
fn binary_opcode(op: BinOp, ty: Type) -> Option<Opc> {
    let by_width = |narrow, wide| match ty {
        Type::I32 => Some(narrow),
        Type::I64 => Some(wide),
        _ => None,
    };
    let low_bits = |narrow, wide| if ty == Type::I32 { Some(narrow) } else { Some(wide) };
    let wide = |opc| (ty == Type::I64).then_some(opc);
    match op {
        BinOp::Add => low_bits(Opc::AddW, Opc::Add),
        BinOp::Sub => low_bits(Opc::SubW, Opc::Sub),
        BinOp::Mul => low_bits(Opc::MulW, Opc::Mul),
        BinOp::And => Some(Opc::And),
        BinOp::Or => Some(Opc::Or),
        BinOp::Xor => Some(Opc::Xor),
        BinOp::AndNot => Some(Opc::AndNot),
        BinOp::Shl => by_width(Opc::ShlW, Opc::Shl),
        BinOp::ShrU => by_width(Opc::ShrUW, Opc::ShrU),
        BinOp::ShrS => by_width(Opc::ShrSW, Opc::ShrS),
        BinOp::Rotl => by_width(Opc::RotlW, Opc::Rotl),
        BinOp::Rotr => by_width(Opc::RotrW, Opc::Rotr),
        BinOp::DivU => by_width(Opc::DivUW, Opc::DivU),
        BinOp::DivS => by_width(Opc::DivSW, Opc::DivS),
        BinOp::RemU => by_width(Opc::RemUW, Opc::RemU),
        BinOp::RemS => by_width(Opc::RemSW, Opc::RemS),
        BinOp::MulHiU => wide(Opc::MulHiU),
        BinOp::MulHiS => wide(Opc::MulHiS),
        BinOp::MulHiSU => wide(Opc::MulHiSU),
        BinOp::MinU | BinOp::MaxU | BinOp::MinS | BinOp::MaxS | BinOp::ClMul | BinOp::ClMulHi => None,
    }
}

/// Opcode tables by condition: between units, with an immediate; then the same of low halves.
type ByCond = [Opc; 6];

const SETS: [ByCond; 4] = [
    [Opc::SetEq, Opc::SetNe, Opc::SetLtU, Opc::SetGeU, Opc::SetLtS, Opc::SetGeS],
    [Opc::SetEqI, Opc::SetNeI, Opc::SetLtUI, Opc::SetGeUI, Opc::SetLtSI, Opc::SetGeSI],
    [Opc::SetEq32, Opc::SetNe32, Opc::SetLtU32, Opc::SetGeU32, Opc::SetLtS32, Opc::SetGeS32],
    [Opc::SetEqI32, Opc::SetNeI32, Opc::SetLtUI32, Opc::SetGeUI32, Opc::SetLtSI32, Opc::SetGeSI32],
];

const BRANCHES: [ByCond; 4] = [
    [Opc::BrEq, Opc::BrNe, Opc::BrLtU, Opc::BrGeU, Opc::BrLtS, Opc::BrGeS],
    [Opc::BrEqI, Opc::BrNeI, Opc::BrLtUI, Opc::BrGeUI, Opc::BrLtSI, Opc::BrGeSI],
    [Opc::BrEq32, Opc::BrNe32, Opc::BrLtU32, Opc::BrGeU32, Opc::BrLtS32, Opc::BrGeS32],
    [Opc::BrEqI32, Opc::BrNeI32, Opc::BrLtUI32, Opc::BrGeUI32, Opc::BrLtSI32, Opc::BrGeSI32],
];

/// The opcode of a compare.
pub(super) fn set_opcode(cond: Cond, narrow: bool, imm: bool) -> Opc {
    SETS[usize::from(narrow) * 2 + usize::from(imm)][cond as usize]
}

/// The branch that a test makes.
pub(super) fn branch_opcode(test: &Test) -> Opc {
    BRANCHES[usize::from(test.narrow) * 2 + usize::from(test.b == Opnd::None)][test.cond as usize]
}
