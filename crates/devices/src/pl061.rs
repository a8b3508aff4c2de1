//! PL061 general-purpose I/O (PrimeCell General Purpose Input/Output (PL061) Technical Reference Manual, DDI 0190B,
//! chapter 3): eight lines. On the `virt` board the power button is one of them.

use crate::amba::identification;
use isomer_core::{Device, FwNode, FwValue, IrqLine, IrqSink, Placement, StateError, Timers, clock::Timer};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use crate::amba::WINDOW_LEN;

/// Part 0x061, designer Arm.
const ID: u32 = 0x0004_1061;

/// Register offsets in bytes.
mod reg {
    /// 256 of them: address bits 9:2 say which lines an access means.
    pub(super) const DATA_END: u64 = 0x400;
    pub(super) const DIR: u64 = 0x400;
    pub(super) const IS: u64 = 0x404;
    pub(super) const IBE: u64 = 0x408;
    pub(super) const IEV: u64 = 0x40c;
    pub(super) const IE: u64 = 0x410;
    pub(super) const RIS: u64 = 0x414;
    pub(super) const MIS: u64 = 0x418;
    pub(super) const IC: u64 = 0x41c;
    pub(super) const AFSEL: u64 = 0x420;
}

/// The registers, as a snapshot keeps them; a bit a line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pl061State {
    /// What the outside drives.
    inputs: u8,
    /// What the guest drives, on outputs.
    outputs: u8,
    direction: u8,
    level_sensitive: u8,
    both_edges: u8,
    /// Rising edges or high levels, rather than falling and low.
    rising: u8,
    enabled: u8,
    /// Edges seen.
    latched: u8,
    alternate: u8,
}

impl Pl061State {
    /// The levels of all lines.
    fn data(&self) -> u8 {
        self.outputs & self.direction | self.inputs & !self.direction
    }

    fn raw(&self) -> u8 {
        let wanted = !(self.data() ^ self.rising);
        self.latched & !self.level_sensitive | wanted & self.level_sensitive
    }

    /// Notes the edges that came with a change of levels from `before`.
    fn note_edges(&mut self, before: u8) {
        let (now, changed) = (self.data(), before ^ self.data());
        let wanted = self.both_edges | !(now ^ self.rising);
        self.latched |= changed & wanted & !self.level_sensitive & !self.direction;
    }
}

struct Core {
    state: Pl061State,
    irq: IrqLine,
    /// What `irq` was last set to; `None` after reset and restore.
    driven: Option<bool>,
}

impl Core {
    fn update(&mut self) {
        let level = self.state.raw() & self.state.enabled != 0;
        if self.driven.replace(level) != Some(level) {
            self.irq.set(level);
        }
    }

    fn read(&self, offset: u64) -> u32 {
        let state = &self.state;
        let value = match offset {
            0..reg::DATA_END => state.data() & (offset >> 2) as u8,
            reg::DIR => state.direction,
            reg::IS => state.level_sensitive,
            reg::IBE => state.both_edges,
            reg::IEV => state.rising,
            reg::IE => state.enabled,
            reg::RIS => state.raw(),
            reg::MIS => state.raw() & state.enabled,
            reg::AFSEL => state.alternate,
            _ => return identification(offset, ID).unwrap_or(0),
        };
        value.into()
    }

    fn write(&mut self, offset: u64, value: u8) {
        let before = self.state.data();
        let state = &mut self.state;
        match offset {
            0..reg::DATA_END => {
                let lines = (offset >> 2) as u8;
                state.outputs = state.outputs & !lines | value & lines;
            }
            reg::DIR => state.direction = value,
            reg::IS => state.level_sensitive = value,
            reg::IBE => state.both_edges = value,
            reg::IEV => state.rising = value,
            reg::IE => state.enabled = value,
            reg::IC => state.latched &= !value,
            reg::AFSEL => state.alternate = value,
            _ => return,
        }
        state.note_edges(before);
        self.update();
    }
}

/// The lines, as the outside drives them.
struct Lines(Mutex<Core>);

impl Lines {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IrqSink for Lines {
    fn set_level(&self, line: u32, level: bool) {
        let Some(bit) = 1u8.checked_shl(line) else { return };
        let mut core = self.core();
        let before = core.state.data();
        core.state.inputs = core.state.inputs & !bit | if level { bit } else { 0 };
        core.state.note_edges(before);
        core.update();
    }
}

/// The I/O port.
pub struct Pl061(Arc<Lines>);

impl fmt::Debug for Pl061 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pl061").field(&self.0.core().state).finish()
    }
}

impl Pl061 {
    /// A port that drives the level-sensitive `irq`. Nothing listens to its outputs.
    pub fn new(irq: IrqLine) -> Self {
        Self(Arc::new(Lines(Mutex::new(Core { state: Pl061State::default(), irq, driven: None }))))
    }

    /// The wire to `line`, 0 to 7.
    pub fn line(&self, line: u32) -> IrqLine {
        IrqLine::new(self.0.clone(), line)
    }
}

