//! What each operation computes, one operation at a time and as plainly as possible: the meaning that every engine
//! is held to, and what out-of-line paths and constant folding use.

use crate::{
    op::{BinOp, Cond, FmaOp, FpBinOp, FpCond, FpOverflow, Op, RmwOp, UnOp, VecBinOp, VecUnOp},
    softfloat::{self, Env as FpEnv, Flags, IntRule, IntType, MinMax, Negate, Relation, Round},
    types::{FpFormat, FpModel, Lane, Rounding, Type},
};

/// Sign-extends the low `bits` (1 to 64) of `value`.
pub fn sign_extend(value: u64, bits: u32) -> i64 {
    ((value << (64 - bits)) as i64) >> (64 - bits)
}

/// One-operand integer operations.
pub fn unary(op: UnOp, ty: Type, a: u64) -> u64 {
    let bits = ty.bits();
    let result = match op {
        UnOp::Not => !a,
        UnOp::Neg => a.wrapping_neg(),
        UnOp::Clz => u64::from(a.leading_zeros()) - u64::from(64 - bits),
        UnOp::Ctz => u64::from(a.trailing_zeros().min(bits)),
        UnOp::Popcnt => u64::from(a.count_ones()),
        UnOp::Bswap => a.swap_bytes() >> (64 - bits),
        UnOp::Bitrev => a.reverse_bits() >> (64 - bits),
        UnOp::OrBytes => u64::from_le_bytes(a.to_le_bytes().map(|byte| if byte == 0 { 0 } else { 0xff })),
    };
    result & ty.mask()
}

/// Two-operand integer operations.
pub fn binary(op: BinOp, ty: Type, a: u64, b: u64) -> u64 {
    let bits = ty.bits();
    let (sa, sb) = (sign_extend(a, bits), sign_extend(b, bits));
    let amount = (b % u64::from(bits)) as u32;
    let rotl = |by: u32| if by == 0 { a } else { a << by | a >> (bits - by) };
    let minimum = i64::MIN >> (64 - bits);
    let wide = |product: i128| (product >> bits) as u64;
    let result = match op {
        BinOp::Add => a.wrapping_add(b),
        BinOp::Sub => a.wrapping_sub(b),
        BinOp::Mul => a.wrapping_mul(b),
        BinOp::MulHiU => ((u128::from(a) * u128::from(b)) >> bits) as u64,
        BinOp::MulHiS => wide(i128::from(sa) * i128::from(sb)),
        BinOp::MulHiSU => wide(i128::from(sa).wrapping_mul(i128::from(b))),
        BinOp::DivU => a.checked_div(b).unwrap_or(u64::MAX),
        BinOp::RemU => a.checked_rem(b).unwrap_or(a),
        BinOp::DivS if b == 0 => u64::MAX,
        BinOp::RemS if b == 0 => a,
        BinOp::DivS if sa == minimum && sb == -1 => a,
        BinOp::RemS if sa == minimum && sb == -1 => 0,
        BinOp::DivS => (sa / sb) as u64,
        BinOp::RemS => (sa % sb) as u64,
        BinOp::And => a & b,
        BinOp::Or => a | b,
        BinOp::Xor => a ^ b,
        BinOp::AndNot => a & !b,
        BinOp::Shl => a << amount,
        BinOp::ShrU => a >> amount,
        BinOp::ShrS => (sa >> amount) as u64,
        BinOp::Rotl => rotl(amount),
        BinOp::Rotr => rotl((bits - amount) % bits),
        BinOp::MinU => a.min(b),
        BinOp::MaxU => a.max(b),
        BinOp::MinS => sa.min(sb) as u64,
        BinOp::MaxS => sa.max(sb) as u64,
        BinOp::ClMul => carryless(a, b) as u64,
        BinOp::ClMulHi => (carryless(a, b) >> bits) as u64,
    };
    result & ty.mask()
}

/// The carry-less product.
fn carryless(a: u64, b: u64) -> u128 {
    (0..64).filter(|i| b >> i & 1 != 0).fold(0, |sum, i| sum ^ u128::from(a) << i)
}

