//! Every call against an environment made by hand; what reaches other harts is seen by running them.

use super::*;
use isomer_core::{Bus, Clock, Gva};
use isomer_devices::backend::char::{Capture, CharInput};
use isomer_engine::{EngineKind, Exit, Request, SoftVcpu, Trace, VcpuConfig};
use isomer_ir::{Access, Guest, MmuIndex, guest::TlbFlush};
use isomer_riscv64::{
    Extensions, Privilege, Trap, cause,
    counters::{self, hpmevent},
    mstatus,
    regs::envcfg,
    trap::irq,
};
use proptest::prelude::*;
use std::sync::{Mutex, mpsc};

const RAM: u64 = 0x8000_0000;
const RAM_LEN: u64 = 1 << 20;
const ECALL_AT: u64 = RAM + 0x100;

const TIME: u64 = 0x5449_4d45;
const IPI: u64 = 0x0073_5049;
const RFENCE: u64 = 0x5246_4e43;
const HSM: u64 = 0x0048_534d;
const SRST: u64 = 0x5352_5354;
const DBCN: u64 = 0x4442_434e;
const PMU: u64 = 0x0050_4d55;

const NOT_SUPPORTED: i64 = -2;
const INVALID_PARAM: i64 = -3;
const INVALID_ADDRESS: i64 = -5;

/// Notes what the firmware asks of the engine. Virtual addresses are physical.
struct Env {
    memory: GuestMemory,
    flushes: Vec<TlbFlush>,
    spaces: Vec<u64>,
    syncs: usize,
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
    fn load(&mut self, _: &Riscv64, _: &mut Cpu, gva: Gva, size: usize, _: MmuIndex) -> Result<u64, Trap> {
        let mut bytes = [0; 8];
        let read = self.memory.read(Gpa(gva.0), &mut bytes[..size]);
        let fault = Trap { cause: cause::LOAD_PAGE, tval: gva.0 };
        read.map(|()| u64::from_le_bytes(bytes)).map_err(|_| fault)
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
    fn flush_tlb(&mut self, what: TlbFlush) {
        self.flushes.push(what);
    }
    fn set_address_space(&mut self, id: u64) {
        self.spaces.push(id);
    }
    fn sync_code(&mut self) {
        self.syncs += 1;
    }
    fn reconsider(&mut self) {
        self.looks += 1;
    }
    fn wait_for_interrupt(&mut self) {}
}

/// A machine of some harts, of which hart 0 makes calls.
struct Bench {
    guest: Arc<Riscv64>,
    cpu: Cpu,
    env: Env,
    group: Arc<Group<Riscv64>>,
    sbi: Sbi,
    firmware: HartFirmware,
    output: Capture,
    power: mpsc::Receiver<PowerEvent>,
    /// What the last call told the engine.
    result: FirmwareResult,
}

fn bench(harts: usize) -> Bench {
    bench_of(Riscv64::max(), harts)
}

fn bench_of(guest: Riscv64, harts: usize) -> Bench {
    let guest = Arc::new(guest);
    let memory = GuestMemory::new(&[(Gpa(RAM), RAM_LEN)]).unwrap();
    let (tx, power) = mpsc::channel();
    let tx = Mutex::new(tx);
    let output = Capture::new(1 << 20);
    let on_power: OnPower = Box::new(move |event| tx.lock().unwrap().send(event).unwrap());
    let sbi = Sbi::new(memory.clone(), harts, Box::new(output.clone()), on_power);
    let group = Group::new(harts);
    assert!(group.peers()[0].claim_power_on());
    Bench {
        cpu: boot_state(&guest, 0, Gpa(ECALL_AT), 0x1234),
        guest,
        env: Env { memory, flushes: vec![], spaces: vec![], syncs: 0, looks: 0 },
        group,
        firmware: sbi.hart(),
        sbi,
        output,
        power,
        result: FirmwareResult::Continue,
    }
}

impl Bench {
    /// Makes a call from `ECALL_AT` and returns a0 and a1.
    fn call(&mut self, extension: u64, function: u64, args: &[u64]) -> (i64, u64) {
        self.cpu.header.pc = ECALL_AT;
        self.cpu.x[10..16].fill(0);
        self.cpu.x[10..10 + args.len()].copy_from_slice(args);
        (self.cpu.x[A6], self.cpu.x[A7]) = (function, extension);
        self.result = self.firmware.call(FirmwareCx {
            guest: &self.guest,
            cpu: &mut self.cpu,
            env: &mut self.env,
            group: &self.group,
            index: 0,
        });
        (self.cpu.x[A0] as i64, self.cpu.x[A1])
    }

