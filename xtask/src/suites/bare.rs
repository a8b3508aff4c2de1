//! A machine of one hart and RAM, in machine mode, for bare test programs.

use anyhow::{Context, bail};
use isomer_core::{Bus, Clock, Gpa, GuestMemory};
use isomer_engine::{EngineKind, Exit, Group, Jit, SoftVcpu, Trace, VcpuConfig};
use isomer_riscv64::{Cpu, Riscv64};
use object::{Object, ObjectSegment, ObjectSymbol};
use std::{collections::HashMap, sync::Arc};

const RAM_BASE: u64 = 0x8000_0000;
const RAM_BYTES: u64 = 64 << 20;
/// The machine timer's input line.
const MTI: u32 = 7;
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

/// One program on one machine.
pub(crate) struct Bare {
    vcpu: SoftVcpu<Riscv64>,
    memory: GuestMemory,
    symbols: HashMap<String, u64>,
    guest: Arc<Riscv64>,
}

impl Bare {
    pub(crate) fn new(elf: &[u8], engine: EngineKind, cpu: &str, trace: Trace) -> anyhow::Result<Self> {
        let guest = Arc::new(Riscv64::by_name(cpu).with_context(|| format!("no CPU model {cpu}"))?);
        let memory = GuestMemory::new(&[(Gpa(RAM_BASE), RAM_BYTES)])?;
        let file = object::File::parse(elf)?;
        for segment in file.segments() {
            // The programs are linked at their load address.
            memory.write(Gpa(segment.address()), segment.data()?)?;
        }
        let symbols = file.symbols().filter_map(|s| Some((s.name().ok()?.to_owned(), s.address()))).collect();
        let group = Group::new(1);
        // As after reset of a CLINT, whose comparison time is zero: the expected signatures show it in `mip`.
        group.peers()[0].signal().set_line(MTI, true);
        let mut vcpu = SoftVcpu::new(VcpuConfig {
            guest: guest.clone(),
            cpu: guest.reset(0, file.entry()),
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
        vcpu.cpu_mut().x[11] = 0;
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

    /// Runs until the program ends or `limit` instructions are retired.
    pub(crate) fn run(&mut self, limit: u64) -> Verdict {
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

    /// The registers, after a run.
    pub(crate) fn cpu(&self) -> &Cpu {
        self.vcpu.cpu()
    }

    /// The registers for people.
    pub(crate) fn describe(&self) -> String {
        isomer_ir::Guest::describe(&*self.guest, self.vcpu.cpu())
    }

    /// The words between the signature's symbols.
    pub(crate) fn signature(&self) -> anyhow::Result<Vec<String>> {
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
