//! Boards: a memory map and its wiring, one file each. Adding one is that file and a line in [`build`].

pub mod aarch64_virt;
mod console;
mod files;
mod gic;
pub mod riscv64_virt;

use crate::{
    Arch, MachineError, Spec,
    lifecycle::{Event, Host, Parts},
};
use std::sync::mpsc::Sender;

/// The most CPUs any board has.
pub const MAX_CPUS: usize = 8;
/// The least RAM a machine can have: room for a kernel, its initial RAM disk and the device tree.
const LEAST_MEMORY: u64 = 32 << 20;

/// Makes the parts of the machine that `spec` describes.
pub fn build(spec: &Spec, host: Host, events: Sender<Event>) -> Result<Parts, MachineError> {
    check(spec)?;
    match spec.arch {
        Arch::Riscv64 => riscv64_virt::build(spec, host, events),
        Arch::Aarch64 => aarch64_virt::build(spec, host, events),
    }
}

fn check(spec: &Spec) -> Result<(), MachineError> {
    if !(1..=MAX_CPUS).contains(&spec.cpus) {
        return Err(MachineError::Cpus { asked: spec.cpus, most: MAX_CPUS });
    }
    let asked_mib = spec.memory_bytes >> 20;
    let memory = |why: String, fix: String| Err(MachineError::Memory { asked_mib, why, fix });
    if spec.memory_bytes < LEAST_MEMORY {
        return memory("too little to boot anything".into(), "use --memory 128M or more".into());
    }
    if !spec.memory_bytes.is_multiple_of(isomer_core::PAGE_SIZE) {
        return memory(
            "not a multiple of 4 KiB".into(),
            "use a whole number of MiB or GiB, as in 512M".into(),
        );
    }
    let host_bytes = host_memory_bytes();
    if spec.memory_bytes > host_bytes {
        let host_mib = host_bytes >> 20;
        return memory(
            format!("but this host has {host_mib} MiB"),
            format!("use --memory {}M or less", host_mib * 3 / 4),
        );
    }
    Ok(())
}

/// The host's RAM and swap.
fn host_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram + info.totalswap) * u64::from(info.mem_unit)
}
