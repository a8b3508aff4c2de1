//! The virtio console of any board: the terminal, and the ports a command of the embedded guest runs through.

use crate::{
    Spec,
    embedded::port,
    lifecycle::{Event, Host},
};
use isomer_devices::{
    backend::char::{CharInput, CharOutput},
    virtio::console::{ConsoleHandle, PortOptions, VirtioConsole},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender};

/// A virtio console and the host's ends of it.
pub(super) struct VirtioTerminal {
    /// The device, to be attached.
    pub(super) device: VirtioConsole,
    /// Takes input: the terminal's, or the command's.
    pub(super) input: Arc<dyn CharInput>,
    /// For the terminal's size.
    pub(super) handle: ConsoleHandle,
}

/// Makes the console of `spec`: one port, or the command's four beside it. The control port comes last because the
/// guest's init waits for it.
pub(super) fn virtio(spec: &Spec, host: Host, events: &Sender<Event>) -> VirtioTerminal {
    let mut ports = vec![PortOptions::console(host.console)];
    let mut input = 0;
    if spec.command.is_some() {
        let (stdout, stderr) = host.streams.map_or_else(discard, |streams| (streams.stdout, streams.stderr));
        input = ports.len();
        ports.push(PortOptions::named(port::STDIN, isomer_devices::backend::char::Discard));
        ports.push(PortOptions::named(port::STDOUT, stdout));
        ports.push(PortOptions::named(port::STDERR, stderr));
        ports.push(PortOptions::named(port::CONTROL, ExitCode { line: Vec::new(), events: events.clone() }));
    }
    let device = VirtioConsole::new(ports);
    let handle = device.handle();
    let input: Arc<dyn CharInput> = match device.port(input) {
        Some(port) => {
            port.set_waker(host.waker);
            Arc::new(port)
        }
        None => Arc::new(|bytes: &[u8]| bytes.len()),
    };
    VirtioTerminal { device, input, handle }
}

fn discard() -> (Box<dyn CharOutput>, Box<dyn CharOutput>) {
    (Box::new(isomer_devices::backend::char::Discard), Box::new(isomer_devices::backend::char::Discard))
}

/// One output for several writers: a firmware's console and a kernel's are the same terminal.
#[derive(Clone)]
pub(super) struct SharedOutput(Arc<Mutex<Box<dyn CharOutput>>>);

impl SharedOutput {
    /// Shares `output`.
    pub(super) fn new(output: Box<dyn CharOutput>) -> Self {
        Self(Arc::new(Mutex::new(output)))
    }

    fn lock(&self) -> MutexGuard<'_, Box<dyn CharOutput>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CharOutput for SharedOutput {
    fn write(&mut self, bytes: &[u8]) {
        self.lock().write(bytes);
    }
    fn offer(&mut self, bytes: &[u8]) -> usize {
        self.lock().offer(bytes)
    }
    fn on_room(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.lock().on_room(wake);
    }
    fn flush(&mut self) {
        self.lock().flush();
    }
}

/// Longest line the guest's init may send, in bytes.
const LINE_LIMIT: usize = 64;

/// Reads `exit N` lines from the guest's init.
struct ExitCode {
    line: Vec<u8>,
    events: Sender<Event>,
}

impl CharOutput for ExitCode {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte != b'\n' {
                // A guest that sends no newline must not make us keep everything.
                if self.line.len() < LINE_LIMIT {
                    self.line.push(byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            if let Some(code) = line.strip_prefix("exit ").and_then(|code| code.trim().parse().ok()) {
                let _ = self.events.send(Event::CommandDone(code));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn exit_codes_are_read_whatever_else_comes() {
        let (events, received) = channel();
        let mut control = ExitCode { line: Vec::new(), events };
        control.write(&[b'x'; 1000]);
        control.write(b"\nexit nonsense\nex");
        control.write(b"it 7\n");
        assert!(matches!(received.try_recv(), Ok(Event::CommandDone(7))));
        assert!(received.try_recv().is_err());
    }
}
