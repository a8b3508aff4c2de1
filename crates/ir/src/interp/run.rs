//! The run loop: one match over operation codes, everything rare out of line.
#![allow(
    unsafe_code,
    reason = "reads compact code and units of the CPU without checks made at compile time of the code"
)]

use super::{
    code::{COUNTDOWN, Code, Entry, HEAD_WORDS, Meta},
    cold::run_cold,
    emit::ZERO_UNIT,
    env::{Env, Fault},
    float,
    memory::{LOAD, STORE},
    word::{Extra, Opc, Word},
};
use crate::{
    guest::Access,
    softfloat::{F32, F64},
    state::CpuHeader,
    types::{Align, HelperId, MemFlags, MmuIndex},
};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Why [`run`] returned. In all cases the CPU's slots and `header.insns` are up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Budget used up, attention asked for, or no next block at hand. `header.pc` is the next instruction.
    Leave,
    /// A block ended in [`crate::Terminal::Exit`] or [`crate::Terminal::ExitIndirect`]. `header.pc` is the next
    /// instruction.
    Exit,
    /// The guest's trap `code` ([`crate::Terminal::Trap`], [`crate::Op::TrapIf`]). `header.pc` is the block's entry;
    /// the trapping instruction, which is not counted as retired, starts `insn_offset` bytes behind it.
    Trap {
        /// See [`crate::Guest::trap`].
        code: u32,
        /// Trap value.
        value: u64,
        /// Bytes from `header.pc` to the trapping instruction.
        insn_offset: u32,
    },
    /// The countdown of the block at `header.pc` ran out ([`Code::set_countdown`]); nothing of it ran.
    Hot,
    /// A method of the [`Env`] gave [`Fault`]; pc and count as for `Trap`.
    Fault {
        /// Bytes from `header.pc` to the faulting instruction.
        insn_offset: u32,
    },
}

/// Address bits within the pages that links stay in.
const PAGE_SHIFT: u32 = 12;

