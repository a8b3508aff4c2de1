//! GICv2 (Arm Generic Interrupt Controller Architecture Specification 2.0, IHI 0048B): distributor and CPU interfaces,
//! without the Security Extensions and the virtual interface. Both groups are there; interrupts start in group 0,
//! which is signalled as IRQ unless `GICC_CTLR.FIQEn` says otherwise.
//!
//! Region 0 of the device is the distributor, region 1 the CPU interface. Both show the registers of the CPU that makes
//! the access ([`isomer_core::initiator`]).

mod cpu_interface;
mod distributor;
pub mod msi;
#[cfg(test)]
mod tests;

use crate::gic::{
    FIRST_SPI, MAX_SPIS, input_number, input_of,
    lines::{Lines, read_words, write_words},
};
use cpu_interface::Interface;
use distributor::Distributor;
use isomer_core::{Device, FwNode, FwValue, IrqLine, IrqSink, Placement, StateError, VcpuSignal, initiator};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes in the distributor's window.
pub const DISTRIBUTOR_LEN: u64 = 0x1_0000;
/// Bytes in the CPU interface's window.
pub const CPU_INTERFACE_LEN: u64 = 0x1_0000;
/// The most CPUs there can be: a byte names a set of them.
pub const MAX_CPUS: usize = 8;

/// A CPU's interrupt inputs.
#[derive(Clone, Debug)]
pub struct CpuPort {
    /// IRQ.
    pub irq: IrqLine,
    /// FIQ.
    pub fiq: IrqLine,
}

impl CpuPort {
    /// The inputs `irq` and `fiq` of each CPU.
    pub fn of(signals: &[Arc<VcpuSignal>], irq: u32, fiq: u32) -> Vec<Self> {
        let wire = |signal: &Arc<VcpuSignal>, line| IrqLine::new(signal.clone(), line);
        signals.iter().map(|signal| Self { irq: wire(signal, irq), fiq: wire(signal, fiq) }).collect()
    }
}

/// What each CPU has for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Private {
    /// SGIs and PPIs.
    lines: Lines,
    /// By SGI: CPUs that sent one which is pending, a bit each.
    sgi_sources: [u8; 16],
    interface: Interface,
}

impl Default for Private {
    fn default() -> Self {
        Self { lines: Lines::private(), sgi_sources: [0; 16], interface: Interface::default() }
    }
}

impl Private {
    /// An SGI is pending as long as it is from somebody.
    fn update_sgis(&mut self) {
        let from_somebody = |bits: u32, (n, from): (usize, &u8)| bits | u32::from(*from != 0) << n;
        let pending = self.sgi_sources.iter().enumerate().fold(0, from_somebody);
        self.lines.latched = self.lines.latched & !0xffff | pending;
    }

    fn is_possible(&self, cpus: usize) -> bool {
        let mut again = self.clone();
        again.update_sgis();
        self.lines.is_possible()
            && again.lines == self.lines
            && self.sgi_sources.iter().all(|from| u32::from(*from) >> cpus == 0)
            && self.interface.is_possible()
    }
}

/// The registers, as a snapshot keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gicv2State {
    distributor: Distributor,
    cpus: Vec<Private>,
}

impl Gicv2State {
    fn power_on(cpus: usize, spis: u32) -> Self {
        Self { distributor: Distributor::new(spis), cpus: vec![Private::default(); cpus] }
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
    state: Gicv2State,
    ports: Vec<CpuPort>,
    /// SPIs that go to each CPU, a bit each, by bank (the first is SPI 0's).
    routed: Vec<Vec<u32>>,
    /// What each CPU's `[IRQ, FIQ]` was last set to; `None` after reset and restore.
    driven: Vec<Option<[bool; 2]>>,
}

impl Core {
    /// The interrupt of the highest priority that is pending for a CPU and enabled all the way.
    fn highest(&self, cpu: usize) -> Option<Highest> {
        let private = &self.state.cpus[cpu];
        let groups = self.state.distributor.groups() & private.interface.groups();
        let own = (0, &private.lines, u32::MAX);
        let shared = self.state.distributor.banks.iter().enumerate();
        let shared = shared.map(|(n, lines)| (FIRST_SPI + 32 * n as u32, lines, self.routed[cpu][n]));
        let mut best: Option<Highest> = None;
        for (base, lines, mask) in [own].into_iter().chain(shared) {
            let found = lines.best(lines.candidates(groups) & mask);
            if let Some((priority, number)) = found.filter(|(p, _)| best.is_none_or(|b| *p < b.priority)) {
                let group = (lines.group >> number & 1) as usize;
                best = Some(Highest { intid: base + number, priority, group });
            }
        }
        best
    }

    /// Drives the CPUs' interrupt inputs.
    fn update(&mut self) {
        for cpu in 0..self.ports.len() {
            let interface = &self.state.cpus[cpu].interface;
            let signalled = self.highest(cpu).filter(|highest| interface.takes(highest));
            let is_fiq = |highest: &Highest| highest.group == 0 && interface.group_0_is_fiq();
            let levels = [false, true].map(|fiq| signalled.is_some_and(|h| is_fiq(&h) == fiq));
            let driven = self.driven[cpu].replace(levels);
            let port = &self.ports[cpu];
            for (line, n) in [(&port.irq, 0), (&port.fiq, 1)] {
                if driven.is_none_or(|driven| driven[n] != levels[n]) {
                    line.set(levels[n]);
                }
            }
        }
    }

