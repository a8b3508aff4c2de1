//! A small assembler: the encodings the tests need (RISC-V volume I, 35, "RV32/64G Instruction Set Listings"), and labels.
#![allow(dead_code, reason = "an assembler has all of a kind, used or not")]

/// An integer register by number.
pub(crate) type Reg = u32;

pub(crate) const ZERO: Reg = 0;
pub(crate) const RA: Reg = 1;
pub(crate) const SP: Reg = 2;
pub(crate) const T0: Reg = 5;
pub(crate) const T1: Reg = 6;
pub(crate) const T2: Reg = 7;
pub(crate) const S0: Reg = 8;
pub(crate) const S1: Reg = 9;
pub(crate) const A0: Reg = 10;
pub(crate) const A1: Reg = 11;
pub(crate) const A2: Reg = 12;
pub(crate) const A3: Reg = 13;
pub(crate) const A4: Reg = 14;
pub(crate) const A5: Reg = 15;
pub(crate) const A6: Reg = 16;
pub(crate) const A7: Reg = 17;

/// CSR numbers (volume II, 2.2).
pub(crate) mod csr {
    pub(crate) const SATP: u32 = 0x180;
    pub(crate) const STVEC: u32 = 0x105;
    pub(crate) const SSTATUS: u32 = 0x100;
    pub(crate) const SIE: u32 = 0x104;
    pub(crate) const STIMECMP: u32 = 0x14d;
    pub(crate) const MIE: u32 = 0x304;
    pub(crate) const MTVEC: u32 = 0x305;
    pub(crate) const MEPC: u32 = 0x341;
    pub(crate) const MCAUSE: u32 = 0x342;
    pub(crate) const MTVAL: u32 = 0x343;
    pub(crate) const INSTRET: u32 = 0xc02;
    pub(crate) const TIME: u32 = 0xc01;
}

const fn r_type(opcode: u32, funct3: u32, funct7: u32, rd: Reg, rs1: Reg, rs2: Reg) -> u32 {
    funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
}

const fn i_type(opcode: u32, funct3: u32, rd: Reg, rs1: Reg, imm: i32) -> u32 {
    assert!(imm >= -2048 && imm < 2048);
    (imm as u32) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
}

const fn s_type(opcode: u32, funct3: u32, rs1: Reg, rs2: Reg, imm: i32) -> u32 {
    assert!(imm >= -2048 && imm < 2048);
    let imm = imm as u32 & 0xfff;
    (imm >> 5) << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | (imm & 31) << 7 | opcode
}

const fn b_type(funct3: u32, rs1: Reg, rs2: Reg, offset: i32) -> u32 {
    assert!(offset >= -4096 && offset < 4096 && offset & 1 == 0);
    let o = offset as u32;
    (o >> 12 & 1) << 31
        | (o >> 5 & 0x3f) << 25
        | rs2 << 20
        | rs1 << 15
        | funct3 << 12
        | (o >> 1 & 0xf) << 8
        | (o >> 11 & 1) << 7
        | 0x63
}

macro_rules! encodings {
    ($kind:ident: $($name:ident $($arg:literal)*),* $(,)?) => { $(encodings!(@$kind $name $($arg)*);)* };
    (@i $name:ident $opcode:literal $funct3:literal) => {
        pub(crate) const fn $name(rd: Reg, rs1: Reg, imm: i32) -> u32 { i_type($opcode, $funct3, rd, rs1, imm) }
    };
    (@load $name:ident $funct3:literal) => {
        /// `rd, offset(rs1)`
        pub(crate) const fn $name(rd: Reg, offset: i32, rs1: Reg) -> u32 { i_type(0x03, $funct3, rd, rs1, offset) }
    };
    (@store $name:ident $funct3:literal) => {
        /// `rs2, offset(rs1)`
        pub(crate) const fn $name(rs2: Reg, offset: i32, rs1: Reg) -> u32 { s_type(0x23, $funct3, rs1, rs2, offset) }
    };
    (@r $name:ident $opcode:literal $funct3:literal $funct7:literal) => {
        pub(crate) const fn $name(rd: Reg, rs1: Reg, rs2: Reg) -> u32 {
            r_type($opcode, $funct3, $funct7, rd, rs1, rs2)
        }
    };
    (@amo $name:ident $funct3:literal $funct5:literal) => {
        /// `rd, rs2, (rs1)`, with acquire and release
        pub(crate) const fn $name(rd: Reg, rs2: Reg, rs1: Reg) -> u32 {
            r_type(0x2f, $funct3, $funct5 << 2 | 3, rd, rs1, rs2)
        }
    };
    (@branch $name:ident $funct3:literal) => {
        pub(crate) const fn $name(rs1: Reg, rs2: Reg, offset: i32) -> u32 { b_type($funct3, rs1, rs2, offset) }
    };
}

