//! `--net` and `--publish`: virtio-net, with user-mode networking or a tap of the host at the other end.

use super::Slots;
use crate::{MachineError, Network, Spec};
use isomer_devices::{
    backend::net::{MacAddr, NetBackend, Tap, UserNet, UserNetOptions},
    virtio::net::{NetOptions, VirtioNet},
};

/// Cards a machine may have, at most.
const MAX_CARDS: usize = 32;

pub(super) fn attach<S: Slots>(spec: &Spec, slots: &mut S) -> Result<(), MachineError> {
    if spec.net.len() > MAX_CARDS {
        return Err(MachineError::Spec {
            why: format!("{} network cards were asked for", spec.net.len()),
            fix: format!("a machine has {MAX_CARDS} at most"),
        });
    }
    for (index, net) in (0u8..).zip(&spec.net) {
        let mac = net.mac.unwrap_or(MacAddr::of_card(index));
        let backend: Box<dyn NetBackend> = match &net.network {
            Network::User { restrict, dns, publish } => Box::new(UserNet::new(&UserNetOptions {
                mac,
                restrict: *restrict,
                dns: *dns,
                publish: publish.clone(),
            })?),
            Network::Tap { name } => Box::new(Tap::open(name)?),
        };
        // A pair of queues for each CPU, so that they work side by side.
        let pairs = spec.cpus.try_into().unwrap_or(u16::MAX);
        slots.virtio(VirtioNet::new(backend, &NetOptions { mac, pairs }))?;
    }
    Ok(())
}
