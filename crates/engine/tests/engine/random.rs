//! Random small programs: on interpreter and reference engine block by block, on every engine at full speed, and on mixed
//! engines.

use crate::{asm::*, machine::*};
use isomer_core::Gpa;
use isomer_engine::{EngineKind, Exit, SoftVcpu};
use isomer_riscv64::Riscv64;

/// A generator of numbers (xorshift64*; Vigna, "An experimental exploration of Marsaglia's xorshift generators").
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
    /// One of the registers that programs compute with: t1 to t2, s1, a0 to a7.
    fn reg(&mut self) -> Reg {
        [T1, T2, S1, A0, A1, A2, A3, A4, A5, A6, A7, ZERO][self.below(12) as usize]
    }
    fn imm(&mut self) -> i32 {
        self.below(4096) as i32 - 2048
    }
}

/// Data the programs may touch: around here, across the end of a page.
const WINDOW: u64 = DATA + 0x1000;
const WINDOW_BYTES: u64 = 4096;
/// The third and fourth instruction of this are there to be overwritten.
const PATCHED: u64 = CODE + 0x4000;

/// Straight-line arithmetic, accesses at any alignment, atomics, accesses to nothing, short loops and skips, calls of a
/// function that is overwritten now and then. s0 points to the data, t0 is for addresses.
fn program(seed: u64) -> Vec<u8> {
    let n = &mut Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut p = Asm::new(CODE);
    let (handler, start) = (p.label(), p.label());
    p.jump(start);
    // Traps are counted, with what they say, and skipped.
    p.bind(handler).ops(&[csrr(SP, csr::MCAUSE), csrr(T0, csr::MTVAL), add(T0, T0, SP), sd(T0, -2048, S0)]);
    p.ops(&[csrr(T0, csr::MEPC), addi(T0, T0, 4), csrrw(ZERO, csr::MEPC, T0), MRET]);
    p.bind(start).li(T0, CODE + 4).op(csrrw(ZERO, csr::MTVEC, T0)).li(S0, WINDOW);
    for reg in [T1, T2, S1, A0, A1, A2, A3, A4, A5, A6, A7] {
        p.li(reg, if n.below(2) == 0 { n.next() } else { n.below(300) });
    }
    for _ in 0..40 + n.below(80) {
        piece(&mut p, n);
    }
    finish(&mut p, A0);
    p.finish()
}

fn piece(p: &mut Asm, n: &mut Numbers) {
    let (rd, rs1, rs2) = (n.reg(), n.reg(), n.reg());
    match n.below(16) {
        0..=4 => {
            let op = [add, sub, xor, or, and, sltu, mul, mulhu, div, remu, sll, srl, sra, addw, subw, sraw]
                [n.below(16) as usize];
            p.op(op(rd, rs1, rs2));
        }
        5..=6 => {
            let op = [addi, xori, ori, andi, addiw][n.below(5) as usize];
            p.op(op(rd, rs1, n.imm()));
        }
        7..=8 => {
            let op = [lb, lh, lw, ld, lbu, lhu, lwu][n.below(7) as usize];
            p.op(op(rd, n.imm(), S0));
        }
        9..=10 => {
            let op = [sb, sh, sw, sd][n.below(4) as usize];
            p.op(op(rs2, n.imm(), S0));
        }
        11 => {
            // Anywhere near, and sometimes nowhere at all.
            p.op(andi(T0, rs1, 2047)).op(add(T0, T0, S0));
            if n.below(4) == 0 {
                p.li(T0, HOLE + n.below(100));
            }
            match n.below(5) {
                0 => p.ops(&[lr_d(rd, T0), sc_d(rs2, rs1, T0)]),
                1 => p.op(amoadd_d(rd, rs2, T0)),
                2 => p.op(amoswap_w(rd, rs2, T0)),
                3 => p.op(amoxor_d(rd, rs2, T0)),
                _ => p.op(amomax_w(rd, rs2, T0)),
            };
        }
        12 => {
            // Over the next one or two, or not.
            let branch: Branch = [beq, bne, blt, bge, bltu, bgeu][n.below(6) as usize];
            let skip = p.label();
            p.branch(branch, rs1, rs2, skip).op(addi(rd, rs1, n.imm()));
            p.op(add(rd, rd, rs2)).bind(skip);
        }
        13 => {
            // A few times round.
            p.op(addi(RA, ZERO, 1 + n.below(40) as i32));
            let round = p.mark();
            p.ops(&[add(rd, rd, rs1), sd(rd, n.imm() & !7, S0), xor(rs2, rs2, rd), addi(RA, RA, -1)]);
            p.branch(bne, RA, ZERO, round);
        }
        14 => {
            // Writes a function of one instruction, and calls it.
            let insn = addi(rd, rs1, n.imm());
            p.li(SP, PATCHED).li(T0, u64::from(insn)).op(sw(T0, 8, SP)).li(T0, u64::from(ret()));
            p.ops(&[sw(T0, 12, SP), FENCE_I, jalr(RA, SP, 8)]);
        }
        _ => {
            p.op(csrr(rd, csr::INSTRET));
        }
    }
}

