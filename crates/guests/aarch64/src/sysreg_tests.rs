//! The register tables: no number twice, everything Linux reads at boot, guards, redirections, maintenance.

use super::*;
use crate::{Mode, Trap, interrupts::CpuInterface, privileged, sysop, system::sctlr, timer::TimerId};
use isomer_core::{Gpa, Gva};
use isomer_ir::{
    Access as Kind, Guest, MmuIndex,
    guest::{HelperEnv, PhysMemory},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

/// An engine that records what is asked of it.
#[derive(Default)]
struct Env {
    now_ns: u64,
    lines: u64,
    memory: Memory,
    flushes: Vec<(bool, TlbFlush)>,
    space: Option<u64>,
    reconsidered: u32,
    waits: u32,
}

#[derive(Default)]
struct Memory(HashMap<u64, u64>);

impl PhysMemory for Memory {
    fn load(&self, gpa: Gpa, _: usize) -> Option<u64> {
        Some(self.0.get(&gpa.0).copied().unwrap_or(0))
    }
    fn compare_exchange(&self, _: Gpa, _: usize, _: u64, _: u64) -> Option<bool> {
        Some(true)
    }
}

impl HelperEnv<Aarch64> for Env {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }
    fn lines(&self) -> u64 {
        self.lines
    }
    fn entropy(&mut self) -> u64 {
        0x1234
    }
    fn load(&mut self, _: &Aarch64, _: &mut Cpu, gva: Gva, _: usize, _: MmuIndex) -> Result<u64, Trap> {
        Ok(self.memory.0.get(&gva.0).copied().unwrap_or(0))
    }
    fn store(
        &mut self,
        _: &Aarch64,
        _: &mut Cpu,
        gva: Gva,
        _: usize,
        _: MmuIndex,
        value: u64,
    ) -> Result<(), Trap> {
        self.memory.0.insert(gva.0, value);
        Ok(())
    }
    fn translate(
        &mut self,
        guest: &Aarch64,
        cpu: &mut Cpu,
        gva: Gva,
        kind: Kind,
        mmu: MmuIndex,
    ) -> Result<Gpa, Trap> {
        guest.walk(cpu, &self.memory, gva, 1, kind, mmu).map(|page| page.gpa)
    }
    fn flush_tlb(&mut self, what: TlbFlush) {
        self.flushes.push((false, what));
    }
    fn flush_tlb_everywhere(&mut self, what: TlbFlush) {
        self.flushes.push((true, what));
    }
    fn memory(&self) -> Option<&dyn PhysMemory> {
        Some(&self.memory)
    }
    fn set_address_space(&mut self, id: u64) {
        self.space = Some(id);
    }
    fn sync_code(&mut self) {}
    fn reconsider(&mut self) {
        self.reconsidered += 1;
    }
    fn wait_for_interrupt(&mut self) {
        self.waits += 1;
    }
}

/// A PE and its surroundings.
struct Rig {
    guest: Aarch64,
    cpu: Cpu,
    env: Env,
}

/// `mrs x3, ...` or `msr ..., x3`.
fn encoding(key: u16, read: bool) -> u64 {
    0xd500_0003 | u64::from(read) << 21 | u64::from(key) << 5
}

impl Rig {
    fn new(guest: Aarch64, el: u8) -> Self {
        let mut cpu = guest.reset(0, 0);
        cpu.set_level(el, el != 0);
        cpu.update_mode();
        Self { guest, cpu, env: Env::default() }
    }

    fn cx(&mut self) -> HelperCx<'_, Aarch64> {
        HelperCx { guest: &self.guest, cpu: &mut self.cpu, env: &mut self.env }
    }

    fn read(&mut self, key: u16) -> Result<u64, Trap> {
        privileged::mrs(&mut self.cx(), [encoding(key, true), 0, 0, 0])
    }

    fn write(&mut self, key: u16, value: u64) -> Result<u64, Trap> {
        privileged::msr(&mut self.cx(), [encoding(key, false), value, 0, 0])
    }

    fn sys(&mut self, key: u16, value: u64) -> Result<u64, Trap> {
        privileged::sys(&mut self.cx(), [encoding(key, false), value, 0, 0])
    }
}

