//! PL031 real-time clock (PrimeCell Real Time Clock (PL031) Technical Reference Manual, DDI 0224C, chapter 3): seconds
//! since 1970, and an interrupt when they match.

use crate::{amba::identification, gic::lines::words};
use isomer_core::{Clock, Device, FwNode, FwValue, IrqLine, Placement, StateError, Timers, clock::Timer};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

pub use crate::amba::WINDOW_LEN;

/// Part 0x031, designer Arm.
const ID: u32 = 0x0004_1031;
const NS: u64 = 1_000_000_000;

/// Register offsets in bytes.
mod reg {
    pub(super) const DR: u64 = 0x00;
    pub(super) const MR: u64 = 0x04;
    pub(super) const LR: u64 = 0x08;
    pub(super) const CR: u64 = 0x0c;
    pub(super) const IMSC: u64 = 0x10;
    pub(super) const RIS: u64 = 0x14;
    pub(super) const MIS: u64 = 0x18;
    pub(super) const ICR: u64 = 0x1c;
}

/// The registers, as a snapshot keeps them; the time as its distance from the machine's clock, which is restored with
/// the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pl031State {
    offset_s: u32,
    matched: u32,
    loaded: u32,
    enabled: bool,
    pending: bool,
    /// When the time matches next, in seconds since 1970 of the machine's clock.
    alarm_s: Option<u64>,
}

struct Core {
    state: Pl031State,
    clock: Arc<Clock>,
    irq: IrqLine,
    timer: Option<Timer>,
    /// Between quiesce or restore and resume: no timers run, no alarms ring.
    parked: bool,
}

impl Core {
    fn wall_s(&self) -> u64 {
        self.clock.wall_ns() / NS
    }

    fn time_s(&self) -> u32 {
        (self.wall_s() as u32).wrapping_add(self.state.offset_s)
    }

    /// The time or the match register changed: works out when they are equal.
    fn set_alarm(&mut self) {
        let ahead = self.state.matched.wrapping_sub(self.time_s());
        self.state.alarm_s = Some(self.wall_s().saturating_add(ahead.into()));
    }

    /// Rings an alarm that is due, waits for one that is not, and drives the line.
    fn update(&mut self) {
        if let Some(alarm_s) = self.state.alarm_s.filter(|at| *at <= self.wall_s() && !self.parked) {
            self.state.pending = true;
            // The counter wraps and matches again.
            self.state.alarm_s = alarm_s.checked_add(1 << 32);
        }
        if let Some(timer) = &self.timer {
            let waiting = self.state.alarm_s.filter(|_| !self.parked);
            let wall_ns = self.clock.wall_ns();
            timer.set(waiting.map(|at| {
                let ahead = at.saturating_mul(NS).saturating_sub(wall_ns);
                self.clock.now_ns().saturating_add(ahead)
            }));
        }
        self.irq.set(self.state.pending && self.state.enabled);
    }

    fn read(&self, offset: u64) -> u32 {
        let state = &self.state;
        match offset {
            reg::DR => self.time_s(),
            reg::MR => state.matched,
            reg::LR => state.loaded,
            // The counter runs, and only a reset could stop it.
            reg::CR => 1,
            reg::IMSC => state.enabled.into(),
            reg::RIS => state.pending.into(),
            reg::MIS => (state.pending && state.enabled).into(),
            _ => identification(offset, ID).unwrap_or(0),
        }
    }

    fn write(&mut self, offset: u64, value: u32) {
        match offset {
            reg::MR => {
                self.state.matched = value;
                self.set_alarm();
            }
            reg::LR => {
                self.state.loaded = value;
                self.state.offset_s = value.wrapping_sub(self.wall_s() as u32);
                self.set_alarm();
            }
            reg::IMSC => self.state.enabled = value & 1 != 0,
            reg::ICR => self.state.pending &= value & 1 == 0,
            _ => return,
        }
        self.update();
    }
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The real-time clock.
pub struct Pl031(Arc<Mutex<Core>>);

impl fmt::Debug for Pl031 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pl031").field(&lock(&self.0).state).finish()
    }
}

impl Pl031 {
    /// A clock that shows the wall time of `timers`' clock and drives the level-sensitive `irq`.
    pub fn new(irq: IrqLine, timers: &Timers) -> Self {
        let (state, clock) = (Pl031State::default(), timers.clock().clone());
        let core = Arc::new(Mutex::new(Core { state, clock, irq, timer: None, parked: false }));
        let weak: Weak<Mutex<Core>> = Arc::downgrade(&core);
        let timer = timers.add(move || {
            if let Some(core) = weak.upgrade() {
                lock(&core).update();
            }
        });
        lock(&core).timer = Some(timer);
        Self(core)
    }
}

impl Device for Pl031 {
    const NAME: &'static str = "arm,pl031";
    const VERSION: u32 = 1;
    type State = Pl031State;

