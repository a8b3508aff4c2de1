//! One vCPU's side of compiled code: the context it reads, how it is entered, and what it calls.
#![allow(unsafe_code)]

use crate::{env::VcpuEnv, fpenv, jit::Jit};
use isomer_ir::{
    Access as Purpose, CpuState, Guest, eval,
    interp::Env,
    state::CpuHeader,
    types::{Align, HelperId, MemFlags},
};
use isomer_jit::{
    abi::{Access, AccessKind, Context, ExitReason, HOT_COUNTERS, TLB_TABLES},
    cold,
    stubs::RareFunction,
};
use std::{ptr::NonNull, sync::Arc};

/// What one vCPU has for compiled code.
pub(crate) struct Native<G: Guest> {
    pub(crate) jit: Arc<Jit<G>>,
    /// Shared with running code, so never behind a reference meanwhile.
    context: NonNull<Context>,
    /// [`Jit::epoch`] when code was last given up.
    pub(crate) epoch: u64,
    churn: Box<[Churn; CHURN_SLOTS]>,
    /// A granule that has got code of the cache, of which no jump cache knows yet.
    pub(crate) fresh: Option<u64>,
    /// Code memory in use when an idle guest's was given up last.
    pub(crate) idle_bytes: usize,
}

/// How often a granule's code was overwritten of late.
#[derive(Clone, Copy, Default)]
struct Churn {
    page: u64,
    generation: u32,
    count: u32,
    /// Instructions retired when it was last overwritten.
    at_insns: u64,
}

/// Granules watched for being overwritten; others that fall on the same slot start anew.
const CHURN_SLOTS: usize = 256;
/// Overwritten so often, each time within [`CHURN_INSNS`], a granule's code is left to the interpreter.
const CHURN_LIMIT: u32 = 8;
/// See [`CHURN_LIMIT`].
const CHURN_INSNS: u64 = 2_000_000;

// SAFETY: the context is owned, and moves with the vCPU whose env it points to.
unsafe impl<G: Guest> Send for Native<G> {}

impl<G: Guest> Native<G> {
    pub(crate) fn new(jit: Arc<Jit<G>>) -> Self {
        let [access, call, compute] = jit.stubs().rare();
        let context = Box::new(Context {
            tlb: [std::ptr::null(); TLB_TABLES],
            jumps: std::ptr::null(),
            jump_mask: 0,
            attention: std::ptr::null(),
            left: 0,
            insns_end: 0,
            access,
            call,
            compute,
            status: 0,
            trap_code: 0,
            trap_value: 0,
            values: [[0; 2]; 4],
            entry_pc: 0,
            by_words: jit.stubs().by_words(),
            elsewhere: jit.stubs().elsewhere(),
            words: [0; 2],
            env: std::ptr::null_mut(),
            hot: [jit.policy().hot_after; HOT_COUNTERS],
        });
        let epoch = jit.epoch();
        let churn = Box::new([Churn::default(); CHURN_SLOTS]);
        Self { jit, context: NonNull::from(Box::leak(context)), epoch, churn, fresh: None, idle_bytes: 0 }
    }

    /// Lets code with this counter run on for a while before it asks again.
    pub(crate) fn cool(&mut self, counter: u16) {
        let entries = self.jit.policy().hot_after / 4;
        // SAFETY: the context is ours between runs of compiled code.
        unsafe { (*self.context.as_ptr()).hot[usize::from(counter) % HOT_COUNTERS] = entries.max(1) }
    }

    /// Is the code of granule `page`, now in `generation`, overwritten so often that compiling it is a waste?
    pub(crate) fn is_volatile(&mut self, page: u64, generation: u32, insns: u64) -> bool {
        let slot = &mut self.churn[page as usize % CHURN_SLOTS];
        if slot.page != page {
            *slot = Churn { page, generation, count: 0, at_insns: insns };
        } else if slot.generation != generation {
            let recent = insns.wrapping_sub(slot.at_insns) < CHURN_INSNS;
            let count = if recent { slot.count.saturating_add(1) } else { 0 };
            *slot = Churn { page, generation, count, at_insns: insns };
        }
        slot.count >= CHURN_LIMIT
    }
}

impl<G: Guest> Drop for Native<G> {
    fn drop(&mut self) {
        // SAFETY: leaked by `new`, freed once; no code runs while its vCPU is dropped.
        drop(unsafe { Box::from_raw(self.context.as_ptr()) });
    }
}

/// How compiled code was left.
pub(crate) enum NativeEnd {
    /// Nothing left, or attention.
    Leave,
    /// No compiled code at hand for pc.
    Lookup,
    /// As [`isomer_ir::interp::End::Exit`].
    Exit,
    /// The guest's trap at pc.
    Trap { code: u32, value: u64 },
    /// A fault the environment has recorded, at pc.
    Fault,
    /// The code at pc wants to be compiled better.
    Hot,
}