fn max(el: u8) -> Rig {
    Rig::new(Aarch64::max(), el)
}

fn with_el2(el: u8) -> Rig {
    Rig::new(Aarch64::max().with_el2(true), el)
}

#[derive(Debug, Default)]
struct Gic(Mutex<Vec<(u16, bool, Option<u64>)>>);

impl CpuInterface for Gic {
    fn set_ppi(&self, _: usize, _: u32, _: bool) {}
    fn has_registers(&self) -> bool {
        true
    }
    fn read(&self, _: usize, register: u16, is_virtual: bool) -> Option<u64> {
        self.0.lock().unwrap().push((register, is_virtual, None));
        Some(77)
    }
    fn write(&self, _: usize, register: u16, is_virtual: bool, value: u64) -> bool {
        self.0.lock().unwrap().push((register, is_virtual, Some(value)));
        true
    }
}

#[test]
fn no_number_is_taken_twice() {
    let mut seen = HashMap::new();
    for register in all() {
        assert!(register.read.is_some() || register.write.is_some(), "{}", register.name);
        assert!(register.key >> 14 >= 2, "{}", register.name);
        for key in register.keys() {
            let before = seen.insert(key, register.name);
            assert!(before.is_none(), "{} and {:?}", register.name, before);
            assert_eq!(find(key).map(|found| found.name), Some(register.name));
        }
    }
    let operations: HashSet<u16> = sysop::all().map(|operation| operation.key).collect();
    assert_eq!(operations.len(), sysop::all().count());
}

