//! Machines for the tests: RAM, a device that ends a hart's run, and harts on threads of their own.

use crate::asm::{Asm, Reg, SP, ZERO, j, sd};
use isomer_core::{Bus, Clock, Device, Gpa, GuestMemory, StateError};
use isomer_engine::{
    Control, EngineKind, Exit, Firmware, FirmwareCx, FirmwareResult, Group, Jit, SoftVcpu, Trace, VcpuConfig,
};
use isomer_riscv64::{Cpu, Privilege, Riscv64};
use std::{
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub(crate) const RAM: u64 = 0x8000_0000;
pub(crate) const RAM_BYTES: u64 = 16 << 20;
/// Where programs start.
pub(crate) const CODE: u64 = RAM + 0x1_0000;
/// Free for data.
pub(crate) const DATA: u64 = RAM + 0x10_0000;
/// A page with nothing behind it.
pub(crate) const HOLE: u64 = 0x2000_0000;
/// A store to this plus 8 times the hart's number ends its run, with the value as result. A load takes a while.
pub(crate) const FINISH: u64 = 0x1000_0000;
/// The longest any test may take before it counts as hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const ENGINES: [EngineKind; 6] = EngineKind::ALL;

/// Takes results and stops who wrote them.
struct Finish {
    group: Arc<Group<Riscv64>>,
    results: Arc<Mutex<Vec<Option<u64>>>>,
}

impl Device for Finish {
    const NAME: &'static str = "finish";
    const VERSION: u32 = 1;
    type State = ();
    fn read(&mut self, _region: usize, _offset: u64, _size: usize) -> u64 {
        std::thread::sleep(Duration::from_micros(50));
        0
    }
    fn write(&mut self, _region: usize, offset: u64, _size: usize, value: u64) {
        let hart = (offset / 8) as usize;
        self.results.lock().unwrap()[hart] = Some(value);
        self.group.peers()[hart].set_control(Control::Stop);
    }
    fn reset(&mut self) {}
    fn save(&self) {}
    fn restore(&mut self, (): ()) -> Result<(), StateError> {
        Ok(())
    }
}

/// Everything but the harts.
pub(crate) struct Machine {
    pub(crate) guest: Arc<Riscv64>,
    pub(crate) memory: GuestMemory,
    pub(crate) group: Arc<Group<Riscv64>>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) results: Arc<Mutex<Vec<Option<u64>>>>,
    pub(crate) code_limit_bytes: usize,
    /// In place of those that the engine's kind has.
    pub(crate) jit: Option<Arc<Jit<Riscv64>>>,
}

impl Machine {
    pub(crate) fn new(harts: usize) -> Self {
        let group = Group::new(harts);
        let results = Arc::new(Mutex::new(vec![None; harts]));
        let bus = Arc::new(Bus::default());
        let finish = Finish { group: group.clone(), results: results.clone() };
        bus.map(Gpa(FINISH), 8 * harts as u64, 0, Arc::new(Mutex::new(finish))).unwrap();
        Self {
            guest: Arc::new(Riscv64::max()),
            memory: GuestMemory::new(&[(Gpa(RAM), RAM_BYTES)]).unwrap(),
            group,
            bus,
            clock: Arc::new(Clock::host()),
            results,
            code_limit_bytes: 4 << 20,
            jit: None,
        }
    }

    /// The same with the memory of another.
    pub(crate) fn with_memory(self, other: &Self) -> Self {
        Self { memory: other.memory.clone(), ..self }
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(Gpa(at), bytes).unwrap();
    }

    pub(crate) fn write_u64(&self, at: u64, value: u64) {
        self.write(at, &value.to_le_bytes());
    }