/// How long a button is held down, in nanoseconds: long enough for any debouncing.
const PRESS_NS: u64 = 100_000_000;

/// A push button on a line: high while it is held down.
#[derive(Clone, Debug)]
pub struct Button {
    line: IrqLine,
    release: Timer,
    clock: Arc<isomer_core::Clock>,
}

impl Button {
    /// A button on `line`.
    pub fn new(line: IrqLine, timers: &Timers) -> Self {
        let released = line.clone();
        let release = timers.add(move || released.set(false));
        Self { line, release, clock: timers.clock().clone() }
    }

    /// Presses it, and lets it go after a tenth of a second of guest time.
    pub fn press(&self) {
        self.line.set(true);
        self.release.set(Some(self.clock.now_ns().saturating_add(PRESS_NS)));
    }
}

impl Device for Pl061 {
    const NAME: &'static str = "arm,pl061";
    const VERSION: u32 = 1;
    type State = Pl061State;

    /// Registers take aligned accesses of up to 4 bytes; only the lowest byte means anything.
    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        if region == 0 && size <= 4 && offset.is_multiple_of(4) {
            self.0.core().read(offset).into()
        } else {
            0
        }
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        if region == 0 && size <= 4 && offset.is_multiple_of(4) {
            self.0.core().write(offset, value as u8);
        }
    }

    /// Inputs count as low: whoever drives them does so anew.
    fn reset(&mut self) {
        let mut core = self.0.core();
        (core.state, core.driven) = (Pl061State::default(), None);
        core.update();
    }

    fn save(&self) -> Pl061State {
        self.0.core().state.clone()
    }

    fn restore(&mut self, state: Pl061State) -> Result<(), StateError> {
        let mut core = self.0.core();
        (core.state, core.driven) = (state, None);
        core.update();
        Ok(())
    }

    /// The board labels its fixed clock "apb-pclk".
    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let node = FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("pl061", &["arm,pl061", "arm,primecell"])
        };
        Some(
            node.with("#gpio-cells", FwValue::Cells(vec![2]))
                .with("gpio-controller", FwValue::Flag)
                .with("clocks", FwValue::Phandle("apb-pclk".into()))
                .with("clock-names", FwValue::Strings(vec!["apb_pclk".into()])),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Options;
    use isomer_core::{Clock, VcpuSignal};
    use std::time::{Duration, Instant};

    struct Rig {
        port: Pl061,
        irq: Arc<VcpuSignal>,
    }

    impl Rig {
        fn new() -> Self {
            let irq = Arc::new(VcpuSignal::default());
            Self { port: Pl061::new(IrqLine::new(irq.clone(), 0)), irq }
        }
        fn get(&mut self, offset: u64) -> u64 {
            Device::read(&mut self.port, 0, offset, 4)
        }
        fn set(&mut self, offset: u64, value: u64) {
            Device::write(&mut self.port, 0, offset, 4, value);
        }
        fn irq(&self) -> bool {
            self.irq.lines() != 0
        }
    }

    device_conformance!(
        conformance,
        Rig::new().port,
        Options { windows: &[WINDOW_LEN], self_contained: true, ..Options::default() }
    );

    #[test]
    fn the_address_selects_lines() {
        let mut rig = Rig::new();
        rig.set(reg::DIR, 0x0f);
        rig.set(0x3fc, 0xff);
        rig.set(0x05 << 2, 0x00);
        rig.port.line(7).set(true);
        rig.port.line(0).set(true); // an output
        assert_eq!((rig.get(0x3fc), rig.get(0x88 << 2), rig.get(0xfe0)), (0x8a, 0x88, 0x61));
    }

    #[test]
    fn edges_are_kept_until_cleared() {
        let mut rig = Rig::new();
        rig.set(reg::IE, 0x08);
        rig.set(reg::IEV, 0x08);
        rig.port.line(3).set(true);
        assert!(rig.irq());
        rig.port.line(3).set(false);
        assert_eq!((rig.irq(), rig.get(reg::MIS)), (true, 8));
        rig.set(reg::IC, 8);
        assert!(!rig.irq());
        rig.set(reg::IBE, 8);
        rig.port.line(3).pulse();
        assert!(rig.irq());
    }

    #[test]
    fn levels_are_not() {
        let mut rig = Rig::new();
        rig.set(reg::IS, 0x02);
        rig.set(reg::IE, 0x02);
        assert!(rig.irq(), "a low level was asked for");
        rig.port.line(1).set(true);
        assert!(!rig.irq());
        rig.set(reg::IEV, 0x02);
        rig.set(reg::IC, 0x02);
        assert!(rig.irq());
    }

    #[test]
    fn a_button_is_let_go() {
        let mut rig = Rig::new();
        let timers = Timers::new(Arc::new(Clock::virtual_time(0)));
        let button = Button::new(rig.port.line(3), &timers);
        button.press();
        assert_eq!(rig.get(0x3fc), 8);
        timers.clock().advance_to(PRESS_NS);
        let start = Instant::now();
        while rig.get(0x3fc) != 0 {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