/// What an arm64 Linux 6.12 without SVE, SME, MTE and SPE reads or writes at EL1 until it runs init, by its own names.
#[test]
fn everything_linux_touches_at_el1_is_there() {
    let registers: &[(&str, u16)] = &[
        ("MIDR", key(3, 0, 0, 0, 0)),
        ("MPIDR", key(3, 0, 0, 0, 5)),
        ("REVIDR", key(3, 0, 0, 0, 6)),
        ("AIDR", key(3, 1, 0, 0, 7)),
        ("CTR", key(3, 3, 0, 0, 1)),
        ("DCZID", key(3, 3, 0, 0, 7)),
        ("CLIDR", key(3, 1, 0, 0, 1)),
        ("CCSIDR", key(3, 1, 0, 0, 0)),
        ("CSSELR", key(3, 2, 0, 0, 0)),
        ("CNTFRQ", key(3, 3, 14, 0, 0)),
        ("CNTVCT", key(3, 3, 14, 0, 2)),
        ("CNTVCTSS", key(3, 3, 14, 0, 6)),
        ("CNTPCT", key(3, 3, 14, 0, 1)),
        ("CNTKCTL", key(3, 0, 14, 1, 0)),
        ("CNTV_CTL", key(3, 3, 14, 3, 1)),
        ("CNTV_CVAL", key(3, 3, 14, 3, 2)),
        ("CNTP_CTL", key(3, 3, 14, 2, 1)),
        ("CNTP_CVAL", key(3, 3, 14, 2, 2)),
        ("SCTLR", key(3, 0, 1, 0, 0)),
        ("ACTLR", key(3, 0, 1, 0, 1)),
        ("CPACR", key(3, 0, 1, 0, 2)),
        ("TTBR0", key(3, 0, 2, 0, 0)),
        ("TTBR1", key(3, 0, 2, 0, 1)),
        ("TCR", key(3, 0, 2, 0, 2)),
        ("MAIR", key(3, 0, 10, 2, 0)),
        ("AMAIR", key(3, 0, 10, 3, 0)),
        ("VBAR", key(3, 0, 12, 0, 0)),
        ("ESR", key(3, 0, 5, 2, 0)),
        ("FAR", key(3, 0, 6, 0, 0)),
        ("PAR", key(3, 0, 7, 4, 0)),
        ("ELR", key(3, 0, 4, 0, 1)),
        ("SPSR", key(3, 0, 4, 0, 0)),
        ("SP_EL0", key(3, 0, 4, 1, 0)),
        ("SPSel", key(3, 0, 4, 2, 0)),
        ("CurrentEL", key(3, 0, 4, 2, 2)),
        ("PAN", key(3, 0, 4, 2, 3)),
        ("DAIF", key(3, 3, 4, 2, 1)),
        ("NZCV", key(3, 3, 4, 2, 0)),
        ("FPCR", key(3, 3, 4, 4, 0)),
        ("FPSR", key(3, 3, 4, 4, 1)),
        ("TPIDR_EL0", key(3, 3, 13, 0, 2)),
        ("TPIDRRO_EL0", key(3, 3, 13, 0, 3)),
        ("TPIDR_EL1", key(3, 0, 13, 0, 4)),
        ("CONTEXTIDR", key(3, 0, 13, 0, 1)),
        ("ISR", key(3, 0, 12, 1, 0)),
        ("DISR", key(3, 0, 12, 1, 1)),
        ("MDSCR", key(2, 0, 0, 2, 2)),
        ("MDCCINT", key(2, 0, 0, 2, 0)),
        ("OSLSR", key(2, 0, 1, 1, 4)),
        ("OSDLR", key(2, 0, 1, 3, 4)),
        ("DBGBVR0", key(2, 0, 0, 0, 4)),
        ("DBGBCR5", key(2, 0, 0, 5, 5)),
        ("DBGWVR3", key(2, 0, 0, 3, 6)),
        ("DBGWCR0", key(2, 0, 0, 0, 7)),
        ("PMCR", key(3, 3, 9, 12, 0)),
        ("PMCNTENSET", key(3, 3, 9, 12, 1)),
        ("PMCNTENCLR", key(3, 3, 9, 12, 2)),
        ("PMOVSCLR", key(3, 3, 9, 12, 3)),
        ("PMSELR", key(3, 3, 9, 12, 5)),
        ("PMCEID0", key(3, 3, 9, 12, 6)),
        ("PMCEID1", key(3, 3, 9, 12, 7)),
        ("PMCCNTR", key(3, 3, 9, 13, 0)),
        ("PMUSERENR", key(3, 3, 9, 14, 0)),
        ("PMINTENSET", key(3, 0, 9, 14, 1)),
        ("PMINTENCLR", key(3, 0, 9, 14, 2)),
        ("PMMIR", key(3, 0, 9, 14, 6)),
        ("PMEVCNTR5", key(3, 3, 14, 8, 5)),
        ("PMEVTYPER5", key(3, 3, 14, 12, 5)),
        ("PMCCFILTR", key(3, 3, 14, 15, 7)),
        ("APIAKeyLo", key(3, 0, 2, 1, 0)),
        ("APIBKeyHi", key(3, 0, 2, 1, 3)),
        ("APDAKeyLo", key(3, 0, 2, 2, 0)),
        ("APDBKeyHi", key(3, 0, 2, 2, 3)),
        ("APGAKeyLo", key(3, 0, 2, 3, 0)),
        ("RNDR", key(3, 3, 2, 4, 0)),
        ("LORC", key(3, 0, 10, 4, 3)),
        ("ICC_SRE", key(3, 0, 12, 12, 5)),
        ("ICC_PMR", key(3, 0, 4, 6, 0)),
        ("ICC_BPR1", key(3, 0, 12, 12, 3)),
        ("ICC_CTLR", key(3, 0, 12, 12, 4)),
        ("ICC_IGRPEN1", key(3, 0, 12, 12, 7)),
        ("ICC_IAR1", key(3, 0, 12, 12, 0)),
        ("ICC_RPR", key(3, 0, 12, 11, 3)),
        ("ICC_AP1R0", key(3, 0, 12, 9, 0)),
    ];
    let gic: Arc<Gic> = Arc::default();
    let mut rig = Rig::new(Aarch64::max().with_cpu_interface(gic), 1);
    for (name, key) in registers {
        assert!(rig.read(*key).is_ok(), "{name}");
    }
    // The whole space of ID registers reads; what is not allocated as zero.
    for crm in 1..8 {
        for op2 in 0..8 {
            assert!(rig.read(key(3, 0, 0, crm, op2)).is_ok(), "s3_0_c0_c{crm}_{op2}");
        }
    }
    let writes = [
        ("OSLAR", key(2, 0, 1, 0, 4)),
        ("PMSWINC", key(3, 3, 9, 12, 4)),
        ("ICC_EOIR1", key(3, 0, 12, 12, 1)),
        ("ICC_DIR", key(3, 0, 12, 11, 1)),
        ("ICC_SGI1R", key(3, 0, 12, 11, 5)),
    ];
    for (name, key) in writes {
        assert!(rig.write(key, 0).is_ok(), "{name}");
        assert_eq!(rig.read(key), Err(Trap::undefined()), "{name}");
    }
    for name in ["cortex-a57", "cortex-a72", "neoverse-n1"] {
        let mut rig = Rig::new(Aarch64::by_name(name).unwrap(), 1);
        // CPUECTLR_EL1 and its like: the core's own.
        assert_eq!(rig.read(key(3, 1, 15, 2, 1)), Ok(0));
        assert_eq!(rig.read(key(3, 3, 2, 4, 0)), Err(Trap::undefined()));
    }
    assert_eq!(max(1).read(key(3, 1, 15, 2, 1)), Err(Trap::undefined()));
}