/// Runs from `code`, which must be the block for the CPU's pc and mode, through linked and looked-up blocks until one
/// of the reasons in [`End`] comes up. Stops at the first block boundary after `budget` or more instructions.
///
/// # Safety
/// `code` and everything it links to must be live (see [`Env`]), and compiled for the slots of `E::Cpu`'s guest.
pub unsafe fn run<E: Env>(code: &Code, cpu: &mut E::Cpu, env: &mut E, budget: u64) -> End {
    let cpu: *mut E::Cpu = cpu;
    let header = cpu.cast::<CpuHeader>();
    let units = cpu.cast::<u64>();
    // SAFETY: `CpuState` promises that the CPU starts with its header and holds every slot; `Code::compile` emits
    // only units of slots and temporaries, valid opcodes, a terminal at the end, and extra words where opcodes take
    // them, so `ip` stays inside a block's words. Links lead to live blocks (this function's contract). `cpu` is
    // exclusively ours; environment methods get it reborrowed for the length of a call, and nothing is kept in a
    // reference across one.
    unsafe {
        *units.add(usize::from(ZERO_UNIT)) = 0;
        let attention: *const AtomicU32 = env.attention();
        let budget = budget.min(i64::MAX as u64) as i64;
        let mut left = budget;
        // Retired instructions are this less `left`.
        let insns_end = (*header).insns.wrapping_add(budget as u64);
        let mut base: *const u64 = code.entry().0.as_ptr();
        let mut ip: *const Word = base.add(HEAD_WORDS).cast();
        let mut pc = (*header).pc;

        macro_rules! r {
            ($unit:expr) => {
                *units.add(usize::from($unit))
            };
        }
        macro_rules! fault_unless {
            ($result:expr) => {
                match $result {
                    Ok(value) => value,
                    Err(Fault) => return faulted(header, base, ip, insns_end.wrapping_sub(left as u64)),
                }
            };
        }
        macro_rules! load {
            ($w:ident, $size:literal, $atomic:ty, $($as:ty)=>+) => {{
                let va = r!($w.a).wrapping_add($w.imm as u64);
                let value = match env.read_hit(va, $size, MmuIndex($w.b & 63)) {
                    Some(host) => host.cast::<$atomic>().as_ref().load(LOAD),
                    None => fault_unless!(load_miss(env, cpu, va, $size, $w.b)) as _,
                };
                r!($w.d) = value $(as $as)+;
            }};
        }
        macro_rules! store {
            ($w:ident, $size:literal, $atomic:ty, $as:ty) => {{
                let va = r!($w.a).wrapping_add($w.imm as u64);
                let value = r!($w.b) as $as;
                match env.write_hit(va, $size, MmuIndex($w.d & 63)) {
                    Some(host) => host.cast::<$atomic>().as_ref().store(value, STORE),
                    None => fault_unless!(store_miss(env, cpu, va, $size, value as u64, $w.d)),
                }
            }};
        }

        // One entry less of the block at `base`.
        macro_rules! count_down {
            () => {{
                let countdown = base.add(COUNTDOWN).cast_mut();
                *countdown = (*countdown).wrapping_sub(1);
                if *countdown == 0 {
                    (*header).insns = insns_end.wrapping_sub(left as u64);
                    return End::Hot;
                }
            }};
        }

        'lookup: loop {
            // Where to leave a link to the block looked up, if it may be kept; and the pc before the jump.
            let (link, from): (*mut u64, u64) = 'block: loop {
                macro_rules! enter {
                    ($w:ident, $offset:expr, $link:expr) => {{
                        let from = pc;
                        pc = pc.wrapping_add($offset as u64);
                        (*header).pc = pc;
                        left -= i64::from($w.d);
                        if left <= 0 || (*attention).load(Ordering::Relaxed) != 0 {
                            (*header).insns = insns_end.wrapping_sub(left as u64);
                            return End::Leave;
                        }
                        let link: *mut u64 = $link;
                        let next = *link;
                        if next == 0 {
                            break 'block (link, from);
                        }
                        base = std::ptr::with_exposed_provenance(next as usize);
                        ip = base.add(HEAD_WORDS).cast();
                        // Every loop has a jump backward.
                        if $offset as i64 <= 0 {
                            count_down!();
                        }
                    }};
                }
                macro_rules! branch {
                    ($w:ident, $x:ident => $c:expr) => {{
                        let $x = *ip.cast::<Extra>();
                        if $c {
                            enter!($w, i64::from($w.imm), ip.add(1).cast::<u64>().cast_mut());
                        } else {
                            enter!($w, i64::from($x.lo), ip.add(2).cast::<u64>().cast_mut());
                        }
                    }};
                }

                macro_rules! run_one {
                    (Add, $w:ident) => { r!($w.d) = r!($w.a).wrapping_add(r!($w.b)) };
                    (AddI, $w:ident) => { r!($w.d) = r!($w.a).wrapping_add($w.imm as u64) };
                    (AddIW, $w:ident) => { r!($w.d) = word(r!($w.a).wrapping_add($w.imm as u64)) };
                    (AndI, $w:ident) => { r!($w.d) = r!($w.a) & $w.imm as u64 };
                    (BrEq, $w:ident) => { branch!($w, x => r!($w.a) == r!($w.b)) };
                    (BrEqI, $w:ident) => { branch!($w, x => r!($w.a) == x.hi as u64) };
                    (BrLtU, $w:ident) => { branch!($w, x => r!($w.a) < r!($w.b)) };
                    (BrNe, $w:ident) => { branch!($w, x => r!($w.a) != r!($w.b)) };
                    (BrNeI, $w:ident) => { branch!($w, x => r!($w.a) != x.hi as u64) };
                    (ExtU, $w:ident) => { r!($w.d) = r!($w.a) << ($w.b & 63) >> ($w.imm & 63) };
                    (Jump, $w:ident) => { enter!($w, $w.imm, ip.cast::<u64>().cast_mut()) };
                    (JumpInd, $w:ident) => {{
                        let from = pc;
                        pc = r!($w.a).wrapping_add($w.imm as u64) & !u64::from($w.b);
                        left -= i64::from($w.d);
                        break 'block (std::ptr::null_mut(), from);
                    }};
                    (Ld32S, $w:ident) => { load!($w, 4, AtomicU32, i32 => u64) };
                    (Ld64, $w:ident) => { load!($w, 8, AtomicU64, u64) };
                    (Ld8U, $w:ident) => { load!($w, 1, AtomicU8, u64) };
                    (Li, $w:ident) => { r!($w.d) = $w.imm as u64 };
                    (Mov, $w:ident) => { r!($w.d) = r!($w.a) };
                    (Mul, $w:ident) => { r!($w.d) = r!($w.a).wrapping_mul(r!($w.b)) };
                    (Or, $w:ident) => { r!($w.d) = r!($w.a) | r!($w.b) };
                    (PcRel, $w:ident) => { r!($w.d) = pc.wrapping_add($w.imm as u64) };
                    (SetLtU, $w:ident) => { r!($w.d) = (r!($w.a) < r!($w.b)).into() };
                    (ShAdd, $w:ident) => { r!($w.d) = (r!($w.a) << ($w.imm & 63)).wrapping_add(r!($w.b)) };
                    (ShlI, $w:ident) => { r!($w.d) = r!($w.a) << ($w.imm & 63) };
                    (ShrUI, $w:ident) => { r!($w.d) = r!($w.a) >> ($w.imm & 63) };
                    (St64, $w:ident) => { store!($w, 8, AtomicU64, u64) };
                    (Sub, $w:ident) => { r!($w.d) = r!($w.a).wrapping_sub(r!($w.b)) };
                    (Xor, $w:ident) => { r!($w.d) = r!($w.a) ^ r!($w.b) };
                }
                macro_rules! run_two {
                    ($w:ident, $first:ident, $second:ident) => {{
                        run_one!($first, $w);
                        let second = *ip;
                        #[allow(unused_assignments, reason = "not every operation looks behind itself")]
                        {
                            ip = ip.add(1);
                        }
                        run_one!($second, second)
                    }};
                }

                let w = *ip;
                ip = ip.add(1);
                match w.op {
                    Opc::Mov => run_one!(Mov, w),
                    Opc::Mov2 => {
                        let (low, high) = (r!(w.a), r!(w.a + 1));
                        r!(w.d) = low;
                        r!(w.d + 1) = high;
                    }
                    Opc::Li => run_one!(Li, w),
                    Opc::Li64 => {
                        r!(w.d) = *ip.cast::<u64>();
                        ip = ip.add(1);
                    }
                    Opc::PcRel => run_one!(PcRel, w),
                    Opc::PcRel64 => {
                        r!(w.d) = pc.wrapping_add(*ip.cast::<u64>());
                        ip = ip.add(1);
                    }
                    Opc::Get8 => r!(w.d) = (*units.byte_add(w.imm as usize).cast::<u8>()).into(),
                    Opc::Get16 => r!(w.d) = (*units.byte_add(w.imm as usize).cast::<u16>()).into(),
                    Opc::Get32 => r!(w.d) = (*units.byte_add(w.imm as usize).cast::<u32>()).into(),
                    Opc::Get64 => r!(w.d) = *units.byte_add(w.imm as usize),
                    Opc::Set8 => *units.byte_add(w.imm as usize).cast::<u8>() = r!(w.a) as u8,
                    Opc::Set16 => *units.byte_add(w.imm as usize).cast::<u16>() = r!(w.a) as u16,
                    Opc::Set32 => *units.byte_add(w.imm as usize).cast::<u32>() = r!(w.a) as u32,
                    Opc::Set64 => *units.byte_add(w.imm as usize) = r!(w.a),

                    Opc::Add => run_one!(Add, w),
                    Opc::Sub => run_one!(Sub, w),
                    Opc::Mul => run_one!(Mul, w),
                    Opc::And => r!(w.d) = r!(w.a) & r!(w.b),
                    Opc::Or => run_one!(Or, w),
                    Opc::Xor => run_one!(Xor, w),
                    Opc::AndNot => r!(w.d) = r!(w.a) & !r!(w.b),
                    Opc::Shl => r!(w.d) = r!(w.a) << (r!(w.b) & 63),
                    Opc::ShrU => r!(w.d) = r!(w.a) >> (r!(w.b) & 63),
                    Opc::ShrS => r!(w.d) = (r!(w.a) as i64 >> (r!(w.b) & 63)) as u64,
                    Opc::Rotr => r!(w.d) = r!(w.a).rotate_right((r!(w.b) & 63) as u32),
                    Opc::Rotl => r!(w.d) = r!(w.a).rotate_left((r!(w.b) & 63) as u32),
                    Opc::MulHiU => r!(w.d) = ((u128::from(r!(w.a)) * u128::from(r!(w.b))) >> 64) as u64,
                    Opc::MulHiS => {
                        r!(w.d) = ((i128::from(r!(w.a) as i64) * i128::from(r!(w.b) as i64)) >> 64) as u64
                    }
                    Opc::MulHiSU => {
                        r!(w.d) = ((i128::from(r!(w.a) as i64) * i128::from(r!(w.b))) >> 64) as u64
                    }
                    Opc::DivU => r!(w.d) = r!(w.a).checked_div(r!(w.b)).unwrap_or(u64::MAX),
                    Opc::DivS => r!(w.d) = div_s(r!(w.a) as i64, r!(w.b) as i64) as u64,
                    Opc::RemU => r!(w.d) = r!(w.a).checked_rem(r!(w.b)).unwrap_or(r!(w.a)),
                    Opc::RemS => r!(w.d) = rem_s(r!(w.a) as i64, r!(w.b) as i64) as u64,
                    Opc::MinU => r!(w.d) = r!(w.a).min(r!(w.b)),
                    Opc::MaxU => r!(w.d) = r!(w.a).max(r!(w.b)),
                    Opc::MinS => r!(w.d) = (r!(w.a) as i64).min(r!(w.b) as i64) as u64,
                    Opc::MaxS => r!(w.d) = (r!(w.a) as i64).max(r!(w.b) as i64) as u64,
                    Opc::AddW => r!(w.d) = word(r!(w.a).wrapping_add(r!(w.b))),
                    Opc::SubW => r!(w.d) = word(r!(w.a).wrapping_sub(r!(w.b))),
                    Opc::MulW => r!(w.d) = word(r!(w.a).wrapping_mul(r!(w.b))),
                    Opc::ShlW => r!(w.d) = word(r!(w.a) << (r!(w.b) & 31)),
                    Opc::ShrUW => r!(w.d) = word((r!(w.a) as u32 >> (r!(w.b) & 31)).into()),
                    Opc::ShrSW => r!(w.d) = (r!(w.a) as i32 >> (r!(w.b) & 31)) as u64,
                    Opc::RotrW => r!(w.d) = word((r!(w.a) as u32).rotate_right((r!(w.b) & 31) as u32).into()),
                    Opc::RotlW => r!(w.d) = word((r!(w.a) as u32).rotate_left((r!(w.b) & 31) as u32).into()),
                    Opc::DivUW => {
                        r!(w.d) =
                            word((r!(w.a) as u32).checked_div(r!(w.b) as u32).unwrap_or(u32::MAX).into())
                    }
                    Opc::DivSW => {
                        r!(w.d) = word(div_s((r!(w.a) as i32).into(), (r!(w.b) as i32).into()) as u64)
                    }
                    Opc::RemUW => {
                        let a = r!(w.a) as u32;
                        r!(w.d) = word(a.checked_rem(r!(w.b) as u32).unwrap_or(a).into())
                    }
                    Opc::RemSW => {
                        r!(w.d) = word(rem_s((r!(w.a) as i32).into(), (r!(w.b) as i32).into()) as u64)
                    }

                    Opc::AddI => run_one!(AddI, w),
                    Opc::MulI => r!(w.d) = r!(w.a).wrapping_mul(w.imm as u64),
                    Opc::AndI => run_one!(AndI, w),
                    Opc::OrI => r!(w.d) = r!(w.a) | w.imm as u64,
                    Opc::XorI => r!(w.d) = r!(w.a) ^ w.imm as u64,
                    Opc::ShlI => run_one!(ShlI, w),
                    Opc::ShrUI => run_one!(ShrUI, w),
                    Opc::ShrSI => r!(w.d) = (r!(w.a) as i64 >> (w.imm & 63)) as u64,
                    Opc::RotrI => r!(w.d) = r!(w.a).rotate_right((w.imm & 63) as u32),
                    Opc::AddIW => run_one!(AddIW, w),
                    Opc::ShlIW => r!(w.d) = word(r!(w.a) << (w.imm & 31)),
                    Opc::ShrUIW => r!(w.d) = word((r!(w.a) as u32 >> (w.imm & 31)).into()),
                    Opc::ShrSIW => r!(w.d) = (r!(w.a) as i32 >> (w.imm & 31)) as u64,
                    Opc::RotrIW => r!(w.d) = word((r!(w.a) as u32).rotate_right((w.imm & 31) as u32).into()),

                    Opc::Zext8 => r!(w.d) = (r!(w.a) as u8).into(),
                    Opc::Zext16 => r!(w.d) = (r!(w.a) as u16).into(),
                    Opc::Zext32 => r!(w.d) = (r!(w.a) as u32).into(),
                    Opc::Sext8 => r!(w.d) = r!(w.a) as i8 as u64,
                    Opc::Sext16 => r!(w.d) = r!(w.a) as i16 as u64,
                    Opc::Sext32 => r!(w.d) = word(r!(w.a)),
                    Opc::ExtU => run_one!(ExtU, w),
                    Opc::ExtS => r!(w.d) = ((r!(w.a) << (w.b & 63)) as i64 >> (w.imm & 63)) as u64,
                    Opc::ShAdd => run_one!(ShAdd, w),
                    Opc::ShAddUw => {
                        r!(w.d) = (u64::from(r!(w.a) as u32) << (w.imm & 63)).wrapping_add(r!(w.b))
                    }
                    Opc::Clz => r!(w.d) = r!(w.a).leading_zeros().into(),
                    Opc::Ctz => r!(w.d) = r!(w.a).trailing_zeros().into(),
                    Opc::Popcnt => r!(w.d) = r!(w.a).count_ones().into(),
                    Opc::Bswap => r!(w.d) = r!(w.a).swap_bytes(),
                    Opc::Clz32 => r!(w.d) = (r!(w.a) as u32).leading_zeros().into(),
                    Opc::Ctz32 => r!(w.d) = (r!(w.a) as u32).trailing_zeros().into(),
                    Opc::Popcnt32 => r!(w.d) = (r!(w.a) as u32).count_ones().into(),
                    Opc::Bswap32 => r!(w.d) = (r!(w.a) as u32).swap_bytes().into(),
                    Opc::Deposit => r!(w.d) = deposit(r!(w.a), r!(w.b), w.imm as u8, (w.imm >> 8) as u8),

                    Opc::SetEq => r!(w.d) = (r!(w.a) == r!(w.b)).into(),
                    Opc::SetNe => r!(w.d) = (r!(w.a) != r!(w.b)).into(),
                    Opc::SetLtU => run_one!(SetLtU, w),
                    Opc::SetGeU => r!(w.d) = (r!(w.a) >= r!(w.b)).into(),
                    Opc::SetLtS => r!(w.d) = ((r!(w.a) as i64) < r!(w.b) as i64).into(),
                    Opc::SetGeS => r!(w.d) = (r!(w.a) as i64 >= r!(w.b) as i64).into(),
                    Opc::SetEqI => r!(w.d) = (r!(w.a) == w.imm as u64).into(),
                    Opc::SetNeI => r!(w.d) = (r!(w.a) != w.imm as u64).into(),
                    Opc::SetLtUI => r!(w.d) = (r!(w.a) < w.imm as u64).into(),
                    Opc::SetGeUI => r!(w.d) = (r!(w.a) >= w.imm as u64).into(),
                    Opc::SetLtSI => r!(w.d) = ((r!(w.a) as i64) < w.imm.into()).into(),
                    Opc::SetGeSI => r!(w.d) = (r!(w.a) as i64 >= w.imm.into()).into(),
                    Opc::SetEq32 => r!(w.d) = (r!(w.a) as u32 == r!(w.b) as u32).into(),
                    Opc::SetNe32 => r!(w.d) = (r!(w.a) as u32 != r!(w.b) as u32).into(),
                    Opc::SetLtU32 => r!(w.d) = ((r!(w.a) as u32) < r!(w.b) as u32).into(),
                    Opc::SetGeU32 => r!(w.d) = (r!(w.a) as u32 >= r!(w.b) as u32).into(),
                    Opc::SetLtS32 => r!(w.d) = ((r!(w.a) as i32) < r!(w.b) as i32).into(),
                    Opc::SetGeS32 => r!(w.d) = (r!(w.a) as i32 >= r!(w.b) as i32).into(),
                    Opc::SetEqI32 => r!(w.d) = (r!(w.a) as i32 == w.imm).into(),
                    Opc::SetNeI32 => r!(w.d) = (r!(w.a) as i32 != w.imm).into(),
                    Opc::SetLtUI32 => r!(w.d) = ((r!(w.a) as u32) < w.imm as u32).into(),
                    Opc::SetGeUI32 => r!(w.d) = (r!(w.a) as u32 >= w.imm as u32).into(),
                    Opc::SetLtSI32 => r!(w.d) = ((r!(w.a) as i32) < w.imm).into(),
                    Opc::SetGeSI32 => r!(w.d) = (r!(w.a) as i32 >= w.imm).into(),
                    Opc::SelNz => r!(w.d) = if r!(w.imm as u8) as u8 != 0 { r!(w.a) } else { r!(w.b) },
                    Opc::SelEqz => r!(w.d) = if r!(w.imm as u8) == 0 { r!(w.a) } else { r!(w.b) },

                    Opc::Ld8U => run_one!(Ld8U, w),
                    Opc::Ld8S => load!(w, 1, AtomicU8, i8 => u64),
                    Opc::Ld16U => load!(w, 2, AtomicU16, u64),
                    Opc::Ld16S => load!(w, 2, AtomicU16, i16 => u64),
                    Opc::Ld32U => load!(w, 4, AtomicU32, u64),
                    Opc::Ld32S => run_one!(Ld32S, w),
                    Opc::Ld64 => run_one!(Ld64, w),
                    Opc::St8 => store!(w, 1, AtomicU8, u8),
                    Opc::St16 => store!(w, 2, AtomicU16, u16),
                    Opc::St32 => store!(w, 4, AtomicU32, u32),
                    Opc::St64 => run_one!(St64, w),
                    Opc::Fp32 => float_op::<F32>(units, w, header, meta_of(base)),
                    Opc::Fp64 => float_op::<F64>(units, w, header, meta_of(base)),
                    Opc::Cold => fault_unless!(run_cold(env, cpu, &*meta_of(base), w.imm as usize)),
                    Opc::Call => {
                        let args = (*ip.cast::<u64>() as u32).to_le_bytes().map(|unit| r!(unit));
                        let number = u64::from(u16::from_le_bytes([w.a, w.b]));
                        (*header).insns = insns_end.wrapping_sub(left as u64).wrapping_add(number);
                        r!(w.d) = fault_unless!(call(env, cpu, w.imm, args));
                        ip = ip.add(1);
                    }
                    Opc::TrapIf => {
                        if r!(w.a) as u8 != 0 {
                            let insns = insns_end.wrapping_sub(left as u64);
                            return trapped(header, base, ip, insns, w.imm as u32, r!(w.b));
                        }
                    }

                    Opc::Jump => run_one!(Jump, w),
                    Opc::BrNz => branch!(w, x => r!(w.a) as u8 != 0),
                    Opc::BrEq => run_one!(BrEq, w),
                    Opc::BrNe => run_one!(BrNe, w),
                    Opc::BrLtU => run_one!(BrLtU, w),
                    Opc::BrGeU => branch!(w, x => r!(w.a) >= r!(w.b)),
                    Opc::BrLtS => branch!(w, x => (r!(w.a) as i64) < r!(w.b) as i64),
                    Opc::BrGeS => branch!(w, x => r!(w.a) as i64 >= r!(w.b) as i64),
                    Opc::BrEq32 => branch!(w, x => r!(w.a) as u32 == r!(w.b) as u32),
                    Opc::BrNe32 => branch!(w, x => r!(w.a) as u32 != r!(w.b) as u32),
                    Opc::BrLtU32 => branch!(w, x => (r!(w.a) as u32) < r!(w.b) as u32),
                    Opc::BrGeU32 => branch!(w, x => r!(w.a) as u32 >= r!(w.b) as u32),
                    Opc::BrLtS32 => branch!(w, x => (r!(w.a) as i32) < r!(w.b) as i32),
                    Opc::BrGeS32 => branch!(w, x => r!(w.a) as i32 >= r!(w.b) as i32),
                    Opc::BrEqI => run_one!(BrEqI, w),
                    Opc::BrNeI => run_one!(BrNeI, w),
                    Opc::BrLtUI => branch!(w, x => r!(w.a) < x.hi as u64),
                    Opc::BrGeUI => branch!(w, x => r!(w.a) >= x.hi as u64),
                    Opc::BrLtSI => branch!(w, x => (r!(w.a) as i64) < x.hi.into()),
                    Opc::BrGeSI => branch!(w, x => r!(w.a) as i64 >= x.hi.into()),
                    Opc::BrEqI32 => branch!(w, x => r!(w.a) as i32 == x.hi),
                    Opc::BrNeI32 => branch!(w, x => r!(w.a) as i32 != x.hi),
                    Opc::BrLtUI32 => branch!(w, x => (r!(w.a) as u32) < x.hi as u32),
                    Opc::BrGeUI32 => branch!(w, x => r!(w.a) as u32 >= x.hi as u32),
                    Opc::BrLtSI32 => branch!(w, x => (r!(w.a) as i32) < x.hi),
                    Opc::BrGeSI32 => branch!(w, x => r!(w.a) as i32 >= x.hi),

                    Opc::JumpGuarded => {
                        let from = pc;
                        pc = pc.wrapping_add(w.imm as u64);
                        left -= i64::from(w.d);
                        break 'block (std::ptr::null_mut(), from);
                    }
                    Opc::BrNzGuarded => {
                        let from = pc;
                        let not_taken = (*ip.cast::<Extra>()).lo;
                        let offset = if r!(w.a) as u8 != 0 { w.imm } else { not_taken };
                        pc = pc.wrapping_add(offset as u64);
                        left -= i64::from(w.d);
                        break 'block (std::ptr::null_mut(), from);
                    }
                    Opc::JumpInd => run_one!(JumpInd, w),
                    Opc::Exit | Opc::ExitInd => {
                        (*header).pc = match w.op {
                            Opc::Exit => pc.wrapping_add(w.imm as u64),
                            _ => r!(w.a),
                        };
                        left -= i64::from(w.d);
                        (*header).insns = insns_end.wrapping_sub(left as u64);
                        return End::Exit;
                    }
                    Opc::Trap => {
                        let insns = insns_end.wrapping_sub(left as u64);
                        return trapped(header, base, ip, insns, w.imm as u32, r!(w.a));
                    }

                    Opc::Ld64Ld64 => run_two!(w, Ld64, Ld64),
                    Opc::Ld64AddI => run_two!(w, Ld64, AddI),
                    Opc::Ld64Add => run_two!(w, Ld64, Add),
                    Opc::Ld64Sub => run_two!(w, Ld64, Sub),
                    Opc::Ld64Xor => run_two!(w, Ld64, Xor),
                    Opc::Ld64Mov => run_two!(w, Ld64, Mov),
                    Opc::Ld64St64 => run_two!(w, Ld64, St64),
                    Opc::Ld64BrEqI => run_two!(w, Ld64, BrEqI),
                    Opc::Ld64BrNeI => run_two!(w, Ld64, BrNeI),
                    Opc::St64St64 => run_two!(w, St64, St64),
                    Opc::St64AddI => run_two!(w, St64, AddI),
                    Opc::St64Add => run_two!(w, St64, Add),
                    Opc::St64Ld64 => run_two!(w, St64, Ld64),
                    Opc::St64Mov => run_two!(w, St64, Mov),
                    Opc::AddIAddI => run_two!(w, AddI, AddI),
                    Opc::AddILd64 => run_two!(w, AddI, Ld64),
                    Opc::AddILd8U => run_two!(w, AddI, Ld8U),
                    Opc::AddISt64 => run_two!(w, AddI, St64),
                    Opc::AddIMov => run_two!(w, AddI, Mov),
                    Opc::AddIJump => run_two!(w, AddI, Jump),
                    Opc::AddIJumpInd => run_two!(w, AddI, JumpInd),
                    Opc::AddIBrNe => run_two!(w, AddI, BrNe),
                    Opc::AddIBrEq => run_two!(w, AddI, BrEq),
                    Opc::AddIBrNeI => run_two!(w, AddI, BrNeI),
                    Opc::AddAdd => run_two!(w, Add, Add),
                    Opc::AddMov => run_two!(w, Add, Mov),
                    Opc::AddLd64 => run_two!(w, Add, Ld64),
                    Opc::AddSetLtU => run_two!(w, Add, SetLtU),
                    Opc::AddBrEq => run_two!(w, Add, BrEq),
                    Opc::AddBrNe => run_two!(w, Add, BrNe),
                    Opc::AddBrLtU => run_two!(w, Add, BrLtU),
                    Opc::AddBrNeI => run_two!(w, Add, BrNeI),
                    Opc::MovMov => run_two!(w, Mov, Mov),
                    Opc::MovLi => run_two!(w, Mov, Li),
                    Opc::MovAdd => run_two!(w, Mov, Add),
                    Opc::MovAddI => run_two!(w, Mov, AddI),
                    Opc::MovLd64 => run_two!(w, Mov, Ld64),
                    Opc::MovJump => run_two!(w, Mov, Jump),
                    Opc::MovBrEqI => run_two!(w, Mov, BrEqI),
                    Opc::MovPcRel => run_two!(w, Mov, PcRel),
                    Opc::LiLi => run_two!(w, Li, Li),
                    Opc::LiMov => run_two!(w, Li, Mov),
                    Opc::LiJump => run_two!(w, Li, Jump),
                    Opc::LiBrEq => run_two!(w, Li, BrEq),
                    Opc::LiBrNe => run_two!(w, Li, BrNe),
                    Opc::LiBrEqI => run_two!(w, Li, BrEqI),
                    Opc::PcRelJump => run_two!(w, PcRel, Jump),
                    Opc::PcRelJumpInd => run_two!(w, PcRel, JumpInd),
                    Opc::XorXor => run_two!(w, Xor, Xor),
                    Opc::ExtUAdd => run_two!(w, ExtU, Add),
                    Opc::ShAddLd64 => run_two!(w, ShAdd, Ld64),
                    Opc::SetLtUAdd => run_two!(w, SetLtU, Add),
                    Opc::MulAdd => run_two!(w, Mul, Add),
                    Opc::AddIWAddI => run_two!(w, AddIW, AddI),
                    Opc::AddIWBrNe => run_two!(w, AddIW, BrNe),
                    Opc::AndIBrEqI => run_two!(w, AndI, BrEqI),
                    Opc::AndIBrNeI => run_two!(w, AndI, BrNeI),
                    Opc::ShlIExtU => run_two!(w, ShlI, ExtU),
                    Opc::ShlIOr => run_two!(w, ShlI, Or),
                    Opc::ShlIShAdd => run_two!(w, ShlI, ShAdd),
                    Opc::ShlIAdd => run_two!(w, ShlI, Add),
                    Opc::ShrUIMul => run_two!(w, ShrUI, Mul),
                    Opc::ShrUIShlI => run_two!(w, ShrUI, ShlI),
                    Opc::ShrUIAndI => run_two!(w, ShrUI, AndI),
                    Opc::Ld8UMov => run_two!(w, Ld8U, Mov),
                    Opc::Ld8UAddI => run_two!(w, Ld8U, AddI),
                    Opc::Ld8UAndI => run_two!(w, Ld8U, AndI),
                    Opc::Ld8UBrEqI => run_two!(w, Ld8U, BrEqI),
                    Opc::Ld8UBrNeI => run_two!(w, Ld8U, BrNeI),
                    Opc::Ld32SBrEqI => run_two!(w, Ld32S, BrEqI),
                    Opc::Ld32SBrNeI => run_two!(w, Ld32S, BrNeI),
                    Opc::Ld32SAddIW => run_two!(w, Ld32S, AddIW),
                }
            };

            (*header).pc = pc;
            if left <= 0 || (*attention).load(Ordering::Relaxed) != 0 {
                break 'lookup;
            }
            let Entry(next) = match env.lookup_hit(pc, (*header).mode) {
                Some(entry) => entry,
                None => match lookup(env, cpu) {
                    Some(entry) => entry,
                    None => break 'lookup,
                },
            };
            // Page tables may have changed under the running block: the same virtual page need not be the same home.
            if !link.is_null()
                && (pc ^ from) >> PAGE_SHIFT == 0
                && (*meta_of(base)).home == (*meta_of(next.as_ptr())).home
            {
                *link = next.as_ptr().expose_provenance() as u64;
            }
            base = next.as_ptr();
            ip = base.add(HEAD_WORDS).cast();
            count_down!();
        }
        (*header).insns = insns_end.wrapping_sub(left as u64);
        End::Leave
    }
}