/// Integer comparisons.
pub fn compare(cond: Cond, ty: Type, a: u64, b: u64) -> bool {
    let (sa, sb) = (sign_extend(a, ty.bits()), sign_extend(b, ty.bits()));
    match cond {
        Cond::Eq => a == b,
        Cond::Ne => a != b,
        Cond::LtU => a < b,
        Cond::GeU => a >= b,
        Cond::LtS => sa < sb,
        Cond::GeS => sa >= sb,
    }
}

/// `[a + b + carry, carry out, signed overflow]`.
pub fn add_carry(ty: Type, a: u64, b: u64, carry: u64) -> [u64; 3] {
    let sum = u128::from(a) + u128::from(b) + u128::from(carry & 1);
    let value = sum as u64 & ty.mask();
    let overflow = (!(a ^ b) & (a ^ value)) >> (ty.bits() - 1) & 1;
    [value, (sum >> ty.bits()) as u64 & 1, overflow]
}

/// `[a - b - borrow, borrow out, signed overflow]`.
pub fn sub_borrow(ty: Type, a: u64, b: u64, borrow: u64) -> [u64; 3] {
    let subtrahend = u128::from(b) + u128::from(borrow & 1);
    let value = u128::from(a).wrapping_sub(subtrahend) as u64 & ty.mask();
    let overflow = ((a ^ b) & (a ^ value)) >> (ty.bits() - 1) & 1;
    [value, u64::from(u128::from(a) < subtrahend), overflow]
}

/// What a read-modify-write stores.
pub fn rmw(op: RmwOp, ty: Type, old: u64, operand: u64) -> u64 {
    match op {
        RmwOp::Xchg => operand,
        RmwOp::Add => binary(BinOp::Add, ty, old, operand),
        RmwOp::And => old & operand,
        RmwOp::AndNot => old & !operand & ty.mask(),
        RmwOp::Or => old | operand,
        RmwOp::Xor => old ^ operand,
        RmwOp::MinS => binary(BinOp::MinS, ty, old, operand),
        RmwOp::MaxS => binary(BinOp::MaxS, ty, old, operand),
        RmwOp::MinU => old.min(operand),
        RmwOp::MaxU => old.max(operand),
    }
}

fn lanes(lane: Lane) -> impl Iterator<Item = u32> {
    (0..lane.count()).map(move |i| i * lane.bits())
}

fn get(lane: Lane, v: u128, at: u32) -> u64 {
    (v >> at) as u64 & lane.ty().mask()
}

/// Lane-wise on two vectors.
fn map2(lane: Lane, a: u128, b: u128, f: impl Fn(u64, u64) -> u64) -> u128 {
    lanes(lane).map(|at| u128::from(f(get(lane, a, at), get(lane, b, at)) & lane.ty().mask()) << at).sum()
}

/// Lane-wise vector operations with one operand.
pub fn vec_unary(op: VecUnOp, lane: Lane, a: u128) -> u128 {
    let ty = lane.ty();
    let bits = lane.bits();
    let map = |f: &dyn Fn(u64) -> u64| map2(lane, a, 0, |a, _| f(a));
    let widen = |from: u32, signed: bool| {
        let half = a >> from;
        let value = |i: u32| {
            let narrow = get(lane, half, i * bits);
            let wide = if signed { sign_extend(narrow, bits) as u64 } else { narrow };
            u128::from(wide) & ((1 << (2 * bits)) - 1)
        };
        // Widening 64-bit lanes has no type to go to; it gives the lane itself.
        if lane == Lane::D {
            half & u128::from(u64::MAX)
        } else {
            (0..lane.count() / 2).map(|i| value(i) << (2 * bits * i)).sum()
        }
    };
    match op {
        VecUnOp::Not => !a,
        VecUnOp::Neg => map(&|a| a.wrapping_neg()),
        VecUnOp::Abs => map(&|a| sign_extend(a, bits).wrapping_abs() as u64),
        VecUnOp::Clz => map(&|a| unary(UnOp::Clz, ty, a)),
        VecUnOp::Popcnt => map(&|a| unary(UnOp::Popcnt, ty, a)),
        VecUnOp::Reverse => lanes(lane).map(|at| u128::from(get(lane, a, at)) << (128 - bits - at)).sum(),
        VecUnOp::WidenLowU => widen(0, false),
        VecUnOp::WidenLowS => widen(0, true),
        VecUnOp::WidenHighU => widen(64, false),
        VecUnOp::WidenHighS => widen(64, true),
    }
}

