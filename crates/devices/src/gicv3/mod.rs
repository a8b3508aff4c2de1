//! GICv3 (Arm Generic Interrupt Controller Architecture Specification IHI 0069H): distributor, redistributors with
//! LPIs, and the CPU interfaces behind the CPUs' ICC_*_EL1 registers. Affinity routing and the system registers
//! cannot be switched off, and there is one Security state (`GICD_CTLR.DS` is one): group 0 is signalled as FIQ and
//! group 1 as IRQ. The virtual CPU
//! interface is there for CPUs that have EL2.
//!
//! Region 0 of the device is the distributor; region 1 the redistributors, 128 KiB a CPU. The interrupt translation
//! service is a device of its own, [`its::Its`].
//!
//! One lock guards it all. It is taken last: nothing is called with it held but the CPUs' interrupt inputs.

mod cpu_interface;
mod distributor;
pub mod its;
mod its_command;
mod lpi;
mod redistributor;
pub mod sysreg;
#[cfg(test)]
mod tests;
mod virtual_interface;

pub use cpu_interface::CpuInterface;

use crate::gic::{
    FIRST_SPI, MAX_SPIS, input_number, input_of,
    lines::{Lines, read_words, write_words},
};
use cpu_interface::Interface;
use distributor::Distributor;
use isomer_core::{
    Device, FwNode, FwValue, GuestMemory, IrqLine, IrqSink, Placement, StateError, VcpuSignal,
};
use redistributor::Redistributor;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use virtual_interface::{MAINTENANCE, Virtual};

/// Bytes in the distributor's window.
pub const DISTRIBUTOR_LEN: u64 = 0x1_0000;
/// Bytes of each CPU's redistributor: RD_base and SGI_base.
pub const REDISTRIBUTOR_LEN: u64 = 0x2_0000;
/// INTIDs have this many bits: LPIs are 8192 to 65535.
pub const ID_BITS: u32 = 16;
/// The first LPI.
pub const FIRST_LPI: u32 = 8192;

/// A CPU, as the interrupt controller sees it.
#[derive(Clone, Debug)]
pub struct CpuPort {
    /// Aff3.Aff2.Aff1.Aff0, a byte each, as in `MPIDR_EL1`.
    pub affinity: u32,
    /// Its IRQ input.
    pub irq: IrqLine,
    /// Its FIQ input.
    pub fiq: IrqLine,
    /// Its virtual IRQ input, where it has EL2.
    pub virq: IrqLine,
    /// Its virtual FIQ input.
    pub vfiq: IrqLine,
}

/// Numbers of a CPU's interrupt inputs.
#[derive(Clone, Copy, Debug)]
pub struct CpuInputs {
    /// IRQ.
    pub irq: u32,
    /// FIQ.
    pub fiq: u32,
    /// Virtual IRQ.
    pub virq: u32,
    /// Virtual FIQ.
    pub vfiq: u32,
}

impl CpuPort {
    /// CPUs numbered as the `virt` board numbers them, 16 to a cluster.
    pub fn number(signals: &[Arc<VcpuSignal>], inputs: CpuInputs) -> Vec<Self> {
        let ports = (0u32..).zip(signals).map(|(index, signal)| {
            let wire = |line| IrqLine::new(signal.clone(), line);
            Self {
                affinity: ((index / 16) << 8) | (index % 16),
                irq: wire(inputs.irq),
                fiq: wire(inputs.fiq),
                virq: wire(inputs.virq),
                vfiq: wire(inputs.vfiq),
            }
        });
        ports.collect()
    }
}

/// The registers, as a snapshot keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gicv3State {
    distributor: Distributor,
    redistributors: Vec<Redistributor>,
    interfaces: Vec<Interface>,
    virtuals: Vec<Virtual>,
}

impl Gicv3State {
    fn power_on(cpus: usize, spis: u32) -> Self {
        Self {
            distributor: Distributor::new(spis),
            redistributors: vec![Redistributor::default(); cpus],
            interfaces: vec![Interface::default(); cpus],
            virtuals: vec![Virtual::default(); cpus],
        }
    }
}

/// The interrupt a CPU would handle next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Highest {
    intid: u32,
    priority: u8,
    /// 0 or 1.
    group: usize,
}

