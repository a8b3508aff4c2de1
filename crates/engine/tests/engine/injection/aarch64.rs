//! Injections on aarch64: loads and stores of all sizes, aligned, misaligned and across pages, pairs, pre- and
//! post-indexed ones, vectors and structures of them, exclusives, atomics, `dc zva`.

use super::{
    ACK, CHANGED, CODE, END, HANDLER, MIDDLE, Place, ROUNDS, SHARED, STRIDE, Subject, TABLES, V, word,
};
use isomer_aarch64::{Aarch64, Cpu, interrupts::line, system::sctlr};
use isomer_ir::Guest;
use std::sync::Arc;

/// On x0, aligned or not, within a page.
const AT_X0: [(u32, &str); 79] = [
    (0x3941_0002, "ldrb w2, [x0, #64]"),
    (0x7940_8002, "ldrh w2, [x0, #64]"),
    (0xb940_4002, "ldr w2, [x0, #64]"),
    (0xf940_2002, "ldr x2, [x0, #64]"),
    (0x3981_0002, "ldrsb x2, [x0, #64]"),
    (0x39c1_0002, "ldrsb w2, [x0, #64]"),
    (0x7980_8002, "ldrsh x2, [x0, #64]"),
    (0x79c0_8002, "ldrsh w2, [x0, #64]"),
    (0xb980_4002, "ldrsw x2, [x0, #64]"),
    (0x3901_0003, "strb w3, [x0, #64]"),
    (0x7900_8003, "strh w3, [x0, #64]"),
    (0xb900_4003, "str w3, [x0, #64]"),
    (0xf900_2003, "str x3, [x0, #64]"),
    (0x7844_1002, "ldurh w2, [x0, #65]"),
    (0x7884_1002, "ldursh x2, [x0, #65]"),
    (0xb844_3002, "ldur w2, [x0, #67]"),
    (0xb884_3002, "ldursw x2, [x0, #67]"),
    (0xf844_7002, "ldur x2, [x0, #71]"),
    (0x7804_1003, "sturh w3, [x0, #65]"),
    (0xb804_3003, "stur w3, [x0, #67]"),
    (0xf804_7003, "stur x3, [x0, #71]"),
    (0xf840_8402, "ldr x2, [x0], #8"),
    (0xf85f_8c02, "ldr x2, [x0, #-8]!"),
    (0x3840_1402, "ldrb w2, [x0], #1"),
    (0xf800_8403, "str x3, [x0], #8"),
    (0xf81f_8c03, "str x3, [x0, #-8]!"),
    (0xa944_1002, "ldp x2, x4, [x0, #64]"),
    (0x2948_1002, "ldp w2, w4, [x0, #64]"),
    (0x6948_1002, "ldpsw x2, x4, [x0, #64]"),
    (0xa904_1403, "stp x3, x5, [x0, #64]"),
    (0x2908_1403, "stp w3, w5, [x0, #64]"),
    (0xa8c1_1002, "ldp x2, x4, [x0], #16"),
    (0xa9bf_1403, "stp x3, x5, [x0, #-16]!"),
    (0x3d41_0001, "ldr b1, [x0, #64]"),
    (0x7d40_8001, "ldr h1, [x0, #64]"),
    (0xbd40_4001, "ldr s1, [x0, #64]"),
    (0xfd40_2001, "ldr d1, [x0, #64]"),
    (0x3dc0_1001, "ldr q1, [x0, #64]"),
    (0x3d01_0002, "str b2, [x0, #64]"),
    (0x7d00_8002, "str h2, [x0, #64]"),
    (0xbd00_4002, "str s2, [x0, #64]"),
    (0xfd00_2002, "str d2, [x0, #64]"),
    (0x3d80_1002, "str q2, [x0, #64]"),
    (0x3cc4_5001, "ldur q1, [x0, #69]"),
    (0x3c84_5002, "stur q2, [x0, #69]"),
    (0x6d44_0c01, "ldp d1, d3, [x0, #64]"),
    (0xad42_0c01, "ldp q1, q3, [x0, #64]"),
    (0xad02_1002, "stp q2, q4, [x0, #64]"),
    (0x3cc1_0401, "ldr q1, [x0], #16"),
    (0x4c40_7001, "ld1 {v1.16b}, [x0]"),
    (0x4c40_a401, "ld1 {v1.8h, v2.8h}, [x0]"),
    (0x4c40_8801, "ld2 {v1.4s, v2.4s}, [x0]"),
    (0x0c40_4001, "ld3 {v1.8b-v3.8b}, [x0]"),
    (0x4c40_0c01, "ld4 {v1.2d-v4.2d}, [x0]"),
    (0x4d40_8001, "ld1 {v1.s}[2], [x0]"),
    (0x0d40_c401, "ld1r {v1.4h}, [x0]"),
    (0x4c00_a001, "st1 {v1.16b, v2.16b}, [x0]"),
    (0x4c00_8401, "st2 {v1.8h, v2.8h}, [x0]"),
    (0x4c00_0001, "st4 {v1.16b-v4.16b}, [x0]"),
    (0x0d00_1401, "st1 {v1.b}[5], [x0]"),
    (0x4c9f_7001, "st1 {v1.16b}, [x0], #16"),
    (0xb823_0002, "ldadd w3, w2, [x0]"),
    (0xf8e3_0002, "ldaddal x3, x2, [x0]"),
    (0xf823_1002, "ldclr x3, x2, [x0]"),
    (0xb823_2002, "ldeor w3, w2, [x0]"),
    (0xf823_3002, "ldset x3, x2, [x0]"),
    (0xb823_4002, "ldsmax w3, w2, [x0]"),
    (0xf823_5002, "ldsmin x3, x2, [x0]"),
    (0xf823_6002, "ldumax x3, x2, [x0]"),
    (0xb823_7002, "ldumin w3, w2, [x0]"),
    (0xf8e3_8002, "swpal x3, x2, [x0]"),
    (0x3823_8002, "swpb w3, w2, [x0]"),
    (0x7823_0002, "ldaddh w3, w2, [x0]"),
    (0x88a2_7c03, "cas w2, w3, [x0]"),
    (0xc8e2_fc03, "casal x2, x3, [x0]"),
    (0x4822_7c04, "casp x2, x3, x4, x5, [x0]"),
    (0xc8df_fc02, "ldar x2, [x0]"),
    (0xc89f_fc03, "stlr x3, [x0]"),
    (0xd50b_7420, "dc zva, x0"),
];
/// On both sides of x1, a page's end.
const AT_X1: [(u32, &str); 15] = [
    (0x785f_f022, "ldurh w2, [x1, #-1]"),
    (0x789f_f022, "ldursh x2, [x1, #-1]"),
    (0xb85f_e022, "ldur w2, [x1, #-2]"),
    (0xf85f_c022, "ldur x2, [x1, #-4]"),
    (0x781f_f023, "sturh w3, [x1, #-1]"),
    (0xb81f_e023, "stur w3, [x1, #-2]"),
    (0xf81f_c023, "stur x3, [x1, #-4]"),
    (0xa97f_9022, "ldp x2, x4, [x1, #-8]"),
    (0xa93f_9423, "stp x3, x5, [x1, #-8]"),
    (0xfc5f_c021, "ldur d1, [x1, #-4]"),
    (0x3cdf_8021, "ldur q1, [x1, #-8]"),
    (0x3c9f_d022, "stur q2, [x1, #-3]"),
    (0xfc1f_c022, "stur d2, [x1, #-4]"),
    (0xad7f_8c21, "ldp q1, q3, [x1, #-16]"),
    (0xad3f_9022, "stp q2, q4, [x1, #-16]"),
];
/// Exclusive accesses to x0, which belong together by twos.
const PAIRS: [(u32, &str); 8] = [
    (0x885f_7c02, "ldxr w2, [x0]"),
    (0x8806_7c03, "stxr w6, w3, [x0]"),
    (0xc85f_fc02, "ldaxr x2, [x0]"),
    (0xc806_fc03, "stlxr w6, x3, [x0]"),
    (0x085f_7c02, "ldxrb w2, [x0]"),
    (0x0806_7c03, "stxrb w6, w3, [x0]"),
    (0xc87f_1002, "ldxp x2, x4, [x0]"),
    (0xc826_1403, "stxp w6, x3, x5, [x0]"),
];

