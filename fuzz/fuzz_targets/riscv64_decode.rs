//! Any bytes, in any mode a hart can be in, lift to a block that verifies, and disassemble to as many bytes.
#![no_main]

use isomer_fuzz::{input::Input, pipeline};
use isomer_ir::{Guest, guest::lift_block, text, verify::verify};
use isomer_riscv64::{Cpu, Privilege, Riscv64};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let guest = input.pick(&[Riscv64::max, Riscv64::rva22, Riscv64::rv64])();
    let mode = mode(&mut input);
    let count = 1 + input.below(64) as u32;
    let code = input.rest();
    let Some(block) = lift_block(&guest, mode, code, count) else {
        assert!(code.len() < 4, "nothing was lifted from {} bytes", code.len());
        return;
    };
    if let Err(error) = verify(&block) {
        panic!("{error}\n{}", text::print_for::<Riscv64>(&block));
    }
    let mut len = 0;
    for _ in 0..block.insn_count {
        let (text, bytes) = guest.disassemble(&code[len..], 0x8000_0000 + len as u64);
        assert!(!text.is_empty() && (bytes == 2 || bytes == 4), "{bytes} bytes are {text:?}");
        len += bytes;
    }
    assert_eq!(len, block.len as usize, "disassembler and lifter differ");
    assert!(pipeline::take_through::<Riscv64>(&block, true));
});

/// The mode word of a hart with some of the state that makes it.
fn mode(input: &mut Input<'_>) -> u32 {
    let mut cpu = Cpu {
        privilege: input.pick(&[Privilege::User, Privilege::Supervisor, Privilege::Machine]),
        frm: input.u8() & 7,
        mstatus: input.u32().into(),
        menvcfg: input.u8().into(),
        senvcfg: input.u8().into(),
        ..Cpu::default()
    };
    cpu.update_mode();
    cpu.header.mode
}
