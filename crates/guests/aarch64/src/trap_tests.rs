//! Exceptions: what they save and report, where they go, what is masked.

use super::*;
use crate::{Mode, interrupts::ppi, pstate::spsr};

fn at(el: u8, guest: &Aarch64) -> Cpu {
    let mut cpu = guest.reset(0, 0x8_0000);
    cpu.sys.vbar = [0, 0x1000, 0x2000, 0];
    cpu.daif = 0;
    cpu.set_level(el, el != 0);
    cpu.update_mode();
    cpu
}

fn el1_machine() -> Aarch64 {
    Aarch64::max()
}

fn el2_machine() -> Aarch64 {
    Aarch64::max().with_el2(true)
}

#[test]
fn a_system_call_goes_to_el1_behind_the_instruction() {
    let guest = el1_machine();
    let mut cpu = at(0, &guest);
    (cpu.sp, cpu.sp_el[1], cpu.nzcv) = (0x10, 0x20, [0, 1, 1, 0]);
    take(&guest, &mut cpu, Trap::new(syndrome(ec::SVC, 0x12)));
    assert_eq!((cpu.header.pc, cpu.sys.elr[1], cpu.sys.esr[1]), (0x1400, 0x8_0004, 0x5600_0012));
    assert_eq!((cpu.el, cpu.spsel, cpu.sp, cpu.sp_el[0], cpu.daif), (1, true, 0x20, 0x10, 0x3c0));
    assert_eq!(cpu.sys.spsr[1], 0x6000_0000);
    // SCTLR_EL1.SPAN is 1 after reset: PAN stays.
    assert!(!cpu.pan);
    cpu.exception_return();
    cpu.sys.sctlr[1] &= !sctlr::SPAN;
    take(&guest, &mut cpu, Trap::undefined());
    assert!(cpu.pan && Mode(cpu.header.mode).mmu() == crate::mode::mmu::E10_1_PAN);
}

#[test]
fn aborts_tell_levels_apart_and_keep_the_address() {
    let guest = el1_machine();
    let mut cpu = at(1, &guest);
    take(&guest, &mut cpu, misaligned(Gva(0x123), Access::Store));
    assert_eq!((cpu.header.pc, cpu.sys.esr[1], cpu.sys.far[1]), (0x1200, 0x9600_0061, 0x123));
    let mut cpu = at(0, &guest);
    take(&guest, &mut cpu, external(Gva(0x456), Access::Fetch));
    assert_eq!((cpu.header.pc, cpu.sys.esr[1], cpu.sys.far[1]), (0x1400, 0x8200_0010, 0x456));
    // From SP_EL0 at EL1.
    let mut cpu = at(1, &guest);
    cpu.set_level(1, false);
    take(&guest, &mut cpu, Trap::new(syndrome(ec::BRK, 7)));
    assert_eq!((cpu.header.pc, cpu.sys.esr[1], cpu.sys.elr[1]), (0x1000, 0xf200_0007, 0x8_0000));
}

#[test]
fn calls_without_a_callee_are_undefined() {
    let guest = el1_machine();
    for class in [ec::HVC, ec::SMC] {
        let mut cpu = at(1, &guest);
        take(&guest, &mut cpu, Trap::new(syndrome(class, 0)));
        assert_eq!((cpu.sys.esr[1], cpu.sys.elr[1]), (0x0200_0000, 0x8_0000), "{class:#x}");
    }
}

#[test]
fn firmware_is_called_by_the_models_conduit() {
    let (hvc, smc) = (Trap::new(syndrome(ec::HVC, 0)), Trap::new(syndrome(ec::SMC, 0)));
    let guest = el1_machine();
    let cpu = at(1, &guest);
    assert!(is_firmware_call(&guest, &cpu, &hvc) && !is_firmware_call(&guest, &cpu, &smc));
    assert!(!is_firmware_call(&guest, &at(0, &guest), &hvc));
    let guest = el2_machine();
    let mut cpu = at(1, &guest);
    assert!(!is_firmware_call(&guest, &cpu, &hvc) && is_firmware_call(&guest, &cpu, &smc));
    cpu.sys.hcr = hcr::TSC;
    assert!(!is_firmware_call(&guest, &cpu, &smc));
    take(&guest, &mut cpu, smc);
    assert_eq!((cpu.el, cpu.sys.esr[2], cpu.sys.elr[2]), (2, 0x5e00_0000, 0x8_0000));
}