/// What it sets up at EL2 before it drops to EL1 or stays as a host.
#[test]
fn everything_linux_touches_at_el2_is_there() {
    let keys = [
        (1, 0, 0),
        (1, 1, 0),
        (1, 1, 1),
        (1, 1, 2),
        (1, 1, 3),
        (2, 0, 0),
        (2, 0, 1),
        (2, 0, 2),
        (2, 1, 0),
        (2, 1, 2),
        (4, 0, 0),
        (4, 0, 1),
        (4, 1, 0),
        (5, 2, 0),
        (5, 2, 3),
        (6, 0, 0),
        (6, 0, 4),
        (10, 2, 0),
        (12, 0, 0),
        (13, 0, 1),
        (13, 0, 2),
        (14, 0, 3),
        (14, 1, 0),
        (14, 2, 1),
        (14, 3, 1),
        (0, 0, 0),
        (0, 0, 5),
    ];
    let mut rig = with_el2(2);
    for (crn, crm, op2) in keys {
        let key = key(3, 4, crn, crm, op2);
        assert!(rig.read(key).is_ok(), "{}", name(key));
        assert_eq!(with_el2(1).read(key), Err(Trap::undefined()), "{}", name(key));
        assert_eq!(max(1).read(key), Err(Trap::undefined()), "{}", name(key));
    }
}

#[test]
fn identification_reads_what_the_model_says() {
    let mut rig = max(1);
    assert_eq!(rig.read(key(3, 0, 0, 0, 0)), Ok(0x000f_0510));
    assert_eq!(rig.read(key(3, 0, 0, 6, 0)), Ok(rig.guest.id.isar0));
    assert_eq!(rig.write(key(3, 0, 0, 6, 0), 0), Err(Trap::undefined()));
    // A hypervisor's guest reads what it was given.
    let mut rig = with_el2(1);
    (rig.cpu.sys.vpidr, rig.cpu.sys.vmpidr) = (5, 6);
    assert_eq!((rig.read(key(3, 0, 0, 0, 0)), rig.read(key(3, 0, 0, 0, 5))), (Ok(5), Ok(6)));
    rig.cpu.sys.hcr = hcr::TID3;
    let trap = rig.read(key(3, 0, 0, 6, 0)).unwrap_err();
    assert!(trap.to_el2 && trap.class() == ec::SYSREG);
    // EL0 traps where that can be told from an undefined instruction.
    let trap = max(0).read(key(3, 0, 0, 6, 0)).unwrap_err();
    assert_eq!((trap.class(), trap.syndrome & 0x1ff_ffff), (ec::SYSREG, 3 << 20 | 6 << 1 | 3 << 5 | 1));
    let mut old = Rig::new(Aarch64::by_name("cortex-a57").unwrap(), 0);
    assert_eq!(old.read(key(3, 0, 0, 6, 0)), Err(Trap::undefined()));
}

