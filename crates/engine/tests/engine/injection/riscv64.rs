//! Injections on riscv64: integer and floating-point loads and stores of all sizes, aligned, misaligned and across pages,
//! compressed ones, atomics, reserved pairs, `cbo.zero`.

use super::{
    ACK, CHANGED, CODE, END, HANDLER, MIDDLE, Place, ROUNDS, SHARED, STRIDE, Subject, TABLES, V, word,
};
use crate::{asm::*, machine::enter_supervisor};
use isomer_riscv64::{Cpu, Riscv64};
use std::sync::Arc;

const MSCRATCH: u32 = 0x340;
const FCSR: u32 = 0x003;

const fn load_fp(funct3: u32, rd: u32, offset: i32) -> u32 {
    (offset as u32) << 20 | A0 << 15 | funct3 << 12 | rd << 7 | 0x07
}
const fn store_fp(funct3: u32, rs2: u32, offset: i32) -> u32 {
    sd(0, offset, A0) & !0x7f & !(7 << 12) | rs2 << 20 | funct3 << 12 | 0x27
}
/// An atomic instruction on (a0): `rd` a2, `rs2` a3.
const fn amo(funct5: u32, funct3: u32) -> u32 {
    funct5 << 27 | 3 << 25 | A3 << 20 | A0 << 15 | funct3 << 12 | A2 << 7 | 0x2f
}
/// `cbo.zero (a0)`
const CBO_ZERO: u32 = 4 << 20 | A0 << 15 | 2 << 12 | 0x0f;
/// `amocas.q a2, a4, (a0)`: a2 and a3 are compared, a4 and a5 stored.
const AMOCAS_Q: u32 = 5 << 27 | 3 << 25 | A4 << 20 | A0 << 15 | 4 << 12 | A2 << 7 | 0x2f;

#[derive(Clone, Copy)]
enum Insn {
    Word(u32),
    Half(u16),
}

struct Program(Vec<(Insn, Place)>);

const ALONE: Place = Place { same_page: false, crosses: false };

impl Program {
    /// Every kind of access that the guest has.
    fn new() -> Self {
        let mut all = Vec::new();
        let mut add = |insn, crosses| all.push((Insn::Word(insn), Place { crosses, ..ALONE }));
        type Kind = (fn(i32) -> u32, i32);
        let kinds: [Kind; 17] = [
            (|at| lb(A2, at, A0), 1),
            (|at| lbu(A2, at, A0), 1),
            (|at| lh(A2, at, A0), 2),
            (|at| lhu(A2, at, A0), 2),
            (|at| lw(A2, at, A0), 4),
            (|at| lwu(A2, at, A0), 4),
            (|at| ld(A2, at, A0), 8),
            (|at| sb(A3, at, A0), 1),
            (|at| sh(A3, at, A0), 2),
            (|at| sw(A3, at, A0), 4),
            (|at| sd(A3, at, A0), 8),
            (|at| load_fp(1, 1, at), 2),
            (|at| load_fp(2, 2, at), 4),
            (|at| load_fp(3, 3, at), 8),
            (|at| store_fp(1, 1, at), 2),
            (|at| store_fp(2, 2, at), 4),
            (|at| store_fp(3, 3, at), 8),
        ];
        for (insn, size) in kinds {
            add(insn(0x40), false);
            if size > 1 {
                add(insn(0x40 + size - 1), false);
                add(insn((0x1000 - MIDDLE) as i32 - size / 2), true);
            }
        }
        // amoswap amoadd amoxor amoand amoor amomin amomax amominu amomaxu amocas, words and double words
        for funct5 in [1, 0, 4, 12, 8, 16, 20, 24, 28, 5] {
            add(amo(funct5, 2), false);
            add(amo(funct5, 3), false);
        }
        add(AMOCAS_Q, false);
        add(CBO_ZERO, false);
        for (load, store) in [(lr_w(A2, A0), sc_w(A2, A3, A0)), (lr_d(A2, A0), sc_d(A2, A3, A0))] {
            all.push((Insn::Word(load), ALONE));
            all.push((Insn::Word(store), Place { same_page: true, ..ALONE }));
        }
        // c.lw a2, c.ld a2, c.fld fa2, c.sw a3, c.sd a3, c.fsd fa3, all at 0(a0).
        for (funct3, register) in [(2, 4), (3, 4), (1, 4), (6, 5), (7, 5), (5, 5)] {
            all.push((Insn::Half(funct3 << 13 | 2 << 7 | register << 2), ALONE));
        }
        Self(all)
    }

