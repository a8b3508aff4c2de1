//! What the fuzz targets share: inputs, seeds, and drivers for devices, virtio rings, IR blocks and harts.
//!
//! A target is one file in `fuzz_targets`: its first line says what must hold, the rest mostly calls a driver from
//! here. `cargo xtask fuzz list` prints them all. A target fails by panicking; hanging and running out of memory are
//! libFuzzer's to notice.

pub mod arm;
pub mod blocks;
pub mod device;
pub mod frames;
pub mod hart;
pub mod input;
pub mod pipeline;
pub mod seeds;
pub mod share;
pub mod virtio;