    /// Registers take aligned accesses of 4 bytes; smaller ones, by which firmware looks at the identification, read a
    /// part.
    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        let Some((at, mask, shift)) = words(offset, size).next().filter(|_| region == 0) else { return 0 };
        u64::from((lock(&self.0).read(at) & mask) >> shift)
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        if (region, size) == (0, 4) {
            lock(&self.0).write(offset, value as u32);
        }
    }

    /// The time the guest may have set is forgotten: it is the wall clock's again.
    fn reset(&mut self) {
        let mut core = lock(&self.0);
        core.state = Pl031State::default();
        core.update();
    }

    fn save(&self) -> Pl031State {
        lock(&self.0).state.clone()
    }

    fn restore(&mut self, state: Pl031State) -> Result<(), StateError> {
        let mut core = lock(&self.0);
        core.state = state;
        core.parked = true;
        core.update();
        Ok(())
    }

    fn quiesce(&mut self) {
        let mut core = lock(&self.0);
        core.parked = true;
        core.update();
    }

    fn resume(&mut self) {
        let mut core = lock(&self.0);
        core.parked = false;
        core.update();
    }

    /// The board labels its fixed clock "apb-pclk".
    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let node = FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("pl031", &["arm,pl031", "arm,primecell"])
        };
        Some(
            node.with("clocks", FwValue::Phandle("apb-pclk".into()))
                .with("clock-names", FwValue::Strings(vec!["apb_pclk".into()])),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Options;
    use isomer_core::VcpuSignal;
    use std::time::{Duration, Instant};

    const EPOCH_S: u64 = 1_700_000_000;

    struct Rig {
        rtc: Pl031,
        irq: Arc<VcpuSignal>,
        timers: Timers,
    }

    impl Rig {
        fn new() -> Self {
            let timers = Timers::new(Arc::new(Clock::virtual_time(EPOCH_S * NS + 123)));
            let irq = Arc::new(VcpuSignal::default());
            Self { rtc: Pl031::new(IrqLine::new(irq.clone(), 0), &timers), irq, timers }
        }
        fn get(&mut self, offset: u64) -> u64 {
            Device::read(&mut self.rtc, 0, offset, 4)
        }
        fn set(&mut self, offset: u64, value: u64) {
            Device::write(&mut self.rtc, 0, offset, 4, value);
        }
        fn wait_for_irq(&self) {
            let start = Instant::now();
            while self.irq.lines() == 0 {
                assert!(start.elapsed() < Duration::from_secs(20));
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    device_conformance!(
        conformance,
        Rig::new().rtc,
        Options { windows: &[WINDOW_LEN], self_contained: true, ..Options::default() }
    );

    #[test]
    fn it_shows_and_takes_the_time() {
        let mut rig = Rig::new();
        assert_eq!((rig.get(reg::DR), rig.get(0xfe0), rig.get(reg::CR)), (EPOCH_S, 0x31, 1));
        assert_eq!(Device::read(&mut rig.rtc, 0, 0xff0, 1), 0x0d, "a byte, as EDK2 reads it");
        rig.timers.clock().advance_to(2 * NS);
        assert_eq!(rig.get(reg::DR), EPOCH_S + 2);
        rig.set(reg::LR, 5);
        rig.timers.clock().advance_to(3 * NS);
        assert_eq!((rig.get(reg::DR), rig.get(reg::LR)), (6, 5));
        Device::reset(&mut rig.rtc);
        assert_eq!(rig.get(reg::DR), EPOCH_S + 3);
    }

    #[test]
    fn a_match_interrupts_until_cleared() {
        let mut rig = Rig::new();
        rig.set(reg::IMSC, 1);
        rig.set(reg::MR, EPOCH_S + 10);
        assert_eq!((rig.irq.lines(), rig.get(reg::RIS)), (0, 0));
        rig.timers.clock().advance_to(10 * NS);
        rig.wait_for_irq();
        assert_eq!((rig.get(reg::RIS), rig.get(reg::MIS)), (1, 1));
        rig.set(reg::IMSC, 0);
        assert_eq!((rig.irq.lines(), rig.get(reg::RIS), rig.get(reg::MIS)), (0, 1, 0));
        rig.set(reg::ICR, 1);
        rig.set(reg::IMSC, 1);
        assert_eq!(rig.irq.lines(), 0);
        rig.set(reg::MR, EPOCH_S + 10);
        assert_eq!(rig.irq.lines(), 1, "the time that it is matches at once");
    }

    #[test]
    fn an_alarm_survives_a_snapshot() {
        let mut rig = Rig::new();
        rig.set(reg::IMSC, 1);
        rig.set(reg::MR, EPOCH_S + 1);
        rig.rtc.quiesce();
        rig.timers.clock().advance_to(2 * NS);
        assert_eq!(rig.get(reg::RIS), 0);
        let mut other = Rig::new();
        Device::restore(&mut other.rtc, Device::save(&rig.rtc)).unwrap();
        other.rtc.resume();
        assert_eq!(other.irq.lines(), 0);
        other.timers.clock().advance_to(2 * NS);
        other.wait_for_irq();
        rig.rtc.resume();
        assert_eq!(rig.irq.lines(), 1);
    }
}