encodings!(i: addi 0x13 0, xori 0x13 4, ori 0x13 6, andi 0x13 7, addiw 0x1b 0, jalr 0x67 0);
encodings!(load: lb 0, lh 1, lw 2, ld 3, lbu 4, lhu 5, lwu 6);
encodings!(store: sb 0, sh 1, sw 2, sd 3);
encodings!(r: add 0x33 0 0, sub 0x33 0 0x20, xor 0x33 4 0, or 0x33 6 0, and 0x33 7 0, sltu 0x33 3 0, mul 0x33 0 1,
    mulhu 0x33 3 1, div 0x33 4 1, remu 0x33 7 1, sll 0x33 1 0, srl 0x33 5 0, sra 0x33 5 0x20, addw 0x3b 0 0,
    subw 0x3b 0 0x20, sraw 0x3b 5 0x20);
encodings!(amo: amoadd_d 3 0x00, amoadd_w 2 0x00, amoswap_d 3 0x01, amoswap_w 2 0x01, sc_d 3 0x03, sc_w 2 0x03,
    amoxor_d 3 0x04, amomax_w 2 0x14);
encodings!(branch: beq 0, bne 1, blt 4, bge 5, bltu 6, bgeu 7);

pub(crate) const fn lr_d(rd: Reg, rs1: Reg) -> u32 {
    r_type(0x2f, 3, 0x02 << 2 | 3, rd, rs1, 0)
}
pub(crate) const fn lr_w(rd: Reg, rs1: Reg) -> u32 {
    r_type(0x2f, 2, 0x02 << 2 | 3, rd, rs1, 0)
}
pub(crate) const fn slli(rd: Reg, rs1: Reg, shift: i32) -> u32 {
    i_type(0x13, 1, rd, rs1, shift)
}
pub(crate) const fn srli(rd: Reg, rs1: Reg, shift: i32) -> u32 {
    i_type(0x13, 5, rd, rs1, shift)
}
pub(crate) const fn lui(rd: Reg, imm20: u32) -> u32 {
    imm20 << 12 | rd << 7 | 0x37
}
pub(crate) const fn jal(rd: Reg, offset: i32) -> u32 {
    assert!(offset >= -(1 << 20) && offset < 1 << 20 && offset & 1 == 0);
    let o = offset as u32;
    (o >> 20 & 1) << 31
        | (o >> 1 & 0x3ff) << 21
        | (o >> 11 & 1) << 20
        | (o >> 12 & 0xff) << 12
        | rd << 7
        | 0x6f
}
pub(crate) const fn j(offset: i32) -> u32 {
    jal(ZERO, offset)
}
pub(crate) const fn ret() -> u32 {
    jalr(ZERO, RA, 0)
}
pub(crate) const fn mv(rd: Reg, rs: Reg) -> u32 {
    addi(rd, rs, 0)
}
pub(crate) const fn csrrw(rd: Reg, csr: u32, rs1: Reg) -> u32 {
    csr << 20 | rs1 << 15 | 1 << 12 | rd << 7 | 0x73
}
pub(crate) const fn csrr(rd: Reg, csr: u32) -> u32 {
    csr << 20 | 2 << 12 | rd << 7 | 0x73
}
pub(crate) const fn csrs(csr: u32, rs1: Reg) -> u32 {
    csr << 20 | rs1 << 15 | 2 << 12 | 0x73
}
pub(crate) const fn sfence_vma(gva: Reg, asid: Reg) -> u32 {
    r_type(0x73, 0, 9, ZERO, gva, asid)
}
pub(crate) const FENCE_I: u32 = 0x0000_100f;
/// `fence rw, rw`
pub(crate) const FENCE: u32 = 0x0330_000f;
/// `fence w, w`
pub(crate) const FENCE_W_W: u32 = 0x0110_000f;
/// `fence r, r`
pub(crate) const FENCE_R_R: u32 = 0x0220_000f;
pub(crate) const WFI: u32 = 0x1050_0073;
pub(crate) const ECALL: u32 = 0x0000_0073;
pub(crate) const MRET: u32 = 0x3020_0073;
pub(crate) const SRET: u32 = 0x1020_0073;
pub(crate) const NOP: u32 = 0x0000_0013;
/// `c.nop`
pub(crate) const C_NOP: u16 = 0x0001;

/// A branch to a label: any of the encodings of [`beq`] and its kin.
pub(crate) type Branch = fn(Reg, Reg, i32) -> u32;

/// A place in the program that is known later.
#[derive(Clone, Copy)]
pub(crate) struct Label(usize);

