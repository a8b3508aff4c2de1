//! Engines: what runs lifted guest code. A [`SoftVcpu`] owns one guest CPU, its TLB and its translated code;
//! vCPUs of one machine meet in a [`Group`].

mod blocks;
mod engines;
mod env;
mod fpenv;
pub mod group;
mod heap;
pub mod jit;
mod jump_cache;
mod jumps;
mod kept;
mod mixed;
mod native;
mod phys;
pub mod profile;
mod tlb;
pub mod trace;
mod vcpu;

pub use engines::{EngineKind, Engines, MakeJit, SwitchEngine, UnknownEngine};
pub use group::{Control, Controls, Group, Peer, Request};
pub use heap::share_heap;
pub use isomer_jit::cache::{CacheError, CacheMode, CacheStats};
pub use jit::{Jit, JitError, JitPolicy, JitStats};
pub use kept::CacheSettings;
pub use profile::{PerfMap, Samples, Tier};
pub use trace::Trace;
pub use vcpu::{Exit, Firmware, FirmwareCx, FirmwareResult, SoftVcpu, Stats, Vcpu, VcpuConfig};
