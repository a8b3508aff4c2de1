//! Interrupt lines: a device holds an [`IrqLine`], an interrupt controller (or a vCPU) is its [`IrqSink`].

use std::{fmt, sync::Arc};

/// Receives level changes. Called with the driving device's lock held, so an implementation may take its own
/// lock but must not call back into devices.
pub trait IrqSink: Send + Sync {
    /// Input `line` of this sink now has `level`.
    fn set_level(&self, line: u32, level: bool);
}

/// One wire from a device to an input of an interrupt controller. Cloning shares the wire, it does not OR levels.
#[derive(Clone, Default)]
pub struct IrqLine(Option<(Arc<dyn IrqSink>, u32)>);

impl IrqLine {
    /// A wire to input `line` of `sink`.
    pub fn new(sink: Arc<dyn IrqSink>, line: u32) -> Self {
        Self(Some((sink, line)))
    }

    /// A wire that ends nowhere (tests, devices without interrupt).
    pub fn unconnected() -> Self {
        Self(None)
    }

    /// Drives the wire.
    pub fn set(&self, level: bool) {
        if let Some((sink, line)) = &self.0 {
            sink.set_level(*line, level);
        }
    }

    /// A short high pulse, for edge-triggered inputs.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}

impl fmt::Debug for IrqLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((_, line)) => write!(f, "IrqLine({line})"),
            None => f.write_str("IrqLine(unconnected)"),
        }
    }
}