    pub(crate) fn read_u64(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory.read(Gpa(at), &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// Hart `index` in machine mode at `pc`, not yet powered on.
    pub(crate) fn hart_off(
        &self,
        index: usize,
        engine: EngineKind,
        firmware: Option<Box<dyn Firmware<Riscv64>>>,
    ) -> SoftVcpu<Riscv64> {
        let jit = self.jit.clone().or_else(|| Jit::for_engine(engine, &self.guest).unwrap());
        self.hart_with(index, engine, jit, firmware)
    }

    /// The same with these compilers.
    pub(crate) fn hart_with(
        &self,
        index: usize,
        engine: EngineKind,
        jit: Option<Arc<Jit<Riscv64>>>,
        firmware: Option<Box<dyn Firmware<Riscv64>>>,
    ) -> SoftVcpu<Riscv64> {
        SoftVcpu::new(VcpuConfig {
            guest: self.guest.clone(),
            cpu: self.guest.reset(index as u64, CODE),
            index,
            group: self.group.clone(),
            memory: self.memory.clone(),
            mmio: self.bus.clone(),
            clock: self.clock.clone(),
            firmware,
            trace: Trace::default(),
            engine,
            jit,
            code_limit_bytes: self.code_limit_bytes,
        })
    }

    /// Hart `index` in machine mode at `pc`.
    pub(crate) fn hart(&self, index: usize, engine: EngineKind, pc: u64) -> SoftVcpu<Riscv64> {
        let mut hart = self.hart_off(index, engine, None);
        hart.cpu_mut().header.pc = pc;
        hart.power_on();
        hart
    }

    /// A hart on its own thread, until it stops.
    pub(crate) fn spawn(&self, mut hart: SoftVcpu<Riscv64>) -> JoinHandle<(SoftVcpu<Riscv64>, Exit)> {
        std::thread::spawn(move || {
            let exit = hart.run(None);
            (hart, exit)
        })
    }

    /// Ends the run of all harts.
    pub(crate) fn stop(&self) {
        self.group.peers().iter().for_each(|peer| peer.set_control(Control::Stop));
    }

    /// Lets hart 0 run a program at [`CODE`] to its end: the hart and the program's result.
    pub(crate) fn run(&self, engine: EngineKind, program: Asm) -> (SoftVcpu<Riscv64>, u64) {
        self.write(CODE, &program.finish());
        let hart = self.hart(0, engine, CODE);
        self.run_hart(hart)
    }

    /// The same for a hart that is ready to run.
    pub(crate) fn run_hart(&self, hart: SoftVcpu<Riscv64>) -> (SoftVcpu<Riscv64>, u64) {
        let thread = self.spawn(hart);
        let (hart, exit) = self.join(vec![thread]).pop().unwrap();
        assert_eq!(exit, Exit::Stopped);
        let result = self.results.lock().unwrap()[0].expect("the program ends with a result");
        (hart, result)
    }

    /// Waits for harts that end by themselves; fails with their registers if they do not.
    pub(crate) fn join(
        &self,
        threads: Vec<JoinHandle<(SoftVcpu<Riscv64>, Exit)>>,
    ) -> Vec<(SoftVcpu<Riscv64>, Exit)> {
        let start = Instant::now();
        let mut hung = false;
        while threads.iter().any(|thread| !thread.is_finished()) {
            if start.elapsed() > PATIENCE {
                hung = true;
                self.stop();
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        if hung {
            let harts = ended.iter().map(|(hart, exit)| {
                format!(
                    "{exit:?} {:?}\n{}",
                    hart.stats(),
                    isomer_ir::Guest::describe(&*self.guest, hart.cpu())
                )
            });
            panic!("hung:\n{}", harts.collect::<Vec<_>>().join("\n"));
        }
        ended
    }
}

/// Ends hart 0's run with `result`; clobbers sp.
pub(crate) fn finish(asm: &mut Asm, result: Reg) {
    finish_hart(asm, 0, result);
}

/// Ends the run of `hart`, which must be the one that executes this; clobbers sp.
pub(crate) fn finish_hart(asm: &mut Asm, hart: u64, result: Reg) {
    asm.li(SP, FINISH + 8 * hart).op(sd(result, 0, SP)).op(j(0));
    assert_ne!(result, ZERO + SP);
}

/// Lets a hart run in supervisor mode, with all traps but calls delegated and the timer usable.
pub(crate) fn enter_supervisor(cpu: &mut Cpu) {
    cpu.privilege = Privilege::Supervisor;
    cpu.medeleg = 0xb3ff & !(1 << 9);
    cpu.mideleg = 0x222;
    cpu.mcounteren = u64::from(u32::MAX);
    cpu.menvcfg = 1 << 63;
    cpu.mstateen = [u64::MAX; 4];
    cpu.pmpcfg[0] = 3 << 3 | 7;
    cpu.pmpaddr[0] = (1 << 54) - 1;
    cpu.update_mode();
}

/// Firmware made of a closure.
pub(crate) struct Calls<F>(pub(crate) F);

impl<F> Firmware<Riscv64> for Calls<F>
where
    F: FnMut(FirmwareCx<'_, Riscv64>) -> FirmwareResult + Send,
{
    fn call(&mut self, cx: FirmwareCx<'_, Riscv64>) -> FirmwareResult {
        (self.0)(cx)
    }
}

/// Sv39 page tables, built from outside the guest.
pub(crate) struct Tables<'a> {
    machine: &'a Machine,
    pub(crate) root: u64,
    next: u64,
}

/// Bits of leaf entries: accessed, dirty, executable, writable, readable, valid.
pub(crate) const RWX: u64 = 0xcf;
pub(crate) const READ_ONLY: u64 = 0x43;

impl<'a> Tables<'a> {
    /// Empty tables that grow upwards from `at`.
    pub(crate) fn new(machine: &'a Machine, at: u64) -> Self {
        Self { machine, root: at, next: at + 0x1000 }
    }

    /// The address of the entry for `gva` at `level` (0: 4 KiB, 1: 2 MiB, 2: 1 GiB).
    pub(crate) fn entry(&mut self, gva: u64, level: u32) -> u64 {
        let mut table = self.root;
        for l in (level..3).rev() {
            let at = table + (gva >> (12 + 9 * l) & 0x1ff) * 8;
            if l == level {
                return at;
            }
            let entry = self.machine.read_u64(at);
            table = if entry & 1 != 0 {
                entry >> 10 << 12
            } else {
                let new = self.next;
                self.next += 0x1000;
                self.machine.write_u64(at, new >> 12 << 10 | 1);
                new
            };
        }
        unreachable!("the loop ends at `level`")
    }

    pub(crate) fn map(&mut self, gva: u64, gpa: u64, level: u32, bits: u64) -> u64 {
        let at = self.entry(gva, level);
        self.machine.write_u64(at, leaf(gpa, bits));
        at
    }

    /// Identity for the program, its data and the finish device.
    pub(crate) fn map_machine(&mut self) {
        for gva in (RAM..RAM + RAM_BYTES).step_by(2 << 20) {
            self.map(gva, gva, 1, RWX);
        }
        self.map(FINISH, FINISH, 1, RWX);
    }

    /// `satp` for these tables.
    pub(crate) fn satp(&self, asid: u64) -> u64 {
        8 << 60 | asid << 44 | self.root >> 12
    }
}

pub(crate) const fn leaf(gpa: u64, bits: u64) -> u64 {
    gpa >> 12 << 10 | bits
}
