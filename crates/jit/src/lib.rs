//! Compilers from Isomer's IR to host code, the memory that code lives in, and the cache that keeps it on disk.
//! Nothing here knows a guest: blocks come through [`region::Source`], and compiled code knows the engine through
//! [`abi`] alone.

pub mod abi;
pub mod cache;
pub mod cold;
mod compiled;
pub mod region;

pub mod clif;
pub mod code_memory;
mod host;
pub mod stubs;
pub mod template;

pub use compiled::{CompileError, Compiled};
pub use host::HostFeatures;
