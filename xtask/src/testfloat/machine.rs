//! A machine of one CPU and RAM, in its most privileged mode, with a program that carries out jobs: a loop of the program,
//! over operands that are written into its memory, for results that are read there.

use crate::suites::bare::mixture;
use anyhow::{Context, Result, bail, ensure};
use isomer_core::{Bus, Clock, Gpa, GuestMemory};
use isomer_engine::{EngineKind, Exit, Group, Jit, SoftVcpu, Trace, VcpuConfig};
use isomer_ir::Guest;
use object::{Object, ObjectSegment};
use std::sync::Arc;

/// Where programs are linked.
pub(crate) const RAM_BASE: u64 = 0x8000_0000;
const RAM_BYTES: u64 = 128 << 20;
/// The program stores 1 here when a job is done, and a trap's cause plus 2 if there is one.
const DONE: u64 = RAM_BASE + (8 << 20);
/// Where the job's loop is, which the program overwrites with 0 as it begins; then how many vectors it is for.
const JOB: u64 = DONE + 4096;
const OPERANDS: u64 = RAM_BASE + (16 << 20);
const RESULTS: u64 = RAM_BASE + (64 << 20);

/// Vectors in a job.
pub(crate) const VECTORS: usize = 1 << 16;
/// Instructions between looks at whether it is done.
const SLICE: u64 = 20_000;
/// More instructions than any loop takes for one vector, and than there are around it.
const LIMIT_A_VECTOR: u64 = 200;
const LIMIT_A_JOB: u64 = 1_000_000;

/// Those addresses for the assembler.
pub(crate) fn symbols() -> String {
    [("DONE", DONE), ("JOB", JOB), ("OPERANDS", OPERANDS), ("RESULTS", RESULTS)]
        .map(|(name, address)| format!(".equ {name}, {address:#x}\n"))
        .concat()
}

/// A machine, whatever its guest.
pub(crate) trait Machine: Send {
    /// Runs the loop at `entry` over the operands of `count` vectors, and fills `results`.
    fn run(&mut self, entry: u64, operands: &[u8], count: usize, results: &mut [u8]) -> Result<()>;
}

/// A machine of one guest.
struct Bare<G: Guest> {
    vcpu: SoftVcpu<G>,
    memory: GuestMemory,
    guest: Arc<G>,
    engine: EngineKind,
}

/// A machine that runs `elf` from its entry on; `reset` is its CPU there.
pub(crate) fn new<G: Guest>(
    guest: G,
    reset: impl FnOnce(&G, u64) -> G::Cpu,
    elf: &[u8],
    engine: EngineKind,
) -> Result<Box<dyn Machine>> {
    let guest = Arc::new(guest);
    let memory = GuestMemory::new(&[(Gpa(RAM_BASE), RAM_BYTES)])?;
    let file = object::File::parse(elf)?;
    for segment in file.segments() {
        memory.write(Gpa(segment.address()), segment.data()?)?;
    }
    let mut vcpu = SoftVcpu::new(VcpuConfig {
        guest: guest.clone(),
        cpu: reset(&guest, file.entry()),
        index: 0,
        group: Group::new(1),
        memory: memory.clone(),
        mmio: Arc::new(Bus::default()),
        clock: Arc::new(Clock::host()),
        firmware: None,
        trace: Trace::default(),
        engine,
        jit: Jit::for_engine(engine, &guest)?,
        code_limit_bytes: 4 << 20,
    });
    vcpu.power_on();
    vcpu.mix(mixture(elf));
    Ok(Box::new(Bare { vcpu, memory, guest, engine }))
}

impl<G: Guest> Machine for Bare<G> {
    fn run(&mut self, entry: u64, operands: &[u8], count: usize, results: &mut [u8]) -> Result<()> {
        let room = |at: u64, end: u64| (end - at) as usize;
        ensure!(operands.len() <= room(OPERANDS, RESULTS), "too many operands for the machine's memory");
        ensure!(results.len() <= room(RESULTS, RAM_BASE + RAM_BYTES), "too many results for its memory");
        self.memory.write(Gpa(OPERANDS), operands)?;
        // Where nothing is stored, nothing of an earlier job stands.
        results.fill(0xff);
        self.memory.write(Gpa(RESULTS), results)?;
        self.memory.write(Gpa(DONE), &0u64.to_le_bytes())?;
        self.memory.write(Gpa(JOB + 8), &(count as u64).to_le_bytes())?;
        self.memory.write(Gpa(JOB), &entry.to_le_bytes())?;
        let limit = self.vcpu.stats().insns + LIMIT_A_JOB + LIMIT_A_VECTOR * count as u64;
        let mut done = [0; 8];
        while done == [0; 8] {
            let exit = self.vcpu.run(Some(SLICE));
            self.memory.read(Gpa(DONE), &mut done)?;
            if matches!(exit, Exit::Wedged { .. }) || self.vcpu.stats().insns > limit {
                bail!("{} does not come to the end of a job\n{}", self.engine.name(), self.describe());
            }
        }
        match u64::from_le_bytes(done) {
            1 => self.memory.read(Gpa(RESULTS), results).context("the results are not in memory"),
            cause => bail!("{}: a trap, cause {:#x}\n{}", self.engine.name(), cause - 2, self.describe()),
        }
    }
}

impl<G: Guest> Bare<G> {
    /// The registers for people.
    fn describe(&self) -> String {
        self.guest.describe(self.vcpu.cpu())
    }
}