    /// All accesses in a loop, each between instructions that make what it depends on and use what it gives.
    fn program(&self) -> Asm {
        let mut p = Asm::new(CODE);
        let (round, change, done) = (p.label(), p.label(), p.label());
        p.li(S0, ROUNDS).li(A1, V + MIDDLE).li(S1, STRIDE).li(T2, 0x1234_5678_9abc_def1);
        p.bind(round).op(mv(A0, A1));
        for (insn, place) in &self.0 {
            if !place.same_page {
                p.op(add(A0, A0, S1));
            }
            p.ops(&[add(A3, A3, T2), xor(A5, A3, A2)]);
            match *insn {
                Insn::Word(insn) => p.op(insn),
                Insn::Half(insn) => p.half(insn),
            };
            p.op(add(A4, A4, A2));
        }
        p.op(addi(S0, S0, -1)).branch(beq, S0, ZERO, done);
        p.op(addi(T0, ZERO, CHANGED as i32)).branch(beq, S0, T0, change).jump(round);
        let at = word::CHANGE as i32;
        p.bind(change).li(T1, SHARED).ops(&[ld(T0, at, T1), ld(T1, at + 8, T1), sd(T1, 0, T0)]);
        p.op(sfence_vma(ZERO, ZERO)).jump(round);
        // The number of instructions is part of the result.
        p.bind(done).op(csrr(S1, csr::INSTRET)).li(T0, END).op(sd(ZERO, 0, T0)).op(j(0));
        p
    }

    /// Notes everything there is to see of an exception and repairs its cause, or lowers the device's interrupt; goes on.
    fn handler() -> Asm {
        let at = |word: u64| word as i32;
        let (saved, seen, registers) = (at(word::SAVED), at(word::SEEN), at(word::REGISTERS));
        let mut p = Asm::new(HANDLER);
        let (interrupt, back) = (p.label(), p.label());
        p.ops(&[csrrw(SP, MSCRATCH, SP), sd(T0, saved, SP), sd(T1, saved + 8, SP)]);
        p.op(csrr(T0, csr::MCAUSE)).branch(blt, T0, ZERO, interrupt);
        p.ops(&[sd(T0, seen, SP), csrr(T0, csr::MTVAL), sd(T0, seen + 8, SP)]);
        p.ops(&[csrr(T0, csr::MEPC), sd(T0, seen + 16, SP), csrr(T0, FCSR), sd(T0, seen + 24, SP)]);
        for reg in (1..32).filter(|reg| ![SP, T0, T1].contains(reg)) {
            p.op(sd(reg, registers + 8 * reg as i32, SP));
        }
        for reg in 0..32 {
            p.op(store_fp(3, reg, registers + 256 + 8 * reg as i32) & !(31 << 15) | SP << 15);
        }
        for (n, reg) in [(0, T0), (8, T1)] {
            p.ops(&[ld(T0, saved + n, SP), sd(T0, registers + 8 * reg as i32, SP)]);
        }
        p.ops(&[ld(T0, at(word::EXCEPTIONS), SP), addi(T0, T0, 1), sd(T0, at(word::EXCEPTIONS), SP)]);
        p.ops(&[ld(T0, at(word::REPAIR), SP), ld(T1, at(word::REPAIR) + 8, SP), sd(T1, 0, T0)]);
        p.op(sfence_vma(ZERO, ZERO));
        p.bind(back).ops(&[ld(T0, saved, SP), ld(T1, saved + 8, SP), csrrw(SP, MSCRATCH, SP), MRET]);
        p.bind(interrupt).li(T0, ACK).op(sd(ZERO, 0, T0));
        p.ops(&[ld(T0, at(word::INTERRUPTS), SP), addi(T0, T0, 1), sd(T0, at(word::INTERRUPTS), SP)]);
        p.jump(back);
        p
    }
}

