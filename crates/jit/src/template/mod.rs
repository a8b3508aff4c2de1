//! The template compiler: one optimised block to host code in a few hundred nanoseconds an instruction, for code that is
//! warm but not hot. It walks the block once, keeps values in registers while the block lasts ([`alloc`]), writes guest
//! registers through, and leaves whatever has no short instruction sequence to [`crate::abi::Context::compute`].
//!
//! What it emits keeps the contract of [`crate::abi`]. A host is one folder beside this file.

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no host uses it yet"))]
mod alloc;
#[cfg(target_arch = "x86_64")]
mod x64;

use crate::{CompileError, Compiled, host::HostFeatures, region::RegionBlock};

/// Compiles one block. `hot` is the counter in [`crate::abi::Context::hot`] that its entry counts down: code entered
/// with the counter at 0 returns [`crate::abi::ExitReason::Hot`] and leaves it at 0.
///
/// # Errors
/// [`CompileError::Nothing`] on hosts without templates; [`CompileError::Codegen`] if more values live at once than fit
/// into registers and spill slots, or for 16-byte compare-and-swap on a host without the instruction.
pub fn compile(
    block: &RegionBlock,
    features: HostFeatures,
    hot: Option<u16>,
) -> Result<Compiled, CompileError> {
    #[cfg(target_arch = "x86_64")]
    {
        x64::compile(block, features, hot)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (block, features, hot);
        Err(CompileError::Nothing("no template compiler for this host"))
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
