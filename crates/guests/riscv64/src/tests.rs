//! What lifting gives, in the IR's debug form, and disassembly.

use crate::{
    Cpu, Mode, Riscv64, cause,
    pattern::Field,
    regs::{Privilege, mstatus},
};
use isomer_ir::{
    Block, Guest, LinkHint, Op, Terminal, guest::lift_block, text, types::Order, verify::verify,
};

/// The mode word of M-mode with FS in `fs`.
fn mode(fs: u64) -> u32 {
    let mut cpu = Cpu { mstatus: fs << mstatus::FS_SHIFT, ..Cpu::default() };
    cpu.update_mode();
    cpu.header.mode
}

fn lift_in(mode: u32, code: &[u32]) -> Block {
    let bytes: Vec<u8> = code
        .iter()
        .flat_map(|word| {
            if word & 3 == 3 { word.to_le_bytes().to_vec() } else { (*word as u16).to_le_bytes().to_vec() }
        })
        .collect();
    lift_block(&Riscv64::max(), mode, &bytes, 64).expect("complete instructions")
}

fn lift(code: &[u32]) -> Block {
    lift_in(mode(3), code)
}

/// The block's operations but for `InsnStart`, one a line.
fn ops(block: &Block) -> String {
    let insts = block.insts.iter().filter(|i| !matches!(i.op, Op::InsnStart { .. }));
    insts.map(|inst| format!("{:?}\n", inst.op)).collect()
}

#[test]
fn addi_reads_adds_and_writes() {
    let block = lift(&[0xff01_0113]); // addi sp, sp, -16
    assert_eq!(
        ops(&block),
        "Get { slot: Slot(2) }\n\
         Const { ty: I64, bits: 18446744073709551600 }\n\
         Binary { op: Add, ty: I64, a: v0, b: v1 }\n\
         Set { slot: Slot(2), value: v2 }\n"
    );
    assert_eq!(block.terminal, Terminal::Jump { offset: 4, hint: LinkHint::None });
}

#[test]
fn compressed_instructions_lift_as_what_they_expand_to() {
    for (short, long) in [
        (0x1141, 0xff01_0113), // c.addi sp, -16
        (0x852e, 0x00b0_0533), // c.mv a0, a1 = add a0, zero, a1
        (0x9d8d, 0x40b5_85bb), // c.subw a1, a1
        (0x4188, 0x0005_a503), // c.lw a0, 0(a1)
        (0xe406, 0x0011_3423), // c.sdsp ra, 8(sp)
        (0x6605, 0x0000_1637), // c.lui a2, 1
        (0x7139, 0xfc01_0113), // c.addi16sp -64
        (0x0808, 0x0101_0513), // c.addi4spn a0, 16
        (0x9fad, 0x00b7_87bb), // c.addw a5, a1
    ] {
        assert_eq!(ops(&lift(&[short])), ops(&lift(&[long])), "{short:#06x}");
    }
}

#[test]
fn x0_is_zero_and_not_written() {
    assert_eq!(lift(&[0x00b5_0033]).insts.iter().filter(|i| matches!(i.op, Op::Set { .. })).count(), 0);
    assert!(ops(&lift(&[0x0000_0533])).starts_with("Const { ty: I64, bits: 0 }\n"));
    // A load to x0 still loads.
    assert!(ops(&lift(&[0x0005_b003])).contains("Load"));
}

#[test]
fn code_addresses_are_relative_to_the_block() {
    let block = lift(&[0x0000_0013, 0x0000_1517, 0x0080_00ef]); // nop; auipc a0, 1; jal ra, 8
    assert!(ops(&block).contains("PcRel { offset: 4100 }\nSet { slot: Slot(10)"));
    assert!(ops(&block).contains("PcRel { offset: 12 }\nSet { slot: Slot(1)"));
    let hint = LinkHint::Call { return_offset: 12 };
    assert_eq!(block.terminal, Terminal::Jump { offset: 16, hint });
}

#[test]
fn branches_go_both_ways() {
    let Terminal::Branch { taken, not_taken, .. } = lift(&[0x0000_0013, 0xfeb5_0ee3]).terminal else {
        panic!("beq a0, a1, -4 is a branch");
    };
    assert_eq!((taken, not_taken), (0, 8));
}

