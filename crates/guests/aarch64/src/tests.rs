//! What lifting base instructions gives, in the IR's text form, and how the mode word changes it.

use crate::{
    Aarch64, Cpu, Features, Mode,
    decode::{self, Decoder, Row},
    mode::Key,
    table, trap,
};
use isomer_ir::{
    Block, Guest, LinkHint, Op, Terminal, Type,
    guest::lift_block,
    op::Cond,
    passes, text,
    types::{Align, Endian, MemFlags, Order},
    verify::verify,
};

fn with(features: Features) -> Aarch64 {
    let mut guest = Aarch64::max();
    guest.features = features;
    guest
}

/// A CPU that has every feature the tables know.
fn everything() -> Aarch64 {
    with(Features::all())
}

fn lift_on(guest: &Aarch64, mode: u32, code: &[u32]) -> Block {
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    let block = lift_block(guest, mode, &bytes, 64).expect("complete instructions");
    verify(&block).unwrap_or_else(|e| panic!("{code:x?}: {e}"));
    block
}

fn lift_in(mode: u32, code: &[u32]) -> Block {
    lift_on(&everything(), mode, code)
}

fn lift(code: &[u32]) -> Block {
    lift_in(0, code)
}

/// The block's operations but for `InsnStart`, one a line.
fn ops(block: &Block) -> String {
    let insts = block.insts.iter().filter(|i| !matches!(i.op, Op::InsnStart { .. }));
    insts.map(|inst| format!("{:?}\n", inst.op)).collect()
}

fn flags(block: &Block) -> Vec<MemFlags> {
    block.insts.iter().filter_map(|i| i.op.mem_flags()).collect()
}

fn helpers(block: &Block) -> Vec<&'static str> {
    let called = block.insts.iter().filter_map(|i| match i.op {
        Op::Call { helper, .. } => Some(Aarch64::HELPERS[usize::from(helper.0)].name),
        _ => None,
    });
    called.collect()
}

/// An encoding of a row, its fields filled from its name and pattern: the same one as long as the row keeps them.
fn sample(row: &Row) -> u32 {
    let text = row.insn.name.bytes().chain(row.insn.pattern.bytes());
    let seed = text
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let fills = std::iter::successors(Some(seed), |state| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    });
    let encodings = fills.map(|fill| (fill >> 32) as u32 & !row.pattern.mask | row.pattern.bits);
    let own = |&insn: &u32| {
        decode::decode(Features::all(), insn).is_some_and(|found| std::ptr::eq(found.insn, row.insn))
    };
    encodings.take(100_000).find(own).expect("every row has encodings of its own")
}