/// The low half, sign-extended.
#[inline(always)]
fn word(value: u64) -> u64 {
    value as i32 as u64
}

/// Signed quotient: -1 by zero, and the minimum divided by -1 is itself.
#[inline(always)]
fn div_s(a: i64, b: i64) -> i64 {
    if b == 0 { -1 } else { a.wrapping_div(b) }
}

/// Signed remainder: the dividend by zero.
#[inline(always)]
fn rem_s(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { a.wrapping_rem(b) }
}

/// `a` with bits `lo .. lo + len` replaced by the low bits of `b`.
#[inline(always)]
fn deposit(a: u64, b: u64, lo: u8, len: u8) -> u64 {
    let mask = (u64::MAX >> ((64 - u32::from(len)) & 63)) << (lo & 63);
    a & !mask | b << (lo & 63) & mask
}

/// The meta of the block at `base`.
#[inline(always)]
unsafe fn meta_of(base: *const u64) -> *const Meta {
    // SAFETY: the first word of a block is its meta's exposed address.
    std::ptr::with_exposed_provenance(unsafe { *base } as usize)
}

/// Runs a floating-point operation.
#[inline(never)]
unsafe fn float_op<F: float::Number>(units: *mut u64, w: Word, header: *mut CpuHeader, meta: *const Meta) {
    // SAFETY: as in `run`, whose state this is. A missing operand's unit is 0, which may be read.
    unsafe {
        let operands = [w.a, w.b, w.imm as u8].map(|unit| *units.add(usize::from(unit)));
        let value = float::compute::<F>(w.imm, operands, (*meta).fp, &mut *header);
        *units.add(usize::from(w.d)) = value;
    }
}