#[test]
fn link_registers_give_hints() {
    let hint = |insn| match lift(&[insn]).terminal {
        Terminal::Indirect { hint, .. } => hint,
        other => panic!("{other:?}"),
    };
    assert_eq!(hint(0x0000_8067), LinkHint::Return, "ret");
    assert_eq!(hint(0x8082), LinkHint::Return, "c.jr ra");
    assert_eq!(hint(0x9502), LinkHint::Call { return_offset: 2 }, "c.jalr a0");
    assert_eq!(hint(0x8502), LinkHint::None, "c.jr a0");
    assert_eq!(hint(0x0002_80e7), LinkHint::None, "jalr ra, t0 swaps coroutines");
    assert_eq!(hint(0x0000_80e7), LinkHint::Call { return_offset: 4 }, "jalr ra, ra");
}

#[test]
fn illegal_instructions_trap_with_their_bits() {
    for insn in [0x0000_u32, 0xffff_ffff, 0x0200_0053 | 5 << 12] {
        let block = lift(&[insn]);
        let Terminal::Trap { code, value: Some(_) } = block.terminal else {
            panic!("{insn:#x}: {:?}", block.terminal);
        };
        assert_eq!(u64::from(code), cause::ILLEGAL);
        assert_eq!(ops(&block), format!("Const {{ ty: I64, bits: {insn} }}\n"));
    }
}

#[test]
fn floating_point_obeys_fs() {
    let fadd_d = 0x02b5_7553;
    let illegal = |block: &Block| matches!(block.terminal, Terminal::Trap { code: 2, .. });
    assert!(illegal(&lift_in(mode(0), &[fadd_d])));
    assert!(illegal(&lift_in(mode(0), &[0x2108])), "c.fld");
    // Clean: marked once, and the block ends since its mode is no longer the hart's.
    let block = lift_in(mode(2), &[fadd_d, fadd_d]);
    assert_eq!(ops(&block).matches("Call").count(), 1);
    assert_eq!(block.terminal, Terminal::Exit { offset: 4 });
    // Dirty: nothing to do.
    let block = lift_in(mode(3), &[fadd_d, fadd_d]);
    assert_eq!(ops(&block).matches("Call").count(), 0);
    assert_eq!(block.insn_count, 2);
    // Stores only read.
    assert_eq!(ops(&lift_in(mode(2), &[0x00b5_3027])).matches("Call").count(), 0);
}

#[test]
fn reserved_rounding_is_illegal() {
    let fadd_s = |rm: u32| 0x00b5_0553 | rm << 12;
    let illegal = |block: Block| matches!(block.terminal, Terminal::Trap { code: 2, .. });
    for rm in 0..8 {
        assert_eq!(illegal(lift(&[fadd_s(rm)])), rm == 5 || rm == 6, "rm {rm}");
    }
    let mut cpu = Cpu { mstatus: mstatus::FS, frm: 6, ..Cpu::default() };
    cpu.update_mode();
    assert!(Mode(cpu.header.mode).frm_invalid());
    assert!(illegal(lift_in(cpu.header.mode, &[fadd_s(7)])));
    assert!(!illegal(lift_in(cpu.header.mode, &[fadd_s(0)])));
}

#[test]
fn singles_are_unboxed_once_they_are_known_to_be_boxed() {
    // flw fa0, 0(a0); fadd.s fa0, fa0, fa0: fa0 is known to hold a boxed single.
    assert_eq!(ops(&lift(&[0x0005_2507, 0x00a5_7553])).matches("Select").count(), 0);
    // flw; fld to the same register; fadd.s: both operands are checked.
    assert_eq!(ops(&lift(&[0x0005_2507, 0x0005_3507, 0x00a5_7553])).matches("Select").count(), 2);
}

#[test]
fn atomics_are_aligned_and_ordered() {
    let flags = |insn| {
        let block = lift(&[insn]);
        block.insts.iter().find_map(|i| i.op.mem_flags()).expect("an access")
    };
    assert_eq!(flags(0x00b5_252f).order, Order::Relaxed); // amoadd.w a0, a1, (a0)
    assert_eq!(flags(0x04b5_252f).order, Order::Acquire);
    assert_eq!(flags(0x02b5_252f).order, Order::Release);
    assert_eq!(flags(0x06b5_252f).order, Order::SeqCst);
    assert_eq!(flags(0x1005_252f).align, isomer_ir::types::Align::Natural); // lr.w
}

