//! The interrupt controller of Arm boards, of either version, and how the CPUs reach it.

use crate::spec::{BoardOptions, GicVersion};
use isomer_aarch64::{
    CpuInterface,
    interrupts::{
        line::{FIQ, IRQ, VIRTUAL_FIQ, VIRTUAL_IRQ},
        ppi::GIC_MAINTENANCE,
    },
};
use isomer_core::{Gpa, GuestMemory, IrqLine, Placement, VcpuSignal, bus::SharedDevice};
use isomer_devices::{
    gic::{
        FIRST_PPI, FIRST_SPI,
        specifier::{self, LEVEL},
    },
    gicv2::{self, Gicv2, msi::Gicv2m},
    gicv3::{self, Gicv3, its::Its},
    pci::MsiSink,
};
use std::sync::{Arc, Mutex};

// QEMU `base_memmap`.
const DISTRIBUTOR: u64 = 0x800_0000;
const CPU_INTERFACE: u64 = 0x801_0000;
const V2M: u64 = 0x802_0000;
const ITS: u64 = 0x808_0000;
const REDISTRIBUTORS: u64 = 0x80a_0000;

/// SPIs of the board (QEMU `NUM_IRQS`).
const SPIS: u32 = 256;
/// SPIs that messages become with a GICv2: the first, counted from 0, and how many (QEMU `VIRT_GIC_V2M`).
const V2M_SPIS: (u32, u32) = (48, 64);
/// The CPUs' interrupt inputs.
const INPUTS: gicv3::CpuInputs =
    gicv3::CpuInputs { irq: IRQ, fiq: FIQ, virq: VIRTUAL_IRQ, vfiq: VIRTUAL_FIQ };
/// Each CPU's PPIs.
const PPIS: u32 = FIRST_SPI - FIRST_PPI;

/// Device-tree label of the controller.
pub(super) const LABEL: &str = "intc";
/// Device-tree label of who receives messages.
pub(super) const MSI_LABEL: &str = "msi";

/// A device of the controller and where it is.
pub(super) struct Part {
    pub(super) label: &'static str,
    pub(super) device: SharedDevice,
    pub(super) at: Placement,
}

/// The controller.
pub(super) struct Gic {
    spis: Vec<IrqLine>,
    port: Arc<Port>,
    msi: Arc<dyn MsiSink>,
    /// The controller proper, then who receives messages, whose node goes below the other's.
    pub(super) parts: [Part; 2],
}

fn part<const N: usize>(label: &'static str, device: SharedDevice, windows: [(u64, u64); N]) -> Part {
    Part { label, device, at: Placement { regions: windows.to_vec(), irqs: Vec::new() } }
}

impl Gic {
    /// The controller that `options` ask for, for CPUs with these inputs.
    pub(super) fn new(options: &BoardOptions, cpus: &[Arc<VcpuSignal>], memory: &GuestMemory) -> Self {
        let mut gic = match options.gic {
            GicVersion::V2 => Self::v2(cpus),
            GicVersion::V3 => Self::v3(cpus, memory),
        };
        // The maintenance interrupt tells hypervisors that there is a virtual interface.
        if options.el2 && options.gic == GicVersion::V3 {
            gic.parts[0].at.irqs = specifier::ppi(GIC_MAINTENANCE, LEVEL).to_vec();
        }
        gic
    }

    fn v2(cpus: &[Arc<VcpuSignal>]) -> Self {
        let gic = Gicv2::new(gicv2::CpuPort::of(cpus, IRQ, FIQ), SPIS);
        let (first, count) = V2M_SPIS;
        let v2m = Gicv2m::new(&gic, first, count, Gpa(V2M));
        let ppis = ppis(cpus.len(), |cpu, intid| gic.ppi(cpu, intid));
        let windows = [(DISTRIBUTOR, gicv2::DISTRIBUTOR_LEN), (CPU_INTERFACE, gicv2::CPU_INTERFACE_LEN)];
        Self {
            spis: (0..SPIS).map(|spi| gic.spi(spi)).collect(),
            port: Arc::new(Port { ppis, interfaces: Vec::new() }),
            msi: v2m.msi_sink(),
            parts: [
                part(LABEL, Arc::new(Mutex::new(gic)), windows),
                part(MSI_LABEL, Arc::new(Mutex::new(v2m)), [(V2M, gicv2::msi::WINDOW_LEN)]),
            ],
        }
    }

    fn v3(cpus: &[Arc<VcpuSignal>], memory: &GuestMemory) -> Self {
        let gic = Gicv3::new(gicv3::CpuPort::number(cpus, INPUTS), SPIS, memory.clone());
        let its = Its::new(&gic, memory.clone(), Gpa(ITS));
        let ppis = ppis(cpus.len(), |cpu, intid| gic.ppi(cpu, intid));
        let interfaces = (0..cpus.len()).map(|cpu| gic.cpu_interface(cpu)).collect();
        let windows = [(DISTRIBUTOR, gicv3::DISTRIBUTOR_LEN), (REDISTRIBUTORS, gic.redistributors_len())];
        Self {
            spis: (0..SPIS).map(|spi| gic.spi(spi)).collect(),
            port: Arc::new(Port { ppis, interfaces }),
            msi: its.msi_sink(),
            parts: [
                part(LABEL, Arc::new(Mutex::new(gic)), windows),
                part(MSI_LABEL, Arc::new(Mutex::new(its)), [(ITS, gicv3::its::WINDOW_LEN)]),
            ],
        }
    }

    /// The wire to SPI `number`, counted from 0.
    pub(super) fn spi(&self, number: u32) -> IrqLine {
        self.spis.get(number as usize).cloned().unwrap_or_default()
    }

    /// Where PCI functions send messages.
    pub(super) fn msi_sink(&self) -> Arc<dyn MsiSink> {
        self.msi.clone()
    }

    /// What the CPUs call.
    pub(super) fn cpu_port(&self) -> Arc<dyn CpuInterface> {
        self.port.clone()
    }
}

fn ppis(cpus: usize, wire: impl Fn(usize, u32) -> IrqLine) -> Vec<Vec<IrqLine>> {
    (0..cpus).map(|cpu| (FIRST_PPI..FIRST_PPI + PPIS).map(|intid| wire(cpu, intid)).collect()).collect()
}

/// The controller as CPUs call it.
#[derive(Debug)]
struct Port {
    /// By CPU, then by number from INTID 16.
    ppis: Vec<Vec<IrqLine>>,
    /// By CPU; none with a GICv2, which has no system registers.
    interfaces: Vec<gicv3::CpuInterface>,
}

impl CpuInterface for Port {
    fn set_ppi(&self, cpu: usize, intid: u32, level: bool) {
        let number = intid.checked_sub(FIRST_PPI).map(|number| number as usize);
        if let Some(line) = self.ppis.get(cpu).zip(number).and_then(|(lines, n)| lines.get(n)) {
            line.set(level);
        }
    }

    fn has_registers(&self) -> bool {
        !self.interfaces.is_empty()
    }

    fn read(&self, cpu: usize, register: u16, is_virtual: bool) -> Option<u64> {
        let interface = self.interfaces.get(cpu)?;
        if is_virtual { interface.read_virtual(register) } else { interface.read(register) }
    }

    fn write(&self, cpu: usize, register: u16, is_virtual: bool, value: u64) -> bool {
        self.interfaces.get(cpu).is_some_and(|interface| match is_virtual {
            true => interface.write_virtual(register, value),
            false => interface.write(register, value),
        })
    }
}
