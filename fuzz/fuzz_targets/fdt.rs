//! Device trees of any nodes, names and values are written as well-formed blobs or refused.
#![no_main]

use isomer_core::{FwNode, FwValue, Gpa, Placement, device::FwCell};
use isomer_fuzz::input::Input;
use isomer_machine::{
    fdt::{Chosen, FdtBuilder, LEN_MAX, riscv64},
    loader::Span,
};
use isomer_riscv64::Riscv64;
use libfuzzer_sys::fuzz_target;

/// Nodes below a node, at most, and how deep.
const CHILDREN: usize = 4;
const DEPTH: u32 = 6;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut fdt = FdtBuilder::new(&string(&mut input), &["isomer,fuzz"]);
    let mut paths = vec!["/".to_owned()];
    while !input.is_empty() {
        // A refused addition leaves a tree that can still be written.
        let added = match input.u8() % 8 {
            0 => fdt.add_soc().ok(),
            1 => fdt
                .add_memory(&[Span { start: Gpa(input.number()), end: Gpa(input.number()) }])
                .map(|()| None)
                .unwrap_or(None),
            2 => {
                let (bootargs, path, seed) = (string(&mut input), string(&mut input), input.take(8).to_vec());
                let initrd =
                    input.flag().then(|| Span { start: Gpa(input.number()), end: Gpa(input.number()) });
                let stdout_path = input.flag().then_some(path.as_str());
                let _ = fdt.add_chosen(&Chosen { bootargs: &bootargs, initrd, stdout_path, rng_seed: &seed });
                None
            }
            3 => {
                let (name, path) = (string(&mut input), string(&mut input));
                let _ = fdt.add_aliases(&[(&name, &path), (&path, &name)]);
                None
            }
            4 => {
                let _ = riscv64::add_cpus(&mut fdt, &Riscv64::max(), input.below(5));
                None
            }
            5 => {
                let at = Placement {
                    regions: vec![(input.number(), input.number())],
                    irqs: vec![input.u8().into()],
                };
                let parent = paths[input.below(paths.len())].clone();
                fdt.add_device(&parent, label(&mut input).as_deref(), node(&mut input, 0), &at, "plic").ok()
            }
            _ => {
                let parent =
                    if input.flag() { paths[input.below(paths.len())].clone() } else { string(&mut input) };
                fdt.add(&parent, label(&mut input).as_deref(), node(&mut input, 0)).ok()
            }
        };
        paths.extend(added);
    }
    if let Ok(blob) = fdt.build() {
        let be32 = |at: usize| u32::from_be_bytes([blob[at], blob[at + 1], blob[at + 2], blob[at + 3]]);
        assert!(be32(0) == 0xd00d_feed && be32(4) as usize == blob.len() && blob.len() <= LEN_MAX);
    }
});

fn string(input: &mut Input<'_>) -> String {
    let len = usize::from(input.u8() & 31);
    String::from_utf8_lossy(input.take(len)).into_owned()
}

fn label(input: &mut Input<'_>) -> Option<String> {
    input.pick(&[None, None, Some("plic"), Some("a"), Some("b")]).map(str::to_owned)
}

fn node(input: &mut Input<'_>, depth: u32) -> FwNode {
    let mut node = FwNode { name: string(input), ..FwNode::default() };
    node.unit_address = input.flag().then(|| input.number());
    for _ in 0..input.below(4) {
        let name = if input.flag() {
            string(input)
        } else {
            input.pick(&["reg", "phandle", "compatible"]).to_owned()
        };
        node = node.with(&name, value(input));
    }
    let children = if depth < DEPTH { input.below(CHILDREN) } else { 0 };
    node.children = (0..children).map(|_| self::node(input, depth + 1)).collect();
    node
}

fn value(input: &mut Input<'_>) -> FwValue {
    let count = input.below(4);
    match input.u8() % 7 {
        0 => FwValue::Flag,
        1 => FwValue::Cells((0..count).map(|_| input.u32()).collect()),
        2 => FwValue::Cells64((0..count).map(|_| input.number()).collect()),
        3 => FwValue::Strings((0..count).map(|_| string(input)).collect()),
        4 => FwValue::Bytes(input.take(count).to_vec()),
        5 => FwValue::Phandle(label(input).unwrap_or_default()),
        _ => {
            FwValue::Mixed(vec![FwCell::Cell(input.u32()), FwCell::Phandle(label(input).unwrap_or_default())])
        }
    }
}
