//! Device trees read back with a reader of their own: small, strict, and only for tests.

use super::*;
use isomer_core::Gpa;
use isomer_devices::{plic, test_finisher::TestFinisher};
use isomer_riscv64::Riscv64;
use proptest::prelude::*;

/// A blob's nodes by path, each with its properties' bytes.
type Tree = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// Reads a blob (Devicetree Specification 5).
fn read(blob: &[u8]) -> Tree {
    let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(4) as usize, word(20)), (0xd00d_feed, blob.len(), 17));
    let (structure, strings) = (word(8) as usize, word(12) as usize);
    let c_string = |at: usize| {
        let len = blob[at..].iter().position(|byte| *byte == 0).unwrap();
        std::str::from_utf8(&blob[at..at + len]).unwrap().to_owned()
    };
    let (mut tree, mut path, mut at) = (Tree::new(), Vec::<String>::new(), structure);
    loop {
        let token = word(at);
        at += 4;
        match token {
            1 => {
                let name = c_string(at);
                at = (at + name.len() + 1).next_multiple_of(4);
                path.push(name);
                let key = if path.len() == 1 { "/".to_owned() } else { path.join("/") };
                assert!(tree.insert(key, BTreeMap::new()).is_none());
            }
            2 => drop(path.pop().unwrap()),
            3 => {
                let (len, name) = (word(at) as usize, c_string(strings + word(at + 4) as usize));
                let key = if path.len() == 1 { "/".to_owned() } else { path.join("/") };
                let value = blob[at + 8..at + 8 + len].to_vec();
                assert!(tree.get_mut(&key).unwrap().insert(name, value).is_none());
                at = (at + 8 + len).next_multiple_of(4);
            }
            9 => break,
            other => panic!("token {other}"),
        }
    }
    assert!(path.is_empty());
    tree
}

