//! Operations without an opcode of their own: computed by [`crate::eval`], with operands and results in units.
#![allow(unsafe_code, reason = "reads and writes units of the CPU by number")]

use super::{
    code::Meta,
    env::{Env, Fault},
    memory::{self, Memory},
};
use crate::{
    eval,
    op::Op,
    state::CpuHeader,
    types::{FpModel, Rounding, Type},
};

/// Runs entry `index` of the block's table.
///
/// # Safety
/// `cpu` is valid and nobody else uses it; the block was compiled for its type.
#[inline(never)]
pub(super) unsafe fn run_cold<E: Env>(
    env: &mut E,
    cpu: *mut E::Cpu,
    meta: &Meta,
    index: usize,
) -> Result<(), Fault> {
    let cold = &meta.cold[index];
    let units = cpu.cast::<u64>();
    let mut operands = [0; 5];
    for (i, operand) in operands.iter_mut().enumerate().take(usize::from(cold.operand_count)) {
        // SAFETY: compilation names only units inside the CPU, two for a vector; they are exclusively ours.
        *operand = unsafe { read(units, cold.operands[i], cold.vectors >> i & 1 != 0) };
    }
    let operands = &operands[..usize::from(cold.operand_count)];
    let results = if cold.op.mem_flags().is_some() {
        // SAFETY: the caller vouches for it.
        access(Memory { env, cpu: unsafe { &mut *cpu } }, &cold.op, operands)?
    } else {
        // SAFETY: the header is the CPU's first field, and no other reference to it exists here.
        compute(&cold.op, operands, meta.fp, unsafe { &mut *cpu.cast::<CpuHeader>() })
    };
    for (i, result) in results.into_iter().enumerate().take(usize::from(cold.result_count)) {
        // SAFETY: as above.
        unsafe { write(units, cold.d[i], cold.vector_result, result) };
    }
    Ok(())
}

unsafe fn read(units: *const u64, unit: u8, vector: bool) -> u128 {
    // SAFETY: the caller's.
    unsafe {
        let at = units.add(usize::from(unit));
        u128::from(*at) | if vector { u128::from(*at.add(1)) << 64 } else { 0 }
    }
}

unsafe fn write(units: *mut u64, unit: u8, vector: bool, value: u128) {
    // SAFETY: the caller's.
    unsafe {
        let at = units.add(usize::from(unit));
        *at = value as u64;
        if vector {
            *at.add(1) = (value >> 64) as u64;
        }
    }
}

const NOTHING: [u128; 3] = [0; 3];

fn one(value: u64) -> [u128; 3] {
    [value.into(), 0, 0]
}

/// Memory accesses.
fn access<E: Env>(mut memory: Memory<'_, E>, op: &Op, operands: &[u128]) -> Result<[u128; 3], Fault> {
    let int = |i: usize| operands[i] as u64;
    let va = int(0);
    Ok(match *op {
        Op::Load { mem: Type::V128, flags, .. } => [memory.load128(va, flags)?, 0, 0],
        Op::Load { ty, mem, signed, flags, .. } => {
            let value = memory.load(mem, va, flags)?;
            let value = if signed { eval::sign_extend(value, mem.bits()) as u64 } else { value };
            one(value & ty.mask())
        }
        Op::Store { mem: Type::V128, flags, .. } => {
            memory.store128(va, operands[1], flags)?;
            NOTHING
        }
        Op::Store { mem, flags, .. } => {
            memory.store(mem, va, int(1), flags)?;
            NOTHING
        }
        Op::Rmw { op, ty, flags, .. } => one(memory.rmw(op, ty, va, int(1), flags)?),
        Op::Cas { ty, flags, .. } => one(memory.cas(ty, va, [int(1), int(2)], flags)?),
        Op::CasPair { flags, .. } => {
            let [low, high] = memory.cas_pair(va, [int(1), int(2)], [int(3), int(4)], flags)?;
            [low.into(), high.into(), 0]
        }
        Op::LoadReserve { ty, flags, .. } => one(memory.load_reserve(ty, va, flags)?),
        Op::StoreCond { ty, flags, .. } => one(memory.store_cond(ty, va, int(1), flags)?.into()),
        // Nothing else has memory flags.
        _ => NOTHING,
    })
}

/// Everything that touches units only, and the header's floating-point flags.
fn compute(op: &Op, operands: &[u128], model: FpModel, header: &mut CpuHeader) -> [u128; 3] {
    let int = |i: usize| operands[i] as u64;
    let mut float = |rounding, f: &mut dyn FnMut(&mut crate::softfloat::Env) -> u64| {
        let mut env = eval::fp_env(model, rounding, header.rounding, header.fp_flags);
        let value = f(&mut env);
        header.fp_flags = env.flags.bits();
        one(value)
    };
    match *op {
        Op::Fence { order } => {
            memory::barrier(order);
            NOTHING
        }
        // To a vector; its operand comes extended to 64 bits.
        Op::Sext { .. } => [int(0) as i64 as i128 as u128, 0, 0],
        Op::FpBinary { op, fmt, rounding, .. } => {
            float(rounding, &mut |env| eval::fp_binary(op, fmt, int(0), int(1), env))
        }
        Op::FpFma { op, fmt, rounding, .. } => {
            float(rounding, &mut |env| eval::fp_fma(op, fmt, [int(0), int(1), int(2)], env))
        }
        Op::FpCompare { cond, fmt, signalling, .. } => float(Rounding::NearestEven, &mut |env| {
            eval::fp_compare(cond, fmt, signalling, int(0), int(1), env).into()
        }),
        _ => {
            let mut flags = header.fp_flags;
            let results = eval::compute(op, operands, model, header.rounding, &mut flags);
            header.fp_flags = flags;
            results.unwrap_or(NOTHING)
        }
    }
}
