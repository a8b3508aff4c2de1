//! Flattened device trees (Devicetree Specification 0.4): a board adds the nodes its devices describe, the builder
//! resolves labels to phandles and writes the blob.

pub mod aarch64;
pub mod riscv64;

use crate::loader::Span;
use isomer_core::{FwNode, FwValue, Placement, device::FwCell};
use miette::Diagnostic;
use std::collections::BTreeMap;
use vm_fdt::FdtWriter;

/// The largest blob Linux takes, in bytes (`MAX_FDT_SIZE`).
pub const LEN_MAX: usize = 2 << 20;

/// Why no device tree could be made.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum FdtError {
    /// A node is to go below one that does not exist.
    #[error("device tree: there is no node {path}")]
    #[diagnostic(code(isomer::fdt::no_node), help("this is a bug in the board: please report it"))]
    NoNode {
        /// The path.
        path: String,
    },
    /// Two nodes have one path, or two have one label.
    #[error("device tree: {name} exists twice")]
    #[diagnostic(code(isomer::fdt::duplicate), help("this is a bug in the board: please report it"))]
    Duplicate {
        /// The path or label.
        name: String,
    },
    /// A property refers to a label nobody has.
    #[error("device tree: {property} of {path} refers to the unknown label {label}")]
    #[diagnostic(code(isomer::fdt::unknown_label), help("this is a bug in the board: please report it"))]
    UnknownLabel {
        /// The node.
        path: String,
        /// The property.
        property: String,
        /// The label.
        label: String,
    },
    /// A string holds a NUL, or a name what names must not hold.
    #[error("device tree: {what} of {path}: {source}")]
    #[diagnostic(
        code(isomer::fdt::invalid),
        help(
            "if it is /chosen, the kernel command line (--append) holds a NUL character; otherwise report this as a bug"
        )
    )]
    Invalid {
        /// The node.
        path: String,
        /// The property, or "the name".
        what: String,
        /// What the writer says.
        source: vm_fdt::Error,
    },
    /// Larger than kernels take.
    #[error("the device tree has {len} bytes; kernels take 2 MiB at most")]
    #[diagnostic(
        code(isomer::fdt::too_large),
        help("shorten the kernel command line (--append) or use fewer devices")
    )]
    TooLarge {
        /// Its size.
        len: usize,
    },
}

#[derive(Default)]
struct Node {
    /// With unit address.
    name: String,
    phandle: Option<u32>,
    properties: Vec<(String, FwValue)>,
    children: Vec<Node>,
}

impl Node {
    fn new(node: FwNode) -> Self {
        let name = match node.unit_address {
            Some(address) => format!("{}@{address:x}", node.name),
            None => node.name,
        };
        let children = node.children.into_iter().map(Self::new).collect();
        Self { name, phandle: None, properties: node.properties, children }
    }
}

/// A device tree under construction. Paths are absolute, unit addresses included ("/soc/serial@10000000").
pub struct FdtBuilder {
    root: Node,
    phandles: BTreeMap<String, u32>,
}

impl std::fmt::Debug for FdtBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FdtBuilder").field("labels", &self.phandles).finish_non_exhaustive()
    }
}

/// What `/chosen` tells the kernel (Devicetree Specification 3.6; Linux Documentation/devicetree/usage-model.rst).
#[derive(Clone, Copy, Debug, Default)]
pub struct Chosen<'a> {
    /// Kernel command line.
    pub bootargs: &'a str,
    /// Where the initrd is.
    pub initrd: Option<Span>,
    /// Path (or alias) of the console for early output.
    pub stdout_path: Option<&'a str>,
    /// Random bytes to seed the kernel's generator; nothing if empty.
    pub rng_seed: &'a [u8],
}

impl FdtBuilder {
    /// A root node with 64-bit addresses and sizes.
    pub fn new(model: &str, compatible: &[&str]) -> Self {
        let mut root = FwNode::new("", compatible);
        root = root.with("model", FwValue::Strings(vec![model.to_owned()]));
        let root = with_cells(root, 2, 2);
        Self { root: Node::new(root), phandles: BTreeMap::new() }
    }