    /// A call that the caller goes on after at once.
    fn continues(&mut self, extension: u64, function: u64, args: &[u64]) -> (i64, u64) {
        let answer = self.call(extension, function, args);
        assert_eq!(self.result, FirmwareResult::Continue);
        assert_eq!(self.cpu.header.pc, ECALL_AT + 4);
        answer
    }

    /// Requests ever posted to a hart, this probe not counted.
    fn posted(&self, hart: usize) -> u64 {
        self.group.peers()[hart].post(Request::Call(Box::new(|_: &Riscv64, _: &mut Cpu| ()))) - 1
    }

    /// A vCPU for a hart that lies at `j .`.
    fn vcpu(&self, hart: usize) -> SoftVcpu<Riscv64> {
        self.vcpu_on(hart, EngineKind::Reference)
    }

    fn vcpu_on(&self, hart: usize, engine: EngineKind) -> SoftVcpu<Riscv64> {
        self.env.memory.write(Gpa(RAM + 0x1000), &0x0000_006f_u32.to_le_bytes()).unwrap();
        SoftVcpu::new(VcpuConfig {
            guest: self.guest.clone(),
            cpu: boot_state(&self.guest, hart as u64, Gpa(RAM + 0x1000), 0),
            index: hart,
            group: self.group.clone(),
            memory: self.env.memory.clone(),
            mmio: Arc::new(Bus::default()),
            clock: Arc::new(Clock::host()),
            firmware: None,
            trace: Trace::default(),
            engine,
            jit: None,
            code_limit_bytes: 1 << 20,
        })
    }
}

#[test]
fn base_tells_what_there_is() {
    let mut b = bench(1);
    assert_eq!(b.continues(0x10, 0, &[]), (0, 0x0200_0000));
    assert_eq!(b.continues(0x10, 1, &[]), (0, base::IMPLEMENTATION_ID));
    assert_eq!(b.continues(0x10, 2, &[]).0, 0);
    for extension in [0x10, TIME, IPI, RFENCE, HSM, SRST, DBCN, PMU, 0, 1, 2, 3, 4, 5, 6, 7, 8] {
        assert_eq!(b.continues(0x10, 3, &[extension]), (0, 1), "{extension:#x}");
    }
    for extension in [9, 0x0f, 0x5355_5350, 0x10 | 1 << 32, u64::MAX] {
        assert_eq!(b.continues(0x10, 3, &[extension]), (0, 0), "{extension:#x}");
    }
    assert_eq!([4, 5, 6].map(|f| b.continues(0x10, f, &[])), [(0, 0); 3]);
}

#[test]
fn unknown_calls_are_not_supported_and_touch_nothing_else() {
    let mut b = bench(2);
    let unknown =
        [(0x0900_0000, 0), (9, 0), (0x10, 7), (TIME, 1), (IPI, 1), (RFENCE, 7), (HSM, 4), (SRST, 1)];
    for (extension, function) in unknown.into_iter().chain([(DBCN, 3), (PMU, 7), (PMU, 99)]) {
        let mut before = b.cpu.clone();
        assert_eq!(b.continues(extension, function, &[1, 0, 2, 3, 4, 5]), (NOT_SUPPORTED, 0));
        before.header.pc = ECALL_AT + 4;
        before.x[10..18].copy_from_slice(&b.cpu.x[10..18]);
        assert_eq!(b.cpu, before);
        assert_eq!(b.cpu.x[12..18], [2, 3, 4, 5, function, extension]);
    }
    // The hypervisor's fences.
    assert_eq!([3, 4, 5, 6].map(|f| b.continues(RFENCE, f, &[1, 0]).0), [NOT_SUPPORTED; 4]);
    assert_eq!(b.posted(1), 0);
}

#[test]
fn the_timer_is_stimecmp() {
    let mut b = bench(1);
    assert_eq!(b.continues(TIME, 0, &[12_345]), (0, 0));
    assert_eq!((b.cpu.stimecmp, b.env.looks), (12_345, 1));
    let pending = |b: &Bench, ns| b.guest.wakes(&b.cpu, 0, ns);
    b.cpu.mie = irq::STI;
    assert!(pending(&b, 1_234_500) && !pending(&b, 1_234_499));
    // Also where the kernel has no `stimecmp`.
    b.guest = Arc::new(Riscv64::rva22());
    assert!(!b.guest.ext.contains(Extensions::SSTC));
    b.cpu = boot_state(&b.guest, 0, Gpa(ECALL_AT), 0);
    b.continues(TIME, 0, &[20]);
    b.cpu.mie = irq::STI;
    assert!(pending(&b, 2_000) && !pending(&b, 1_999));
    assert_eq!(b.guest.deadline_ns(&b.cpu), Some(2_000));
}

#[test]
fn ipis_arrive_once_at_powered_harts() {
    let mut b = bench(3);
    let mut one = b.vcpu(1);
    one.power_on();
    assert_eq!(b.continues(IPI, 0, &[0b111, 0]), (0, 0));
    assert_eq!(b.cpu.mip & irq::SSI, irq::SSI);
    assert_eq!(one.cpu().mip & irq::SSI, 0, "not before it looks");
    // A guest that sends for ever posts one request, and none to a hart that is off.
    for _ in 0..1000 {
        b.continues(IPI, 0, &[0, u64::MAX]);
    }
    assert_eq!((b.posted(1), b.posted(2)), (1, 0));
    one.run(Some(10));
    assert_eq!(one.cpu().mip & irq::SSI, irq::SSI);
    one.cpu_mut().mip = 0;
    b.continues(IPI, 0, &[1, 1]);
    one.run(Some(10));
    assert_eq!(one.cpu().mip & irq::SSI, irq::SSI, "again after it took the first");
}

#[test]
fn hart_masks_are_checked() {
    let mut b = bench(2);
    assert_eq!(b.continues(IPI, 0, &[0b100, 0]), (INVALID_PARAM, 0));
    assert_eq!(b.continues(IPI, 0, &[1, 2]), (INVALID_PARAM, 0));
    assert_eq!(b.continues(IPI, 0, &[0, 2]), (INVALID_PARAM, 0));
    assert_eq!(b.continues(IPI, 0, &[0b10, u64::MAX - 1]), (INVALID_PARAM, 0));
    assert_eq!(b.continues(RFENCE, 0, &[0b10, 1]), (INVALID_PARAM, 0));
    assert_eq!(b.cpu.mip, 0, "nobody got anything");
    assert_eq!(b.continues(IPI, 0, &[0, 0]), (0, 0));
    assert_eq!(b.continues(IPI, 0, &[0b1_0100, u64::MAX]), (0, 0), "the mask is ignored with base -1");
    assert_eq!(b.cpu.mip, irq::SSI);
}

#[test]
fn remote_fences_wait_for_the_others() {
    let mut b = bench(3);
    assert_eq!(b.call(RFENCE, 0, &[0b101, 0]), (0, 0));
    assert_eq!(b.result, FirmwareResult::ContinueAfter(vec![(2, 1)]));
    assert_eq!((b.cpu.header.pc, b.env.syncs), (ECALL_AT + 4, 1));
    assert_eq!(b.continues(RFENCE, 0, &[1, 0]), (0, 0), "only the caller: nobody to wait for");
    assert_eq!((b.env.syncs, b.posted(1), b.posted(2)), (2, 0, 1));

    assert_eq!(b.call(RFENCE, 1, &[0, u64::MAX, 0x1fff, 2]), (0, 0));
    assert_eq!(b.result, FirmwareResult::ContinueAfter(vec![(1, 2), (2, 3)]));
    let two_pages = TlbFlush { gva: Some(Gva(0x1000)), len: 0x2000, address_space: None };
    assert_eq!(b.env.flushes, [two_pages]);
}

#[test]
fn fence_ranges_and_address_spaces() {
    let mut b = bench(1);
    let mut flush = |satp: u64, function: u64, args: [u64; 3]| {
        b.cpu.satp = satp;
        let error = b.continues(RFENCE, function, &[1, 0, args[0], args[1], args[2]]).0;
        if error == 0 { Ok(b.env.flushes.pop().unwrap()) } else { Err(error) }
    };
    let sv39 = 8 << 60 | 7 << 44 | 0x12345;
    let all = TlbFlush::default();
    assert_eq!(flush(sv39, 1, [0, 0, 0]), Ok(all));
    assert_eq!(flush(sv39, 1, [0x5000, u64::MAX, 0]), Ok(all));
    let page = TlbFlush { gva: Some(Gva(0x5000)), len: 0x1000, address_space: None };
    assert_eq!(flush(sv39, 1, [0x5008, 8, 0]), Ok(page));
    let last = TlbFlush { gva: Some(Gva(u64::MAX << 12)), len: 0x1000, address_space: None };
    assert_eq!(flush(sv39, 1, [u64::MAX << 12, 0x1000, 0]), Ok(last));
    assert_eq!(flush(sv39, 1, [u64::MAX << 12, 0x1001, 0]), Err(INVALID_ADDRESS));

    let space = isomer_riscv64::address_space(8 << 60 | 9 << 44);
    assert_eq!(flush(sv39, 2, [0, 0, 9]), Ok(TlbFlush { address_space: Some(space), ..all }));
    assert_eq!(flush(sv39, 2, [0x5000, 1, 9]), Ok(TlbFlush { address_space: Some(space), ..page }));
    assert_eq!(flush(0, 2, [0, 0, 9]), Ok(all), "without translation: every address space");
}

#[test]
fn harts_start_once_where_they_are_told() {
    let mut b = bench(2);
    let mut one = b.vcpu(1);
    assert_eq!(b.continues(HSM, 2, &[0]), (0, 0));
    assert_eq!(b.continues(HSM, 2, &[1]), (0, 1));
    assert_eq!(b.continues(HSM, 2, &[2]), (INVALID_PARAM, 0));
    assert_eq!(b.continues(HSM, 0, &[2, RAM, 0]), (INVALID_PARAM, 0));
    assert_eq!(b.continues(HSM, 0, &[1, RAM + RAM_LEN, 0]), (INVALID_ADDRESS, 0));
    assert_eq!(b.continues(HSM, 0, &[1, RAM + 1, 0]), (INVALID_ADDRESS, 0));
    assert_eq!(b.continues(HSM, 0, &[1, u64::MAX - 1, 0]), (INVALID_ADDRESS, 0));
    assert_eq!(b.continues(HSM, 2, &[1]), (0, 1), "still off");

    one.cpu_mut().satp = 8 << 60;
    one.cpu_mut().mip = irq::SSI;
    assert_eq!(b.continues(HSM, 0, &[1, RAM + 0x1000, 0xabcd]), (0, 0));
    assert_eq!(b.continues(HSM, 0, &[1, RAM + 0x1000, 0]), (-6, 0), "already available");
    assert_eq!(b.continues(HSM, 0, &[0, RAM + 0x1000, 0]), (-6, 0));
    assert_eq!(b.continues(HSM, 2, &[1]), (0, 0));
    one.run(Some(10));
    let cpu = one.cpu();
    assert_eq!((cpu.x[A0], cpu.x[A1], cpu.header.pc), (1, 0xabcd, RAM + 0x1000));
    assert_eq!((cpu.satp, cpu.mip, cpu.mstatus & mstatus::SIE), (0, 0, 0));
    assert_eq!(cpu.privilege, Privilege::Supervisor);
}

#[test]
fn a_stopped_hart_leaves_no_translations() {
    let mut b = bench(1);
    b.cpu.satp = 8 << 60 | 5 << 44;
    b.cpu.mip = irq::SSI;
    b.call(HSM, 1, &[]);
    assert_eq!(b.result, FirmwareResult::PowerOff);
    assert_eq!((b.cpu.satp, b.cpu.mip), (0, 0));
    assert_eq!((&b.env.spaces[..], &b.env.flushes[..]), (&[0][..], &[TlbFlush::default()][..]));
}

#[test]
fn harts_suspend_with_and_without_their_state() {
    let mut b = bench(1);
    assert_eq!(b.call(HSM, 3, &[0]), (0, 0));
    assert_eq!((&b.result, b.cpu.header.pc), (&FirmwareResult::Wait, ECALL_AT + 4));
    for kind in [1, 0x0fff_ffff, 0x1000_0000, 0x8000_0001, 0xffff_ffff] {
        assert_eq!(b.continues(HSM, 3, &[kind, RAM, 0]), (INVALID_PARAM, 0));
    }
    assert_eq!(b.continues(HSM, 3, &[0x8000_0000, 0x1000, 0]), (INVALID_ADDRESS, 0));

    (b.cpu.satp, b.cpu.mie, b.cpu.stimecmp, b.cpu.stvec) = (8 << 60, irq::STI, 77, 0x4000);
    b.cpu.header.insns = 1000;
    // Only 32 bits of the kind count.
    assert_eq!(b.call(HSM, 3, &[0xffff_ffff_8000_0000, RAM + 8, 0x55]), (0, 0x55));
    assert_eq!(b.result, FirmwareResult::Wait);
    assert_eq!((b.cpu.header.pc, b.cpu.satp, b.cpu.stvec), (RAM + 8, 0, 0));
    assert_eq!((b.cpu.mie, b.cpu.stimecmp, b.cpu.header.insns), (irq::STI, 77, 1000), "it still wakes");
    assert_eq!(b.env.flushes, [TlbFlush::default()]);
}

#[test]
fn resets_reach_the_machine() {
    let mut b = bench(1);
    for (kind, reason, event) in [
        (0, 0, PowerEvent::Off),
        (0, 1, PowerEvent::Fail(1)),
        (1, 0, PowerEvent::Reset),
        (2, 1, PowerEvent::Reset),
        (5 << 32, 3 << 32, PowerEvent::Off),
    ] {
        b.call(SRST, 0, &[kind, reason]);
        assert_eq!((&b.result, b.power.try_recv()), (&FirmwareResult::Stop, Ok(event)));
    }
    for (kind, reason) in [(3, 0), (0xf000_0000, 0), (0, 2), (1, 0xe000_0000)] {
        assert_eq!(b.continues(SRST, 0, &[kind, reason]), (INVALID_PARAM, 0));
    }
    assert!(b.power.try_recv().is_err());
}

#[test]
fn the_debug_console_writes_from_memory() {
    let mut b = bench(1);
    let text: Vec<u8> = (0..10_000u32).map(|n| b'a' + (n % 26) as u8).collect();
    b.env.memory.write(Gpa(RAM + 3), &text).unwrap();
    assert_eq!(b.continues(DBCN, 0, &[10_000, RAM + 3, 0]), (0, 10_000));
    assert_eq!(b.output.bytes(), text);
    assert_eq!(b.continues(DBCN, 0, &[0, RAM, 0]), (0, 0));
    assert_eq!(b.continues(DBCN, 2, &[0x1_0000 | u64::from(b'!')]), (0, 0));
    assert_eq!(b.output.bytes().last(), Some(&b'!'));
    // Long writes are done in part.
    assert_eq!(b.continues(DBCN, 0, &[RAM_LEN, RAM, 0]), (0, 64 << 10));
    for bad in
        [[1, RAM - 1, 0], [2, RAM + RAM_LEN - 1, 0], [1, RAM, 1], [u64::MAX, RAM, 0], [RAM_LEN + 1, RAM, 0]]
    {
        assert_eq!(b.continues(DBCN, 0, &bad), (INVALID_PARAM, 0));
        assert_eq!(b.continues(DBCN, 1, &bad), (INVALID_PARAM, 0));
    }
}

#[test]
fn the_debug_console_reads_into_memory() {
    let mut b = bench(1);
    assert_eq!(b.continues(DBCN, 1, &[16, RAM, 0]), (0, 0));
    assert_eq!(b.sbi.console().receive(b"hello"), 5);
    assert_eq!(b.continues(DBCN, 1, &[2, RAM, 0]), (0, 2));
    assert_eq!(b.continues(DBCN, 1, &[16, RAM + 2, 0]), (0, 3));
    let mut back = [0; 6];
    b.env.memory.read(Gpa(RAM), &mut back).unwrap();
    assert_eq!(&back, b"hello\0");
    // Input is held up to a limit, and a reader is told when there is room.
    let waker = isomer_devices::backend::char::InputWaker::new().unwrap();
    b.sbi.console().set_waker(waker);
    assert_eq!(b.sbi.console().receive(&[7; 5000]), 4096);
    assert_eq!(b.sbi.console().receive(&[7; 5000]), 0);
    assert_eq!(b.continues(DBCN, 1, &[RAM_LEN, RAM, 0]), (0, 4096));
}

#[test]
fn fixed_counters_are_cycle_and_instret() {
    let mut b = bench(1);
    assert_eq!(b.continues(PMU, 0, &[]), (0, 11));
    for counter in [0, 2, 3, 10] {
        assert_eq!(b.continues(PMU, 1, &[counter]), (0, (0xc00 + counter) | 63 << 12));
    }
    assert_eq!([1, 11, u64::MAX].map(|n| b.continues(PMU, 1, &[n]).0), [INVALID_PARAM; 3]);
    assert_eq!([5, 6].map(|f| b.continues(PMU, f, &[0]).0), [INVALID_PARAM; 2]);

    b.cpu.header.insns = 1000;
    let value = |b: &Bench| match b.cpu.mcountinhibit & 4 {
        0 => b.cpu.minstret.wrapping_add(b.cpu.header.insns),
        _ => b.cpu.minstret,
    };
    assert_eq!(b.continues(PMU, 4, &[0, 0b101, 1]), (0, 0));
    assert_eq!(b.continues(PMU, 4, &[0, 0b100, 0]).0, -8, "already stopped");
    assert_eq!((b.cpu.mcountinhibit, value(&b)), (0x7fd, 1000));
    // Instructions: counter 2, cleared, and not given out twice.
    assert_eq!(b.continues(PMU, 2, &[0, 0b101, 2, 2, 0]), (0, 2));
    assert_eq!(value(&b), 0);
    assert_eq!(b.continues(PMU, 2, &[0, 0b101, 2, 2, 0]), (NOT_SUPPORTED, 0));
    assert_eq!(b.continues(PMU, 3, &[2, 1, 1, 500]), (0, 0));
    assert_eq!(b.continues(PMU, 3, &[2, 1, 0, 0]).0, -7, "already started");
    b.cpu.header.insns += 10;
    assert_eq!((value(&b), b.cpu.mcountinhibit), (510, 0x7f9));
    assert_eq!(b.continues(PMU, 4, &[2, 1, 1]), (0, 0));
    b.cpu.header.insns += 10;
    assert_eq!(value(&b), 510);
    // Skip match and auto start.
    assert_eq!(b.continues(PMU, 2, &[0, 1, 5, 1, 0]), (0, 0));
    assert_eq!(b.cpu.mcountinhibit, 0x7fc);
}

/// The value of programmable counter `n`, now.
fn counted(b: &mut Bench, n: usize) -> u64 {
    let at = b.cpu.header.insns;
    counters::read(&b.guest, &mut b.cpu, n, at)
}

#[test]
fn programmable_counters_filter_and_interrupt() {
    let mut b = bench(1);
    let any = 0x7fd;
    // UINH, MINH, CLEAR_VALUE; not started yet.
    assert_eq!(b.continues(PMU, 2, &[0, any, 1 << 7 | 1 << 5 | 2, 1, 0]), (0, 3));
    assert_eq!(b.cpu.mhpmevent[3], hpmevent::MINH | hpmevent::UINH | counters::CYCLES);
    assert_eq!(b.continues(PMU, 2, &[0, any, 6, 2, 0]), (0, 4), "the next, started at once");
    b.cpu.header.insns += 40;
    assert_eq!((counted(&mut b, 3), counted(&mut b, 4)), (0, 40));
    assert_eq!(b.continues(PMU, 3, &[3, 1, 1, 100_u64.wrapping_neg()]), (0, 0));
    assert_eq!(b.continues(PMU, 3, &[3, 1, 0, 0]).0, -7, "already started");
    b.cpu.header.insns += 130;
    assert_eq!(b.continues(PMU, 4, &[3, 0b11, 0]), (0, 0));
    assert_eq!((counted(&mut b, 3), counted(&mut b, 4)), (30, 170));
    assert_eq!((b.cpu.mhpmevent[3] >> 63, b.cpu.mhpmevent[4] >> 63, b.cpu.mip), (1, 0, irq::LCOFI));
    // Started again, it is armed again.
    b.cpu.mip = 0;
    assert_eq!(b.continues(PMU, 3, &[3, 1, 1, u64::MAX]), (0, 0));
    assert_eq!(b.cpu.mhpmevent[3], hpmevent::MINH | hpmevent::UINH | counters::CYCLES);
    b.cpu.header.insns += 1;
    assert_eq!(b.guest.slice_done(&mut b.cpu), u64::MAX);
    assert_eq!(b.cpu.mip, irq::LCOFI);
    // Reset takes the event away and frees the counter.
    assert_eq!(b.continues(PMU, 4, &[3, 1, 1]), (0, 0));
    assert_eq!(b.cpu.mhpmevent[3], 0);
    assert_eq!(b.continues(PMU, 3, &[3, 1, 0, 0]).0, INVALID_PARAM, "no event");
    assert_eq!(b.continues(PMU, 2, &[0, any, 0, 1, 0]), (0, 3));
}

#[test]
fn counters_run_out() {
    for (guest, order) in [
        (Riscv64::max(), [3, 4, 5, 6, 7, 8, 9, 10, 0]),
        // Nothing to filter or interrupt with: the fixed counter does.
        (Riscv64::rva22(), [0, 3, 4, 5, 6, 7, 8, 9, 10]),
    ] {
        let mut b = bench_of(guest, 1);
        for counter in order {
            assert_eq!(b.continues(PMU, 2, &[0, 0x7fd, 1 << 7, 1, 0]), (0, counter));
        }
        assert_eq!(b.continues(PMU, 2, &[0, 0x7fd, 1 << 7, 1, 0]).0, NOT_SUPPORTED);
        assert_eq!(b.cpu.mhpmevent[3] & hpmevent::MINH != 0, b.guest.ext.contains(Extensions::SSCOFPMF));
        assert_eq!(b.continues(PMU, 2, &[2, 1, 1, 1, 0]).0, NOT_SUPPORTED, "instret does not count cycles");
    }
}

#[test]
fn counters_outlive_suspension() {
    let mut b = bench(1);
    assert_eq!(b.continues(PMU, 2, &[0, 0x7fd, 6, 1, 0]), (0, 3));
    b.cpu.header.insns += 9;
    b.call(HSM, 3, &[0x8000_0000, RAM + 0x1000, 0]);
    assert_eq!(b.result, FirmwareResult::Wait);
    b.cpu.header.insns += 1;
    assert_eq!(counted(&mut b, 3), 10);
}

#[test]
fn an_overflow_interrupts_at_the_block_where_it_happens() {
    for engine in [EngineKind::Interpreter, EngineKind::Reference] {
        let b = bench(1);
        let mut vcpu = b.vcpu_on(0, engine);
        // addi t0, t0, 1; j .-4. The handler is `j .`.
        b.env.memory.write(Gpa(RAM + 0x1000), &0xffdf_f06f_0012_8293_u64.to_le_bytes()).unwrap();
        b.env.memory.write(Gpa(RAM + 0x2000), &0x0000_006f_u32.to_le_bytes()).unwrap();
        let cpu = vcpu.cpu_mut();
        (cpu.stvec, cpu.mie) = (RAM + 0x2000, irq::LCOFI);
        cpu.mstatus |= mstatus::SIE;
        cpu.update_mode();
        counters::inhibit(&b.guest, cpu, 0, 0);
        counters::set_event(&b.guest, cpu, 3, counters::INSTRUCTIONS, 0);
        counters::write(&b.guest, cpu, 3, 60_001_u64.wrapping_neg(), 0);
        vcpu.power_on();
        assert_eq!(vcpu.run(Some(100_000)), Exit::Limit);
        let cpu = vcpu.cpu();
        assert_eq!((cpu.header.pc, cpu.scause), (RAM + 0x2000, 1 << 63 | 13), "{engine:?}");
        assert_eq!(cpu.x[5], 30_001, "{engine:?}");
        assert_eq!(cpu.mhpmcounter[3], cpu.header.insns - 60_001);
    }
}

#[test]
fn counter_calls_are_checked() {
    let mut b = bench(1);
    for (function, args) in [
        (2, [0, 0b10, 0, 1, 0]),
        (2, [1, 1, 0, 1, 0]),
        (2, [u64::MAX, 0b11, 0, 1, 0]),
        (2, [0, 0, 0, 1, 0]),
        (2, [0, 1, 1 << 8, 1, 0]),
        (3, [0, 1, 4, 0, 0]),
        (4, [0, 1, 4, 0, 0]),
        (4, [11, 1, 0, 0, 0]),
        (3, [4, 1, 0, 0, 0]),
    ] {
        assert_eq!(b.continues(PMU, function, &args), (INVALID_PARAM, 0), "{function} {args:?}");
    }
    assert_eq!(b.continues(PMU, 2, &[0, 0b101, 0, 3, 0]), (NOT_SUPPORTED, 0), "cache references");
    assert_eq!(b.continues(PMU, 2, &[0, 0b101, 0, 1, 9]), (NOT_SUPPORTED, 0), "data for a plain event");
    assert_eq!(b.continues(PMU, 3, &[0, 1, 2, 0]).0, -9, "no snapshot memory");
    assert_eq!(b.continues(PMU, 4, &[0, 1, 2]).0, -9);
}

#[test]
fn legacy_calls_return_in_a0_only() {
    let mut b = bench(2);
    assert_eq!(b.continues(0, 99, &[5, 0xa1]), (0, 0xa1));
    assert_eq!(b.cpu.stimecmp, 5);
    assert_eq!(b.continues(1, 0, &[u64::from(b'x'), 0xa1]), (0, 0xa1));
    assert_eq!(b.output.bytes(), b"x");
    assert_eq!(b.continues(2, 0, &[0, 0xa1]), (-1, 0xa1));
    b.sbi.console().receive(b"y");
    assert_eq!(b.continues(2, 0, &[]).0, i64::from(b'y'));
    b.cpu.mip = irq::SSI;
    assert_eq!(b.continues(3, 0, &[0, 0xa1]), (1, 0xa1));
    assert_eq!(b.continues(3, 0, &[]), (0, 0));
    b.call(8, 0, &[]);
    assert_eq!((&b.result, b.power.try_recv()), (&FirmwareResult::Stop, Ok(PowerEvent::Off)));
}

#[test]
fn legacy_hart_masks_are_read_from_memory() {
    let mut b = bench(2);
    b.env.memory.write(Gpa(RAM), &[0b101, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(b.continues(4, 0, &[RAM, 0xa1]), (0, 0xa1));
    assert_eq!(b.cpu.mip, irq::SSI);
    b.env.memory.write(Gpa(RAM), &[0b10]).unwrap();
    assert_eq!(b.call(6, 0, &[RAM, 0x3000, 1]).0, 0);
    assert_eq!((&b.result, b.env.flushes.len()), (&FirmwareResult::ContinueAfter(vec![(1, 1)]), 0));
    assert_eq!(b.call(7, 0, &[0, 0x3000, 1, 4]).0, 0);
    assert_eq!(
        (&b.result, b.env.flushes.len()),
        (&FirmwareResult::ContinueAfter(vec![(1, 2)]), 1),
        "null: all"
    );
    assert_eq!(b.call(5, 0, &[0]).0, 0);
    assert_eq!(b.env.syncs, 1);

    // A bad pointer faults at the `ecall`, as the caller's own load would.
    b.cpu.stvec = 0x4000;
    b.call(4, 0, &[0x10]);
    assert_eq!(b.result, FirmwareResult::Continue);
    assert_eq!((b.cpu.sepc, b.cpu.scause, b.cpu.stval), (ECALL_AT, cause::LOAD_PAGE, 0x10));
    assert_eq!((b.cpu.header.pc, b.cpu.x[A0]), (0x4000, 0x10));
}

#[test]
fn kernels_start_with_everything_delegated() {
    let cpu = boot_state(&Riscv64::max(), 3, Gpa(RAM), 0x9000);
    assert_eq!((cpu.hartid, cpu.x[A0], cpu.x[A1], cpu.header.pc), (3, 3, 0x9000, RAM));
    assert_eq!((cpu.privilege, cpu.satp, cpu.mstatus & mstatus::SIE), (Privilege::Supervisor, 0, 0));
    assert_eq!(cpu.medeleg, 0xb1ff);
    assert_eq!(cpu.mideleg, irq::SUPERVISOR);
    let mode = isomer_riscv64::Mode(cpu.header.mode);
    assert_eq!(mode.privilege(), Privilege::Supervisor);
    assert!(mode.cbo_zero_enabled() && mode.cbo_clean_enabled() && mode.cbo_inval_enabled());

    let plain = boot_state(&Riscv64::rv64(), 0, Gpa(RAM), 0);
    assert_eq!(plain.mideleg, irq::SUPERVISOR & !irq::LCOFI);
    assert_eq!(plain.menvcfg, envcfg::STCE | envcfg::ADUE);
    assert_eq!(boot_state(&Riscv64::rva22(), 0, Gpa(RAM), 0).menvcfg & envcfg::ADUE, 0);
}

#[test]
fn a_started_kernel_reaches_all_memory() {
    // PMP lets S-mode through: an instruction at the start of RAM runs, which a closed PMP would fault.
    let b = bench(1);
    let mut vcpu = b.vcpu(0);
    vcpu.power_on();
    vcpu.run(Some(100));
    assert!(vcpu.stats().insns >= 100);
    assert_eq!((vcpu.cpu().scause, vcpu.cpu().header.pc), (0, RAM + 0x1000));
}

/// Numbers at which checks go wrong.
fn edge() -> impl Strategy<Value = u64> {
    const NEAR: [u64; 11] = [0, 1, 2, 63, 64, RAM, RAM + RAM_LEN, 1 << 31, 1 << 32, 1 << 63, u64::MAX];
    (prop::sample::select(&NEAR[..]), -2i64..3).prop_map(|(n, by): (u64, i64)| n.wrapping_add_signed(by))
}

proptest! {
    /// No call with any arguments panics, and what is answered is an SBI error or success, behind the call.
    #[test]
    fn any_call_is_answered(
        calls in prop::collection::vec((0..EXTENSIONS.len(), 0u64..9, prop::array::uniform6(edge())), 1..20),
    ) {
        let mut b = bench(3);
        for (row, function, args) in calls {
            // A suspension may have reset it.
            b.cpu.stvec = RAM;
            let (extension, legacy) = (EXTENSIONS[row].id, EXTENSIONS[row].legacy);
            let (error, _) = b.call(extension, function, &args);
            let faulted = b.cpu.header.pc == RAM && legacy;
            let resumed = b.result == FirmwareResult::Wait && b.cpu.satp == 0;
            let off = b.result == FirmwareResult::PowerOff;
            prop_assert!(b.cpu.header.pc == ECALL_AT + 4 || faulted || resumed || off);
            prop_assert!(legacy || resumed || off || (-9..=0).contains(&error));
        }
    }
}