#[test]
fn el0_is_let_in_by_el1() {
    let mut rig = max(0);
    let daif = key(3, 3, 4, 2, 1);
    assert_eq!(rig.read(daif).unwrap_err().class(), ec::SYSREG);
    rig.cpu.sys.sctlr[1] |= sctlr::UMA | sctlr::UCT;
    assert!(rig.read(daif).is_ok() && rig.read(key(3, 3, 0, 0, 1)).is_ok());
    let counter = key(3, 3, 14, 0, 2);
    assert!(rig.read(counter).is_err());
    rig.cpu.sys.cntkctl = 2;
    rig.env.now_ns = 5;
    assert_eq!(rig.read(counter), Ok(5));
    let cycles = key(3, 3, 9, 13, 0);
    assert!(rig.read(cycles).is_err());
    rig.cpu.sys.pmu.user = 1 << 2;
    assert!(rig.read(cycles).is_ok() && rig.write(cycles, 0).is_err());
    assert_eq!(rig.write(key(3, 3, 13, 0, 3), 1), Err(Trap::undefined()));
    assert_eq!(rig.read(key(3, 0, 1, 0, 0)), Err(Trap::undefined()));
}

#[test]
fn a_host_finds_its_registers_behind_el1s_names() {
    let mut rig = with_el2(2);
    rig.write(key(3, 4, 1, 1, 0), hcr::E2H | hcr::TGE).unwrap();
    assert_eq!(rig.cpu.sys.hcr, hcr::E2H | hcr::TGE | hcr::RW);
    rig.write(key(3, 0, 12, 0, 0), 0x4000).unwrap();
    rig.write(key(3, 5, 12, 0, 0), 0x8000).unwrap();
    assert_eq!((rig.cpu.sys.vbar[2], rig.cpu.sys.vbar[1]), (0x4000, 0x8000));
    rig.write(key(3, 0, 1, 0, 2), 3 << 20).unwrap();
    assert_eq!((rig.cpu.sys.cptr, rig.cpu.fp_trap_level()), (3 << 20, None));
    rig.write(key(3, 3, 14, 3, 2), 9).unwrap();
    rig.write(key(3, 5, 14, 3, 2), 8).unwrap();
    assert_eq!(rig.cpu.sys.timers[TimerId::HypVirtual as usize].cval, 9);
    assert_eq!(rig.cpu.sys.timers[TimerId::Virtual as usize].cval, 8);
    // TPIDR_EL1 is not redirected.
    rig.write(key(3, 0, 13, 0, 4), 7).unwrap();
    assert_eq!((rig.cpu.tpidr_el1, rig.cpu.tpidr_el2), (7, 0));
    // Without E2H there are no EL12 names.
    rig.write(key(3, 4, 1, 1, 0), 0).unwrap();
    assert_eq!(rig.read(key(3, 5, 12, 0, 0)), Err(Trap::undefined()));
}

#[test]
fn control_register_bits_follow_features() {
    let mut rig = Rig::new(Aarch64::by_name("cortex-a57").unwrap(), 1);
    rig.write(key(3, 0, 1, 0, 0), u64::MAX).unwrap();
    let value = rig.read(key(3, 0, 1, 0, 0)).unwrap();
    assert_eq!(value & (sctlr::ENIA | sctlr::EPAN | sctlr::DSSBS), 0);
    assert_eq!(value & (sctlr::M | sctlr::SPAN | sctlr::RES1), sctlr::M | sctlr::RES1);
    assert_eq!(rig.env.flushes, [(false, TlbFlush::default())]);
    // Nothing that translation depends on has changed.
    rig.write(key(3, 0, 1, 0, 0), value & !sctlr::UCI).unwrap();
    assert_eq!(rig.env.flushes.len(), 1);
    let mut rig = max(1);
    rig.write(key(3, 0, 1, 0, 0), 0).unwrap();
    assert_eq!(rig.cpu.sys.sctlr[1] & sctlr::SPAN, 0);
}

