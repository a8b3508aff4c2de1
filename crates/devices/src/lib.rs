//! Device models and the host resources behind them. Each device is one file: registers, model,
//! firmware node, versioned state, tests. Adding one is that file and a line here.

#[macro_use]
pub mod conformance;

pub mod aclint;
pub mod amba;
pub mod backend;
mod crew;
pub mod fw_cfg;
pub mod gic;
pub mod gicv2;
pub mod gicv3;
pub mod goldfish_rtc;
pub mod nvme;
pub mod pci;
pub mod pflash;
pub mod pl011;
pub mod pl031;
pub mod pl061;
pub mod plic;
pub mod scsi;
pub mod test_finisher;
pub mod uart16550;
pub mod virtio;