    /// Adds a node below `parent` and returns its path. With a `label`, others can refer to it, from nodes added
    /// earlier or later.
    pub fn add(&mut self, parent: &str, label: Option<&str>, node: FwNode) -> Result<String, FdtError> {
        let next_phandle = self.phandles.len() as u32 + 1;
        let mut node = Node::new(node);
        let above = self.find(parent)?;
        let path = format!("{}/{}", parent.trim_end_matches('/'), node.name);
        if above.children.iter().any(|child| child.name == node.name) {
            return Err(FdtError::Duplicate { name: path });
        }
        node.phandle = label.map(|_| next_phandle);
        above.children.push(node);
        if let Some(label) = label
            && self.phandles.insert(label.to_owned(), next_phandle).is_some()
        {
            return Err(FdtError::Duplicate { name: format!("label {label}") });
        }
        Ok(path)
    }

    /// Adds a device's node: `reg` from the placement's windows, `interrupts` from its specifiers, and
    /// `interrupt-parent`, each unless the node has it. `parent` must have two address and two size cells.
    pub fn add_device(
        &mut self,
        parent: &str,
        label: Option<&str>,
        mut node: FwNode,
        at: &Placement,
        interrupt_parent: &str,
    ) -> Result<String, FdtError> {
        let reg = at.regions.iter().flat_map(|&(start, len)| [start, len]).collect();
        let mut add = |name: &str, value: FwValue| {
            if !node.properties.iter().any(|(other, _)| other == name) {
                node.properties.push((name.to_owned(), value));
            }
        };
        if !at.regions.is_empty() {
            add("reg", FwValue::Cells64(reg));
        }
        if !at.irqs.is_empty() {
            add("interrupts", FwValue::Cells(at.irqs.clone()));
            add("interrupt-parent", FwValue::Phandle(interrupt_parent.to_owned()));
        }
        self.add(parent, label, node)
    }

    /// Adds the bus node `/soc`, whose addresses are the CPU's, and returns its path.
    pub fn add_soc(&mut self) -> Result<String, FdtError> {
        let soc = with_cells(FwNode::new("soc", &["simple-bus"]), 2, 2);
        self.add("/", None, soc.with("ranges", FwValue::Flag))
    }

    /// Adds a `/memory` node a stretch of RAM.
    pub fn add_memory(&mut self, ram: &[Span]) -> Result<(), FdtError> {
        for span in ram {
            let node =
                FwNode { name: "memory".into(), unit_address: Some(span.start.0), ..FwNode::default() };
            let node = node
                .with("device_type", FwValue::Strings(vec!["memory".into()]))
                .with("reg", FwValue::Cells64(vec![span.start.0, span.len()]));
            self.add("/", None, node)?;
        }
        Ok(())
    }

    /// Adds `/chosen`.
    pub fn add_chosen(&mut self, chosen: &Chosen<'_>) -> Result<(), FdtError> {
        let string = |s: &str| FwValue::Strings(vec![s.to_owned()]);
        let mut node = FwNode { name: "chosen".into(), ..FwNode::default() };
        if !chosen.bootargs.is_empty() {
            node = node.with("bootargs", string(chosen.bootargs));
        }
        if let Some(initrd) = chosen.initrd {
            node = node
                .with("linux,initrd-start", FwValue::Cells64(vec![initrd.start.0]))
                .with("linux,initrd-end", FwValue::Cells64(vec![initrd.end.0]));
        }
        if let Some(path) = chosen.stdout_path {
            node = node.with("stdout-path", string(path));
        }
        if !chosen.rng_seed.is_empty() {
            node = node.with("rng-seed", FwValue::Bytes(chosen.rng_seed.to_vec()));
        }
        self.add("/", None, node).map(drop)
    }