#[test]
fn timers_follow_their_views() {
    let mut rig = max(1);
    rig.env.now_ns = 1000;
    rig.write(key(3, 3, 14, 3, 0), (-10i32) as u32 as u64).unwrap();
    assert_eq!(rig.cpu.sys.timers[TimerId::Virtual as usize].cval, 990);
    assert_eq!(rig.read(key(3, 3, 14, 3, 0)), Ok(0xffff_fff6));
    rig.write(key(3, 3, 14, 3, 1), 7).unwrap();
    assert_eq!(rig.read(key(3, 3, 14, 3, 1)), Ok(7));
    assert!(rig.env.reconsidered > 0);
    // A hypervisor keeps its guest from the physical timer.
    let mut rig = with_el2(1);
    assert!(rig.read(key(3, 3, 14, 2, 1)).unwrap_err().to_el2);
    rig.cpu.sys.cnthctl = 3;
    assert!(rig.read(key(3, 3, 14, 2, 1)).is_ok());
}

#[test]
fn the_interrupt_controller_gets_its_registers() {
    let gic: Arc<Gic> = Arc::default();
    let mut rig = Rig::new(Aarch64::max().with_el2(true).with_cpu_interface(gic.clone()), 1);
    let iar = key(3, 0, 12, 12, 0);
    assert_eq!(rig.read(iar), Ok(77));
    rig.cpu.sys.hcr = hcr::IMO;
    rig.read(iar).unwrap();
    rig.write(key(3, 0, 12, 8, 1), 3).unwrap();
    assert!(rig.write(key(3, 0, 12, 11, 5), 3).unwrap_err().to_el2);
    let seen = gic.0.lock().unwrap().clone();
    assert_eq!(seen, [(iar, false, None), (iar, true, None), (key(3, 0, 12, 8, 1), false, Some(3))]);
    // Without a GICv3 they do not exist.
    assert_eq!(max(1).read(iar), Err(Trap::undefined()));
}

#[test]
fn address_spaces_are_told_apart() {
    let mut rig = max(1);
    rig.write(key(3, 0, 2, 0, 2), 1 << 36 | 1 << 22).unwrap();
    rig.write(key(3, 0, 2, 0, 1), 0x1234 << 48 | 0x1000).unwrap();
    assert_eq!(rig.env.space, Some(0x1234));
    // The other table base does not name the space.
    rig.write(key(3, 0, 2, 0, 0), 0x5555 << 48).unwrap();
    assert_eq!(rig.env.space, Some(0x1234));
    rig.write(key(3, 0, 2, 0, 2), 0).unwrap();
    assert_eq!(rig.env.space, Some(0x55));
    let mut rig = with_el2(2);
    rig.write(key(3, 4, 2, 1, 0), 7 << 48).unwrap();
    let without = rig.env.space.unwrap();
    rig.write(key(3, 4, 1, 1, 0), hcr::VM).unwrap();
    let with = rig.env.space.unwrap();
    assert!(without != with && with >> 16 & 0xffff == 7);
}