#[test]
fn pairs_start_at_even_registers() {
    let amocas_q = |rd: u32, rs2: u32| 0x2805_402f | rd << 7 | rs2 << 20;
    let sets = |block: Block| block.insts.iter().filter(|i| matches!(i.op, Op::Set { .. })).count();
    assert_eq!(sets(lift(&[amocas_q(12, 14)])), 2);
    assert_eq!(sets(lift(&[amocas_q(0, 14)])), 0);
    for (rd, rs2) in [(13, 14), (12, 15)] {
        assert!(matches!(lift(&[amocas_q(rd, rs2)]).terminal, Terminal::Trap { code: 2, .. }));
    }
}

#[test]
fn csr_accesses_call_for_what_happens() {
    let helper = |insn| {
        let block = lift(&[0x0000_0013, insn]);
        let id = block.insts.iter().find_map(|i| match i.op {
            Op::Call { helper, .. } => Some(helper),
            _ => None,
        });
        let name = Riscv64::HELPERS[usize::from(id.expect("a call").0)].name;
        let end = match block.terminal {
            Terminal::Exit { .. } => "exit",
            Terminal::Attend { .. } => "attend",
            _ => "on",
        };
        (name, end)
    };
    assert_eq!(helper(0x3005_1073), ("csr_write", "attend")); // csrrw zero, mstatus, a0
    assert_eq!(helper(0x3005_15f3), ("csr_swap", "attend"));
    assert_eq!(helper(0x3000_25f3), ("csr_read", "on")); // csrrs a1, mstatus, zero
    assert_eq!(helper(0x3005_2573), ("csr_set", "attend"));
    assert_eq!(helper(0x3005_3073), ("csr_clear", "attend"));
    assert_eq!(helper(0x3000_65f3), ("csr_read", "on")); // csrrsi a1, mstatus, 0
    assert_eq!(helper(0x3001_7073), ("csr_clear", "attend")); // csrrci zero, mstatus, 2
    assert_eq!(helper(0x1805_1073), ("csr_write", "exit")); // satp changes the address space
}

#[test]
fn plain_csrs_and_masking_interrupts_call_nobody() {
    let calls = |insn| {
        let block = lift(&[insn]);
        let calls = block.insts.iter().any(|i| matches!(i.op, Op::Call { .. }));
        (calls, matches!(block.terminal, Terminal::Jump { .. }))
    };
    assert_eq!(calls(0x1405_1073), (false, true)); // csrrw zero, sscratch, a0
    assert_eq!(calls(0x1410_2573), (false, true)); // csrrs a0, sepc, zero
    assert_eq!(calls(0x1001_75f3), (false, true)); // csrrci a1, sstatus, 2
    assert_eq!(calls(0x1001_65f3), (true, false)); // csrrsi a1, sstatus, 2
}

#[test]
fn privileged_instructions_are_illegal_below_their_privilege() {
    let lift_as = |privilege, insn| {
        let mut cpu = Cpu { privilege, ..Cpu::default() };
        cpu.update_mode();
        matches!(lift_in(cpu.header.mode, &[insn]).terminal, Terminal::Trap { code: 2, .. })
    };
    let (mret, sret, sfence) = (0x3020_0073, 0x1020_0073, 0x1200_0073);
    assert!(lift_as(Privilege::Supervisor, mret));
    assert!(!lift_as(Privilege::Machine, mret));
    assert!(lift_as(Privilege::User, sret));
    assert!(!lift_as(Privilege::Supervisor, sret));
    assert!(lift_as(Privilege::User, sfence));
    assert!(!lift_as(Privilege::Supervisor, sfence));
}

#[test]
fn cut_instructions_need_more() {
    assert!(lift_block(&Riscv64::max(), mode(3), &[0x13, 0x01], 1).is_none());
    let block = lift_block(&Riscv64::max(), mode(3), &[0x41, 0x11, 0x13, 0x01], 8).expect("c.addi is whole");
    assert_eq!((block.insn_count, block.len), (1, 2));
}

