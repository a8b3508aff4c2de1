//! Counting, filters and overflow, by the functions and by CSR instructions.

use super::*;
use crate::{
    Trap,
    csr::{self, Update},
    regs::mstatus,
    system, trap,
};
use isomer_core::{Gpa, Gva};
use isomer_ir::{
    Access, Guest, HelperCx, MmuIndex,
    guest::{HelperEnv, TlbFlush},
};

const COUNTER3: u64 = 0xb03;
const EVENT3: u64 = 0x323;
const INHIBIT: u64 = 0x320;
const HPMCOUNTER3: u64 = 0xc03;
const SCOUNTOVF: u64 = 0xda0;
const SIP: u64 = 0x144;
const OF: u64 = hpmevent::OF;

/// Notes that the engine was asked to look at interrupts again.
struct Env {
    looks: usize,
}

impl HelperEnv<Riscv64> for Env {
    fn now_ns(&self) -> u64 {
        0
    }
    fn lines(&self) -> u64 {
        0
    }
    fn entropy(&mut self) -> u64 {
        0
    }
    fn load(&mut self, guest: &Riscv64, _: &mut Cpu, gva: Gva, _: usize, _: MmuIndex) -> Result<u64, Trap> {
        Err(guest.bus_error(gva, Access::Load))
    }
    fn store(
        &mut self,
        guest: &Riscv64,
        _: &mut Cpu,
        gva: Gva,
        _: usize,
        _: MmuIndex,
        _: u64,
    ) -> Result<(), Trap> {
        Err(guest.bus_error(gva, Access::Store))
    }
    fn translate(&mut self, _: &Riscv64, _: &mut Cpu, gva: Gva, _: Access, _: MmuIndex) -> Result<Gpa, Trap> {
        Ok(Gpa(gva.0))
    }
    fn flush_tlb(&mut self, _: TlbFlush) {}
    fn set_address_space(&mut self, _: u64) {}
    fn sync_code(&mut self) {}
    fn reconsider(&mut self) {
        self.looks += 1;
    }
    fn wait_for_interrupt(&mut self) {}
}

/// A hart whose instructions are all retired one by one.
struct Hart {
    guest: Riscv64,
    cpu: Cpu,
    env: Env,
}

impl Hart {
    fn new(guest: Riscv64) -> Self {
        Self { cpu: guest.reset(0, 0x1000), guest, env: Env { looks: 0 } }
    }

