//! What every lifting function works with, and the way from an encoding to its function.

use crate::{Aarch64, trap};
use isomer_ir::{Builder, Terminal, guest::Lifted};

/// Lifts one instruction; see [`isomer_ir::Guest::lift_insn`].
pub(crate) fn lift_insn(_guest: &Aarch64, _mode: u32, _code: &[u8], offset: u32, b: &mut Builder) -> Lifted {
    b.insn_start(offset, 4);
    b.end(Terminal::Trap { code: trap::UNDEFINED, value: None });
    Lifted::End
}
