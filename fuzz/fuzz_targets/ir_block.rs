//! Blocks of every operation, some of them damaged, verify or not, and then optimize and compile.
#![no_main]

use isomer_fuzz::{blocks, input::Input, pipeline};
use isomer_riscv64::Riscv64;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let block = blocks::block(&mut Input::new(data));
    let _ = isomer_ir::text::print(&block);
    pipeline::take_through::<Riscv64>(&block, false);
});
