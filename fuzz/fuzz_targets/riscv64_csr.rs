//! Streams of CSR accesses and privileged instructions leave the hart in a consistent state.
#![no_main]

use isomer_engine::{EngineKind, Exit};
use isomer_fuzz::{
    hart::{Hart, Parts, Start},
    input::Input,
};
use libfuzzer_sys::fuzz_target;

/// `mret sret wfi ecall ebreak sfence.vma fence.i fence hfence-space sinval.vma sfence.w.inval sfence.inval.ir wrs.nto`.
#[rustfmt::skip]
const PRIVILEGED: [u32; 12] = [
    0x3020_0073, 0x1020_0073, 0x1050_0073, 0x0000_0073, 0x0010_0073, 0x1200_0073, 0x0000_100f, 0x0ff0_000f,
    0x1600_0073, 0x1800_0073, 0x1810_0073, 0x00d0_0073,
];

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let start = Start::new(&mut input, code);
    let mut hart = Hart::new(&start, EngineKind::Interpreter, |_, _, _| Parts::default());
    for _ in 0..4 {
        if hart.run(500) != Exit::Limit {
            break;
        }
        hart.advance_ns(1000);
    }
});

/// Four bytes an instruction: mostly any SYSTEM instruction, now and then one of the privileged.
fn code(input: &mut Input<'_>) -> Vec<u8> {
    let mut code = Vec::new();
    while !input.is_empty() {
        let word = input.u32();
        let insn = match word & 7 {
            0 => PRIVILEGED[(word >> 3) as usize % PRIVILEGED.len()],
            // `li rd, imm`, so that values change.
            1 => word & !0xf_f07f | 0x13,
            _ => word & !0x7f | 0x73,
        };
        code.extend(insn.to_le_bytes());
    }
    code
}