fn cells(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// A tree with everything the riscv64 board has.
fn board() -> Result<Vec<u8>, FdtError> {
    let mut fdt = FdtBuilder::new("riscv-virtio,qemu", &["riscv-virtio"]);
    let soc = fdt.add_soc()?;
    // Refers to harts and the finisher before they exist.
    let contexts = plic::Context::m_and_s(&[Default::default(), Default::default()]);
    let device = plic::Plic::new(contexts);
    let at = Placement { regions: vec![(0xc00_0000, plic::WINDOW_LEN)], irqs: vec![] };
    let node = isomer_core::Device::fw_node(&device, &at).unwrap();
    fdt.add_device(&soc, Some("plic"), node, &at, "plic")?;
    for node in TestFinisher::power_nodes() {
        fdt.add("/", None, node)?;
    }
    let at = Placement { regions: vec![(0x10_0000, 0x1000)], irqs: vec![] };
    let node = isomer_core::Device::fw_node(&TestFinisher::new(Box::new(|_| ())), &at).unwrap();
    fdt.add_device(&soc, Some("finisher"), node, &at, "plic")?;
    let at = Placement { regions: vec![(0x1000_0000, 0x100)], irqs: vec![10] };
    let node = FwNode { unit_address: Some(0x1000_0000), ..FwNode::new("serial", &["ns16550a"]) };
    let serial = fdt.add_device(&soc, None, node, &at, "plic")?;
    fdt.add_aliases(&[("serial0", &serial)])?;
    riscv64::add_cpus(&mut fdt, &Riscv64::rva22(), 2)?;
    fdt.add_memory(&[Span::new(Gpa(0x8000_0000), 0x1_2000_0000).unwrap()])?;
    fdt.add_chosen(&Chosen {
        bootargs: "console=ttyS0 quiet",
        initrd: Span::new(Gpa(0x9000_0000), 0x1234),
        stdout_path: Some(&serial),
        rng_seed: &[7; 32],
    })?;
    fdt.build()
}

#[test]
fn the_board_reads_back() {
    let tree = read(&board().unwrap());
    let property = |path: &str, name: &str| tree[path][name].clone();
    assert_eq!(property("/", "#address-cells"), cells(&[2]));
    assert_eq!(property("/", "compatible"), b"riscv-virtio\0");
    assert_eq!(property("/memory@80000000", "reg"), cells(&[0, 0x8000_0000, 1, 0x2000_0000]));

    assert_eq!(property("/chosen", "bootargs"), b"console=ttyS0 quiet\0");
    assert_eq!(property("/chosen", "linux,initrd-start"), cells(&[0, 0x9000_0000]));
    assert_eq!(property("/chosen", "linux,initrd-end"), cells(&[0, 0x9000_1234]));
    assert_eq!(property("/chosen", "stdout-path"), b"/soc/serial@10000000\0");
    assert_eq!(property("/chosen", "rng-seed"), [7; 32]);
    assert_eq!(property("/aliases", "serial0"), b"/soc/serial@10000000\0");

    assert_eq!(property("/cpus", "timebase-frequency"), cells(&[10_000_000]));
    assert_eq!(property("/cpus/cpu@1", "reg"), cells(&[1]));
    assert_eq!(property("/cpus/cpu@1", "mmu-type"), b"riscv,sv39\0");
    assert!(property("/cpus/cpu@0", "riscv,isa").starts_with(b"rv64imafdc_zicbom_"));
    assert!(property("/cpus/cpu@0", "riscv,isa-extensions").starts_with(b"i\0m\0a\0f\0d\0c\0zicbom\0"));
    assert_eq!(property("/cpus/cpu@0", "riscv,cbom-block-size"), cells(&[64]));
    let core = property("/cpus/cpu-map/cluster0/core1", "cpu");
    assert_eq!(core, property("/cpus/cpu@1", "phandle"));

    let intc = [0, 1].map(|n| property(&format!("/cpus/cpu@{n}/interrupt-controller"), "phandle"));
    let outputs = [
        &intc[0][..],
        &cells(&[11]),
        &intc[0],
        &cells(&[9]),
        &intc[1],
        &cells(&[11]),
        &intc[1],
        &cells(&[9]),
    ];
    assert_eq!(property("/soc/plic@c000000", "interrupts-extended"), outputs.concat());
    assert_eq!(property("/soc/plic@c000000", "reg"), cells(&[0, 0xc00_0000, 0, 0x60_0000]));
    assert_eq!(property("/soc/serial@10000000", "interrupts"), cells(&[10]));
    assert_eq!(
        property("/soc/serial@10000000", "interrupt-parent"),
        property("/soc/plic@c000000", "phandle")
    );
    assert_eq!(property("/poweroff", "regmap"), property("/soc/test@100000", "phandle"));
    assert!(!tree["/soc/test@100000"].contains_key("interrupts"));
}

#[test]
fn phandles_are_distinct() {
    let tree = read(&board().unwrap());
    let mut phandles: Vec<_> = tree.values().filter_map(|node| node.get("phandle")).collect();
    let count = phandles.len();
    phandles.sort();
    phandles.dedup();
    assert_eq!((count, phandles.len()), (6, 6));
}

#[test]
fn what_a_node_says_itself_stands() {
    let mut fdt = FdtBuilder::new("m", &["c"]);
    fdt.add("/", Some("pic"), FwNode::new("pic", &["p"])).unwrap();
    let node = FwNode::new("timer", &["t"]).with("reg", FwValue::Cells(vec![5]));
    let at = Placement { regions: vec![(1, 2)], irqs: vec![3] };
    fdt.add_device("/", None, node, &at, "pic").unwrap();
    let tree = read(&fdt.build().unwrap());
    assert_eq!(tree["/timer"]["reg"], cells(&[5]));
    assert_eq!(tree["/timer"]["interrupts"], cells(&[3]));
}

#[test]
fn mistakes_are_errors() {
    let fdt = || FdtBuilder::new("m", &["c"]);
    let node = || FwNode::new("a", &["a"]);
    assert!(matches!(fdt().add("/soc", None, node()), Err(FdtError::NoNode { .. })));
    let mut twice = fdt();
    twice.add("/", Some("l"), node()).unwrap();
    assert!(matches!(twice.add("/", None, node()), Err(FdtError::Duplicate { .. })));
    let other = FwNode::new("b", &["b"]);
    assert!(matches!(twice.add("/a", Some("l"), other), Err(FdtError::Duplicate { .. })));

    let error = |node: FwNode| {
        let mut fdt = fdt();
        fdt.add("/", None, node).unwrap();
        fdt.build().unwrap_err()
    };
    let unknown = error(node().with("p", FwValue::Phandle("nobody".into())));
    assert_eq!(unknown.to_string(), "device tree: p of /a refers to the unknown label nobody");
    let nul = error(node().with("s", FwValue::Strings(vec!["a\0b".into()])));
    assert!(matches!(nul, FdtError::Invalid { .. }));
    assert!(matches!(error(FwNode::new("a b", &["a"])), FdtError::Invalid { .. }));
    let large = error(node().with("p", FwValue::Bytes(vec![0; LEN_MAX])));
    assert!(matches!(large, FdtError::TooLarge { .. }));
    let mut nul = fdt();
    nul.add_chosen(&Chosen { bootargs: "a\0b", ..Chosen::default() }).unwrap();
    assert!(nul.build().is_err());
}

proptest! {
    /// Whatever the user puts on the command line comes back as it is, or is an error.
    #[test]
    fn bootargs_survive(bootargs in "\\PC{1,200}") {
        let mut fdt = FdtBuilder::new("m", &["c"]);
        fdt.add_chosen(&Chosen { bootargs: &bootargs, ..Chosen::default() }).unwrap();
        let tree = read(&fdt.build().unwrap());
        prop_assert_eq!(&tree["/chosen"]["bootargs"], &[bootargs.as_bytes(), &[0]].concat());
    }
}
