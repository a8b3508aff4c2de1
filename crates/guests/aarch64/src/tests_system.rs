//! What system instructions are lifted to: slots where a register is one, helpers elsewhere, and where blocks end.

use crate::{Aarch64, Mode, regs::slot, trap};
use isomer_ir::{Block, Guest, Op, Terminal, Type, guest::lift_block, types::Order, verify::verify};

/// EL1 with its own stack pointer, and EL0 where `dc zva` is allowed.
const EL1: u32 = 1 | Mode::SPSEL | Mode::ZVA;
const EL0: u32 = Mode::ZVA;

/// Lifts instructions and then a `nop`, to see whether the block goes on.
fn lift(mode: u32, code: &[u32]) -> Block {
    let code: Vec<u8> = code.iter().chain(&[0xd503_201f]).flat_map(|insn| insn.to_le_bytes()).collect();
    let block = lift_block(&Aarch64::max(), mode, &code, 64).expect("complete instructions");
    verify(&block).unwrap_or_else(|e| panic!("{e}"));
    block
}

fn helpers(block: &Block) -> Vec<&'static str> {
    let called = block.insts.iter().filter_map(|inst| match inst.op {
        Op::Call { helper, .. } => Some(Aarch64::HELPERS[usize::from(helper.0)].name),
        _ => None,
    });
    called.collect()
}

fn reads(block: &Block, wanted: isomer_ir::Slot) -> bool {
    block.insts.iter().any(|inst| matches!(inst.op, Op::Get { slot } if slot == wanted))
}

fn writes(block: &Block, wanted: isomer_ir::Slot) -> bool {
    block.insts.iter().any(|inst| matches!(inst.op, Op::Set { slot, .. } if slot == wanted))
}

/// Does the block go on behind the instruction?
fn goes_on(block: &Block) -> bool {
    block.insn_count == 2
}

const MRS_X3_TPIDR_EL0: u32 = 0xd53b_d043;
const MSR_TPIDR_EL1_X3: u32 = 0xd518_d083;
const MRS_X3_SP_EL0: u32 = 0xd538_4103;
const MRS_X3_DAIF: u32 = 0xd53b_4223;
const MSR_DAIF_X3: u32 = 0xd51b_4223;
const MSR_DAIFSET_2: u32 = 0xd503_42df;
const MSR_DAIFCLR_2: u32 = 0xd503_42ff;
const MSR_PAN_1: u32 = 0xd500_419f;
const MRS_X3_NZCV: u32 = 0xd53b_4203;
const MSR_NZCV_X3: u32 = 0xd51b_4203;
const MRS_X3_CURRENTEL: u32 = 0xd538_4243;
const MRS_X3_FPSR: u32 = 0xd53b_4423;
const MSR_ELR_EL1_X3: u32 = 0xd518_4023;
const MSR_TTBR0_EL1_X3: u32 = 0xd518_2003;
const MSR_SCTLR_EL1_X3: u32 = 0xd518_1003;
const DC_ZVA_X3: u32 = 0xd50b_7423;
const TLBI_VMALLE1: u32 = 0xd508_871f;
const SVC_5: u32 = 0xd400_00a1;
const HVC_0: u32 = 0xd400_0002;
const BRK_1: u32 = 0xd420_0020;
const ERET: u32 = 0xd69f_03e0;
const ERETAA: u32 = 0xd69f_0bff;
const DSB_SY: u32 = 0xd503_3f9f;
const DSB_ISHST: u32 = 0xd503_3a9f;
const DMB_ISHLD: u32 = 0xd503_39bf;
const ISB: u32 = 0xd503_3fdf;
const WFI: u32 = 0xd503_207f;

#[test]
fn registers_that_are_slots_need_no_helper() {
    for (mode, insn, slot, is_write) in [
        (EL0, MRS_X3_TPIDR_EL0, slot::TPIDR_EL0, false),
        (EL1, MSR_TPIDR_EL1_X3, slot::TPIDR_EL1, true),
        (EL1, MRS_X3_SP_EL0, slot::SP_EL0, false),
        (EL1, MRS_X3_DAIF, slot::DAIF, false),
        (EL1, MSR_DAIFSET_2, slot::DAIF, true),
        (EL0, MRS_X3_NZCV, slot::Z, false),
        (EL0, MSR_NZCV_X3, slot::V, true),
    ] {
        let block = lift(mode, &[insn]);
        assert_eq!(helpers(&block), [""; 0], "{insn:#x}");
        assert!(goes_on(&block), "{insn:#x}");
        assert!(if is_write { writes(&block, slot) } else { reads(&block, slot) }, "{insn:#x}");
    }
    assert_eq!(helpers(&lift(EL1, &[MRS_X3_CURRENTEL])), [""; 0]);
}

