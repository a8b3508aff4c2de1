//! A machine of one CPU and RAM, in its most privileged mode, for bare test programs of any instruction set.

use super::subject::Subject;
use anyhow::{Context, bail};
use isomer_aarch64::Aarch64;
use isomer_core::{Bus, Clock, Gpa, GuestMemory};
use isomer_engine::{EngineKind, Exit, Group, Jit, SoftVcpu, Trace, VcpuConfig};
use isomer_riscv64::Riscv64;
use object::{Architecture, Object, ObjectSegment, ObjectSymbol};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

const RAM_BASE: u64 = 0x8000_0000;
const RAM_BYTES: u64 = 64 << 20;
/// Instructions between looks at `tohost`.
const SLICE: u64 = 20_000;

/// How a program ended.
pub(crate) enum Verdict {
    Passed,
    Failed(u64),
    /// The registers at the end.
    Hung(String),
}

/// What a mixed engine does when, from the program's bytes: another for each, always the same for one.
pub(crate) fn mixture(program: &[u8]) -> u64 {
    // FNV-1a.
    program
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// A machine with a program in it, whatever its instruction set.
pub(crate) trait Machine {
    /// Runs until the program ends or `limit` instructions are retired.
    fn run(&mut self, limit: u64) -> Verdict;
    /// A register by its name, after a run; `None` if there is none of that name.
    fn register(&self, name: &str) -> Option<u128>;
    /// The registers for people.
    fn describe(&self) -> String;
    /// The words between the signature's symbols.
    fn signature(&self) -> anyhow::Result<Vec<String>>;
}

/// The machine for an ELF file, with what that says of its instruction set.
pub(crate) fn load(
    elf: &[u8],
    engine: EngineKind,
    cpu: &str,
    trace: Trace,
) -> anyhow::Result<Box<dyn Machine>> {
    let file = object::File::parse(elf)?;
    Ok(match file.architecture() {
        Architecture::Riscv64 => Box::new(Bare::<Riscv64>::new(elf, engine, cpu, trace)?),
        Architecture::Aarch64 => Box::new(Bare::<Aarch64>::new(elf, engine, cpu, trace)?),
        other => bail!("programs for {other:?} cannot be run"),
    })
}

/// One program on one machine.
struct Bare<G: Subject> {
    vcpu: SoftVcpu<G>,
    memory: GuestMemory,
    symbols: HashMap<String, u64>,
    guest: Arc<G>,
}

impl<G: Subject> Bare<G> {
    fn new(elf: &[u8], engine: EngineKind, cpu: &str, trace: Trace) -> anyhow::Result<Self> {
        let memory = GuestMemory::new(&[(Gpa(RAM_BASE), RAM_BYTES)])?;
        let file = object::File::parse(elf)?;
        for segment in file.segments() {
            // The programs are linked at their load address.
            memory.write(Gpa(segment.address()), segment.data()?)?;
        }
        let symbols: HashMap<String, u64> =
            file.symbols().filter_map(|s| Some((s.name().ok()?.to_owned(), s.address()))).collect();
        let group = Group::new(1);
        let names: BTreeSet<&str> = symbols.keys().map(String::as_str).collect();
        let guest = G::model(cpu, group.peers()[0].signal(), &names);
        let guest = Arc::new(guest.with_context(|| format!("no CPU model {cpu}"))?);
        let mut vcpu = SoftVcpu::new(VcpuConfig {
            guest: guest.clone(),
            cpu: guest.start(file.entry()),
            index: 0,
            group,
            memory: memory.clone(),
            mmio: Arc::new(Bus::default()),
            clock: Arc::new(Clock::host()),
            firmware: None,
            trace,
            engine,
            jit: Jit::for_engine(engine, &guest)?,
            code_limit_bytes: 4 << 20,
        });
        vcpu.power_on();
        vcpu.mix(mixture(elf));
        Ok(Self { vcpu, memory, symbols, guest })
    }

    fn tohost(&self) -> u64 {
        let mut value = [0; 8];
        let at = self.symbols.get("tohost").copied().unwrap_or(0);
        match self.memory.read(Gpa(at), &mut value) {
            Ok(()) => u64::from_le_bytes(value),
            Err(_) => 0,
        }
    }
}

impl<G: Subject> Machine for Bare<G> {
    fn run(&mut self, limit: u64) -> Verdict {
        let mut left = limit;
        while left > 0 {
            let exit = self.vcpu.run(Some(SLICE));
            match self.tohost() {
                0 => {}
                // arch-test stores 32 bits; what lies above is not part of it.
                value if value as u32 == 1 => return Verdict::Passed,
                value => return Verdict::Failed(value >> 1),
            }
            if let Exit::Wedged { .. } = exit {
                break;
            }
            left = left.saturating_sub(SLICE);
        }
        Verdict::Hung(self.describe())
    }

    fn register(&self, name: &str) -> Option<u128> {
        G::register(self.vcpu.cpu(), name)
    }

    fn describe(&self) -> String {
        self.guest.describe(self.vcpu.cpu())
    }

    fn signature(&self) -> anyhow::Result<Vec<String>> {
        let symbol =
            |name: &str| self.symbols.get(name).copied().with_context(|| format!("no symbol {name}"));
        let (begin, end) = (symbol("begin_signature")?, symbol("end_signature")?);
        let len = end.checked_sub(begin).filter(|len| *len < RAM_BYTES);
        let Some(len) = len else { bail!("the signature is not in RAM") };
        let mut bytes = vec![0; len as usize];
        self.memory.read(Gpa(begin), &mut bytes)?;
        Ok(bytes
            .chunks_exact(4)
            .map(|w| format!("{:08x}", u32::from_le_bytes([w[0], w[1], w[2], w[3]])))
            .collect())
    }
}