/// An encoding of a row, its fields filled from its name: the same one as long as the row keeps its name.
fn sample(row: &crate::decode::Row) -> u32 {
    let seed =
        row.insn.name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
    let fills = std::iter::successors(Some(seed), |state| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    });
    let encodings = fills.map(|fill| (fill >> 32) as u32 & !row.pattern.mask | row.pattern.bits);
    let width = u32::MAX >> (32 - row.pattern.width);
    let own = |insn: &u32| {
        let found = crate::decode::decode(Riscv64::max().ext, *insn);
        // A reserved rounding mode would show nothing but the trap.
        found.is_some_and(|d| d.row.insn.name == row.insn.name && !matches!(d.fields.get(Field::Rm), 5 | 6))
    };
    encodings.map(|insn| insn & width).find(own).expect("every row has encodings of its own")
}

/// One encoding of every row against `tests/lift.golden`; `ISOMER_BLESS=1` writes that file anew.
#[test]
fn every_row_lifts_as_recorded() {
    let mut lifted = String::new();
    for row in crate::decode::Decoder::rows() {
        let insn = sample(row);
        let code = &insn.to_le_bytes()[..row.pattern.width as usize / 8];
        let block = lift_block(&Riscv64::max(), mode(3), code, 1).expect("a whole instruction");
        verify(&block).unwrap_or_else(|e| panic!("{}: {e}", row.insn.name));
        let text = text::print_for::<Riscv64>(&block);
        assert_eq!(text::parse_for::<Riscv64>(&text).as_ref(), Ok(&block), "{text}");
        let assembly = Riscv64::max().disassemble(code, 0).0;
        lifted += &format!("; {insn:0width$x} {assembly}\n{text}\n", width = row.pattern.width as usize / 4);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lift.golden");
    if std::env::var_os("ISOMER_BLESS").is_some() {
        std::fs::write(path, &lifted).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(path).expect("the golden file can be read");
    for (got, wanted) in lifted.split("\n\n").zip(golden.split("\n\n")) {
        assert_eq!(got, wanted);
    }
    assert_eq!(lifted.len(), golden.len(), "rows came or went");
}

proptest::proptest! {
    /// Guest code is hostile: any bytes, in any mode word, lift to something and disassemble.
    #[test]
    fn any_bytes_lift(mode: u32, code: [u8; 64]) {
        let guest = Riscv64::max();
        if let Some(block) = lift_block(&guest, mode, &code, 16) {
            proptest::prop_assert!(block.insn_count >= 1 && block.len as usize <= code.len());
            proptest::prop_assert_eq!(verify(&block), Ok(()));
        }
        let (_, len) = guest.disassemble(&code, 0);
        proptest::prop_assert!(len == 2 || len == 4);
    }
}

#[test]
fn assembly_is_the_manuals() {
    let text = |insn: u32| {
        let code = insn.to_le_bytes();
        Riscv64::max().disassemble(&code, 0x8000_0000).0
    };
    for (insn, expected) in [
        (0xff01_0113, "addi sp,sp,-16"),
        (0x1141, "c.addi sp,-16"),
        (0x7139, "c.addi16sp sp,-64"),
        (0x0808, "c.addi4spn a0,sp,16"),
        (0xe406, "c.sdsp ra,8(sp)"),
        (0x4188, "c.lw a0,0(a1)"),
        (0x852e, "c.mv a0,a1"),
        (0x8082, "c.jr ra"),
        (0x0080_00ef, "jal ra,0x80000008"),
        (0xfeb5_0ee3, "beq a0,a1,0x7ffffffc"),
        (0x0000_8067, "jalr zero,0(ra)"),
        (0x06b5_252f, "amoadd.w.aqrl a0,a1,(a0)"),
        (0x0330_000f, "fence rw,rw"),
        (0x3005_15f3, "csrrw a1,mstatus,a0"),
        (0x02b5_7553, "fadd.d fa0,fa0,fa1"),
        (0x02b5_1553, "fadd.d fa0,fa0,fa1,rtz"),
        (0xf018_0553, "fli.s fa0,1.0"),
        (0x81c0_4073, "mop.r.0 zero,zero"),
        (0x0000, ".2byte 0x0000"),
    ] {
        assert_eq!(text(insn), expected);
    }
}