/// Registers the program keeps for itself; accesses use x0 to x6 and v1 to v4.
const ROUND: u32 = 23;
const BASE: u32 = 21;
const STEP: u32 = 20;
const FIRST: u32 = 19;
const MIXER: u32 = 22;
const SCRATCH: [u32; 2] = [24, 25];
/// The handler's, and where [`SHARED`] is.
const HANDLERS: [u32; 2] = [26, 27];
const NOTES: u32 = 28;
const ZR: u32 = 31;

const fn add(d: u32, n: u32, m: u32) -> u32 {
    0x8b00_0000 | m << 16 | n << 5 | d
}
const fn eor(d: u32, n: u32, m: u32) -> u32 {
    0xca00_0000 | m << 16 | n << 5 | d
}
const fn mov(d: u32, m: u32) -> u32 {
    0xaa00_03e0 | m << 16 | d
}
const fn add_imm(d: u32, n: u32, imm: u32) -> u32 {
    0x9100_0000 | imm << 10 | n << 5 | d
}
const fn subs_imm(d: u32, n: u32, imm: u32) -> u32 {
    0xf100_0000 | imm << 10 | n << 5 | d
}
const fn b(words: i32) -> u32 {
    0x1400_0000 | words as u32 & 0x03ff_ffff
}
/// `cbnz x`
const fn cbnz(t: u32, words: i32) -> u32 {
    0xb500_0000 | (words as u32 & 0x7_ffff) << 5 | t
}
const fn ldr(t: u32, n: u32, at: u64) -> u32 {
    0xf940_0000 | (at as u32 / 8) << 10 | n << 5 | t
}
const fn str(t: u32, n: u32, at: u64) -> u32 {
    0xf900_0000 | (at as u32 / 8) << 10 | n << 5 | t
}
/// `stp q`
const fn stp_q(t: u32, n: u32, at: u64) -> u32 {
    0xad00_0000 | (at as u32 / 16) << 15 | (t + 1) << 10 | n << 5 | t
}
const fn movz(d: u32, value: u64, half: u32) -> u32 {
    0xd280_0000 | half << 21 | ((value >> (16 * half) & 0xffff) as u32) << 5 | d
}
const DSB_SY: u32 = 0xd503_3f9f;
const ISB: u32 = 0xd503_3fdf;
const TLBI_VMALLE1: u32 = 0xd508_871f;
const ERET: u32 = 0xd69f_03e0;
/// `mrs x0, ...`: ESR_EL1, FAR_EL1, ELR_EL1, SPSR_EL1, FPSR, FPCR, NZCV.
const SYNDROME: [u32; 7] =
    [0xd538_5200, 0xd538_6000, 0xd538_4020, 0xd538_4000, 0xd53b_4420, 0xd53b_4400, 0xd53b_4200];