#[test]
fn what_a_level_may_not_have_goes_through_the_helper() {
    // EL0 traps or is undefined there; SP_EL0 is no register while it is the stack pointer.
    for (mode, insn) in [
        (EL0, MSR_TPIDR_EL1_X3),
        (EL0, MRS_X3_DAIF),
        (EL0, MRS_X3_CURRENTEL),
        (EL1 & !Mode::SPSEL, MRS_X3_SP_EL0),
    ] {
        assert_eq!(helpers(&lift(mode, &[insn])).len(), 1, "{insn:#x}");
    }
    assert_eq!(helpers(&lift(EL0, &[MSR_DAIFSET_2])), ["msr_imm"]);
    let block = lift(EL0, &[MSR_PAN_1]);
    assert_eq!(block.terminal, Terminal::Trap { code: trap::UNDEFINED, value: None });
}

#[test]
fn floating_point_status_traps_with_the_unit() {
    assert_eq!(helpers(&lift(EL1, &[MRS_X3_FPSR])), ["mrs"]);
    let block = lift(EL1 | Mode::FP_TRAP, &[MRS_X3_FPSR]);
    assert_eq!(block.terminal, Terminal::Trap { code: trap::FP_ACCESS, value: None });
}

#[test]
fn blocks_end_where_the_mode_or_translation_may_change() {
    for insn in [MSR_TTBR0_EL1_X3, MSR_SCTLR_EL1_X3, MSR_PAN_1, ISB, WFI] {
        let block = lift(EL1, &[insn]);
        assert!(matches!(block.terminal, Terminal::Exit { offset: 4 }), "{insn:#x}");
        assert_eq!(block.insn_count, 1);
    }
    for insn in [MSR_ELR_EL1_X3, MSR_DAIF_X3, MSR_DAIFCLR_2, TLBI_VMALLE1, DMB_ISHLD, DSB_ISHST] {
        assert!(goes_on(&lift(EL1, &[insn])), "{insn:#x}");
    }
}

#[test]
fn barriers_order_what_they_say() {
    let order = |insn| {
        let block = lift(EL1, &[insn]);
        block.insts.iter().find_map(|inst| match inst.op {
            Op::Fence { order } => Some(order),
            _ => None,
        })
    };
    assert_eq!(order(DMB_ISHLD), Some(Order::Acquire));
    assert_eq!(order(DSB_ISHST), Some(Order::Release));
    assert_eq!(order(DSB_SY), Some(Order::SeqCst));
    // It waits for other PEs' TLBs before anything behind it runs.
    let block = lift(EL1, &[DSB_SY]);
    assert_eq!(helpers(&block), ["dsb"]);
    assert!(matches!(block.terminal, Terminal::Jump { offset: 4, .. }) && block.insn_count == 1);
}

#[test]
fn calls_are_exceptions_with_their_immediate() {
    let code = |mode, insn| match lift(mode, &[insn]).terminal {
        Terminal::Trap { code, .. } => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(EL0, SVC_5), 0x5600_0005);
    assert_eq!(code(EL0, BRK_1), 0xf200_0001);
    assert_eq!(code(EL1, HVC_0), 0x5a00_0000);
    assert_eq!(code(EL0, HVC_0), trap::UNDEFINED);
    assert_eq!(code(EL0, ERET), trap::UNDEFINED);
    assert_eq!(code(EL0, ERETAA), trap::UNDEFINED);
}

#[test]
fn exception_returns_leave_with_the_helpers_pc() {
    let block = lift(EL1, &[ERET]);
    assert_eq!(helpers(&block), ["eret"]);
    assert!(matches!(block.terminal, Terminal::ExitIndirect { .. }));
    // With its key on, the return address is authenticated.
    let block = lift(EL1 | 1 << Mode::KEY_SHIFT, &[ERETAA]);
    assert_eq!(helpers(&block), ["elr", "pac_check_trap", "eret"]);
}

#[test]
fn a_zeroed_block_is_four_stores() {
    let block = lift(EL0, &[DC_ZVA_X3]);
    let stores = block.insts.iter().filter(|inst| matches!(inst.op, Op::Store { mem: Type::V128, .. }));
    assert_eq!(stores.count(), 4);
    assert_eq!(helpers(&lift(EL0 & !Mode::ZVA, &[DC_ZVA_X3])), ["sys"]);
}

#[test]
fn stepping_runs_one_instruction() {
    let block = lift(EL0 | Mode::STEP, &[MRS_X3_TPIDR_EL0]);
    assert_eq!(helpers(&block), ["step"]);
    assert_eq!(block.insn_count, 1);
}
