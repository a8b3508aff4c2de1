//! The interpreter: blocks in a compact pre-decoded form, and the loop that runs them.

mod code;
mod env;

pub use code::{Code, CompileError, Entry};
pub use env::{Env, Fault, HostPlace};

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
    /// A method of the [`Env`] gave [`Fault`]; pc and count as for `Trap`.
    Fault {
        /// Bytes from `header.pc` to the faulting instruction.
        insn_offset: u32,
    },
}

/// Runs from `code`, which must be the block for the CPU's pc and mode, through linked and looked-up blocks until one of the reasons in
/// [`End`] comes up. Stops at the first block boundary after `budget` or more instructions.
///
/// # Safety
/// `code` and everything it links to must be live (see [`Env`]) and compiled for the slots of `E::Cpu`'s guest.
#[allow(unsafe_code)]
pub unsafe fn run<E: Env>(code: &Code, cpu: &mut E::Cpu, env: &mut E, budget: u64) -> End {
    let _ = (code, cpu, env, budget);
    End::Leave
}
