//! What a spec asks for besides the board itself: disks, network cards, shares, and so on, on any board alike.
//! A kind of peripheral is one file here and one line in [`attach`].

mod disk;
mod net;
mod ports;
mod rng;
pub(crate) mod share;

use crate::{MachineError, Spec};
use isomer_core::GuestMemory;
use isomer_devices::{
    pci::{MsiSink, PciFunction},
    virtio::VirtioDevice,
};
use std::sync::{Arc, Mutex};

/// A board that devices can be plugged into.
pub(crate) trait Slots {
    /// Plugs a virtio device in, over the transport the user chose.
    fn virtio<V: VirtioDevice>(&mut self, device: V) -> Result<(), MachineError>;
    /// Plugs a PCI function that is not virtio in.
    fn pci<F: PciFunction + 'static>(&mut self, function: Arc<Mutex<F>>) -> Result<(), MachineError>;
    /// Guest RAM, for functions that reach it themselves.
    fn memory(&self) -> GuestMemory;
    /// Where functions' messages go, on boards that have message-signalled interrupts.
    fn msi(&self) -> Option<Arc<dyn MsiSink>>;
}

pub use ports::{GuestPort, HostPort};

/// Plugs in everything `spec` and the host ask for. The order is the one in which guests number what they find.
/// Returns the host's ends of its ports.
pub(crate) fn attach<S: Slots>(
    spec: &Spec,
    host: Vec<HostPort>,
    slots: &mut S,
) -> Result<Vec<GuestPort>, MachineError> {
    disk::attach(spec, slots)?;
    net::attach(spec, slots)?;
    share::attach(spec, slots)?;
    rng::attach(slots)?;
    ports::attach(host, slots)
}