enum Fixup {
    Branch(Branch, Reg, Reg),
    Jal(Reg),
}

/// A program in the making, at its final address.
pub(crate) struct Asm {
    base: u64,
    bytes: Vec<u8>,
    labels: Vec<Option<u64>>,
    fixups: Vec<(u64, Label, Fixup)>,
}

impl Asm {
    pub(crate) fn new(base: u64) -> Self {
        Self { base, bytes: Vec::new(), labels: Vec::new(), fixups: Vec::new() }
    }

    /// The address of what comes next.
    pub(crate) fn here(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    pub(crate) fn op(&mut self, insn: u32) -> &mut Self {
        self.bytes.extend(insn.to_le_bytes());
        self
    }

    pub(crate) fn ops(&mut self, insns: &[u32]) -> &mut Self {
        insns.iter().for_each(|&insn| {
            self.op(insn);
        });
        self
    }

    /// A 2-byte instruction.
    pub(crate) fn half(&mut self, insn: u16) -> &mut Self {
        self.bytes.extend(insn.to_le_bytes());
        self
    }

    /// `nop`s up to `address`.
    pub(crate) fn pad_to(&mut self, address: u64) -> &mut Self {
        while self.here() + 4 <= address {
            self.op(NOP);
        }
        if self.here() < address {
            self.half(C_NOP);
        }
        assert_eq!(self.here(), address);
        self
    }

    /// Any 64-bit constant.
    pub(crate) fn li(&mut self, rd: Reg, value: u64) -> &mut Self {
        let low = (value as i64) << 52 >> 52;
        if let Ok(value) = i32::try_from(value as i64) {
            let high = ((i64::from(value) + 0x800) as u32) >> 12;
            if high == 0 {
                return self.op(addi(rd, ZERO, low as i32));
            }
            return self.op(lui(rd, high)).op(addiw(rd, rd, low as i32));
        }
        let rest = (value.wrapping_sub(low as u64) as i64 >> 12) as u64;
        self.li(rd, rest).op(slli(rd, rd, 12));
        if low != 0 { self.op(addi(rd, rd, low as i32)) } else { self }
    }

    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    pub(crate) fn bind(&mut self, label: Label) -> &mut Self {
        self.labels[label.0] = Some(self.here());
        self
    }

    /// A label at this place.
    pub(crate) fn mark(&mut self) -> Label {
        let label = self.label();
        self.bind(label);
        label
    }

    pub(crate) fn branch(&mut self, branch: Branch, rs1: Reg, rs2: Reg, to: Label) -> &mut Self {
        self.fixups.push((self.here(), to, Fixup::Branch(branch, rs1, rs2)));
        self.op(0)
    }

    pub(crate) fn jump(&mut self, to: Label) -> &mut Self {
        self.call(ZERO, to)
    }

    pub(crate) fn call(&mut self, link: Reg, to: Label) -> &mut Self {
        self.fixups.push((self.here(), to, Fixup::Jal(link)));
        self.op(0)
    }

    /// The program's bytes, to be placed at the address given to [`Self::new`].
    pub(crate) fn finish(mut self) -> Vec<u8> {
        for (at, label, fixup) in &self.fixups {
            let offset = (self.labels[label.0].expect("the label is bound") as i64 - *at as i64) as i32;
            let insn = match *fixup {
                Fixup::Branch(branch, rs1, rs2) => branch(rs1, rs2, offset),
                Fixup::Jal(link) => jal(link, offset),
            };
            let at = (at - self.base) as usize;
            self.bytes[at..at + 4].copy_from_slice(&insn.to_le_bytes());
        }
        self.bytes
    }
}

#[test]
fn encodings_match_the_disassembler() {
    use isomer_ir::Guest;
    let guest = isomer_riscv64::Riscv64::max();
    for (insn, text) in [
        (addi(A0, A1, -3), "addi a0,a1,-3"),
        (sd(A2, -8, SP), "sd a2,-8(sp)"),
        (lwu(T0, 2047, S0), "lwu t0,2047(s0)"),
        (beq(A0, A1, -4), "beq a0,a1,0xffc"),
        (jal(RA, 2048), "jal ra,0x1800"),
        (amoadd_d(A0, A1, A2), "amoadd.d.aqrl a0,a1,(a2)"),
        (csrrw(A0, csr::SATP, A1), "csrrw a0,satp,a1"),
        (sfence_vma(A0, A1), "sfence.vma a0,a1"),
        (FENCE_I, "fence.i"),
        (WFI, "wfi"),
        (MRET, "mret"),
        (FENCE, "fence rw,rw"),
    ] {
        assert_eq!(guest.disassemble(&insn.to_le_bytes(), 0x1000).0, text);
    }
}
