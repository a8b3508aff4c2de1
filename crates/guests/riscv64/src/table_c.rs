//! The 16-bit instructions (volume I, 29 and 30: C, Zcb, Zcmop). They expand: the functions are those of the
//! 32-bit instructions, with operands that the encoding implies.

use crate::{
    Extensions as E,
    decode::Insn,
    lift_alu as alu, lift_branch as branch, lift_mem as mem, lift_system as sys,
    operands::Form::{self, *},
};

const fn i(name: &'static str, pattern: &'static str, all: E, form: Form) -> Insn {
    Insn::new(name, pattern, all, form)
}

const C_D: E = E::C.union(E::D);
const ZCB: E = E::C.union(E::ZCB);

#[rustfmt::skip]
pub(crate) static TABLE: &[Insn] = &[
    // --- quadrant 0
    i("c.addi4spn", "000 nzuimm[5:4|9:6|2|3] rd' 00 rs1=2",              E::C, I(alu::addi)),
    i("c.fld",      "001 uimm[5:3] rs1' uimm[7:6] rd' 00",               C_D, FpLoad(mem::fld)),
    i("c.lw",       "010 uimm[5:3] rs1' uimm[2|6] rd' 00",               E::C, Load(mem::lw)),
    i("c.ld",       "011 uimm[5:3] rs1' uimm[7:6] rd' 00",               E::C, Load(mem::ld)),
    i("c.fsd",      "101 uimm[5:3] rs1' uimm[7:6] rs2' 00",              C_D, FpStore(mem::fsd)),
    i("c.sw",       "110 uimm[5:3] rs1' uimm[2|6] rs2' 00",              E::C, Store(mem::sw)),
    i("c.sd",       "111 uimm[5:3] rs1' uimm[7:6] rs2' 00",              E::C, Store(mem::sd)),
    // --- quadrant 1
    i("c.addi",     "000 imm[5] rd/rs1 imm[4:0] 01",                     E::C, I(alu::addi)),
    i("c.nop",      "000 imm[5] 00000 imm[4:0] 01",                      E::C, Nop(sys::c_nop)).refines("c.addi"),
    i("c.addiw",    "001 imm[5] rd/rs1!0 imm[4:0] 01",                   E::C, I(alu::addiw)),
    i("c.li",       "010 imm[5] rd imm[4:0] 01",                         E::C, I(alu::addi)),
    i("c.addi16sp", "011 nzimm[9] 00010 nzimm[4|6|8:7|5] 01 rd=2 rs1=2", E::C, I(alu::addi)),
    i("c.lui",      "011 nzimm[17] rd!2 nzimm[16:12] 01",                E::C, U(alu::lui)),
    i("c.srli",     "100 shamt[5] 00 rd/rs1' shamt[4:0] 01",             E::C, Shift(alu::srli)),
    i("c.srai",     "100 shamt[5] 01 rd/rs1' shamt[4:0] 01",             E::C, Shift(alu::srai)),
    i("c.andi",     "100 imm[5] 10 rd/rs1' imm[4:0] 01",                 E::C, I(alu::andi)),
    i("c.sub",      "100 0 11 rd/rs1' 00 rs2' 01",                       E::C, R(alu::sub)),
    i("c.xor",      "100 0 11 rd/rs1' 01 rs2' 01",                       E::C, R(alu::xor)),
    i("c.or",       "100 0 11 rd/rs1' 10 rs2' 01",                       E::C, R(alu::or)),
    i("c.and",      "100 0 11 rd/rs1' 11 rs2' 01",                       E::C, R(alu::and)),
    i("c.subw",     "100 1 11 rd/rs1' 00 rs2' 01",                       E::C, R(alu::subw)),
    i("c.addw",     "100 1 11 rd/rs1' 01 rs2' 01",                       E::C, R(alu::addw)),
    i("c.j",        "101 imm[11|4|9:8|10|6|7|3:1|5] 01",                 E::C, J(branch::jal)),
    i("c.beqz",     "110 imm[8|4:3] rs1' imm[7:6|2:1|5] 01",             E::C, B(branch::beq)),
    i("c.bnez",     "111 imm[8|4:3] rs1' imm[7:6|2:1|5] 01",             E::C, B(branch::bne)),
    // --- quadrant 2
    i("c.slli",     "000 shamt[5] rd/rs1 shamt[4:0] 10",                 E::C, Shift(alu::slli)),
    i("c.fldsp",    "001 uimm[5] rd uimm[4:3|8:6] 10 rs1=2",             C_D, FpLoad(mem::fld)),
    i("c.lwsp",     "010 uimm[5] rd!0 uimm[4:2|7:6] 10 rs1=2",           E::C, Load(mem::lw)),
    i("c.ldsp",     "011 uimm[5] rd!0 uimm[4:3|8:6] 10 rs1=2",           E::C, Load(mem::ld)),
    i("c.jr",       "100 0 rs1!0 00000 10",                              E::C, Jr(branch::jalr)),
    i("c.mv",       "100 0 rd rs2!0 10",                                 E::C, R(alu::add)),
    i("c.ebreak",   "100 1 00000 00000 10",                              E::C, Plain(sys::ebreak)),
    i("c.jalr",     "100 1 rs1!0 00000 10 rd=1",                         E::C, Jr(branch::jalr)),
    i("c.add",      "100 1 rd/rs1 rs2!0 10",                             E::C, R(alu::add)),
    i("c.fsdsp",    "101 uimm[5:3|8:6] rs2 10 rs1=2",                    C_D, FpStore(mem::fsd)),
    i("c.swsp",     "110 uimm[5:2|7:6] rs2 10 rs1=2",                    E::C, Store(mem::sw)),
    i("c.sdsp",     "111 uimm[5:3|8:6] rs2 10 rs1=2",                    E::C, Store(mem::sd)),
    // --- Zcb
    i("c.lbu",      "100 000 rs1' uimm[0|1] rd' 00",                     ZCB, Load(mem::lbu)),
    i("c.lhu",      "100 001 rs1' 0 uimm[1] rd' 00",                     ZCB, Load(mem::lhu)),
    i("c.lh",       "100 001 rs1' 1 uimm[1] rd' 00",                     ZCB, Load(mem::lh)),
    i("c.sb",       "100 010 rs1' uimm[0|1] rs2' 00",                    ZCB, Store(mem::sb)),
    i("c.sh",       "100 011 rs1' 0 uimm[1] rs2' 00",                    ZCB, Store(mem::sh)),
    i("c.zext.b",   "100 111 rd/rs1' 11 000 01",                         ZCB, R1(alu::zext_b)),
    i("c.sext.b",   "100 111 rd/rs1' 11 001 01",                         ZCB.union(E::ZBB), R1(alu::sext_b)),
    i("c.zext.h",   "100 111 rd/rs1' 11 010 01",                         ZCB.union(E::ZBB), R1(alu::zext_h)),
    i("c.sext.h",   "100 111 rd/rs1' 11 011 01",                         ZCB.union(E::ZBB), R1(alu::sext_h)),
    i("c.zext.w",   "100 111 rd/rs1' 11 100 01",                         ZCB.union(E::ZBA), R1(alu::zext_w)),
    i("c.not",      "100 111 rd/rs1' 11 101 01",                         ZCB, R1(alu::not)),
    i("c.mul",      "100 111 rd/rs1' 10 rs2' 01",                        ZCB.union(E::M), R(alu::mul)),
    // --- Zcmop
    i("c.mop.#",    "011 0 0 n[3:1] 1 00000 01",                         E::C.union(E::ZCMOP), Mop(sys::c_mop)),
];