struct Core {
    state: Gicv3State,
    cpus: Vec<CpuPort>,
    /// SPIs that go to each CPU, a bit each, by bank (the first is SPI 0's).
    routed: Vec<Vec<u32>>,
    /// What each CPU's `[FIQ, IRQ, virtual FIQ, virtual IRQ]` was last set to; `None` after reset and restore.
    driven: Vec<Option<[bool; 4]>>,
    memory: GuestMemory,
}

impl Core {
    /// The interrupt of the highest priority that is pending for a CPU and enabled all the way.
    fn highest(&self, cpu: usize) -> Option<Highest> {
        let redistributor = &self.state.redistributors[cpu];
        let groups = self.state.distributor.groups() & self.state.interfaces[cpu].groups();
        let mut best: Option<Highest> = None;
        let mut consider = |found: Option<(u8, u32)>, base: u32, group: &dyn Fn(u32) -> usize| {
            if let Some((priority, number)) = found.filter(|(p, _)| best.is_none_or(|b| *p < b.priority)) {
                best = Some(Highest { intid: base + number, priority, group: group(number) });
            }
        };
        let lines = &redistributor.lines;
        consider(lines.best(lines.candidates(groups)), 0, &|n| (lines.group >> n & 1) as usize);
        for (bank, lines) in self.state.distributor.banks.iter().enumerate() {
            let candidates = lines.candidates(groups) & self.routed[cpu][bank];
            let base = FIRST_SPI + 32 * bank as u32;
            consider(lines.best(candidates), base, &|n| (lines.group >> n & 1) as usize);
        }
        if groups & 2 != 0 {
            consider(redistributor.lpis.best(), 0, &|_| 1);
        }
        best
    }

    /// Drives the CPUs' interrupt inputs.
    fn update(&mut self) {
        for cpu in 0..self.cpus.len() {
            let maintenance = self.state.virtuals[cpu].needs_maintenance();
            self.state.redistributors[cpu].lines.set_input(MAINTENANCE, maintenance);
            let signalled = self.highest(cpu).filter(|h| self.state.interfaces[cpu].takes(h));
            let [fiq, irq] = [0, 1].map(|group| signalled.is_some_and(|h| h.group == group));
            let [vfiq, virq] = self.state.virtuals[cpu].outputs();
            let levels = [fiq, irq, vfiq, virq];
            let driven = self.driven[cpu].replace(levels);
            let port = &self.cpus[cpu];
            for (n, line) in [&port.fiq, &port.irq, &port.vfiq, &port.virq].into_iter().enumerate() {
                if driven.is_none_or(|driven| driven[n] != levels[n]) {
                    line.set(levels[n]);
                }
            }
        }
    }

    /// The interrupts that hold `intid` of a CPU, and its number among them. LPIs are kept elsewhere.
    fn lines_mut(&mut self, cpu: usize, intid: u32) -> Option<(&mut Lines, u32)> {
        let lines = match intid.checked_sub(FIRST_SPI) {
            None => &mut self.state.redistributors.get_mut(cpu)?.lines,
            Some(spi) => self.state.distributor.bank_mut(spi)?,
        };
        Some((lines, intid % 32))
    }

    fn set_input(&mut self, cpu: usize, intid: u32, level: bool) {
        let Some((lines, number)) = self.lines_mut(cpu, intid) else { return };
        let before = (lines.level, lines.latched);
        lines.set_input(number, level);
        if before != (lines.level, lines.latched) {
            self.update();
        }
    }

    fn take_over(&mut self, state: Gicv3State) {
        self.state = state;
        self.state.redistributors.iter_mut().for_each(|redistributor| redistributor.lpis.index());
        self.route_all();
        self.driven.fill(None);
        self.update();
    }

    fn is_possible(&self, state: &Gicv3State) -> bool {
        state.redistributors.len() == self.cpus.len()
            && state.interfaces.len() == self.cpus.len()
            && state.virtuals.len() == self.cpus.len()
            && state.virtuals.iter().all(Virtual::is_possible)
            && state.distributor.is_possible(self.state.distributor.banks.len())
            && state.redistributors.iter().all(Redistributor::is_possible)
            && state.interfaces.iter().all(Interface::is_possible)
    }
}