/// Lane-wise vector operations with two operands.
pub fn vec_binary(op: VecBinOp, lane: Lane, a: u128, b: u128) -> u128 {
    let ty = lane.ty();
    let bits = lane.bits();
    let signed = |v: u64| i128::from(sign_extend(v, bits));
    let (smin, smax) = (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1);
    let umax = i128::from(ty.mask());
    let int = |op: BinOp| map2(lane, a, b, |a, b| binary(op, ty, a, b));
    let truth = |cond: Cond| map2(lane, a, b, |a, b| if compare(cond, ty, a, b) { u64::MAX } else { 0 });
    let shift = |f: &dyn Fn(u64, u32) -> u64, large: &dyn Fn(u64) -> u64| {
        map2(lane, a, b, |a, n| if n < u64::from(bits) { f(a, n as u32) } else { large(a) })
    };
    let pick = |f: &dyn Fn(u32) -> (u128, u32)| {
        let lane_of = |i: u32| {
            let (from, index) = f(i);
            u128::from(get(lane, from, index * bits)) << (i * bits)
        };
        (0..lane.count()).map(lane_of).sum::<u128>()
    };
    let half = lane.count() / 2;
    let narrow = |f: &dyn Fn(u64) -> u64| {
        let part = |v: u128| {
            lanes(lane)
                .map(|at| u128::from(f(get(lane, v, at)) & (ty.mask() >> (bits / 2))) << (at / 2))
                .sum::<u128>()
        };
        part(a) | part(b) << 64
    };
    let clamp = |v: i128, low: i128, high: i128| v.clamp(low, high) as u64;
    let (nsmin, nsmax) = (-(1i128 << (bits / 2 - 1)), (1i128 << (bits / 2 - 1)) - 1);
    let numax = (1i128 << (bits / 2)) - 1;
    match op {
        VecBinOp::Add => int(BinOp::Add),
        VecBinOp::Sub => int(BinOp::Sub),
        VecBinOp::Mul => int(BinOp::Mul),
        VecBinOp::AddSatU => map2(lane, a, b, |a, b| clamp(i128::from(a) + i128::from(b), 0, umax)),
        VecBinOp::AddSatS => map2(lane, a, b, |a, b| clamp(signed(a) + signed(b), smin, smax)),
        VecBinOp::SubSatU => map2(lane, a, b, |a, b| a.saturating_sub(b)),
        VecBinOp::SubSatS => map2(lane, a, b, |a, b| clamp(signed(a) - signed(b), smin, smax)),
        VecBinOp::MinU => int(BinOp::MinU),
        VecBinOp::MinS => int(BinOp::MinS),
        VecBinOp::MaxU => int(BinOp::MaxU),
        VecBinOp::MaxS => int(BinOp::MaxS),
        VecBinOp::AvgU => map2(lane, a, b, |a, b| ((u128::from(a) + u128::from(b) + 1) >> 1) as u64),
        VecBinOp::And => a & b,
        VecBinOp::Or => a | b,
        VecBinOp::Xor => a ^ b,
        VecBinOp::AndNot => a & !b,
        VecBinOp::CmpEq => truth(Cond::Eq),
        VecBinOp::CmpGtU => map2(lane, a, b, |a, b| if a > b { u64::MAX } else { 0 }),
        VecBinOp::CmpGtS => map2(lane, a, b, |a, b| if signed(a) > signed(b) { u64::MAX } else { 0 }),
        VecBinOp::ShlV => shift(&|a, n| a << n, &|_| 0),
        VecBinOp::ShrUV => shift(&|a, n| a >> n, &|_| 0),
        VecBinOp::ShrSV => shift(&|a, n| (signed(a) >> n) as u64, &|a| (signed(a) >> 64) as u64),
        VecBinOp::ZipLow => pick(&|i| (if i % 2 == 0 { a } else { b }, i / 2)),
        VecBinOp::ZipHigh => pick(&|i| (if i % 2 == 0 { a } else { b }, half + i / 2)),
        VecBinOp::UnzipEven => pick(&|i| if i < half { (a, 2 * i) } else { (b, 2 * (i - half)) }),
        VecBinOp::UnzipOdd => pick(&|i| if i < half { (a, 2 * i + 1) } else { (b, 2 * (i - half) + 1) }),
        VecBinOp::Table => {
            map2(Lane::B, 0, b, |_, index| if index < 16 { get(Lane::B, a, index as u32 * 8) } else { 0 })
        }
        VecBinOp::Narrow => narrow(&|v| v),
        VecBinOp::NarrowSatS => narrow(&|v| clamp(signed(v), nsmin, nsmax)),
        VecBinOp::NarrowSatSU => narrow(&|v| clamp(signed(v), 0, numax)),
        VecBinOp::NarrowSatU => narrow(&|v| clamp(i128::from(v), 0, numax)),
    }
}