#[test]
fn tlb_maintenance_names_what_it_drops() {
    let op = |crm, op2| key(1, 0, 8, crm, op2);
    let mut rig = max(1);
    rig.cpu.sys.tcr[1] = 1 << 36;
    let go = |rig: &mut Rig, key, value| {
        rig.env.flushes.clear();
        rig.sys(key, value).unwrap();
        rig.env.flushes[0]
    };
    let flush = |gva: Option<u64>, len, address_space| TlbFlush { gva: gva.map(Gva), len, address_space };
    assert_eq!(go(&mut rig, op(7, 0), 0), (false, flush(None, 0, None)));
    assert_eq!(go(&mut rig, op(3, 0), 0), (true, flush(None, 0, None)));
    assert_eq!(go(&mut rig, op(3, 1), 9 << 48 | 0x1234), (true, flush(Some(0x123_4000), 0, None)));
    // Kernel addresses are sign-extended.
    assert_eq!(
        go(&mut rig, op(3, 1), 0xfff_ffff_f123),
        (true, flush(Some(0xffff_ffff_fff1_2300 << 4), 0, None))
    );
    assert_eq!(go(&mut rig, op(3, 2), 9 << 48), (true, flush(None, 0, Some(9))));
    assert_eq!(go(&mut rig, op(7, 7), 0x1234), (false, flush(Some(0x123_4000), 0, None)));
    // A range of (3 + 1) * 2^(5 + 1) 4 KiB pages.
    let range = 9 << 48 | 1 << 46 | 1 << 44 | 3 << 39 | 0x1000;
    assert_eq!(go(&mut rig, op(2, 1), range), (true, flush(Some(0x100_0000), 256 << 12, None)));
    // Tags make addresses ambiguous, stage 2 ASIDs.
    rig.guest.tags_seen.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(go(&mut rig, op(3, 1), 9 << 48 | 0x1234), (true, flush(None, 0, None)));
    assert_eq!(go(&mut rig, op(3, 2), 9 << 48), (true, flush(None, 0, Some(9))));
    rig.guest.guests_seen.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(go(&mut rig, op(3, 2), 9 << 48), (true, flush(None, 0, None)));
    assert_eq!(max(0).sys(op(7, 0), 0), Err(Trap::undefined()));
    assert_eq!(max(1).sys(key(1, 4, 8, 7, 0), 0), Err(Trap::undefined()));
    let mut rig = with_el2(1);
    rig.cpu.sys.hcr = hcr::TTLB;
    assert!(rig.sys(op(7, 0), 0).unwrap_err().to_el2);
}

#[test]
fn address_translation_fills_par() {
    let mut rig = max(1);
    let at = |op2| key(1, 0, 7, 8, op2);
    rig.sys(at(0), 0x1234_5678).unwrap();
    // Translation off: Device memory, outer shareable.
    assert_eq!(rig.cpu.sys.par, 0x1234_5000 | 1 << 11 | 2 << 7);
    rig.cpu.sys.sctlr[1] |= sctlr::M;
    rig.cpu.sys.tcr[1] = 25;
    rig.cpu.sys.mair[1] = 0xff00;
    rig.cpu.sys.ttbr0[1] = 0x1000;
    rig.sys(at(0), 0x1234_5678).unwrap();
    assert_eq!(rig.cpu.sys.par, 1 << 11 | 5 << 1 | 1);
    // A read-only gigabyte of normal memory for EL1.
    rig.env.memory.0.insert(0x1000, 1 | 1 << 2 | 1 << 7 | 3 << 8 | 1 << 10);
    rig.sys(at(0), 0x1234_5678).unwrap();
    assert_eq!(rig.cpu.sys.par, 0xff << 56 | 0x1234_5000 | 1 << 11 | 3 << 7);
    rig.sys(at(1), 0x1234_5678).unwrap();
    assert_eq!(rig.cpu.sys.par & 0x7f, 0b1101 << 1 | 1);
    rig.sys(at(2), 0x1234_5678).unwrap();
    assert_eq!(rig.cpu.sys.par & 0x7f, 0b1101 << 1 | 1);
}

#[test]
fn cache_maintenance_faults_as_such() {
    let mut rig = max(0);
    let (cvau, zva) = (key(1, 3, 7, 11, 1), key(1, 3, 7, 4, 1));
    assert_eq!(rig.sys(cvau, 0).unwrap_err().class(), ec::SYSREG);
    rig.cpu.sys.sctlr[1] |= sctlr::UCI | sctlr::DZE;
    rig.cpu.update_mode();
    assert!(rig.sys(cvau, 0x1000).is_ok());
    rig.sys(zva, 0x1077).unwrap();
    let mut zeroed: Vec<_> = rig.env.memory.0.keys().copied().collect();
    zeroed.sort_unstable();
    assert_eq!(zeroed, (0..8).map(|n| 0x1040 + n * 8).collect::<Vec<_>>());
    rig.cpu.sys.sctlr[1] |= sctlr::M;
    rig.cpu.sys.tcr[1] = 25;
    let trap = rig.sys(cvau, 0x1000).unwrap_err();
    assert_eq!((trap.class(), trap.syndrome & 0x1ff, trap.far), (ec::DATA_ABORT, 0x145, 0x1000));
}