#[test]
fn a_hypervisor_gets_its_calls_and_stage_2_faults() {
    let guest = el2_machine();
    let mut cpu = at(1, &guest);
    take(&guest, &mut cpu, Trap::new(syndrome(ec::HVC, 3)));
    assert_eq!((cpu.el, cpu.header.pc, cpu.sys.esr[2], cpu.sys.elr[2]), (2, 0x2400, 0x5a00_0003, 0x8_0004));
    let mut cpu = at(0, &guest);
    let fault = Trap { to_el2: true, hpfar: 0x1230, ..Trap::with_far(syndrome(ec::DATA_ABORT, 7), 0x55) };
    take(&guest, &mut cpu, fault);
    assert_eq!((cpu.el, cpu.sys.esr[2], cpu.sys.far[2], cpu.sys.hpfar), (2, 0x9200_0007, 0x55, 0x1230));
}

#[test]
fn a_host_gets_its_users_exceptions() {
    let guest = el2_machine();
    let mut cpu = at(0, &guest);
    cpu.sys.hcr = hcr::E2H | hcr::TGE | hcr::RW;
    take(&guest, &mut cpu, Trap::new(syndrome(ec::SVC, 0)));
    assert_eq!((cpu.el, cpu.header.pc), (2, 0x2400));
    assert_eq!(Mode(cpu.header.mode).mmu(), crate::mode::mmu::E20_2);
}

#[test]
fn floating_point_traps_find_their_level() {
    let guest = el2_machine();
    let mut cpu = at(0, &guest);
    take(&guest, &mut cpu, Trap::new(FP_ACCESS));
    assert_eq!((cpu.el, cpu.sys.esr[1]), (1, 0x1fe0_0000));
    let mut cpu = at(0, &guest);
    (cpu.sys.cpacr, cpu.sys.cptr) = (3 << 20, 1 << 10);
    take(&guest, &mut cpu, Trap::new(FP_ACCESS));
    assert_eq!(cpu.el, 2);
}

#[test]
fn interrupts_are_masked_by_level_and_pstate() {
    let guest = el1_machine();
    let irq = 1 << line::IRQ;
    let kind = |cpu: &Cpu, lines| pending(&guest, cpu, lines, 0).map(|trap| trap.kind);
    let mut cpu = at(0, &guest);
    assert_eq!(kind(&cpu, irq), Some(Kind::Irq));
    assert_eq!(kind(&cpu, irq | 1 << line::FIQ), Some(Kind::Fiq));
    cpu.daif = daif::I;
    assert_eq!(kind(&cpu, irq), None);
    assert!(wakes(&guest, &cpu, irq, 0) && !wakes(&guest, &cpu, 0, 0));
    cpu.daif = 0;
    let trap = pending(&guest, &cpu, irq, 0).unwrap();
    cpu.sys.esr[1] = 7;
    take(&guest, &mut cpu, trap);
    assert_eq!((cpu.header.pc, cpu.sys.elr[1], cpu.sys.esr[1]), (0x1480, 0x8_0000, 7));
}

#[test]
fn physical_interrupts_of_a_hypervisor_ignore_its_guests_masks() {
    let guest = el2_machine();
    let irq = 1 << line::IRQ;
    let kind = |cpu: &Cpu, lines| pending(&guest, cpu, lines, 0).map(|trap| trap.kind);
    let mut cpu = at(1, &guest);
    (cpu.sys.hcr, cpu.daif) = (hcr::IMO | hcr::RW, 0x3c0);
    assert_eq!(kind(&cpu, irq), Some(Kind::Irq));
    assert_eq!(kind(&cpu, 1 << line::VIRTUAL_IRQ), None);
    cpu.daif = 0;
    assert_eq!(kind(&cpu, 1 << line::VIRTUAL_IRQ), Some(Kind::VirtualIrq));
    cpu.sys.hcr |= hcr::VI;
    assert_eq!(kind(&cpu, 0), Some(Kind::VirtualIrq));
    // At EL2 itself: PSTATE masks what is routed there, and what is routed below stays pending.
    let mut cpu = at(2, &guest);
    assert_eq!(kind(&cpu, irq), None);
    cpu.sys.hcr = hcr::IMO;
    assert_eq!(kind(&cpu, irq), Some(Kind::Irq));
    cpu.daif = daif::I;
    assert_eq!(kind(&cpu, irq), None);
    // A host's user is masked by PSTATE too.
    let mut cpu = at(0, &guest);
    (cpu.sys.hcr, cpu.daif) = (hcr::E2H | hcr::TGE, daif::I);
    assert_eq!(kind(&cpu, irq), None);
    cpu.daif = 0;
    let trap = pending(&guest, &cpu, irq, 0).unwrap();
    take(&guest, &mut cpu, trap);
    assert_eq!((cpu.el, cpu.header.pc), (2, 0x2480));
}