    fn run<R>(&mut self, helper: impl FnOnce(&mut HelperCx<'_, Riscv64>) -> Result<R, Trap>) -> Option<R> {
        let Self { guest, cpu, env } = self;
        let result = helper(&mut HelperCx { guest, cpu, env }).ok()?;
        self.cpu.header.insns += 1;
        Some(result)
    }
    fn read(&mut self, csr: u64) -> Option<u64> {
        self.run(|cx| csr::access(cx, csr << 20, true, Update::None))
    }
    fn write(&mut self, csr: u64, value: u64) {
        self.run(|cx| csr::access(cx, csr << 20, false, Update::Replace(value))).expect("writable");
    }
    fn retire(&mut self, insns: u64) {
        self.cpu.header.insns += insns;
    }
    /// What the engine does between slices.
    fn slice_done(&mut self) -> u64 {
        self.guest.slice_done(&mut self.cpu)
    }
    /// Goes to `privilege` by `mret`.
    fn enter(&mut self, privilege: Privilege) {
        self.cpu.mstatus = self.cpu.mstatus & !mstatus::MPP | (privilege as u64) << mstatus::MPP_SHIFT;
        self.run(|cx| system::mret(cx, [0; 4])).expect("in M-mode");
        assert_eq!(self.cpu.privilege, privilege);
    }
    /// Goes to M-mode by an exception, which retires nothing.
    fn trap(&mut self) {
        trap::take(&self.guest, &mut self.cpu, Trap::illegal(0));
        assert_eq!(self.cpu.privilege, Privilege::Machine);
    }
}

#[test]
fn what_is_written_is_read_by_the_next_instruction() {
    for event in [CYCLES, INSTRUCTIONS] {
        let mut h = Hart::new(Riscv64::max());
        h.write(EVENT3, event);
        h.write(COUNTER3, 100);
        assert_eq!(h.read(COUNTER3), Some(100));
        assert_eq!(h.read(COUNTER3), Some(101));
        h.retire(10);
        assert_eq!(h.read(COUNTER3), Some(112));
        // The write itself is no overflow, though 0 follows the largest value.
        h.write(COUNTER3, 0);
        assert_eq!((h.read(COUNTER3), h.read(EVENT3)), (Some(0), Some(event)));
        assert_eq!(h.cpu.mip, 0);
        // Other counters count the writing instruction.
        h.write(COUNTER3 + 7, 0);
        assert_eq!(h.read(COUNTER3), Some(3));
    }
}

#[test]
fn a_counter_keeps_step_with_minstret() {
    let mut h = Hart::new(Riscv64::max());
    h.write(EVENT3, INSTRUCTIONS);
    h.write(0xb02, 0);
    h.write(COUNTER3, 1);
    for step in 0..50 {
        h.retire(step * 7 % 11);
        match step % 3 {
            0 => h.write(INHIBIT, 1 << 5),
            1 => _ = h.slice_done(),
            _ => h.write(INHIBIT, if step % 2 == 0 { 1 << 2 | 1 << 3 } else { 0 }),
        }
        let instret = h.read(0xb02).unwrap();
        let inhibited = h.cpu.mcountinhibit & 4 != 0;
        assert_eq!(h.read(COUNTER3).unwrap(), instret + u64::from(!inhibited), "{step}");
    }
}

#[test]
fn no_event_no_counting_and_no_work() {
    let mut h = Hart::new(Riscv64::max());
    h.write(COUNTER3, 7);
    h.retire(5);
    assert_eq!((h.read(COUNTER3), h.cpu.hpm_active, h.slice_done()), (Some(7), 0, u64::MAX));
    // What is retired before an event is chosen does not count, nor after.
    h.write(EVENT3, CYCLES);
    h.retire(5);
    h.write(EVENT3, 0);
    h.retire(5);
    assert_eq!(h.read(COUNTER3), Some(7 + 6));
}

#[test]
fn selectors_and_missing_counters_are_warl() {
    let mut h = Hart::new(Riscv64::max());
    for (written, kept) in
        [(1, 1), (2, 2), (3, 0), (1 << 55 | 1, 0), (0xff << 56 | 2, 0xf << 60 | 2), (OF, OF)]
    {
        h.write(EVENT3, written);
        assert_eq!(h.read(EVENT3), Some(kept), "{written:#x}");
    }
    for n in 11..32 {
        h.write(0x320 + n, 1);
        h.write(0xb00 + n, 5);
        assert_eq!((h.read(0x320 + n), h.read(0xb00 + n)), (Some(0), Some(0)), "{n}");
    }
    h.write(INHIBIT, u64::MAX);
    assert_eq!(h.read(INHIBIT), Some(0x7fd));
}

#[test]
fn inhibited_counters_stand_still() {
    let mut h = Hart::new(Riscv64::max());
    h.write(EVENT3, CYCLES);
    h.write(EVENT3 + 1, CYCLES);
    h.write(COUNTER3, 0);
    h.write(COUNTER3 + 1, 1); // in step with the other now
    h.write(INHIBIT, 1 << 3);
    h.retire(20);
    // The inhibiting instruction still counted.
    assert_eq!((h.read(COUNTER3), h.read(COUNTER3 + 1)), (Some(2), Some(2 + 21)));
    h.write(COUNTER3, 50);
    h.write(INHIBIT, 0);
    assert_eq!(h.read(COUNTER3), Some(50));
}

#[test]
fn filters_bind_their_privilege_only() {
    for (event, counted) in [
        (0, 11 + 100 + 1000),
        (hpmevent::MINH, 100 + 1000),
        (hpmevent::SINH, 11 + 1000),
        (hpmevent::UINH, 11 + 100),
        (hpmevent::MINH | hpmevent::SINH | hpmevent::UINH, 0),
    ] {
        let mut h = Hart::new(Riscv64::max());
        h.write(EVENT3, CYCLES | event);
        h.write(COUNTER3, 0);
        h.retire(10);
        h.enter(Privilege::Supervisor); // one in M
        h.retire(60);
        h.slice_done();
        h.retire(39);
        h.cpu.mstatus &= !mstatus::SPP;
        h.run(|cx| system::sret(cx, [0; 4])).unwrap(); // one in S
        assert_eq!(h.cpu.privilege, Privilege::User);
        h.retire(1000);
        h.trap();
        assert_eq!(h.read(COUNTER3), Some(counted), "{event:#x}");
    }
}

#[test]
fn an_overflow_is_told_once() {
    let mut h = Hart::new(Riscv64::max());
    h.write(EVENT3, INSTRUCTIONS);
    h.write(COUNTER3, 100_u64.wrapping_neg());
    assert!(h.env.looks > 0, "the engine learns how soon");
    assert_eq!(h.slice_done(), 100);
    h.retire(99);
    assert_eq!((h.slice_done(), h.cpu.mip), (1, 0));
    h.retire(1);
    // The next overflow is far, and asks for nothing.
    assert_eq!((h.slice_done(), h.cpu.mip), (u64::MAX, irq::LCOFI));
    assert_eq!((h.read(EVENT3), h.read(COUNTER3)), (Some(OF | INSTRUCTIONS), Some(1)));
    h.cpu.mip = 0;
    h.write(COUNTER3, u64::MAX);
    h.retire(5);
    assert_eq!((h.slice_done(), h.cpu.mip, h.read(COUNTER3)), (u64::MAX, 0, Some(4)));
    // Cleared, it is armed again.
    h.write(EVENT3, INSTRUCTIONS);
    h.write(COUNTER3, u64::MAX);
    h.retire(1);
    h.trap();
    assert_eq!(h.cpu.mip, irq::LCOFI);
}

#[test]
fn reading_a_counter_or_sip_finds_an_overflow() {
    for csr in [COUNTER3, HPMCOUNTER3, SCOUNTOVF, EVENT3, SIP] {
        let mut h = Hart::new(Riscv64::max());
        h.cpu.mideleg = irq::LCOFI;
        h.write(EVENT3, INSTRUCTIONS);
        h.write(COUNTER3, 3_u64.wrapping_neg());
        h.retire(3);
        let looks = h.env.looks;
        let value = h.read(csr).unwrap();
        assert_eq!((h.cpu.mip, h.env.looks), (irq::LCOFI, looks + 1), "{csr:#x}");
        let expected = match csr {
            SCOUNTOVF => 1 << 3,
            EVENT3 => OF | INSTRUCTIONS,
            SIP => irq::LCOFI,
            _ => 0,
        };
        assert_eq!(value, expected, "{csr:#x}");
    }
}

#[test]
fn a_filtered_counter_does_not_hurry_the_engine() {
    let mut h = Hart::new(Riscv64::max());
    h.write(EVENT3, INSTRUCTIONS | hpmevent::MINH);
    h.write(COUNTER3, u64::MAX);
    assert_eq!(h.slice_done(), u64::MAX);
    h.enter(Privilege::User);
    assert_eq!((h.slice_done(), h.cpu.mip), (1, 0));
}

#[test]
fn supervisors_see_what_mcounteren_lets_them() {
    let mut h = Hart::new(Riscv64::max());
    h.write(EVENT3, OF | CYCLES);
    h.write(EVENT3 + 7, OF);
    assert_eq!(h.read(SCOUNTOVF), Some(1 << 3 | 1 << 10));
    h.cpu.mcounteren = 1 << 10;
    h.enter(Privilege::Supervisor);
    assert_eq!(h.read(SCOUNTOVF), Some(1 << 10));
    assert_eq!((h.read(HPMCOUNTER3), h.read(HPMCOUNTER3 + 7)), (None, Some(0)));
    h.trap();
    h.enter(Privilege::User);
    assert_eq!((h.read(SCOUNTOVF), h.read(HPMCOUNTER3 + 7)), (None, None));
    h.cpu.scounteren = 1 << 10;
    assert_eq!(h.read(HPMCOUNTER3 + 7), Some(0));
}

#[test]
fn without_sscofpmf_counters_just_wrap() {
    for guest in [Riscv64::rv64(), Riscv64::rva22()] {
        let mut h = Hart::new(guest);
        h.write(EVENT3, 0xff << 56 | CYCLES);
        assert_eq!(h.read(EVENT3), Some(CYCLES));
        h.write(COUNTER3, u64::MAX);
        assert_eq!(h.slice_done(), u64::MAX);
        h.retire(2);
        assert_eq!((h.read(COUNTER3), h.read(EVENT3), h.cpu.mip), (Some(1), Some(CYCLES), 0));
        assert_eq!(h.read(SCOUNTOVF), None);
    }
}

#[test]
fn a_counter_counts_on_after_carry_over() {
    let mut h = Hart::new(Riscv64::max());
    h.write(EVENT3, CYCLES);
    h.write(COUNTER3, 10);
    let before = h.cpu.clone();
    h.cpu = h.guest.reset(0, 0x1000);
    carry_over(&mut h.cpu, &before);
    h.retire(5);
    assert_eq!(h.read(COUNTER3), Some(15));
}