impl Subject for Program {
    type G = Riscv64;
    /// `mip.MEIP`.
    const LINE: u32 = 11;

    fn guest() -> Arc<Riscv64> {
        Arc::new(Riscv64::max())
    }
    fn accesses(&self) -> Vec<Place> {
        self.0.iter().map(|(_, place)| *place).collect()
    }
    fn code(&self) -> [Vec<u8>; 2] {
        [self.program().finish(), Self::handler().finish()]
    }
    fn table(at: u64) -> u64 {
        at >> 12 << 10 | 1
    }
    fn leaf(gpa: u64, _level: u32, writable: bool) -> u64 {
        // Accessed, dirty, executable, writable, readable, valid.
        gpa >> 12 << 10 | if writable { 0xcf } else { 0x43 }
    }
    fn address(entry: u64) -> u64 {
        entry >> 10 << 12
    }
    fn start(guest: &Riscv64) -> Cpu {
        let mut cpu = guest.reset(0, CODE);
        enter_supervisor(&mut cpu);
        (cpu.medeleg, cpu.mideleg, cpu.mtvec, cpu.mscratch) = (0, 0, HANDLER, SHARED);
        cpu.satp = 8 << 60 | 1 << 44 | TABLES >> 12;
        cpu.mie = 1 << Self::LINE;
        // FS is dirty, and S-mode may `cbo.zero`.
        cpu.mstatus |= 3 << 13;
        cpu.menvcfg |= 1 << 7;
        for reg in 1..32 {
            cpu.x[reg] = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(reg as u64);
            cpu.f[reg] = !cpu.x[reg];
        }
        cpu.update_mode();
        cpu
    }
    fn forget_time(cpu: &mut Cpu) {
        (cpu.x[S1 as usize], cpu.mepc, cpu.mcause, cpu.mtval, cpu.mstatus) = (0, 0, 0, 0, 0);
    }
}

#[test]
fn every_access_of_compiled_code_can_fault_hit_a_device_and_be_interrupted() {
    let program = Program::new();
    let tally = super::inject_everywhere(&program);
    // Every access faulted where nothing is mapped, stores where they may not, plain ones met the device.
    let count = program.0.len();
    assert!(tally.faults as usize > count + count / 3, "{tally:?}");
    assert!(tally.device_accesses > count / 2 && tally.interrupts > 2 * count, "{tally:?}");
}

#[test]
fn compiled_code_can_be_left_at_any_instruction() {
    super::leave_everywhere(&Program::new());
}

#[test]
fn accesses_are_what_they_are_meant_to_be() {
    use isomer_ir::Guest;
    let guest = Riscv64::max();
    let text = |(insn, _)| match insn {
        Insn::Word(insn) => guest.disassemble(&insn.to_le_bytes(), 0).0,
        Insn::Half(insn) => guest.disassemble(&insn.to_le_bytes(), 0).0,
    };
    let all: Vec<_> = Program::new().0.into_iter().map(text).collect();
    for text in [
        "lbu a2,64(a0)",
        "ld a2,2044(a0)",
        "sh a3,65(a0)",
        "flh ft1,64(a0)",
        "fld ft3,71(a0)",
        "fsw ft2,2046(a0)",
        "amoswap.w.aqrl a2,a3,(a0)",
        "amomaxu.d.aqrl a2,a3,(a0)",
        "amocas.q.aqrl a2,a4,(a0)",
        "cbo.zero (a0)",
        "sc.d.aqrl a2,a3,(a0)",
    ] {
        assert!(all.iter().any(|known| known == text), "{text} is missing: {all:?}");
    }
}
