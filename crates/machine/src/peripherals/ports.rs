//! Ports between the guest and programs of the host: named ones, as guest agents use them, and further terminals.

use super::Slots;
use crate::MachineError;
use isomer_devices::{
    backend::char::{CharInput, CharOutput},
    virtio::console::{MAX_PORTS, PortHandle, PortOptions, VirtioConsole},
};

/// One port that the host wants.
pub struct HostPort {
    /// Its name in the guest (`/dev/virtio-ports/NAME`); `None` for a terminal, the next of `/dev/hvc0` and so on.
    pub name: Option<String>,
    /// Where the guest's output goes.
    pub output: Box<dyn CharOutput>,
}

impl std::fmt::Debug for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostPort({:?})", self.name)
    }
}

/// The host's end of a port; cheap to clone.
#[derive(Clone, Debug)]
pub struct GuestPort {
    port: PortHandle,
}

impl GuestPort {
    /// Does a program in the guest have the port open?
    pub fn is_open(&self) -> bool {
        self.port.is_guest_open()
    }

    /// Sends what there is room for, and returns how much.
    pub fn send(&self, bytes: &[u8]) -> usize {
        self.port.receive(bytes)
    }
}

/// All on one device, behind those that guests have always had, so that nothing else changes its number.
pub(super) fn attach<S: Slots>(host: Vec<HostPort>, slots: &mut S) -> Result<Vec<GuestPort>, MachineError> {
    if host.is_empty() {
        return Ok(Vec::new());
    }
    if host.len() > MAX_PORTS {
        return Err(MachineError::Spec {
            why: format!("{} ports were asked for", host.len()),
            fix: format!("a machine has {MAX_PORTS} at most"),
        });
    }
    let options = host.into_iter().map(|port| PortOptions {
        name: port.name,
        output: port.output,
        on_guest_open: None,
    });
    let device = VirtioConsole::new(options.collect());
    let ends = (0..MAX_PORTS).map_while(|index| Some(GuestPort { port: device.port(index)? })).collect();
    slots.virtio(device)?;
    Ok(ends)
}
