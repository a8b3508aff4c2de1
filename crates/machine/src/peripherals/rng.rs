//! Random numbers: every machine has virtio-rng, for a guest without entropy waits.

use super::Slots;
use crate::MachineError;
use isomer_devices::virtio::rng::VirtioRng;

pub(super) fn attach<S: Slots>(slots: &mut S) -> Result<(), MachineError> {
    slots.virtio(VirtioRng::new())
}
