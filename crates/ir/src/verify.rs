//! Checks that a block is well-formed: what lifters promise and every consumer relies on. Total: any block gets an
//! answer, however broken.

use crate::{
    block::{Block, Inst, Terminal},
    op::{Op, VecBinOp, VecUnOp},
    types::{Lane, Type, Value},
};
use std::fmt;

/// A rule that blocks keep.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rule {
    /// Results are numbered densely in order, and `value_types` has exactly their types.
    Numbering,
    /// Every operand is the result of an earlier operation.
    Defined,
    /// Every operand has the type that its operation asks for.
    OperandType,
    /// The operation exists for its type.
    ResultType,
    /// Slot numbers are in the block's table.
    Slot,
    /// Bit fields lie in their type, lane indexes and shift amounts in their vector.
    Range,
    /// Constants have no bits above their type.
    Constant,
    /// A call's arguments come first, then the absent ones.
    Arguments,
    /// Instructions start in order, do not overlap, begin with the block and end with it, and are as many as it says.
    Instructions,
}

impl Rule {
    /// A short name that stays the same.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Numbering => "IR01",
            Self::Defined => "IR02",
            Self::OperandType => "IR03",
            Self::ResultType => "IR04",
            Self::Slot => "IR05",
            Self::Range => "IR06",
            Self::Constant => "IR07",
            Self::Arguments => "IR08",
            Self::Instructions => "IR09",
        }
    }
}

/// Where a rule is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The operation with this index.
    Op(usize),
    /// The terminal.
    Terminal,
    /// The block's header fields.
    Header,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op(index) => write!(f, "operation {index}"),
            Self::Terminal => f.write_str("terminal"),
            Self::Header => f.write_str("header"),
        }
    }
}

/// The first broken rule of a block.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} at {place}: {detail}", .rule.code())]
pub struct VerifyError {
    /// Which.
    pub rule: Rule,
    /// Where.
    pub place: Place,
    /// What is there, and what should be.
    pub detail: String,
}

/// Checks all rules.
pub fn verify(block: &Block) -> Result<(), VerifyError> {
    let mut checker = Checker { block, place: Place::Header, defined: 0, insns: 0, end: 0 };
    for (index, inst) in block.insts.iter().enumerate() {
        checker.place = Place::Op(index);
        checker.inst(inst)?;
    }
    checker.place = Place::Terminal;
    checker.terminal()?;
    checker.place = Place::Header;
    checker.header()
}

/// In debug builds, panics if the block is malformed.
pub(crate) fn debug_verify(block: &Block, when: &str) {
    if cfg!(debug_assertions)
        && let Err(error) = verify(block)
    {
        panic!("malformed block {when}: {error}\n{block:#?}");
    }
}

type Checked<T = ()> = Result<T, VerifyError>;

struct Checker<'a> {
    block: &'a Block,
    place: Place,
    /// Values below this number exist.
    defined: usize,
    /// Guest instructions begun.
    insns: u32,
    /// Where the latest one ends.
    end: u32,
}

