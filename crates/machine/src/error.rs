//! Why a machine could not be made.

use miette::Diagnostic;
use std::{io, path::PathBuf};

/// Why a machine could not be made. Every variant has a code and, where one is known, a fix.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum MachineError {
    /// A file could not be read.
    #[error("cannot read the {what} {}: {source}", path.display())]
    #[diagnostic(code(isomer::machine::file), help("check that the path exists and that you may read it"))]
    File {
        /// Its role ("kernel").
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// Code cannot be compiled on this host.
    #[error("the compiling engine does not work here: {source}")]
    #[diagnostic(code(isomer::machine::jit), help("use --engine interp: the interpreter runs on every host"))]
    Jit {
        /// Why.
        source: isomer_engine::JitError,
    },
    /// The map for `perf` cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    #[diagnostic(
        code(isomer::machine::perf_map),
        help("leave --perf-map out, or remove what is in the way: it belongs to somebody else")
    )]
    PerfMap {
        /// The path.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// Too few or too many CPUs.
    #[error("{asked} CPUs asked for; this board has 1 to {most}")]
    #[diagnostic(code(isomer::machine::cpus), help("use --cpus with a number from 1 to {most}"))]
    Cpus {
        /// What was asked.
        asked: usize,
        /// The board's most.
        most: usize,
    },
    /// Too little or too much RAM.
    #[error("{asked_mib} MiB of memory asked for, {why}")]
    #[diagnostic(code(isomer::machine::memory), help("{fix}"))]
    Memory {
        /// What was asked.
        asked_mib: u64,
        /// What is wrong with it.
        why: String,
        /// What to do.
        fix: String,
    },
    /// No such CPU model.
    #[error("there is no CPU model {name:?} for {arch}")]
    #[diagnostic(code(isomer::machine::cpu_model), help("the models are: {models}"))]
    CpuModel {
        /// What was asked.
        name: String,
        /// The architecture.
        arch: &'static str,
        /// What there is.
        models: String,
    },
    /// The combination makes no sense.
    #[error("{why}")]
    #[diagnostic(code(isomer::machine::spec), help("{fix}"))]
    Spec {
        /// What is wrong.
        why: String,
        /// What to do.
        fix: String,
    },
    /// The kernel, firmware or initial RAM disk is unusable.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Load(#[from] crate::loader::LoadError),
    /// A disk image is unusable.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Disk(#[from] isomer_devices::backend::BlockError),
    /// A network cannot be set up.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Net(#[from] isomer_devices::backend::net::NetError),
    /// A directory cannot be shared.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Share(#[from] isomer_devices::backend::share::ShareError),
    /// The host has no room for guest RAM.
    #[error(transparent)]
    #[diagnostic(
        code(isomer::machine::host_memory),
        help("use a smaller --memory, or free memory on the host")
    )]
    Ram(#[from] isomer_core::MemoryError),
    /// The board is wired wrongly: a bug.
    #[error("the board cannot be wired: {0}")]
    #[diagnostic(code(isomer::machine::wiring), help("this is a bug in Isomer; please report it"))]
    Wiring(String),
    /// The host refuses a thread, a descriptor.
    #[error("the host refuses {what}: {source}")]
    #[diagnostic(
        code(isomer::machine::host),
        help("raise the limits on processes and open files (ulimit -u, ulimit -n)")
    )]
    Host {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl From<isomer_core::BusError> for MachineError {
    fn from(error: isomer_core::BusError) -> Self {
        Self::Wiring(error.to_string())
    }
}

impl From<isomer_devices::pci::PciError> for MachineError {
    fn from(error: isomer_devices::pci::PciError) -> Self {
        Self::Wiring(error.to_string())
    }
}