/// The soft float's environment for one operation.
pub fn fp_env(model: FpModel, rounding: Rounding, dynamic: u8, flags: u8) -> FpEnv {
    FpEnv {
        rounding: round(rounding, dynamic),
        nan: model.nan,
        tininess: model.tininess,
        flush_inputs: model.flush_inputs,
        flush_outputs: model.flush_outputs,
        flags: Flags::from_bits(flags),
    }
}

/// The direction an operation rounds in; `dynamic` is [`crate::CpuHeader::rounding`].
pub fn round(rounding: Rounding, dynamic: u8) -> Round {
    match rounding {
        Rounding::NearestEven => Round::NearestEven,
        Rounding::TowardZero => Round::TowardZero,
        Rounding::Down => Round::Down,
        Rounding::Up => Round::Up,
        Rounding::NearestAway => Round::NearestAway,
        Rounding::Dynamic => Round::ALL[usize::from(dynamic) % Round::ALL.len()],
    }
}

/// Two-operand floating point.
pub fn fp_binary(op: FpBinOp, fmt: FpFormat, a: u64, b: u64, env: &mut FpEnv) -> u64 {
    match op {
        FpBinOp::Add => softfloat::add(fmt, a, b, env),
        FpBinOp::Sub => softfloat::sub(fmt, a, b, env),
        FpBinOp::Mul => softfloat::mul(fmt, a, b, env),
        FpBinOp::Div => softfloat::div(fmt, a, b, env),
        FpBinOp::MinNumber => softfloat::min(fmt, a, b, MinMax::Number2019, env),
        FpBinOp::MaxNumber => softfloat::max(fmt, a, b, MinMax::Number2019, env),
        FpBinOp::Minimum => softfloat::min(fmt, a, b, MinMax::Propagate, env),
        FpBinOp::Maximum => softfloat::max(fmt, a, b, MinMax::Propagate, env),
        FpBinOp::MinNum2008 => softfloat::min(fmt, a, b, MinMax::ArmNumber, env),
        FpBinOp::MaxNum2008 => softfloat::max(fmt, a, b, MinMax::ArmNumber, env),
        FpBinOp::MinSelect => softfloat::min(fmt, a, b, MinMax::X86, env),
        FpBinOp::MaxSelect => softfloat::max(fmt, a, b, MinMax::X86, env),
    }
}

/// Fused multiply-add.
pub fn fp_fma(op: FmaOp, fmt: FpFormat, [a, b, c]: [u64; 3], env: &mut FpEnv) -> u64 {
    let negate = match op {
        FmaOp::MulAdd => Negate::NONE,
        FmaOp::MulSub => Negate::ADDEND,
        FmaOp::NegMulAdd => Negate::PRODUCT,
        FmaOp::NegMulSub => Negate::BOTH,
    };
    softfloat::mul_add(fmt, a, b, c, negate, env)
}

