//! Any text is parsed or refused; what parses and verifies prints, parses back, optimizes and compiles.
#![no_main]

use isomer_fuzz::{blocks::SLOTS, pipeline, seeds};
use isomer_ir::text;
use isomer_riscv64::Riscv64;
use libfuzzer_sys::fuzz_target;

const ARITHMETIC: &str = "\
block mode=0x3 len=6 insns=2 fp=canonical,after {
  insn +0 4
  v0 = get x10
  v1 = const.i64 0x10
  v2 = add.i64 v0, v1
  store.i32 [v2], v0, mmu=1 relaxed
  insn +4 2
  v3 = compare.eq.i64 v0, v2
  branch v3, +16, +6
}
";

fuzz_target!(
    init: seeds::plant([("arithmetic", ARITHMETIC.into())]),
    |data: &[u8]| {
        let input = String::from_utf8_lossy(data);
        if let Ok(block) = text::parse_for::<Riscv64>(&input) {
            // Printing is for diagnostics too: it copes with blocks that do not verify.
            let _ = text::print_for::<Riscv64>(&block);
            pipeline::take_through::<Riscv64>(&block, true);
        }
        if let Ok(block) = text::parse(&input, SLOTS) {
            let _ = text::print(&block);
            pipeline::take_through::<Riscv64>(&block, false);
        }
    }
);
