//! What the template compiler costs, on real code:
//! `cargo bench -p isomer-jit --bench template -- IMAGE [OFFSET [BYTES [BLOCK]]]` lifts straight through the text of a
//! riscv64 kernel image (a `vmlinuz` of Debian, uncompressed), compiles every block over and over, and prints the time and
//! the bytes a guest instruction takes; or shows one block and its code, for a disassembler.

use isomer_core::PAGE_SIZE;
use isomer_ir::{Guest, guest::lift_block, passes};
use isomer_jit::{
    HostFeatures,
    region::{RegionBlock, RegionLimits},
    template,
};
use isomer_riscv64::Riscv64;
use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

/// S-mode, data accesses too, no floating point: as a kernel runs.
const MODE: u32 = 1 | 1 << 8;
const ROUNDS: u32 = 20;
const BATCH: usize = 200;

/// Blocks one behind the other, each ending where the next begins, none across a page's end.
fn blocks(guest: &Riscv64, text: &[u8]) -> Vec<RegionBlock> {
    let mut found = Vec::new();
    for page in text.chunks_exact(PAGE_SIZE as usize) {
        let mut at = 0;
        while at < page.len() {
            let lifted = lift_block(guest, MODE, &page[at..], RegionLimits::BLOCK.block_insns);
            let Some(mut block) = lifted else { break };
            passes::optimize_for::<Riscv64>(&mut block);
            let offset = at as u16;
            at += block.len as usize;
            found.push(RegionBlock { offset, block });
        }
    }
    found
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let Some(path) = args.next() else {
        println!("needs the image of a riscv64 kernel: nothing measured");
        return ExitCode::SUCCESS;
    };
    let image = match std::fs::read(&path) {
        Ok(image) => image,
        Err(error) => {
            eprintln!("{path}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut number = |default: usize| args.next().and_then(|arg| arg.parse().ok()).unwrap_or(default);
    let start = number(0x2000).min(image.len());
    let len = number(1 << 20).min(image.len() - start);
    let guest = Riscv64::max();

    let shown = number(usize::MAX);
    let before = Instant::now();
    let blocks = blocks(&guest, &image[start..start + len]);
    let lifting = before.elapsed();
    let insns: u64 = blocks.iter().map(|block| u64::from(block.block.insn_count)).sum();
    let operations: usize = blocks.iter().map(|block| block.block.insts.len()).sum();
    println!("{}: {} blocks, {insns} instructions, {operations} operations", Riscv64::NAME, blocks.len());
    println!("lift and passes      {:8.1} ns an instruction", lifting.as_nanos() as f64 / insns as f64);

    let features = HostFeatures::detect();
    if let Some(block) = blocks.get(shown) {
        print!("{}", isomer_ir::text::print_for::<Riscv64>(&block.block));
        match template::compile(block, features, Some(0)) {
            Ok(compiled) => compiled.code.iter().for_each(|byte| print!("{byte:02x}")),
            Err(error) => print!("{error}"),
        }
        println!();
        return ExitCode::SUCCESS;
    }
    let mut refused = BTreeMap::<String, u32>::new();
    let mut bytes = 0;
    for block in &blocks {
        match template::compile(block, features, Some(0)) {
            Ok(compiled) => bytes += compiled.code.len() as u64,
            Err(error) => *refused.entry(error.to_string()).or_default() += 1,
        }
    }
    // A batch at a time, as warm in the caches as blocks are that were just lifted; the fastest round is the one that
    // nobody disturbed.
    let batches = blocks.chunks(BATCH).map(|batch| {
        let rounds = (0..ROUNDS).map(|_| {
            let before = Instant::now();
            for block in batch {
                let _ = std::hint::black_box(template::compile(block, features, Some(0)));
            }
            before.elapsed()
        });
        rounds.min().unwrap_or_default()
    });
    let each = batches.sum::<Duration>().as_nanos() as f64;
    println!("templates            {:8.1} ns an instruction", each / insns as f64);
    println!("                     {:8.1} ns a block", each / blocks.len() as f64);
    println!("code                 {:8.1} bytes an instruction", bytes as f64 / insns as f64);
    for (error, count) in refused {
        println!("refused {count} blocks: {error}");
    }
    ExitCode::SUCCESS
}