/// Runs compiled code at `entry`, which must be that for the CPU's pc and mode.
///
/// # Safety
/// The code, and all the jump cache leads to, must stay until this returns.
pub(crate) unsafe fn run<G: Guest>(
    entry: *const u8,
    cpu: &mut G::Cpu,
    env: &mut VcpuEnv<G>,
    budget: u64,
) -> NativeEnd {
    let Some(native) = &env.native else { return NativeEnd::Leave };
    let (enter, context) = (native.jit.stubs().enter(), native.context.as_ptr());
    let budget = budget.min(i64::MAX as u64) as i64;
    let (tlb, (jumps, jump_mask)) = (*env.tlb.tables(), env.tlb.jumps());
    let attention = std::ptr::from_ref(env.attention());
    let header = cpu.header_mut();
    let (pc, end) = (header.pc, header.insns.wrapping_add(budget as u64));
    fpenv::enter(header);
    // SAFETY: the context is ours and nobody else looks at it. Compiled code gets the CPU and, through the context, the
    // environment, both exclusively until it returns; it keeps to the CPU's slots and header, and to host memory
    // that the TLB names.
    let reason = unsafe {
        (*context).tlb = tlb;
        (*context).jumps = jumps;
        (*context).jump_mask = jump_mask;
        (*context).attention = attention;
        (*context).insns_end = end;
        (*context).env = std::ptr::from_mut(env).cast();
        let cpu: *mut G::Cpu = cpu;
        let reason = enter(entry, cpu.cast(), context, budget, pc);
        let header = &mut *cpu.cast::<CpuHeader>();
        header.insns = end.wrapping_sub((*context).left as u64);
        fpenv::leave(header);
        reason
    };
    match ExitReason::from_raw(reason) {
        ExitReason::Leave => NativeEnd::Leave,
        ExitReason::Lookup => NativeEnd::Lookup,
        ExitReason::Exit => NativeEnd::Exit,
        // SAFETY: the context is ours again.
        ExitReason::Trap => unsafe {
            NativeEnd::Trap { code: (*context).trap_code as u32, value: (*context).trap_value }
        },
        ExitReason::Fault => NativeEnd::Fault,
        ExitReason::Hot => NativeEnd::Hot,
    }
}

/// What the context's functions do, for stubs that keep registers around them.
#[allow(non_snake_case, reason = "a table of constants, but for its type parameter")]
pub(crate) fn RARE<G: Guest>() -> [RareFunction; 3] {
    [access::<G>, call::<G>, compute::<G>]
}

/// # Safety
/// As compiled code calls it, from within [`run`].
unsafe extern "C" fn access<G: Guest>(cpu: *mut u8, context: *mut Context, va: u64, packed: u64) {
    // SAFETY: `run` lent both for as long as the code runs, which waits for this call.
    let (cpu, env, context) =
        unsafe { (&mut *cpu.cast::<G::Cpu>(), &mut *(*context).env.cast::<VcpuEnv<G>>(), &mut *context) };
    let access = Access::unpack(packed);
    let flags = MemFlags::plain(access.mmu).align(access.align);
    let purpose = match access.kind {
        AccessKind::Load | AccessKind::ResolveLoad => Purpose::Load,
        AccessKind::Store | AccessKind::ResolveStore => Purpose::Store,
    };
    let result = if access.align == Align::Natural && va & u64::from(access.size - 1) != 0 {
        Err(Env::misaligned(env, cpu, va, purpose))
    } else {
        perform(env, cpu, (va, access), purpose, flags, &mut context.values[0])
    };
    context.status = u64::from(result.is_err());
}

fn perform<G: Guest>(
    env: &mut VcpuEnv<G>,
    cpu: &mut G::Cpu,
    (va, access): (u64, Access),
    purpose: Purpose,
    flags: MemFlags,
    value: &mut [u64; 2],
) -> Result<(), isomer_ir::interp::Fault> {
    let size = access.size;
    match access.kind {
        AccessKind::Load if size == 16 => {
            let low = Env::load(env, cpu, va, 8, flags)?;
            *value = [low, Env::load(env, cpu, va.wrapping_add(8), 8, flags)?];
        }
        AccessKind::Load => *value = [Env::load(env, cpu, va, size, flags)?, 0],
        AccessKind::Store if size == 16 => {
            env.probe_store(cpu, va, 16, flags)?;
            Env::store(env, cpu, va, 8, value[0], flags)?;
            Env::store(env, cpu, va.wrapping_add(8), 8, value[1], flags)?;
        }
        AccessKind::Store => Env::store(env, cpu, va, size, value[0], flags)?,
        AccessKind::ResolveLoad | AccessKind::ResolveStore => {
            let place = env.resolve(cpu, va, size, purpose, flags)?;
            *value = [place.name(), 0];
        }
    }
    Ok(())
}

/// # Safety
/// As [`access`].
unsafe extern "C" fn call<G: Guest>(cpu: *mut u8, context: *mut Context, helper: u64, _: u64) {
    // SAFETY: as in `access`.
    let (cpu, env, context) =
        unsafe { (&mut *cpu.cast::<G::Cpu>(), &mut *(*context).env.cast::<VcpuEnv<G>>(), &mut *context) };
    fpenv::leave(cpu.header_mut());
    let [a, b, c, d] = &context.values;
    let args = [a[0], b[0], c[0], d[0]];
    let result = Env::call(env, cpu, HelperId(helper as u16), args);
    context.status = u64::from(result.is_err());
    context.values[0] = [result.unwrap_or(0), 0];
    fpenv::enter(cpu.header());
}

/// # Safety
/// As [`access`].
unsafe extern "C" fn compute<G: Guest>(cpu: *mut u8, context: *mut Context, packed: u64, rules: u64) {
    // SAFETY: as in `access`.
    let (cpu, context) = unsafe { (&mut *cpu.cast::<G::Cpu>(), &mut *context) };
    let header = cpu.header_mut();
    fpenv::leave(header);
    let wide = |[low, high]: [u64; 2]| u128::from(low) | u128::from(high) << 64;
    let operands = context.values.map(wide);
    let mut flags = header.fp_flags;
    let results = cold::unpack(packed)
        .and_then(|op| eval::compute(&op, &operands, cold::unpack_rules(rules), header.rounding, &mut flags));
    header.fp_flags = flags;
    for (value, result) in context.values.iter_mut().zip(results.unwrap_or_default()) {
        *value = [result as u64, (result >> 64) as u64];
    }
    fpenv::enter(header);
}