    /// Adds `/aliases`: names for paths.
    pub fn add_aliases(&mut self, aliases: &[(&str, &str)]) -> Result<(), FdtError> {
        let node = FwNode { name: "aliases".into(), ..FwNode::default() };
        let alias = |node: FwNode, (name, path): &(&str, &str)| {
            node.with(name, FwValue::Strings(vec![(*path).to_owned()]))
        };
        self.add("/", None, aliases.iter().fold(node, alias)).map(drop)
    }

    fn find(&mut self, path: &str) -> Result<&mut Node, FdtError> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        let found = names
            .try_fold(&mut self.root, |node, name| node.children.iter_mut().find(|child| child.name == name));
        found.ok_or_else(|| FdtError::NoNode { path: path.to_owned() })
    }

    /// Writes the blob.
    pub fn build(&self) -> Result<Vec<u8>, FdtError> {
        let invalid = |source| FdtError::Invalid { path: "/".into(), what: "the blob".into(), source };
        let mut writer = FdtWriter::new().map_err(invalid)?;
        self.write(&mut writer, &self.root, "")?;
        let blob = writer.finish().map_err(invalid)?;
        if blob.len() > LEN_MAX { Err(FdtError::TooLarge { len: blob.len() }) } else { Ok(blob) }
    }

    fn write(&self, writer: &mut FdtWriter, node: &Node, path: &str) -> Result<(), FdtError> {
        let invalid = |what: &str, source| {
            let path = if path.is_empty() { "/" } else { path };
            FdtError::Invalid { path: path.to_owned(), what: what.to_owned(), source }
        };
        let open = writer.begin_node(&node.name).map_err(|e| invalid("the name", e))?;
        for (name, value) in &node.properties {
            let bytes = self.encode(path, name, value)?;
            writer.property(name, &bytes).map_err(|e| invalid(name, e))?;
        }
        if let Some(phandle) = node.phandle {
            writer.property_phandle(phandle).map_err(|e| invalid("phandle", e))?;
        }
        for child in &node.children {
            self.write(writer, child, &format!("{path}/{}", child.name))?;
        }
        writer.end_node(open).map_err(|e| invalid("the end", e))
    }

    fn encode(&self, path: &str, property: &str, value: &FwValue) -> Result<Vec<u8>, FdtError> {
        let phandle = |label: &String| {
            self.phandles.get(label).copied().ok_or_else(|| FdtError::UnknownLabel {
                path: path.to_owned(),
                property: property.to_owned(),
                label: label.clone(),
            })
        };
        let cell = |cell: &FwCell| match cell {
            FwCell::Cell(value) => Ok(value.to_be_bytes()),
            FwCell::Phandle(label) => phandle(label).map(u32::to_be_bytes),
        };
        match value {
            FwValue::Flag => Ok(Vec::new()),
            FwValue::Cells(cells) => Ok(cells.iter().flat_map(|c| c.to_be_bytes()).collect()),
            FwValue::Cells64(values) => Ok(values.iter().flat_map(|v| v.to_be_bytes()).collect()),
            FwValue::Strings(strings) if strings.iter().any(|s| s.contains('\0')) => {
                let (path, what) = (path.to_owned(), property.to_owned());
                Err(FdtError::Invalid { path, what, source: vm_fdt::Error::InvalidString })
            }
            FwValue::Strings(strings) => Ok(strings.iter().flat_map(|s| s.bytes().chain([0])).collect()),
            FwValue::Bytes(bytes) => Ok(bytes.clone()),
            FwValue::Phandle(label) => Ok(phandle(label)?.to_be_bytes().to_vec()),
            FwValue::Mixed(cells) => Ok(cells.iter().map(cell).collect::<Result<Vec<_>, _>>()?.concat()),
        }
    }
}

/// Adds `#address-cells` and `#size-cells`, which bind the node's children.
fn with_cells(node: FwNode, address: u32, size: u32) -> FwNode {
    node.with("#address-cells", FwValue::Cells(vec![address])).with("#size-cells", FwValue::Cells(vec![size]))
}

#[cfg(test)]
mod tests;