fn flags_of(plain: u8) -> MemFlags {
    let align = if plain & 1 << 6 != 0 { Align::Natural } else { Align::Any };
    MemFlags::plain(MmuIndex(plain & 63)).align(align)
}

#[cold]
#[inline(never)]
unsafe fn load_miss<E: Env>(
    env: &mut E,
    cpu: *mut E::Cpu,
    va: u64,
    size: u32,
    plain: u8,
) -> Result<u64, Fault> {
    // SAFETY: nobody else uses the CPU during the call.
    let cpu = unsafe { &mut *cpu };
    let flags = flags_of(plain);
    if flags.align == Align::Natural && va & u64::from(size - 1) != 0 {
        return Err(env.misaligned(cpu, va, Access::Load));
    }
    env.load(cpu, va, size, flags)
}

#[cold]
#[inline(never)]
unsafe fn store_miss<E: Env>(
    env: &mut E,
    cpu: *mut E::Cpu,
    va: u64,
    size: u32,
    value: u64,
    plain: u8,
) -> Result<(), Fault> {
    // SAFETY: nobody else uses the CPU during the call.
    let cpu = unsafe { &mut *cpu };
    let flags = flags_of(plain);
    if flags.align == Align::Natural && va & u64::from(size - 1) != 0 {
        return Err(env.misaligned(cpu, va, Access::Store));
    }
    env.store(cpu, va, size, value, flags)
}