#[test]
fn a_step_is_taken_after_one_instruction() {
    let guest = el1_machine();
    let mut cpu = at(1, &guest);
    cpu.sys.debug.os_locked = false;
    cpu.sys.debug.mdscr = debug::mdscr::SS;
    (cpu.sys.spsr[1], cpu.sys.elr[1]) = (spsr::SS, 0x100);
    cpu.header.pc = cpu.exception_return();
    assert!(cpu.ss && Mode(cpu.header.mode).single_step());
    assert_eq!(pending(&guest, &cpu, 0, 0), None);
    cpu.stepped = true;
    cpu.header.pc += 4;
    let trap = pending(&guest, &cpu, 0, 0).unwrap();
    take(&guest, &mut cpu, trap);
    assert_eq!((cpu.sys.esr[1], cpu.sys.elr[1], cpu.sys.spsr[1] & spsr::SS), (0xcb00_0022, 0x104, 0));
    // An instruction that faults has not been stepped.
    cpu.sys.spsr[1] = spsr::SS;
    cpu.exception_return();
    cpu.stepped = true;
    take(&guest, &mut cpu, misaligned(Gva(1), Access::Load));
    assert_eq!(cpu.sys.spsr[1] & spsr::SS, spsr::SS);
}

#[test]
fn illegal_state_and_misaligned_pc_are_taken_first() {
    let guest = el1_machine();
    let mut cpu = at(1, &guest);
    cpu.il = true;
    assert_eq!(pending(&guest, &cpu, 1, 0).map(|trap| trap.class()), Some(ec::ILLEGAL_STATE));
    cpu.header.pc = 0x8_0002;
    let trap = pending(&guest, &cpu, 1, 0).unwrap();
    take(&guest, &mut cpu, trap);
    assert_eq!((cpu.sys.esr[1] >> 26, cpu.sys.far[1], cpu.il), (u64::from(ec::PC_ALIGN), 0x8_0002, false));
}

#[test]
fn timers_reach_the_interrupt_controller_as_they_change() {
    use crate::interrupts::CpuInterface;
    use std::sync::{Arc, Mutex};

    #[derive(Debug, Default)]
    struct Recorder(Mutex<Vec<(usize, u32, bool)>>);
    impl CpuInterface for Recorder {
        fn set_ppi(&self, cpu: usize, intid: u32, level: bool) {
            self.0.lock().unwrap().push((cpu, intid, level));
        }
        fn has_registers(&self) -> bool {
            true
        }
        fn read(&self, _: usize, _: u16, _: bool) -> Option<u64> {
            None
        }
        fn write(&self, _: usize, _: u16, _: bool, _: u64) -> bool {
            false
        }
    }
    let recorder = Arc::new(Recorder::default());
    let guest = el1_machine().with_cpu_interface(recorder.clone());
    assert_eq!(guest.id.pfr0 >> 24 & 0xf, 1);
    let mut cpu = guest.reset(2, 0);
    let id = timer::TimerId::Virtual as usize;
    cpu.sys.timers[id] = crate::system::Timer { ctl: timer::ctl::ENABLE, cval: 10 };
    assert_eq!(deadline_ns(&guest, &cpu), Some(10));
    for now in [5, 10, 11] {
        pending(&guest, &cpu, 0, now);
    }
    assert_eq!(deadline_ns(&guest, &cpu), None);
    cpu.sys.timers[id].cval = 100;
    assert!(!wakes(&guest, &cpu, 0, 12));
    assert_eq!(*recorder.0.lock().unwrap(), [(2, ppi::VIRTUAL_TIMER, true), (2, ppi::VIRTUAL_TIMER, false)]);
}