/// A valid descriptor whose access flag is set, for inner shareable memory of MAIR's first kind.
const LEAF: u64 = 1 | 1 << 10 | 3 << 8;
/// AP[2].
const READ_ONLY: u64 = 1 << 7;

struct Program(Vec<(u32, Place)>);

const ALONE: Place = Place { same_page: false, crosses: false };

impl Program {
    fn new() -> Self {
        let alone = AT_X0.iter().map(|(insn, _)| (*insn, ALONE));
        let crossing = AT_X1.iter().map(|(insn, _)| (*insn, Place { crosses: true, ..ALONE }));
        let pairs =
            PAIRS.iter().zip(0..).map(|((insn, _), n)| (*insn, Place { same_page: n % 2 == 1, ..ALONE }));
        Self(alone.chain(crossing).chain(pairs).collect())
    }

    /// All accesses in a loop, each between instructions that make what it depends on and use what it gives.
    fn program(&self) -> Vec<u32> {
        let mut p = vec![mov(BASE, FIRST)];
        for (insn, place) in &self.0 {
            if !place.same_page {
                p.extend([add(BASE, BASE, STEP), mov(0, BASE)]);
            }
            if place.crosses {
                p.push(add_imm(1, BASE, (0x1000 - MIDDLE) as u32));
            }
            p.extend([add(3, 3, MIXER), eor(5, 5, 3), *insn, add(5, 5, 2)]);
        }
        p.push(subs_imm(ROUND, ROUND, 1));
        let end =
            [movz(SCRATCH[0], END, 0), movz(SCRATCH[0], END, 1) | 1 << 29, str(ZR, SCRATCH[0], 0), b(0)];
        // Past the end.
        p.extend([cbnz(ROUND, 1 + end.len() as i32)]);
        p.extend(end);
        p.push(subs_imm(SCRATCH[0], ROUND, CHANGED as u32));
        let back = -(p.len() as i32);
        p.push(cbnz(SCRATCH[0], back));
        p.extend([ldr(SCRATCH[0], NOTES, word::CHANGE), ldr(SCRATCH[1], NOTES, word::CHANGE + 8)]);
        p.extend([str(SCRATCH[1], SCRATCH[0], 0), DSB_SY, TLBI_VMALLE1, DSB_SY, ISB]);
        let back = -(p.len() as i32);
        p.push(b(back));
        p
    }

