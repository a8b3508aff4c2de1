//! Any words, in any mode a PE can be in, lift to a block that verifies, and disassemble four bytes each.
#![no_main]

use isomer_aarch64::Aarch64;
use isomer_fuzz::{arm, input::Input, pipeline};
use isomer_ir::{Guest, guest::lift_block, text, verify::verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let guest = arm::model(&mut input);
    let mode = arm::state(&guest, &mut input).header.mode;
    let count = 1 + input.below(64) as u32;
    let code = input.rest();
    let Some(block) = lift_block(&guest, mode, code, count) else {
        assert!(code.len() < 4, "nothing was lifted from {} bytes", code.len());
        return;
    };
    if let Err(error) = verify(&block) {
        panic!("{error}\n{}", text::print_for::<Aarch64>(&block));
    }
    for (n, insn) in code.chunks_exact(4).take(block.insn_count as usize).enumerate() {
        let (text, bytes) = guest.disassemble(insn, 0x8000_0000 + 4 * n as u64);
        assert!(!text.is_empty() && bytes == 4, "{bytes} bytes are {text:?}");
    }
    assert_eq!(block.len, 4 * block.insn_count, "an instruction is not four bytes long");
    assert!(pipeline::take_through::<Aarch64>(&block, true));
});