#[test]
fn waiting_traps_and_waits() {
    let mut rig = max(0);
    let trap = privileged::wfi(&mut rig.cx(), [0; 4]).unwrap_err();
    assert_eq!(trap.syndrome, syndrome(ec::WFX, 0x1e0_0000));
    rig.cpu.sys.sctlr[1] |= sctlr::NTWI;
    privileged::wfi(&mut rig.cx(), [1, 50, 0, 0]).unwrap();
    assert_eq!((rig.env.waits, rig.cpu.wait_until), (1, 50));
    assert!(rig.guest.wakes(&rig.cpu, 0, 50) && !rig.guest.wakes(&rig.cpu, 0, 49));
    assert_eq!(rig.guest.deadline_ns(&rig.cpu), Some(50));
    let mut rig = with_el2(1);
    rig.cpu.sys.hcr = hcr::TWE;
    assert!(privileged::wfe(&mut rig.cx(), [0; 4]).unwrap_err().to_el2);
    rig.cpu.event = true;
    assert!(privileged::wfe(&mut rig.cx(), [0; 4]).is_ok());
}

#[test]
fn pstate_fields_change_by_immediate() {
    let mut rig = max(1);
    let insn = |op1: u64, imm: u64, op2: u64| 0xd500_401f | op1 << 16 | imm << 8 | op2 << 5;
    let go = |rig: &mut Rig, insn| privileged::msr_immediate(&mut rig.cx(), [insn, 0, 0, 0]);
    go(&mut rig, insn(0, 1, 4)).unwrap();
    assert!(rig.cpu.pan && Mode(rig.cpu.header.mode).mmu() == crate::mode::mmu::E10_1_PAN);
    rig.cpu.daif = 0x3c0;
    go(&mut rig, insn(3, 2, 7)).unwrap();
    assert_eq!((rig.cpu.daif, rig.env.reconsidered), (0x340, 0));
    rig.env.lines = 1;
    go(&mut rig, insn(3, 1, 7)).unwrap();
    assert_eq!((rig.cpu.daif, rig.env.reconsidered), (0x300, 1));
    rig.cpu.sp = 0x77;
    go(&mut rig, insn(0, 0, 5)).unwrap();
    assert_eq!(
        (rig.cpu.spsel, rig.cpu.sp_el[1], Mode(rig.cpu.header.mode).own_stack()),
        (false, 0x77, false)
    );
}

#[test]
fn names_are_the_assemblers() {
    assert_eq!(name(key(3, 0, 1, 0, 0)), "sctlr_el1");
    assert_eq!(name(key(2, 0, 0, 3, 5)), "dbgbcr3_el1");
    assert_eq!(name(key(3, 5, 12, 0, 0)), "vbar_el12");
    assert_eq!(name(key(3, 5, 14, 3, 1)), "cntv_ctl_el02");
    assert_eq!(name(key(3, 1, 15, 2, 1)), "s3_1_c15_c2_1");
    assert_eq!(sysop::name(key(1, 3, 7, 11, 1)), Some(("dc", "cvau")));
    assert_eq!(sysop::name(key(1, 0, 8, 3, 1)), Some(("tlbi", "vae1is")));
}

/// Every access at every level, on every model, gives a value or a trap.
#[test]
fn no_access_panics() {
    for name in Aarch64::MODELS {
        for el2 in [false, true] {
            for el in 0..if el2 { 3 } else { 2 } {
                let mut rig = Rig::new(Aarch64::by_name(name).unwrap().with_el2(el2), el);
                for key in 0x8000..=u16::MAX {
                    let _ = rig.read(key);
                }
                for register in all() {
                    for key in register.keys() {
                        for value in [0, u64::MAX, 0x5555_5555_5555_5555] {
                            let _ = rig.write(key, value);
                            rig.cpu.set_level(el, el != 0);
                        }
                    }
                }
                for operation in sysop::all() {
                    let _ = rig.sys(operation.key, 0x7fff_ffff_ffff_f123);
                }
            }
        }
    }
}