    /// Notes everything there is to see of an exception and repairs its cause, or lowers the device's interrupt; goes on.
    fn handler() -> Vec<u32> {
        let [x, y] = HANDLERS;
        let count = |at| [ldr(x, NOTES, at), add_imm(x, x, 1), str(x, NOTES, at)];
        let mut sync: Vec<u32> = (0..31)
            .filter(|reg| !HANDLERS.contains(reg))
            .map(|reg| str(reg, NOTES, word::REGISTERS + 8 * u64::from(reg)))
            .collect();
        for (n, mrs) in (0..).zip(SYNDROME) {
            sync.extend([mrs | x, str(x, NOTES, word::SEEN + 8 * n)]);
        }
        sync.push(add_imm(x, NOTES, word::REGISTERS as u32 + 256));
        sync.extend((0..32).step_by(2).map(|reg| stp_q(reg, x, 16 * u64::from(reg))));
        sync.extend(count(word::EXCEPTIONS));
        sync.extend([ldr(x, NOTES, word::REPAIR), ldr(y, NOTES, word::REPAIR + 8), str(y, x, 0)]);
        sync.extend([DSB_SY, TLBI_VMALLE1, DSB_SY, ISB, ERET]);
        let mut irq = vec![movz(y, ACK, 0), movz(y, ACK, 1) | 1 << 29, str(ZR, y, 0)];
        irq.extend(count(word::INTERRUPTS));
        irq.push(ERET);
        // The vectors of exceptions from this level on its own stack pointer, a branch behind the others each.
        let (sync_at, irq_at) = (0x800 / 4, 0x800 / 4 + sync.len());
        let mut words = vec![ISB; 0x800 / 4];
        words[0x200 / 4] = b(sync_at - 0x200 / 4);
        words[0x280 / 4] = b(irq_at as i32 - 0x280 / 4);
        [words, sync, irq].concat()
    }
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Subject for Program {
    type G = Aarch64;
    const LINE: u32 = line::IRQ;

    fn guest() -> Arc<Aarch64> {
        Arc::new(Aarch64::max())
    }
    fn accesses(&self) -> Vec<Place> {
        self.0.iter().map(|(_, place)| *place).collect()
    }
    fn code(&self) -> [Vec<u8>; 2] {
        [bytes(&self.program()), bytes(&Self::handler())]
    }
    fn table(at: u64) -> u64 {
        at | 3
    }
    fn leaf(gpa: u64, level: u32, writable: bool) -> u64 {
        gpa | LEAF | if level == 0 { 2 } else { 0 } | if writable { 0 } else { READ_ONLY }
    }
    fn address(entry: u64) -> u64 {
        entry & 0xffff_ffff_f000
    }
    fn start(guest: &Aarch64) -> Cpu {
        let mut cpu = guest.reset(0, CODE);
        assert_eq!(cpu.el, 1);
        let sys = &mut cpu.sys;
        sys.ttbr0[1] = TABLES;
        // 39 bits of address, tables like the memory, no upper half, 40 bits of physical address.
        sys.tcr[1] = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32;
        sys.mair[1] = 0xff;
        sys.vbar[1] = HANDLER;
        sys.cpacr = 3 << 20;
        sys.sctlr[1] |= sctlr::M | sctlr::C | sctlr::I;
        cpu.daif = 0;
        for reg in 0..31 {
            cpu.x[reg] = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(reg as u64 + 1);
        }
        for (reg, v) in (0..).zip(&mut cpu.v) {
            *v = [0x2545_f491_4f6c_dd1du64.wrapping_mul(2 * reg + 1), !(reg << 40 | reg)];
        }
        let own = [(ROUND, ROUNDS), (STEP, STRIDE), (FIRST, V + MIDDLE), (NOTES, SHARED)];
        own.iter().for_each(|&(reg, value)| cpu.x[reg as usize] = value);
        cpu.update_mode();
        cpu
    }
    fn forget_engine(cpu: &mut Cpu) {
        cpu.sys.pmu.settled = 0;
    }
    fn forget_time(cpu: &mut Cpu) {
        (cpu.sys.elr[1], cpu.sys.spsr[1]) = (0, 0);
        // `eret` sets it.
        cpu.event = false;
        HANDLERS.iter().for_each(|&reg| cpu.x[reg as usize] = 0);
    }
}

#[test]
fn every_access_of_compiled_code_can_fault_hit_a_device_and_be_interrupted() {
    let program = Program::new();
    let tally = super::inject_everywhere(&program);
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
    let guest = Aarch64::max();
    for (insn, text) in AT_X0.iter().chain(&AT_X1).chain(&PAIRS) {
        assert_eq!(guest.disassemble(&insn.to_le_bytes(), 0).0, *text);
    }
}