/// One encoding of every row against `tests/integer-lift.golden`; `ISOMER_BLESS=1` writes that file anew.
#[test]
fn every_row_lifts_as_recorded() {
    let mut lifted = String::new();
    let is_own = |row: &&Row| table::integer().any(|insn| std::ptr::eq(insn, row.insn));
    for row in Decoder::rows().iter().filter(is_own) {
        let code = sample(row).to_le_bytes();
        // Every key is on.
        let mode = 0xf << Mode::KEY_SHIFT;
        let block = lift_block(&everything(), mode, &code, 1).expect("a whole instruction");
        verify(&block).unwrap_or_else(|e| panic!("{}: {e}", row.insn.name));
        let text = text::print_for::<Aarch64>(&block);
        assert_eq!(text::parse_for::<Aarch64>(&text).as_ref(), Ok(&block), "{text}");
        let assembly = everything().disassemble(&code, 0).0;
        lifted += &format!("; {:08x} {assembly}\n{text}\n", u32::from_le_bytes(code));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integer-lift.golden");
    if std::env::var_os("ISOMER_BLESS").is_some() {
        std::fs::write(path, &lifted).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(path).expect("the golden file can be read");
    for (got, wanted) in lifted.split("\n\n").zip(golden.split("\n\n")) {
        assert_eq!(got, wanted);
    }
    assert_eq!(lifted.len(), golden.len(), "rows came or went");
}

#[test]
fn the_zero_register_reads_as_zero_and_is_not_written() {
    // add xzr, x1, x2; ldr xzr, [x1] still loads.
    assert!(!ops(&lift(&[0x8b02_003f])).contains("Set"));
    assert!(ops(&lift(&[0xf940_003f])).contains("Load"));
    // add sp, x1, #1 writes SP.
    assert!(ops(&lift(&[0x9100_043f])).contains("Set { slot: Slot(31)"));
}

#[test]
fn flags_are_comparisons() {
    // subs x0, x1, x2: carry is no borrow.
    let subs = ops(&lift(&[0xeb02_0020]));
    assert!(subs.contains("Compare { cond: GeU, ty: I64, a: v0, b: v1 }"), "{subs}");
    // cmp w0, w1; b.gt: one comparison.
    let mut block = lift(&[0x6b01_001f, 0x5400_008c]);
    passes::optimize_for::<Aarch64>(&mut block);
    let Terminal::Branch { c, .. } = block.terminal else {
        panic!("{:?}", block.terminal);
    };
    let condition = block.insts.iter().rfind(|inst| matches!(inst.op, Op::Compare { .. }));
    let condition = condition.filter(|inst| inst.first == c).map(|inst| inst.op);
    assert!(matches!(condition, Some(Op::Compare { cond: Cond::LtS, ty: Type::I32, .. })), "{condition:?}");
    // adcs takes the flag.
    assert!(ops(&lift(&[0xba02_0020])).contains("AddCarry"));
}

#[test]
fn code_addresses_are_relative_to_the_block() {
    let block = lift(&[0x9100_0400, 0x9400_0004]);
    assert!(ops(&block).contains("PcRel { offset: 8 }"), "x30");
    assert_eq!(block.terminal, Terminal::Jump { offset: 20, hint: LinkHint::Call { return_offset: 8 } });
    let Terminal::Branch { taken, not_taken, .. } = lift(&[0x9100_0400, 0x54ff_ffe1]).terminal else {
        panic!("b.ne -4 is a branch");
    };
    assert_eq!((taken, not_taken), (0, 8));
}

#[test]
fn indirect_branches_check_the_address_and_give_hints() {
    let block = lift(&[0xd65f_03c0]);
    assert!(matches!(block.terminal, Terminal::Indirect { hint: LinkHint::Return, .. }));
    assert!(ops(&block).contains(&format!("code: {}", trap::PC_ALIGNMENT)));
    let hint = LinkHint::Call { return_offset: 4 };
    assert!(
        matches!(lift(&[0xd63f_0020]).terminal, Terminal::Indirect { hint: h, .. } if h == hint),
        "blr x1"
    );
    // Ignored top bytes are replaced, exactly in the half that ignores them.
    assert!(!ops(&lift(&[0xd61f_0020])).contains("Extract"));
    let lower = ops(&lift_in(Mode::TBI0, &[0xd61f_0020]));
    assert!(lower.contains("lo: 0, len: 56, signed: true") && lower.contains("op: And, ty: I64"), "{lower}");
    assert!(ops(&lift_in(Mode::TBI1, &[0xd61f_0020])).contains("op: Or, ty: I64"));
}

#[test]
fn undefined_encodings_trap() {
    let undefined = Terminal::Trap { code: trap::UNDEFINED, value: None };
    for insn in [
        0x0000_0000, // udf #0
        0xffff_ffff, // unallocated
        0x0b00_8000, // add w0, w0, w0, lsl #32
        0x1200_fc00, // and w0, w0, with a reserved bitmask
        0x52c0_0000, // movz w0, #0, lsl #32
        0x0ac0_8000, // and w0, w0, w0, ror #32
        0x4821_7c02, // casp x1, ..., odd registers
    ] {
        assert_eq!(lift(&[insn]).terminal, undefined, "{insn:#010x}");
    }
    // On a core without the feature.
    let old = with(Features::empty());
    for insn in [0x88a0_7c41, 0x9ac1_4c00, 0xdac1_0020, 0x38bf_c020] {
        assert_eq!(lift_on(&old, 0, &[insn]).terminal, undefined, "{insn:#010x}");
        assert_ne!(lift(&[insn]).terminal, undefined, "{insn:#010x}");
    }
}

#[test]
fn the_stack_pointer_is_checked_once() {
    let checks = |code: &[u32]| ops(&lift_in(Mode::SP_ALIGN, code)).matches("TrapIf").count();
    // stp x29, x30, [sp, #-16]!; ldr x0, [sp]
    assert_eq!(checks(&[0xa9bf_7bfd, 0xf940_03e0]), 1);
    // sub sp, sp, #32 keeps it aligned; sub sp, sp, #8 does not; mov sp, x0 may not.
    assert_eq!(checks(&[0xf940_03e0, 0xd100_83ff, 0xf940_03e0]), 1);
    assert_eq!(checks(&[0xf940_03e0, 0xd100_23ff, 0xf940_03e0]), 2);
    assert_eq!(checks(&[0xf940_03e0, 0x9100_001f, 0xf940_03e0]), 2);
    assert_eq!(ops(&lift(&[0xf940_03e0])).matches("TrapIf").count(), 0, "SCTLR_ELx.SA = 0");
}

#[test]
fn the_mode_says_how_memory_is_accessed() {
    let ldr = 0xf940_0020;
    assert_eq!(flags(&lift(&[ldr]))[0].align, Align::Any);
    assert_eq!(flags(&lift_in(Mode::ALIGN, &[ldr]))[0].align, Align::Natural);
    assert_eq!(flags(&lift_in(Mode::BIG, &[ldr]))[0].endian, Endian::Big);
    let mode = 1 << Mode::MMU_SHIFT | 5 << Mode::UNPRIVILEGED_SHIFT;
    assert_eq!(flags(&lift_in(mode, &[ldr]))[0].mmu.0, 1);
    assert_eq!(flags(&lift_in(mode, &[0xf840_0820]))[0].mmu.0, 5, "ldtr");
}

#[test]
fn orders_are_the_instructions() {
    let order = |insn| flags(&lift(&[insn]))[0].order;
    for (insn, expected) in [
        (0xf940_0020, Order::Relaxed), // ldr
        (0xc8df_fc20, Order::SeqCst),  // ldar
        (0xc89f_fc20, Order::SeqCst),  // stlr
        (0xf8bf_c020, Order::Acquire), // ldapr
        (0xc85f_7c20, Order::Relaxed), // ldxr
        (0xc85f_fc20, Order::SeqCst),  // ldaxr
        (0xf820_0020, Order::Relaxed), // ldadd
        (0xf8a0_0020, Order::Acquire), // ldadda
        (0xf860_0020, Order::Release), // ldaddl
        (0xf8e0_0020, Order::SeqCst),  // ldaddal
        (0xc8e0_7c20, Order::Acquire), // casa
        (0xc8a0_fc20, Order::Release), // casl
    ] {
        assert_eq!(order(insn), expected, "{insn:#010x}");
    }
}

#[test]
fn ordered_accesses_may_be_misaligned_within_16_bytes() {
    let ldar = 0xc8df_fc20;
    let block = lift(&[ldar]);
    assert_eq!(flags(&block)[0].align, Align::Any);
    assert_eq!(ops(&block).matches("TrapIf").count(), 1);
    assert_eq!(ops(&lift_in(Mode::NAA, &[ldar])).matches("TrapIf").count(), 0);
    let old = with(Features::empty());
    let block = lift_on(&old, 0, &[ldar]);
    assert_eq!(flags(&block)[0].align, Align::Natural);
    assert_eq!(ops(&block).matches("TrapIf").count(), 0);
}

#[test]
fn pointer_authentication_obeys_its_switches() {
    let (paciasp, autda, retaa) = (0xd503_233f, 0xdac1_1820, 0xd65f_0bff);
    let on = |key: Key| 1 << (Mode::KEY_SHIFT + key as u32);
    assert_eq!(helpers(&lift_in(on(Key::IA), &[paciasp])), ["pac_add"]);
    assert_eq!(helpers(&lift_in(on(Key::IB), &[paciasp])), [""; 0]);
    assert_eq!(helpers(&lift_in(on(Key::DA), &[autda])), ["pac_check_trap"]);
    let without_faults = with(Features::all() - Features::FPAC);
    assert_eq!(helpers(&lift_on(&without_faults, on(Key::DA), &[autda])), ["pac_check"]);
    let block = lift_in(on(Key::IA) | Mode::PAUTH_TRAP, &[retaa]);
    assert_eq!(block.terminal, Terminal::Trap { code: trap::PAUTH_ACCESS, value: None });
    assert!(matches!(lift(&[retaa]).terminal, Terminal::Indirect { hint: LinkHint::Return, .. }));
    // A hint elsewhere: nothing happens.
    let old = with(Features::empty());
    assert_eq!(helpers(&lift_on(&old, on(Key::IA), &[paciasp])), [""; 0]);
}

#[test]
fn guarded_blocks_check_where_they_are_entered() {
    let (add, bti_c, bti_jc, blr) = (0x9100_0400, 0xd503_245f, 0xd503_24df, 0xd63f_0020);
    assert_eq!(helpers(&lift_in(Mode::GUARDED, &[add, add])), ["check_landing"]);
    assert_eq!(helpers(&lift_in(Mode::GUARDED, &[bti_c])), ["check_landing"]);
    assert_eq!(helpers(&lift_in(Mode::GUARDED, &[bti_jc])), [""; 0]);
    assert_eq!(helpers(&lift(&[add])), [""; 0]);
    // BTYPE is cleared at the entry, and set by the call.
    let block = lift_in(Mode::GUARDED, &[bti_jc, blr]);
    assert_eq!(ops(&block).matches("Set { slot: Slot(133)").count(), 2);
}

#[test]
fn single_steps_are_blocks_of_one_instruction() {
    let block = lift_in(Mode::STEP, &[0x9100_0420, 0x9100_0420]);
    assert_eq!((block.insn_count, block.terminal), (1, Terminal::Exit { offset: 4 }));
    assert_eq!(helpers(&block), ["step"]);
}

#[test]
fn pairs_are_written_after_both_loads() {
    // ldp x0, x1, [x0]
    let ops = ops(&lift(&[0xa940_0400]));
    let (load, set) = (ops.rfind("Load"), ops.find("Set"));
    assert!(load < set, "{ops}");
}

/// Signed and stripped pointers come back, on every combination of variants; a wrong modifier is noticed.
#[test]
fn codes_authenticate() {
    for features in [
        Features::PAUTH,
        Features::PAUTH | Features::PACQARMA3,
        Features::PAUTH | Features::PAUTH2,
        Features::PAUTH | Features::PAUTH2 | Features::FPAC,
        Features::PAUTH | Features::PACIMP,
        Features::PAUTH | Features::PACIMP | Features::PAUTH2 | Features::FPAC,
    ] {
        let guest = with(features);
        for (tcr, pointer) in [
            (16 | 16 << 16, 0x0000_7fff_1234_5678u64),
            (16 | 16 << 16, 0xffff_8000_1234_5678),
            (25 | 25 << 16 | 3 << 37, 0x2a00_0012_3456_7890),
            (25 | 25 << 16 | 1 << 37, 0xffff_ff92_3456_7890),
        ] {
            let mut cpu = Cpu { el: 0, ..Cpu::default() };
            cpu.sys.tcr[1] = tcr;
            cpu.sys.apia = [0x84be_85ce_9804_e94b, 0xec28_02d4_e0a4_88e9];
            let mut call = |name: &str, args: [u64; 4]| {
                let helper = Aarch64::HELPERS.iter().find(|helper| helper.name == name).expect("a helper");
                let mut env = isomer_ir_env::Nothing;
                (helper.run)(&mut isomer_ir::HelperCx { guest: &guest, cpu: &mut cpu, env: &mut env }, args)
            };
            let signed = call("pac_add", [pointer, 0x1234, 0, 0]).expect("adding never traps");
            assert_ne!(signed, pointer, "{features:?} {pointer:#x}");
            assert_eq!(call("pac_check_trap", [signed, 0x1234, 0, 0]), Ok(pointer), "{features:?}");
            assert_eq!(call("pac_strip", [signed, 0, 0, 0]), Ok(pointer), "{features:?}");
            match call("pac_check_trap", [signed, 0x1235, 0, 0]) {
                Ok(spoilt) => assert!(spoilt != pointer && !features.contains(Features::FPAC)),
                Err(trap) => assert_eq!((trap.class(), trap.syndrome & 3), (trap::ec::FPAC, 0)),
            }
        }
    }
}

/// An engine that helpers of pointers ask nothing of.
mod isomer_ir_env {
    use crate::{Aarch64, Cpu, Trap};
    use isomer_core::{Gpa, Gva};
    use isomer_ir::{
        Access, MmuIndex,
        guest::{HelperEnv, TlbFlush},
    };

    pub(super) struct Nothing;

    impl HelperEnv<Aarch64> for Nothing {
        fn now_ns(&self) -> u64 {
            0
        }
        fn lines(&self) -> u64 {
            0
        }
        fn entropy(&mut self) -> u64 {
            0
        }
        fn load(&mut self, _: &Aarch64, _: &mut Cpu, _: Gva, _: usize, _: MmuIndex) -> Result<u64, Trap> {
            Err(Trap::undefined())
        }
        fn store(
            &mut self,
            _: &Aarch64,
            _: &mut Cpu,
            _: Gva,
            _: usize,
            _: MmuIndex,
            _: u64,
        ) -> Result<(), Trap> {
            Err(Trap::undefined())
        }
        fn translate(
            &mut self,
            _: &Aarch64,
            _: &mut Cpu,
            gva: Gva,
            _: Access,
            _: MmuIndex,
        ) -> Result<Gpa, Trap> {
            Ok(Gpa(gva.0))
        }
        fn flush_tlb(&mut self, _: TlbFlush) {}
        fn set_address_space(&mut self, _: u64) {}
        fn sync_code(&mut self) {}
        fn reconsider(&mut self) {}
        fn wait_for_interrupt(&mut self) {}
    }
}

proptest::proptest! {
    /// Guest code is hostile: any bytes, in any mode word, lift to something and disassemble.
    #[test]
    fn any_bytes_lift(mode: u32, code: [u32; 16]) {
        let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
        for guest in [everything(), Aarch64::max()] {
            let block = lift_block(&guest, mode, &bytes, 16).expect("whole instructions");
            proptest::prop_assert!(block.insn_count >= 1 && block.len as usize <= bytes.len());
            proptest::prop_assert_eq!(verify(&block), Ok(()));
            proptest::prop_assert_eq!(guest.disassemble(&bytes, 0).1, 4);
        }
    }

    /// The same with encodings that exist.
    #[test]
    fn any_row_lifts(mode: u32, choices: [(u16, u32); 8]) {
        let rows = Decoder::rows();
        let code: Vec<u32> = choices.iter().map(|&(row, fill)| {
            let pattern = &rows[usize::from(row) % rows.len()].pattern;
            fill & !pattern.mask | pattern.bits
        }).collect();
        for &insn in &code {
            let block = lift_block(&everything(), mode, &insn.to_le_bytes(), 1).expect("a whole instruction");
            proptest::prop_assert_eq!(verify(&block), Ok(()), "{:#010x}", insn);
            proptest::prop_assert!(!everything().disassemble(&insn.to_le_bytes(), 0).0.is_empty());
        }
    }
}

#[test]
fn cut_instructions_need_more() {
    assert_eq!(
        lift_block(&everything(), 0, &[0x20, 0x04, 0x00, 0x91, 0, 0, 0], 8).map(|b| b.insn_count),
        Some(1)
    );
    assert_eq!(everything().disassemble(&[0x20], 0), (String::new(), 0));
}

#[test]
fn types_match_widths() {
    // add w0, w1, w2: 32 bits, then zero-extended.
    let ops = ops(&lift(&[0x0b02_0020]));
    assert!(
        ops.contains("Binary { op: Add, ty: I32") && ops.contains(&format!("Zext {{ to: {:?}", Type::I64)),
        "{ops}"
    );
}
