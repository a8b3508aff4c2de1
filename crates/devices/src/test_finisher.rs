//! SiFive test finisher (`sifive,test0`, `sifive,test1`): one 32-bit register that ends or restarts the machine.
//! Firmware reaches it by its own binding, kernels through `syscon-poweroff` and `syscon-reboot`.

use isomer_core::{Device, FwNode, FwValue, Placement, StateError};
use std::fmt;

/// Bytes in the register window.
pub const WINDOW_LEN: u64 = 0x1000;

const FAIL: u32 = 0x3333;
const PASS: u32 = 0x5555;
const RESET: u32 = 0x7777;

/// What a guest asked of the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerEvent {
    /// Power down.
    Off,
    /// Power down and report this exit code.
    Fail(u16),
    /// Start again.
    Reset,
}

/// The finisher. It has no state: what it asks for happens outside.
pub struct TestFinisher {
    on_event: Box<dyn Fn(PowerEvent) + Send>,
}

impl fmt::Debug for TestFinisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestFinisher")
    }
}

impl TestFinisher {
    /// A finisher that calls `on_event`, with the device locked and on the vCPU's thread: it should only note
    /// the request and kick whoever carries it out.
    pub fn new(on_event: Box<dyn Fn(PowerEvent) + Send>) -> Self {
        Self { on_event }
    }

    /// The `poweroff` and `reboot` nodes that go beside the finisher's own, which the board labels "finisher".
    pub fn power_nodes() -> [FwNode; 2] {
        [("poweroff", "syscon-poweroff", PASS), ("reboot", "syscon-reboot", RESET)].map(
            |(name, compatible, value)| {
                FwNode::new(name, &[compatible])
                    .with("regmap", FwValue::Phandle("finisher".into()))
                    .with("offset", FwValue::Cells(vec![0]))
                    .with("value", FwValue::Cells(vec![value]))
            },
        )
    }
}

impl Device for TestFinisher {
    const NAME: &'static str = "sifive,test0";
    const VERSION: u32 = 1;
    type State = ();

    fn read(&mut self, _region: usize, _offset: u64, _size: usize) -> u64 {
        0
    }

    /// The lower half says what to do, the upper half is the code of a failure.
    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        if (region, offset) != (0, 0) || size < 2 {
            return;
        }
        let value = value as u32;
        let event = match value & 0xffff {
            FAIL => PowerEvent::Fail((value >> 16) as u16),
            PASS => PowerEvent::Off,
            RESET => PowerEvent::Reset,
            _ => return,
        };
        (self.on_event)(event);
    }

    fn reset(&mut self) {}

    fn save(&self) {}

    fn restore(&mut self, _state: ()) -> Result<(), StateError> {
        Ok(())
    }

    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        Some(FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("test", &["sifive,test1", "sifive,test0", "syscon"])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Options;
    use std::sync::mpsc;

    device_conformance!(
        conformance,
        TestFinisher::new(Box::new(|_| ())),
        Options { self_contained: true, ..Options::default() }
    );

    #[test]
    fn each_command_is_reported_once() {
        let (tx, rx) = mpsc::channel();
        let mut finisher = TestFinisher::new(Box::new(move |event| tx.send(event).unwrap()));
        for (offset, size, value) in [
            (0, 4, 0x5555),
            (0, 4, 0x002a_3333),
            (0, 2, 0x7777),
            (0, 4, 0x0000_1234),
            (4, 4, 0x5555),
            (0, 1, 0x55),
        ] {
            Device::write(&mut finisher, 0, offset, size, value);
        }
        let events: Vec<_> = rx.try_iter().collect();
        assert_eq!(events, [PowerEvent::Off, PowerEvent::Fail(42), PowerEvent::Reset]);
    }

    #[test]
    fn the_power_nodes_write_the_commands() {
        let [poweroff, reboot] = TestFinisher::power_nodes();
        assert!(poweroff.properties.contains(&("value".into(), FwValue::Cells(vec![0x5555]))));
        assert!(reboot.properties.contains(&("value".into(), FwValue::Cells(vec![0x7777]))));
        assert!(reboot.properties.contains(&("regmap".into(), FwValue::Phandle("finisher".into()))));
    }
}
