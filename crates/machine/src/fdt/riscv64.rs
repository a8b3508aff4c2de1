//! `/cpus` of RISC-V machines (Linux Documentation/devicetree/bindings/riscv/cpus.yaml and extensions.yaml).

use super::{FdtBuilder, FdtError, with_cells};
use isomer_core::{FwNode, FwValue};
use isomer_riscv64::{CACHE_BLOCK, Extensions, Riscv64, trap::TIMEBASE_HZ};

/// Block sizes that come with an extension.
const BLOCK_SIZES: &[(Extensions, &str)] = &[
    (Extensions::ZICBOM, "riscv,cbom-block-size"),
    (Extensions::ZICBOP, "riscv,cbop-block-size"),
    (Extensions::ZICBOZ, "riscv,cboz-block-size"),
];

/// Adds `/cpus` with `harts` equal harts, numbered from 0 and labelled `cpuN`; their local interrupt controllers are
/// labelled `cpuN-intc`.
pub fn add_cpus(fdt: &mut FdtBuilder, model: &Riscv64, harts: usize) -> Result<(), FdtError> {
    let cpus = with_cells(FwNode { name: "cpus".into(), ..FwNode::default() }, 1, 0);
    let cpus =
        fdt.add("/", None, cpus.with("timebase-frequency", FwValue::Cells(vec![TIMEBASE_HZ as u32])))?;
    for hart in 0..harts as u32 {
        let cpu = fdt.add(&cpus, Some(&format!("cpu{hart}")), cpu(model, hart))?;
        fdt.add(&cpu, Some(&format!("cpu{hart}-intc")), interrupt_controller())?;
    }
    let cores = (0..harts).map(|hart| {
        let core = FwNode { name: format!("core{hart}"), ..FwNode::default() };
        core.with("cpu", FwValue::Phandle(format!("cpu{hart}")))
    });
    let cluster = FwNode { name: "cluster0".into(), children: cores.collect(), ..FwNode::default() };
    let map = FwNode { name: "cpu-map".into(), children: vec![cluster], ..FwNode::default() };
    fdt.add(&cpus, None, map).map(drop)
}

fn cpu(model: &Riscv64, hart: u32) -> FwNode {
    let string = |s: &str| FwValue::Strings(vec![s.to_owned()]);
    let extensions = model.isa_extensions().into_iter().map(str::to_owned).collect();
    let node = FwNode { unit_address: Some(hart.into()), ..FwNode::new("cpu", &["riscv"]) }
        .with("device_type", string("cpu"))
        .with("reg", FwValue::Cells(vec![hart]))
        .with("status", string("okay"))
        .with("riscv,isa", string(&model.isa_string()))
        .with("riscv,isa-base", string("rv64i"))
        .with("riscv,isa-extensions", FwValue::Strings(extensions))
        .with("mmu-type", string(model.mmu_type()));
    let present = BLOCK_SIZES.iter().filter(|(ext, _)| model.ext.contains(*ext));
    present.fold(node, |node, (_, name)| node.with(name, FwValue::Cells(vec![CACHE_BLOCK as u32])))
}

fn interrupt_controller() -> FwNode {
    FwNode::new("interrupt-controller", &["riscv,cpu-intc"])
        .with("interrupt-controller", FwValue::Flag)
        .with("#interrupt-cells", FwValue::Cells(vec![1]))
}