/// The controller as its inputs, its CPUs and the translation service share it.
struct Shared(Mutex<Core>);

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IrqSink for Shared {
    fn set_level(&self, line: u32, level: bool) {
        let (cpu, intid) = input_of(line);
        self.core().set_input(cpu, intid, level);
    }
}

/// The interrupt controller.
pub struct Gicv3 {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Gicv3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let core = self.shared.core();
        write!(f, "Gicv3({} CPUs, {} SPIs)", core.cpus.len(), core.state.distributor.banks.len() * 32)
    }
}

impl Gicv3 {
    /// A controller for `cpus` with at least `spis` shared interrupts. LPIs' tables are in `memory`.
    pub fn new(cpus: Vec<CpuPort>, spis: u32, memory: GuestMemory) -> Self {
        let state = Gicv3State::power_on(cpus.len(), spis.clamp(1, MAX_SPIS));
        let (routed, driven) = (vec![Vec::new(); cpus.len()], vec![None; cpus.len()]);
        let mut core = Core { state, cpus, routed, driven, memory };
        core.route_all();
        Self { shared: Arc::new(Shared(Mutex::new(core))) }
    }

    /// The wire to shared peripheral interrupt `number`, counted from 0 (INTID `number` + 32).
    pub fn spi(&self, number: u32) -> IrqLine {
        IrqLine::new(self.shared.clone(), input_number(0, FIRST_SPI + number))
    }

    /// The wire to private peripheral interrupt `intid` (16 to 31) of a CPU.
    pub fn ppi(&self, cpu: usize, intid: u32) -> IrqLine {
        IrqLine::new(self.shared.clone(), input_number(cpu, intid))
    }

    /// The system registers of a CPU.
    pub fn cpu_interface(&self, cpu: usize) -> CpuInterface {
        CpuInterface::new(self.shared.clone(), cpu)
    }

    /// Bytes of all redistributors.
    pub fn redistributors_len(&self) -> u64 {
        self.shared.core().cpus.len() as u64 * REDISTRIBUTOR_LEN
    }
}

impl Device for Gicv3 {
    const NAME: &'static str = "arm,gic-v3";
    const VERSION: u32 = 1;
    type State = Gicv3State;

    /// Registers are 32 bits; priorities can be reached bytewise, and a 64-bit access reaches two registers, the lower
    /// first.
    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        let core = self.shared.core();
        match region {
            0 => read_words(offset, size, |at| core.read_distributor(at)),
            1 => read_words(offset, size, |at| core.read_redistributor(at)),
            _ => 0,
        }
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        let mut core = self.shared.core();
        match region {
            0 => write_words(offset, size, value, |at, value, mask| core.write_distributor(at, value, mask)),
            1 => {
                write_words(offset, size, value, |at, value, mask| core.write_redistributor(at, value, mask))
            }
            _ => return,
        }
        core.update();
    }

    /// Inputs count as low: the devices' own resets lower them, in whichever order a machine resets.
    fn reset(&mut self) {
        let mut core = self.shared.core();
        let spis = core.state.distributor.banks.len() as u32 * 32;
        let state = Gicv3State::power_on(core.cpus.len(), spis);
        core.take_over(state);
    }

    fn save(&self) -> Gicv3State {
        self.shared.core().state.clone()
    }

    fn restore(&mut self, state: Gicv3State) -> Result<(), StateError> {
        let mut core = self.shared.core();
        if !core.is_possible(&state) {
            let why = format!("impossible register values, or not {} CPUs", core.cpus.len());
            return Err(StateError::Damaged { device: Self::NAME, why });
        }
        core.take_over(state);
        Ok(())
    }

    /// The translation service's node goes below this one.
    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let cells = |value: u32| FwValue::Cells(vec![value]);
        let node = FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("intc", &["arm,gic-v3"])
        };
        Some(
            node.with("interrupt-controller", FwValue::Flag)
                .with("#interrupt-cells", cells(3))
                .with("#redistributor-regions", cells(1))
                .with("#address-cells", cells(2))
                .with("#size-cells", cells(2))
                .with("ranges", FwValue::Flag),
        )
    }
}