impl Checker<'_> {
    fn ensure(&self, holds: bool, rule: Rule, detail: impl FnOnce() -> String) -> Checked {
        if holds { Ok(()) } else { Err(VerifyError { rule, place: self.place, detail: detail() }) }
    }

    fn inst(&mut self, inst: &Inst) -> Checked {
        let op = &inst.op;
        let slots = self.block.slots;
        if let Op::Get { slot } | Op::Set { slot, .. } = op {
            self.ensure(usize::from(slot.0) < slots.len(), Rule::Slot, || {
                format!("slot {} of a table of {}", slot.0, slots.len())
            })?;
        }
        let mut undefined = None;
        op.for_each_operand(|v| {
            if v.0 as usize >= self.defined {
                undefined = undefined.or(Some(v));
            }
        });
        self.ensure(undefined.is_none(), Rule::Defined, || {
            format!("{undefined:?} is used before it is defined")
        })?;
        self.ensure(self.insns > 0 || matches!(op, Op::InsnStart { .. }), Rule::Instructions, || {
            "an operation before the first `insn`".into()
        })?;
        self.op(op)?;

        let (types, count) = op.results(|slot| slots[usize::from(slot.0)].ty);
        let results = self.block.value_types.get(self.defined..self.defined + count);
        self.ensure(results == Some(&types[..count]), Rule::Numbering, || {
            format!(
                "gives {:?}, but `value_types` has {results:?} from v{} on",
                &types[..count],
                self.defined
            )
        })?;
        self.ensure(count == 0 || inst.first.0 as usize == self.defined, Rule::Numbering, || {
            format!("the first result is {:?} and should be v{}", inst.first, self.defined)
        })?;
        self.defined += count;
        Ok(())
    }

    fn terminal(&self) -> Checked {
        let terminal = &self.block.terminal;
        let Some(v) = terminal.operand() else { return Ok(()) };
        self.ensure((v.0 as usize) < self.defined, Rule::Defined, || format!("{v:?} is never defined"))?;
        self.operand(v, if matches!(terminal, Terminal::Branch { .. }) { Type::I8 } else { Type::I64 })
    }

    fn header(&self) -> Checked {
        let block = self.block;
        self.ensure(block.value_types.len() == self.defined, Rule::Numbering, || {
            format!("{} value types for {} values", block.value_types.len(), self.defined)
        })?;
        self.ensure(block.insn_count == self.insns && block.len == self.end, Rule::Instructions, || {
            let (count, len) = (block.insn_count, block.len);
            format!("says {count} instructions in {len} bytes, has {} in {}", self.insns, self.end)
        })
    }

    fn insn_start(&mut self, offset: u32, len: u8) -> Checked {
        let follows = if self.insns == 0 { offset == 0 } else { offset >= self.end };
        self.ensure(follows, Rule::Instructions, || {
            format!("starts at {offset}, the one before ends at {}", self.end)
        })?;
        let end = offset.checked_add(len.into()).filter(|_| len > 0);
        let Some(end) = end else {
            return self.ensure(false, Rule::Instructions, || format!("{len} bytes from {offset} on"));
        };
        (self.insns, self.end) = (self.insns + 1, end);
        Ok(())
    }

    /// The type of a defined operand, which [`Self::inst`] has checked to be below `defined`.
    fn type_of(&self, v: Value) -> Type {
        self.block.value_types[v.0 as usize]
    }

    fn operand(&self, v: Value, ty: Type) -> Checked {
        let found = self.type_of(v);
        self.ensure(found == ty, Rule::OperandType, || {
            format!("{v:?} is {} and should be {}", found.name(), ty.name())
        })
    }

    fn operands<const N: usize>(&self, vs: [Value; N], ty: Type) -> Checked {
        vs.iter().try_for_each(|&v| self.operand(v, ty))
    }

    fn int_operand(&self, v: Value) -> Checked {
        self.ensure(self.type_of(v).is_int(), Rule::OperandType, || {
            format!("{v:?} is v128 and should be an integer")
        })
    }

    fn int(&self, ty: Type) -> Checked {
        self.ensure(ty.is_int(), Rule::ResultType, || "not for v128".into())
    }

    fn word(&self, ty: Type) -> Checked {
        self.ensure(matches!(ty, Type::I32 | Type::I64), Rule::ResultType, || {
            format!("not for {}", ty.name())
        })
    }

    /// An integer operation on operands of its own type.
    fn ints<const N: usize>(&self, ty: Type, vs: [Value; N]) -> Checked {
        self.int(ty)?;
        self.operands(vs, ty)
    }

    fn field(&self, ty: Type, lo: u8, len: u8) -> Checked {
        self.ensure(len > 0 && u32::from(lo) + u32::from(len) <= ty.bits(), Rule::Range, || {
            format!("{len} bits from bit {lo} on are not in {}", ty.name())
        })
    }

    fn below(&self, number: u8, limit: u32) -> Checked {
        self.ensure(u32::from(number) < limit, Rule::Range, || format!("{number} is not below {limit}"))
    }

    /// `narrow` fits into `wide`, strictly.
    fn narrower(&self, narrow: Type, wide: Type) -> Checked {
        self.ensure(narrow < wide, Rule::ResultType, || {
            format!("{} is not narrower than {}", narrow.name(), wide.name())
        })
    }

    /// What is in memory is the value or, of integers, its low part.
    fn memory(&self, mem: Type, ty: Type) -> Checked {
        self.ensure(mem == ty || mem < ty && ty.is_int(), Rule::ResultType, || {
            format!("{} in memory for a value of {}", mem.name(), ty.name())
        })
    }

    fn op(&mut self, op: &Op) -> Checked {
        match *op {
            Op::InsnStart { offset, len } => self.insn_start(offset, len),
            Op::Const { ty, bits } => {
                self.int(ty)?;
                self.ensure(bits & !ty.mask() == 0, Rule::Constant, || {
                    format!("{bits:#x} is not {}", ty.name())
                })
            }
            Op::ConstVec { .. } | Op::PcRel { .. } | Op::Get { .. } | Op::Fence { .. } => Ok(()),
            Op::Set { slot, value } => self.operand(value, self.block.slots[usize::from(slot.0)].ty),
            Op::Call { args, result, .. } => self.call(args, result),
            Op::TrapIf { c, value, .. } => {
                self.operand(c, Type::I8)?;
                self.operand(value, Type::I64)
            }
            _ if op.mem_flags().is_some() => self.access(op),
            _ => match self.integer(op).or_else(|| self.float(op)).or_else(|| self.vector(op)) {
                Some(checked) => checked,
                None => Ok(()),
            },
        }
    }

    fn call(&self, args: [Option<Value>; 4], result: Option<Type>) -> Checked {
        let count = args.iter().flatten().count();
        self.ensure(args[..count].iter().all(Option::is_some), Rule::Arguments, || {
            "an argument behind an absent one".into()
        })?;
        args.into_iter().flatten().try_for_each(|v| self.int_operand(v))?;
        result.map_or(Ok(()), |ty| self.int(ty))
    }

    fn access(&self, op: &Op) -> Checked {
        let addr = match *op {
            Op::Load { ty, mem, addr, .. } => {
                self.memory(mem, ty)?;
                addr
            }
            Op::Store { mem, addr, value, .. } => {
                self.memory(mem, self.type_of(value))?;
                addr
            }
            Op::Rmw { ty, addr, value, .. } | Op::StoreCond { ty, addr, value, .. } => {
                self.ints(ty, [value])?;
                addr
            }
            Op::Cas { ty, addr, expected, new, .. } => {
                self.ints(ty, [expected, new])?;
                addr
            }
            Op::CasPair { addr, expected: [a, b], new: [c, d], .. } => {
                self.operands([a, b, c, d], Type::I64)?;
                addr
            }
            Op::LoadReserve { ty, addr, .. } => {
                self.int(ty)?;
                addr
            }
            _ => return Ok(()),
        };
        self.operand(addr, Type::I64)
    }

    fn integer(&self, op: &Op) -> Option<Checked> {
        Some(match *op {
            Op::Unary { ty, a, .. } => self.ints(ty, [a]),
            Op::Binary { ty, a, b, .. } | Op::Compare { ty, a, b, .. } => self.ints(ty, [a, b]),
            Op::AddCarry { ty, a, b, carry: c } | Op::SubBorrow { ty, a, b, borrow: c } => {
                self.ints(ty, [a, b]).and_then(|()| self.operand(c, Type::I8))
            }
            Op::Select { ty, c, a, b } => self.operands([a, b], ty).and_then(|()| self.operand(c, Type::I8)),
            Op::Zext { to, a } => self.narrower(self.type_of(a), to),
            Op::Sext { to, a } => self.int(to).and_then(|()| self.narrower(self.type_of(a), to)),
            Op::Trunc { to, a } => self.narrower(to, self.type_of(a)),
            Op::Extract { ty, a, lo, len, .. } => self.ints(ty, [a]).and_then(|()| self.field(ty, lo, len)),
            Op::Deposit { ty, a, b, lo, len } => self.ints(ty, [a, b]).and_then(|()| self.field(ty, lo, len)),
            _ => return None,
        })
    }

    fn float(&self, op: &Op) -> Option<Checked> {
        Some(match *op {
            Op::FpBinary { fmt, a, b, .. } | Op::FpCompare { fmt, a, b, .. } => {
                self.operands([a, b], fmt.ty())
            }
            Op::FpSqrt { fmt, a, .. } | Op::FpRound { fmt, a, .. } => self.operand(a, fmt.ty()),
            Op::FpFma { fmt, a, b, c, .. } => self.operands([a, b, c], fmt.ty()),
            Op::FpConvert { from, a, .. } => self.operand(a, from.ty()),
            Op::FpToInt { fmt, to, a, .. } => self.word(to).and_then(|()| self.operand(a, fmt.ty())),
            Op::FpFromInt { from, a, .. } => self.word(from).and_then(|()| self.operand(a, from)),
            _ => return None,
        })
    }

    fn vector(&self, op: &Op) -> Option<Checked> {
        const V: Type = Type::V128;
        Some(match *op {
            Op::VecUnary { op, lane, a } => {
                let widens = matches!(
                    op,
                    VecUnOp::WidenLowU | VecUnOp::WidenLowS | VecUnOp::WidenHighU | VecUnOp::WidenHighS
                );
                self.lane(!(widens && lane == Lane::D), lane).and_then(|()| self.operand(a, V))
            }
            Op::VecBinary { op, lane, a, b } => {
                let narrows = matches!(
                    op,
                    VecBinOp::Narrow | VecBinOp::NarrowSatS | VecBinOp::NarrowSatSU | VecBinOp::NarrowSatU
                );
                self.lane(!(narrows && lane == Lane::B), lane).and_then(|()| self.operands([a, b], V))
            }
            Op::VecSelect { m, a, b } => self.operands([m, a, b], V),
            Op::VecShift { lane, amount, a, .. } => {
                self.below(amount, lane.bits()).and_then(|()| self.operand(a, V))
            }
            Op::VecSplat { lane, a } => self.operand(a, lane.ty()),
            Op::VecGet { lane, index, a } => {
                self.below(index, lane.count()).and_then(|()| self.operand(a, V))
            }
            Op::VecSet { lane, index, a, b } => self
                .below(index, lane.count())
                .and_then(|()| self.operand(a, V))
                .and_then(|()| self.operand(b, lane.ty())),
            Op::VecShuffle { a, b, .. } | Op::VecFpBinary { a, b, .. } | Op::VecFpCompare { a, b, .. } => {
                self.operands([a, b], V)
            }
            Op::VecFpFma { a, b, c, .. } => self.operands([a, b, c], V),
            Op::VecFpSqrt { a, .. } => self.operand(a, V),
            _ => return None,
        })
    }

    fn lane(&self, fits: bool, lane: Lane) -> Checked {
        self.ensure(fits, Rule::ResultType, || format!("not for lanes of {} bits", lane.bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::{self, SLOTS},
        text::parse,
        types::Slot,
    };
    use proptest::prelude::*;

    /// The rule that a block of one 4-byte instruction with these operations breaks.
    fn broken(body: &str) -> (Rule, Place) {
        let header = "block mode=0x0 len=4 insns=1 fp=canonical,after {";
        let values = "v0 = const.i64 0x1\nv1 = const.i8 0x1\nv2 = const_vec 0x1\nv3 = get x1";
        let block = parse(&format!("{header}\ninsn +0 4\n{values}\n{body}\n}}\n"), SLOTS).expect(body);
        let error = verify(&block).expect_err(body);
        assert!(error.to_string().starts_with(error.rule.code()), "{error}");
        (error.rule, error.place)
    }

    #[test]
    fn every_rule_is_checked() {
        let cases = [
            (Rule::Defined, "v4 = add.i64 v4, v0"),
            (Rule::Defined, "set x1, v9"),
            (Rule::OperandType, "v4 = add.i64 v0, v1"),
            (Rule::OperandType, "v4 = compare.eq.i8 v0, v1"),
            (Rule::OperandType, "v4 = select.i64 v0, v0, v0"),
            (Rule::OperandType, "v4, v5, v6 = add_carry.i64 v0, v0, v0"),
            (Rule::OperandType, "set cf, v0"),
            (Rule::OperandType, "v4 = load.i64.i64.u [v1], mmu=0 relaxed"),
            (Rule::OperandType, "v4 = rmw.add.i64 [v0], v1, mmu=0 relaxed"),
            (Rule::OperandType, "v4, v5 = cas_pair [v0], v0, v0, v0, v1, mmu=0 relaxed"),
            (Rule::OperandType, "v4 = fp.add.f32.dynamic v0, v0"),
            (Rule::OperandType, "v4 = fp_from_int.f64.i32.s.dynamic v0"),
            (Rule::OperandType, "v4 = vec.add.b v2, v0"),
            (Rule::OperandType, "v4 = vec_splat.d v1"),
            (Rule::OperandType, "v4 = vec_set.b v2, 0, v0"),
            (Rule::OperandType, "call.none #0, v2"),
            (Rule::OperandType, "trap_if v0, 0x0, v0"),
            (Rule::OperandType, "trap_if v1, 0x0, v1"),
            (Rule::ResultType, "v4 = add.v128 v2, v2"),
            (Rule::ResultType, "v4 = zext.i64 v0"),
            (Rule::ResultType, "v4 = sext.v128 v0"),
            (Rule::ResultType, "v4 = trunc.i64 v1"),
            (Rule::ResultType, "v4 = load.i8.i16.u [v0], mmu=0 relaxed"),
            (Rule::ResultType, "v4 = load.v128.i64.u [v0], mmu=0 relaxed"),
            (Rule::ResultType, "store.i16 [v0], v1, mmu=0 relaxed"),
            (Rule::ResultType, "v4 = load_reserve.v128 [v0], mmu=0 relaxed"),
            (Rule::ResultType, "v4 = fp_to_int.f64.i8.s.nan_max.zero v0"),
            (Rule::ResultType, "v4 = vec_unary.widen_low_u.d v2"),
            (Rule::ResultType, "v4 = vec.narrow.b v2, v2"),
            (Rule::ResultType, "v4 = call.v128 #0"),
            (Rule::Range, "v4 = extract.i64.u v0, 60, 5"),
            (Rule::Range, "v4 = extract.i64.u v0, 60, 0"),
            (Rule::Range, "v4 = deposit.i8 v1, v1, 255, 255"),
            (Rule::Range, "v4 = vec_shift.h.left.u v2, 16"),
            (Rule::Range, "v4 = vec_get.d v2, 2"),
            (Rule::Range, "v4 = vec_set.b v2, 16, v1"),
            (Rule::Constant, "v4 = const.i8 0x100"),
            (Rule::ResultType, "v4 = const.v128 0x0"),
            (Rule::Arguments, "call.none #0, v0, _, v0"),
            (Rule::Instructions, "insn +2 4"),
            (Rule::Instructions, "insn +4 0"),
            (Rule::Instructions, "insn +4294967295 4"),
        ];
        for (rule, line) in cases {
            assert_eq!(broken(&format!("{line}\nexit +4")), (rule, Place::Op(5)), "{line}");
        }
    }

    #[test]
    fn terminals_and_header_are_checked() {
        assert_eq!(broken("branch v0, +4, +8"), (Rule::OperandType, Place::Terminal));
        assert_eq!(broken("indirect v1"), (Rule::OperandType, Place::Terminal));
        assert_eq!(broken("trap 0x1, v2"), (Rule::OperandType, Place::Terminal));
        assert_eq!(broken("exit_indirect v4"), (Rule::Defined, Place::Terminal));
        assert_eq!(broken("insn +4 4\nexit +8"), (Rule::Instructions, Place::Header));

        let text = "block mode=0x0 len=0 insns=0 fp=canonical,after {\nv0 = get x1\nexit +0\n}";
        let early = parse(text, SLOTS).map(|block| verify(&block).map_err(|error| error.rule));
        assert_eq!(early, Ok(Err(Rule::Instructions)));
    }

    #[test]
    fn numbering_and_slots_are_checked() {
        let text = "block mode=0x0 len=4 insns=1 fp=canonical,after {\ninsn +0 4\nv0 = get x1\nexit +4\n}";
        let block = parse(text, SLOTS).expect("well-formed");
        let rule = |change: &dyn Fn(&mut Block)| {
            let mut block = block.clone();
            change(&mut block);
            verify(&block).map_err(|error| error.rule)
        };
        assert_eq!(rule(&|_| {}), Ok(()));
        assert_eq!(rule(&|block| block.insts[1].first = Value(1)), Err(Rule::Numbering));
        assert_eq!(rule(&|block| block.value_types[0] = Type::I8), Err(Rule::Numbering));
        assert_eq!(rule(&|block| block.value_types.clear()), Err(Rule::Numbering));
        assert_eq!(rule(&|block| block.value_types.push(Type::I8)), Err(Rule::Numbering));
        assert_eq!(rule(&|block| block.insts[1].op = Op::Get { slot: Slot(999) }), Err(Rule::Slot));
    }

    proptest! {
        #[test]
        fn any_mixture_of_two_blocks_gets_an_answer(
            first in testing::blocks(),
            second in testing::blocks(),
            at in any::<prop::sample::Index>(),
        ) {
            let mut block = first;
            let at = at.index(block.insts.len());
            block.insts.splice(at.., second.insts.iter().copied());
            block.terminal = second.terminal;
            let _ = verify(&block);
            block.value_types = second.value_types;
            let _ = verify(&block);
        }
    }
}
