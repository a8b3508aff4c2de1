//! Types and traits every part of Isomer shares: addresses, guest memory, buses, interrupt lines,
//! clocks and the device trait. Nothing here knows a guest, a host or an engine.

pub mod addr;
pub mod bus;
pub mod clock;
pub mod code_pages;
pub mod device;
pub mod initiator;
pub mod irq;
pub mod limit;
pub mod memory;
pub mod vcpu_signal;

pub use addr::{Gpa, Gva, PAGE_SHIFT, PAGE_SIZE};
pub use bus::{Bus, BusError};
pub use clock::{Clock, Timers};
pub use device::{Device, DynDevice, FwNode, FwValue, Placement, State, StateError};
pub use irq::{IrqLine, IrqSink};
pub use memory::{GuestMemory, MemoryError};
pub use vcpu_signal::VcpuSignal;
