//! Firmware the machine provides itself, where a kernel is booted directly.

pub mod psci;
pub mod sbi;
