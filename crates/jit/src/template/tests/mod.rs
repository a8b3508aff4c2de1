//! Compiled blocks against the reference engine: every operation with operands from everywhere, long random blocks, and
//! what only compiled code does.
#![allow(unsafe_code, reason = "runs compiled code")]

mod control;
mod machine;
mod random;

use super::compile;
use crate::{host::HostFeatures, region::RegionBlock};
use isomer_ir::{Block, verify::verify};
use machine::{Bench, Outcome};
use random::{Maker, Random, Template, templates};

/// Sets of host features that take different ways.
fn hosts() -> [HostFeatures; 3] {
    let all = HostFeatures::detect();
    let oldest = HostFeatures { cmpxchg16b: all.cmpxchg16b, ..HostFeatures::default() };
    [all, HostFeatures { fma: false, avx: false, avx2: false, bmi2: false, ..all }, oldest]
}

/// Compares the two engines on one block.
fn check(bench: &mut Bench, random: &mut Random, block: &Block, compiled: &Block, host: HostFeatures) {
    let place = RegionBlock { offset: 0x100, block: compiled.clone() };
    let code = match compile(&place, host, None) {
        Ok(code) => code,
        Err(error) => panic!("{error}\n{}", isomer_ir::text::print(compiled)),
    };
    assert_eq!(code.ranges, [(0x100, 0x100 + block.len as u16)]);
    let (cpu, ram) = (random.cpu(), random.ram());
    let expected = bench.reference(block, &cpu, &ram);
    let found = bench.compiled(&code.code, compiled, &cpu, &ram);
    if expected != found {
        report(&cpu, &expected, &found, compiled, &code.code);
    }
}

fn report(cpu: &machine::Cpu, expected: &Outcome, found: &Outcome, block: &Block, code: &[u8]) -> ! {
    let differ = |a: &[u64], b: &[u64]| {
        let pairs = a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b);
        pairs.map(|(i, (a, b))| format!("unit {i}: {a:#x}, found {b:#x}")).collect::<Vec<_>>()
    };
    let hex: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
    let short = |outcome: &Outcome| {
        format!("{} {:?} {:x?} {:?}", outcome.end, outcome.fp, (outcome.pc, outcome.insns), outcome.log)
    };
    let units = differ(&expected.units, &found.units);
    let ram = expected.ram.iter().zip(&found.ram).position(|(a, b)| a != b);
    panic!(
        "{}\nstart {:x?} rounding {}\nexpected {}\nfound    {}\n{units:#?}\nram from {ram:?}\nreservation {:x?} {:x?}\n{hex}",
        isomer_ir::text::print(block),
        cpu.units,
        cpu.header.rounding,
        short(expected),
        short(found),
        expected.reservation,
        found.reservation,
    );
}

/// One operation; its operands are needed afterwards, or not.
fn one_operation(random: &mut Random, template: &Template) -> Block {
    let mut maker = Maker::new(random);
    maker.apply(template);
    let mut values = std::mem::take(&mut maker.values);
    if maker.random.flag() {
        maker.insn();
    }
    if maker.random.flag() {
        values.drain(..values.len().saturating_sub(2));
    }
    values.into_iter().for_each(|v| maker.show(v));
    maker.values.clear();
    maker.terminal();
    maker.finish()
}

#[test]
fn every_operation_does_what_the_reference_does() {
    let mut bench = Bench::new();
    let mut random = Random(0x1234_5678_9abc_def1);
    let templates = templates();
    assert!(templates.len() > 2500, "{}", templates.len());
    for (number, host) in hosts().into_iter().enumerate() {
        for template in &templates {
            for _ in 0..if number == 0 { 12 } else { 4 } {
                let block = one_operation(&mut random, template);
                verify(&block).expect("a well-formed block");
                check(&mut bench, &mut random, &block, &block, host);
            }
        }
    }
}

/// Many operations with results that stay in use.
fn long_block(random: &mut Random, templates: &[Template]) -> Block {
    let mut maker = Maker::new(random);
    for _ in 0..4 + maker.random.below(40) {
        match maker.random.below(8) {
            0 => maker.insn(),
            1 | 2 if !maker.values.is_empty() => {
                let v = maker.random.below(maker.values.len());
                let v = maker.values[v];
                maker.show(v);
            }
            _ => {
                let template = maker.random.below(templates.len());
                maker.apply(&templates[template]);
            }
        }
    }
    let values = maker.values.clone();
    values.into_iter().rev().take(24).for_each(|v| maker.show(v));
    maker.terminal();
    maker.finish()
}

#[test]
fn long_blocks_do_what_the_reference_does() {
    let mut bench = Bench::new();
    let mut random = Random(0xfeed_f00d_1234_5671);
    let templates = templates();
    // Few ways out, so that most blocks come to their end.
    let calm: Vec<Template> = templates
        .iter()
        .filter(|template| template.op.mem_flags().is_none() && !template.op.may_fault())
        .cloned()
        .collect();
    for number in 0..6000 {
        let host = hosts()[number % 3];
        let block = long_block(&mut random, if number % 3 == 0 { &templates } else { &calm });
        check(&mut bench, &mut random, &block, &block, host);
        let mut optimised = block.clone();
        isomer_ir::passes::optimize(&mut optimised);
        check(&mut bench, &mut random, &block, &optimised, host);
    }
}