/// Floating-point comparison.
pub fn fp_compare(cond: FpCond, fmt: FpFormat, signalling: bool, a: u64, b: u64, env: &mut FpEnv) -> bool {
    let relation = if signalling {
        softfloat::compare_signaling(fmt, a, b, env)
    } else {
        softfloat::compare_quiet(fmt, a, b, env)
    };
    match cond {
        FpCond::Eq => relation == Relation::Equal,
        FpCond::Lt => relation == Relation::Less,
        FpCond::Le => matches!(relation, Relation::Less | Relation::Equal),
        FpCond::Unordered => relation == Relation::Unordered,
    }
}

fn int_type(ty: Type, signed: bool) -> IntType {
    match (ty, signed) {
        (Type::I64, true) => IntType::I64,
        (Type::I64, false) => IntType::U64,
        (_, true) => IntType::I32,
        (_, false) => IntType::U32,
    }
}

/// An operation that computes from its operands, the block's floating-point rules and the header's rounding and flags,
/// and from nothing else. `None` for all others.
pub fn compute(op: &Op, operands: &[u128], model: FpModel, dynamic: u8, flags: &mut u8) -> Option<[u128; 3]> {
    let int = |i: usize| operands[i] as u64;
    let one = |value: u64| Some([u128::from(value), 0, 0]);
    let vector = |value: u128| Some([value, 0, 0]);
    let mut fp = |rounding: Rounding, f: &mut dyn FnMut(&mut FpEnv) -> u128| {
        let mut env = fp_env(model, rounding, dynamic, *flags);
        let value = f(&mut env);
        *flags = env.flags.bits();
        Some([value, 0, 0])
    };
    match *op {
        Op::Const { bits, .. } => one(bits),
        Op::ConstVec { bits } => vector(bits),
        Op::Unary { op, ty, .. } => one(unary(op, ty, int(0))),
        Op::Binary { op, ty, .. } => one(binary(op, ty, int(0), int(1))),
        Op::AddCarry { ty, .. } => Some(add_carry(ty, int(0), int(1), int(2)).map(u128::from)),
        Op::SubBorrow { ty, .. } => Some(sub_borrow(ty, int(0), int(1), int(2)).map(u128::from)),
        Op::Compare { cond, ty, .. } => one(u64::from(compare(cond, ty, int(0), int(1)))),
        Op::Select { .. } => vector(if int(0) != 0 { operands[1] } else { operands[2] }),
        Op::Zext { .. } => one(int(0)),
        Op::Trunc { to, .. } => one(int(0) & to.mask()),
        Op::Extract { ty, lo, len, signed, .. } => {
            let len = u32::from(len);
            let field = int(0) >> lo & (u64::MAX >> (64 - len));
            one(if signed { sign_extend(field, len) as u64 & ty.mask() } else { field })
        }
        Op::Deposit { lo, len, .. } => {
            let mask = (u64::MAX >> (64 - u32::from(len))) << lo;
            one(int(0) & !mask | int(1) << lo & mask)
        }
        Op::FpBinary { op, fmt, rounding, .. } => {
            fp(rounding, &mut |env| u128::from(fp_binary(op, fmt, int(0), int(1), env)))
        }
        Op::FpSqrt { fmt, rounding, .. } => {
            fp(rounding, &mut |env| u128::from(softfloat::sqrt(fmt, int(0), env)))
        }
        Op::FpFma { op, fmt, rounding, .. } => {
            fp(rounding, &mut |env| u128::from(fp_fma(op, fmt, [int(0), int(1), int(2)], env)))
        }
        Op::FpCompare { cond, fmt, signalling, .. } => fp(Rounding::NearestEven, &mut |env| {
            u128::from(fp_compare(cond, fmt, signalling, int(0), int(1), env))
        }),
        Op::FpConvert { from, to, rounding, .. } => {
            fp(rounding, &mut |env| u128::from(softfloat::convert(from, to, int(0), env)))
        }
        Op::FpToInt { fmt, to, signed, overflow, rounding, .. } => fp(rounding, &mut |env| {
            let rule = match overflow {
                FpOverflow::SaturateNanMax => IntRule::RiscV,
                FpOverflow::SaturateNanZero => IntRule::Arm,
                FpOverflow::Indefinite => IntRule::X86,
                FpOverflow::SaturateNanMin => IntRule::Power,
            };
            let value = softfloat::to_int(fmt, int(0), int_type(to, signed), env.rounding, rule, env);
            u128::from(value & to.mask())
        }),
        Op::FpFromInt { fmt, from, signed, rounding, .. } => fp(rounding, &mut |env| {
            let value = if signed { sign_extend(int(0), from.bits()) as u64 } else { int(0) };
            u128::from(softfloat::from_int(fmt, value, int_type(from, signed), env))
        }),
        Op::FpRound { fmt, rounding, inexact, .. } => fp(rounding, &mut |env| {
            u128::from(softfloat::round_to_integral(fmt, int(0), env.rounding, inexact, env))
        }),
        Op::VecUnary { op, lane, .. } => vector(vec_unary(op, lane, operands[0])),
        Op::VecBinary { op, lane, .. } => vector(vec_binary(op, lane, operands[0], operands[1])),
        Op::VecSelect { .. } => vector(operands[0] & operands[1] | !operands[0] & operands[2]),
        Op::VecShift { lane, left, signed, amount, .. } => vector(map2(lane, operands[0], 0, |a, _| {
            let op = match (left, signed) {
                (true, _) => BinOp::Shl,
                (false, true) => BinOp::ShrS,
                (false, false) => BinOp::ShrU,
            };
            binary(op, lane.ty(), a, u64::from(amount))
        })),
        Op::VecSplat { lane, .. } => vector(map2(lane, 0, 0, |_, _| int(0))),
        Op::VecGet { lane, index, .. } => one(get(lane, operands[0], u32::from(index) * lane.bits())),
        Op::VecSet { lane, index, .. } => {
            let at = u32::from(index) * lane.bits();
            let mask = u128::from(lane.ty().mask()) << at;
            vector(operands[0] & !mask | (operands[1] << at) & mask)
        }
        Op::VecShuffle { bytes, .. } => {
            let pick = |index: u8| match index {
                0..16 => operands[0] >> (8 * index),
                16..32 => operands[1] >> (8 * (index - 16)),
                _ => 0,
            };
            vector((0..16).map(|i| (pick(bytes[i]) & 0xff) << (8 * i)).sum())
        }
        Op::VecFpBinary { op, fmt, rounding, .. } => {
            fp(rounding, &mut |env| fp_lanes(fmt, operands, |[a, b, _]| fp_binary(op, fmt, a, b, env)))
        }
        Op::VecFpFma { op, fmt, rounding, .. } => {
            fp(rounding, &mut |env| fp_lanes(fmt, operands, |abc| fp_fma(op, fmt, abc, env)))
        }
        Op::VecFpSqrt { fmt, rounding, .. } => {
            fp(rounding, &mut |env| fp_lanes(fmt, operands, |[a, ..]| softfloat::sqrt(fmt, a, env)))
        }
        Op::VecFpCompare { cond, fmt, signalling, .. } => {
            fp(Rounding::NearestEven, &mut |env| {
                fp_lanes(fmt, operands, |[a, b, _]| {
                    if fp_compare(cond, fmt, signalling, a, b, env) { u64::MAX } else { 0 }
                })
            })
        }
        _ => None,
    }
}

/// Lane-wise over up to three vectors, lanes in order.
fn fp_lanes(fmt: FpFormat, operands: &[u128], mut f: impl FnMut([u64; 3]) -> u64) -> u128 {
    let lane = match fmt.ty() {
        Type::I16 => Lane::H,
        Type::I32 => Lane::S,
        _ => Lane::D,
    };
    let operand = |i: usize, at: u32| operands.get(i).map_or(0, |v| get(lane, *v, at));
    let mut result = 0;
    for at in lanes(lane) {
        let value = f([operand(0, at), operand(1, at), operand(2, at)]) & lane.ty().mask();
        result |= u128::from(value) << at;
    }
    result
}
