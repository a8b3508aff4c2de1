//! What a device tree says of Arm machines beside their devices: CPUs (Linux
//! Documentation/devicetree/bindings/arm/cpus.yaml), PSCI, timers, performance monitors, and the clock and the button that
//! PrimeCells refer to.

use super::{FdtBuilder, FdtError, with_cells};
use isomer_core::{FwNode, FwValue, Placement, device::FwCell};

/// Rate of the PrimeCells' clock, in Hz.
const APB_CLOCK_HZ: u32 = 24_000_000;
/// `KEY_POWER` (Linux include/uapi/linux/input-event-codes.h).
const KEY_POWER: u32 = 116;

/// CPUs of a machine.
#[derive(Clone, Debug)]
pub struct Cpus<'a> {
    /// The model's `compatible`.
    pub compatible: &'a str,
    /// `MPIDR_EL1`'s affinity of each: Aff3 in bits 39:32, Aff2 to Aff0 in 23:0.
    pub affinities: &'a [u64],
    /// How calls to PSCI are made, `hvc` or `smc`; `None` where firmware of the user's decides.
    pub psci: Option<&'static str>,
}

fn string(s: &str) -> FwValue {
    FwValue::Strings(vec![s.to_owned()])
}

fn cell(value: u32) -> FwValue {
    FwValue::Cells(vec![value])
}

fn node(name: &str) -> FwNode {
    FwNode { name: name.into(), ..FwNode::default() }
}

/// Adds `/cpus`, with CPUs labelled `cpuN`, and `/psci`.
pub fn add_cpus(fdt: &mut FdtBuilder, cpus: &Cpus<'_>) -> Result<(), FdtError> {
    // One cell does unless somebody has an Aff3.
    let wide = cpus.affinities.iter().any(|affinity| affinity >> 32 != 0);
    let path = fdt.add("/", None, with_cells(node("cpus"), if wide { 2 } else { 1 }, 0))?;
    for (n, affinity) in cpus.affinities.iter().enumerate() {
        let reg = if wide { FwValue::Cells64(vec![*affinity]) } else { cell(*affinity as u32) };
        let mut cpu = FwNode { unit_address: Some(*affinity), ..FwNode::new("cpu", &[cpus.compatible]) }
            .with("device_type", string("cpu"))
            .with("reg", reg);
        if cpus.psci.is_some() {
            cpu = cpu.with("enable-method", string("psci"));
        }
        fdt.add(&path, Some(&format!("cpu{n}")), cpu)?;
    }
    let cores = (0..cpus.affinities.len())
        .map(|n| node(&format!("core{n}")).with("cpu", FwValue::Phandle(format!("cpu{n}"))));
    let cluster = FwNode { children: cores.collect(), ..node("cluster0") };
    let socket = FwNode { children: vec![cluster], ..node("socket0") };
    fdt.add(&path, None, FwNode { children: vec![socket], ..node("cpu-map") })?;
    cpus.psci.map_or(Ok(()), |conduit| add_psci(fdt, conduit))
}

/// PSCI 1.0 and up has no function identifiers in the tree; they are here for kernels that know 0.1 only.
fn add_psci(fdt: &mut FdtBuilder, conduit: &str) -> Result<(), FdtError> {
    let psci = FwNode::new("psci", &["arm,psci-1.0", "arm,psci-0.2", "arm,psci"])
        .with("method", string(conduit))
        .with("cpu_suspend", cell(0xc400_0001))
        .with("cpu_off", cell(0x8400_0002))
        .with("cpu_on", cell(0xc400_0003));
    fdt.add("/", None, psci).map(drop)
}

/// Adds `/timer` with these interrupt specifiers (secure, non-secure, virtual, hypervisor) and `/pmu`, at `controller`.
pub fn add_private_devices(
    fdt: &mut FdtBuilder,
    controller: &str,
    timers: &[[u32; 3]],
    pmu: Option<[u32; 3]>,
) -> Result<(), FdtError> {
    let at = |irqs: &[[u32; 3]]| Placement { regions: Vec::new(), irqs: irqs.concat() };
    let timer =
        FwNode::new("timer", &["arm,armv8-timer", "arm,armv7-timer"]).with("always-on", FwValue::Flag);
    fdt.add_device("/", None, timer, &at(timers), controller)?;
    if let Some(pmu) = pmu {
        fdt.add_device("/", None, FwNode::new("pmu", &["arm,armv8-pmuv3"]), &at(&[pmu]), controller)?;
    }
    Ok(())
}

/// Adds the clock that PrimeCells' nodes call "apb-pclk".
pub fn add_apb_clock(fdt: &mut FdtBuilder) -> Result<(), FdtError> {
    let clock = FwNode::new("apb-pclk", &["fixed-clock"])
        .with("#clock-cells", cell(0))
        .with("clock-frequency", cell(APB_CLOCK_HZ))
        .with("clock-output-names", string("clk24mhz"));
    fdt.add("/", Some("apb-pclk"), clock).map(drop)
}

/// Adds the power button on `line` of the GPIO controller labelled `gpio`.
pub fn add_power_button(fdt: &mut FdtBuilder, gpio: &str, line: u32) -> Result<(), FdtError> {
    let active_high = 0;
    let gpios = [FwCell::Phandle(gpio.to_owned()), FwCell::Cell(line), FwCell::Cell(active_high)];
    let button = node("poweroff")
        .with("label", string("GPIO Key Poweroff"))
        .with("linux,code", cell(KEY_POWER))
        .with("gpios", FwValue::Mixed(gpios.to_vec()));
    let keys = FwNode { children: vec![button], ..FwNode::new("gpio-keys", &["gpio-keys"]) };
    fdt.add("/", None, keys).map(drop)
}
