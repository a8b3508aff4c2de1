//! System instructions: mnemonic, encoding, features, assembly, lifting function (Arm ARM, C4.1.94).

use crate::{
    Features as F, decode::Insn, lift_system as system, mode::Key, operands::row, table::BASE, trap::ec,
};

/// All of them. Hints with a meaning come before `hint`.
#[rustfmt::skip]
pub(crate) static TABLE: &[Insn] = &[
    // --- calls
    row!("svc", "11010100 000 imm16 00001", BASE, "#{imm16}", system::call, ec::SVC),
    row!("hvc", "11010100 000 imm16 00010", BASE, "#{imm16}", system::call_up, ec::HVC),
    row!("smc", "11010100 000 imm16 00011", BASE, "#{imm16}", system::call_up, ec::SMC),
    row!("brk", "11010100 001 imm16 00000", BASE, "#{imm16}", system::call, ec::BRK),
    row!("hlt", "11010100 010 imm16 00000", BASE, "#{imm16}", system::undefined),
    // --- exception returns
    row!("eret",   "1101011 0100 11111 000000 11111 00000", BASE, "", system::eret),
    row!("eretaa", "1101011 0100 11111 000010 11111 11111", F::PAUTH, "", system::eret_authenticated, Key::IA),
    row!("eretab", "1101011 0100 11111 000011 11111 11111", F::PAUTH, "", system::eret_authenticated, Key::IB),
    // --- hints
    row!("nop",   "1101010100 0 00 011 0010 0000 000 11111", BASE, "", system::nothing).refines(),
    row!("yield", "1101010100 0 00 011 0010 0000 001 11111", BASE, "", system::nothing).refines(),
    row!("wfe",   "1101010100 0 00 011 0010 0000 010 11111", BASE, "", system::wfe).refines(),
    row!("wfi",   "1101010100 0 00 011 0010 0000 011 11111", BASE, "", system::wfi).refines(),
    row!("sev",   "1101010100 0 00 011 0010 0000 100 11111", BASE, "", system::event).refines(),
    row!("sevl",  "1101010100 0 00 011 0010 0000 101 11111", BASE, "", system::event).refines(),
    // No SError is ever pending, so there is nothing to synchronise.
    row!("esb",   "1101010100 0 00 011 0010 0010 000 11111", F::RAS, "", system::nothing).refines(),
    row!("psb",   "1101010100 0 00 011 0010 0010 001 11111", BASE, "csync", system::nothing).refines(),
    row!("tsb",   "1101010100 0 00 011 0010 0010 010 11111", BASE, "csync", system::nothing).refines(),
    row!("clearbhb", "1101010100 0 00 011 0010 0010 110 11111", BASE, "", system::nothing).refines(),
    row!("csdb",  "1101010100 0 00 011 0010 0010 100 11111", BASE, "", system::nothing).refines(),
    row!("hint",  "1101010100 0 00 011 0010 CRm op2 11111", BASE, "#{hint}", system::nothing),
    row!("wfet",  "1101010100 0 00 011 0001 0000 000 Rt", F::WFXT, "{Xt}", system::wfet),
    row!("wfit",  "1101010100 0 00 011 0001 0000 001 Rt", F::WFXT, "{Xt}", system::wfit),
    // --- barriers
    row!("clrex", "1101010100 0 00 011 0011 CRm 010 11111", BASE, "{clrex}", system::clrex),
    row!("ssbb",  "1101010100 0 00 011 0011 0000 100 11111", BASE, "", system::nothing).refines(),
    row!("pssbb", "1101010100 0 00 011 0011 0100 100 11111", BASE, "", system::nothing).refines(),
    row!("dsb",   "1101010100 0 00 011 0011 CRm 100 11111", BASE, "{barrier}", system::dsb),
    row!("dmb",   "1101010100 0 00 011 0011 CRm 101 11111", BASE, "{barrier}", system::dmb),
    row!("isb",   "1101010100 0 00 011 0011 CRm 110 11111", BASE, "{isb}", system::isb),
    row!("sb",    "1101010100 0 00 011 0011 0000 111 11111", F::SB, "", system::nothing),
    // --- registers and maintenance
    row!("msr", "1101010100 0 00 op1 0100 CRm op2 11111",    BASE, "{pstate}, #{crm}", system::msr_immediate),
    row!("msr", "1101010100 0 1 o20 op1 CRn CRm op2 Rt",     BASE, "{sysreg}, {Xt}", system::msr),
    row!("mrs", "1101010100 1 1 o20 op1 CRn CRm op2 Rt",     BASE, "{Xt}, {sysreg}", system::mrs),
    row!("{sysop}", "1101010100 0 01 op1 CRn CRm op2 Rt",    BASE, "{sysop.operands}", system::sys),
];
