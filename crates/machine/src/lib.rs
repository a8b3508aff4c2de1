//! Machines: boards wire devices and vCPUs together, loaders and firmware make them boot, and [`Machine`] is one
//! that runs.

pub mod boards;
pub mod embedded;
pub mod engine;
pub mod error;
pub mod fdt;
pub mod firmware;
pub mod lifecycle;
pub mod loader;
mod peripherals;
pub mod profile;
pub mod spec;
pub mod symbols;

pub use engine::MachineEngine;
pub use error::MachineError;
pub use lifecycle::{Host, Machine, Outcome};
pub use peripherals::{GuestPort, HostPort};
pub use spec::{
    Arch, BoardOptions, Boot, Console, DiskBus, DiskSpec, EngineChoice, GicVersion, NetSpec, Network,
    ProfileOptions, ShareKind, ShareSpec, ShareTrust, Spec, Transport,
};