    /// The interrupts that hold `intid` of a CPU, and its number among them.
    fn lines_mut(&mut self, cpu: usize, intid: u32) -> Option<(&mut Lines, u32)> {
        let lines = match intid.checked_sub(FIRST_SPI) {
            None => &mut self.state.cpus.get_mut(cpu)?.lines,
            Some(spi) => self.state.distributor.banks.get_mut((spi / 32) as usize)?,
        };
        Some((lines, intid % 32))
    }

    fn take_over(&mut self, state: Gicv2State) {
        self.state = state;
        self.route_all();
        self.driven.fill(None);
        self.update();
    }

    fn is_possible(&self, state: &Gicv2State) -> bool {
        let cpus = self.ports.len();
        state.cpus.len() == cpus
            && state.distributor.is_possible(self.state.distributor.banks.len(), cpus)
            && state.cpus.iter().all(|private| private.is_possible(cpus))
    }
}

/// The controller's inputs.
struct Inputs(Mutex<Core>);

impl Inputs {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IrqSink for Inputs {
    fn set_level(&self, line: u32, level: bool) {
        let (cpu, intid) = input_of(line);
        if intid < crate::gic::SGIS {
            return;
        }
        let mut core = self.core();
        let Some((lines, number)) = core.lines_mut(cpu, intid) else { return };
        let before = (lines.level, lines.latched);
        lines.set_input(number, level);
        if before != (lines.level, lines.latched) {
            core.update();
        }
    }
}

/// The interrupt controller.
pub struct Gicv2 {
    inputs: Arc<Inputs>,
}

impl std::fmt::Debug for Gicv2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let core = self.inputs.core();
        write!(f, "Gicv2({} CPUs, {} SPIs)", core.ports.len(), core.state.distributor.banks.len() * 32)
    }
}

impl Gicv2 {
    /// A controller for the CPUs with these inputs, numbered in order (those beyond [`MAX_CPUS`] cannot be named and
    /// are dropped), with at least `spis` shared interrupts.
    pub fn new(mut ports: Vec<CpuPort>, spis: u32) -> Self {
        ports.truncate(MAX_CPUS);
        let state = Gicv2State::power_on(ports.len(), spis.clamp(1, MAX_SPIS));
        let (routed, driven) = (vec![Vec::new(); ports.len()], vec![None; ports.len()]);
        let mut core = Core { state, ports, routed, driven };
        core.route_all();
        Self { inputs: Arc::new(Inputs(Mutex::new(core))) }
    }

    /// The wire to shared peripheral interrupt `number`, counted from 0 (INTID `number` + 32).
    pub fn spi(&self, number: u32) -> IrqLine {
        IrqLine::new(self.inputs.clone(), input_number(0, FIRST_SPI + number))
    }

    /// The wire to private peripheral interrupt `intid` (16 to 31) of a CPU.
    pub fn ppi(&self, cpu: usize, intid: u32) -> IrqLine {
        IrqLine::new(self.inputs.clone(), input_number(cpu, intid))
    }
}

impl Device for Gicv2 {
    const NAME: &'static str = "arm,cortex-a15-gic";
    const VERSION: u32 = 1;
    type State = Gicv2State;

    /// Registers are 32 bits; priorities, targets and SGI sources can be reached bytewise. Accesses of a CPU that this
    /// controller does not serve reach nothing.
    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        let mut core = self.inputs.core();
        let cpu = initiator::vcpu();
        if cpu >= core.ports.len() {
            return 0;
        }
        let value = match region {
            0 => read_words(offset, size, |at| core.read_distributor(cpu, at)),
            1 => read_words(offset, size, |at| core.read_interface(cpu, at)),
            _ => 0,
        };
        core.update();
        value
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        let mut core = self.inputs.core();
        let cpu = initiator::vcpu();
        match region {
            _ if cpu >= core.ports.len() => return,
            0 => write_words(offset, size, value, |at, value, mask| {
                core.write_distributor(cpu, at, value, mask);
            }),
            1 => write_words(offset, size, value, |at, value, _| core.write_interface(cpu, at, value)),
            _ => return,
        }
        core.update();
    }

    /// Inputs count as low: the devices' own resets lower them, in whichever order a machine resets.
    fn reset(&mut self) {
        let mut core = self.inputs.core();
        let state = Gicv2State::power_on(core.ports.len(), core.state.distributor.banks.len() as u32 * 32);
        core.take_over(state);
    }

    fn save(&self) -> Gicv2State {
        self.inputs.core().state.clone()
    }

    fn restore(&mut self, state: Gicv2State) -> Result<(), StateError> {
        let mut core = self.inputs.core();
        if !core.is_possible(&state) {
            let why = format!("impossible register values, or not {} CPUs", core.ports.len());
            return Err(StateError::Damaged { device: Self::NAME, why });
        }
        core.take_over(state);
        Ok(())
    }

    /// The node of the frame for messages goes below this one.
    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let cells = |value: u32| FwValue::Cells(vec![value]);
        let node = FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("intc", &["arm,cortex-a15-gic"])
        };
        Some(
            node.with("interrupt-controller", FwValue::Flag)
                .with("#interrupt-cells", cells(3))
                .with("#address-cells", cells(2))
                .with("#size-cells", cells(2))
                .with("ranges", FwValue::Flag),
        )
    }
}