fn machine(program: &[u8], seed: u64, engine: EngineKind) -> (Machine, SoftVcpu<Riscv64>) {
    let machine = Machine::new(1);
    machine.write(CODE, program);
    let n = &mut Numbers(seed | 1);
    let data: Vec<u8> = (0..2 * WINDOW_BYTES).map(|_| n.next() as u8).collect();
    machine.write(WINDOW - WINDOW_BYTES, &data);
    let hart = machine.hart(0, engine, CODE);
    (machine, hart)
}

/// What a guest can see: registers, pc, instructions retired, memory.
fn state(machine: &Machine, hart: &SoftVcpu<Riscv64>) -> State {
    let mut data = vec![0; 2 * WINDOW_BYTES as usize];
    machine.memory.read(Gpa(WINDOW - WINDOW_BYTES), &mut data).unwrap();
    let cpu = hart.cpu();
    (cpu.x, cpu.header.pc, cpu.header.insns, data)
}

#[test]
fn both_engines_agree_block_by_block() {
    let mut traps = 0;
    for seed in 0..150 {
        let program = program(seed);
        let mut pair =
            [EngineKind::Interpreter, EngineKind::Reference].map(|engine| machine(&program, seed, engine));
        loop {
            let exits = pair.each_mut().map(|(_, hart)| hart.run(Some(1)));
            let states = pair.each_ref().map(|(machine, hart)| state(machine, hart));
            assert!(states[0] == states[1], "seed {seed}: {:x?}\n{:x?}", states[0], states[1]);
            assert_eq!(exits[0], exits[1], "seed {seed}");
            if exits[0] != Exit::Limit {
                assert_eq!(exits[0], Exit::Stopped);
                break;
            }
        }
        traps += pair[0].1.stats().traps;
        // At full speed, with links and long slices, it ends the same.
        for engine in ENGINES {
            agrees_at_its_end(&program, seed, engine, None, &state(&pair[1].0, &pair[1].1));
        }
    }
    assert!(traps > 500, "{traps} traps are too few to mean anything");
}

/// What the guest sees is the same whichever engine it is moved to and when.
#[test]
fn mixed_engines_agree() {
    for seed in 0..200 {
        let program = program(seed);
        let (machine, hart) = machine(&program, seed, EngineKind::Reference);
        let (hart, _) = machine.run_hart(hart);
        let expected = state(&machine, &hart);
        for mix in 0..4 {
            agrees_at_its_end(&program, seed, EngineKind::Mixed, Some(4 * seed + mix), &expected);
        }
    }
}

type State = ([u64; 32], u64, u64, Vec<u8>);

/// The count of instructions is in registers where the program has read it; at the end it runs on until it is stopped.
fn agrees_at_its_end(program: &[u8], seed: u64, engine: EngineKind, mix: Option<u64>, expected: &State) {
    let (machine, mut hart) = machine(program, seed, engine);
    if let Some(mix) = mix {
        hart.mix(mix);
    }
    let (hart, _) = machine.run_hart(hart);
    let ended = state(&machine, &hart);
    assert!(
        (expected.0, &expected.3) == (ended.0, &ended.3),
        "seed {seed} on {engine:?} {mix:?}: {:x?}\n{:x?}",
        expected.0,
        ended.0
    );
}