#[inline(never)]
unsafe fn call<E: Env>(env: &mut E, cpu: *mut E::Cpu, helper: i32, args: [u64; 4]) -> Result<u64, Fault> {
    // SAFETY: nobody else uses the CPU during the call.
    env.call(unsafe { &mut *cpu }, HelperId(helper as u16), args)
}

#[cold]
#[inline(never)]
unsafe fn lookup<E: Env>(env: &mut E, cpu: *mut E::Cpu) -> Option<Entry> {
    // SAFETY: nobody else uses the CPU during the call.
    env.lookup(unsafe { &mut *cpu })
}

/// Accounts for a fault of the operation before `ip`.
#[cold]
#[inline(never)]
unsafe fn faulted(header: *mut CpuHeader, base: *const u64, ip: *const Word, insns: u64) -> End {
    // SAFETY: as in `run`, whose state this is.
    unsafe {
        let (number, insn_offset) = insn_before(base, ip);
        (*header).insns = insns.wrapping_add(number);
        End::Fault { insn_offset }
    }
}

/// Accounts for a trap by the operation before `ip`.
#[cold]
#[inline(never)]
unsafe fn trapped(
    header: *mut CpuHeader,
    base: *const u64,
    ip: *const Word,
    insns: u64,
    code: u32,
    value: u64,
) -> End {
    // SAFETY: as in `run`, whose state this is.
    unsafe {
        let (number, insn_offset) = insn_before(base, ip);
        (*header).insns = insns.wrapping_add(number);
        End::Trap { code, value, insn_offset }
    }
}

/// Number and offset of the instruction that the word before `ip` belongs to.
unsafe fn insn_before(base: *const u64, ip: *const Word) -> (u64, u32) {
    // SAFETY: `ip` points behind a word of the block at `base`.
    unsafe {
        let index = ip.cast::<u64>().offset_from(base) as u32 - 1;
        let (number, offset) = (*meta_of(base)).insn_at(index);
        (number.into(), offset)
    }
}
