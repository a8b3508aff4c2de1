//! Goldfish RTC (Android's goldfish virtual hardware, "RTC" in GOLDFISH-VIRTUAL-HARDWARE.TXT): wall-clock time in
//! nanoseconds since 1970 with one alarm.
//!
//! | Offset | Register (32 bits) |
//! |---|---|
//! | `0x00` | TIME_LOW: reading takes the time, whose upper half TIME_HIGH then shows |
//! | `0x04` | TIME_HIGH |
//! | `0x08` | ALARM_LOW: writing sets the alarm |
//! | `0x0c` | ALARM_HIGH: written first |
//! | `0x10` | IRQ_ENABLED |
//! | `0x14` | CLEAR_ALARM: any write |
//! | `0x18` | ALARM_STATUS: an alarm is set |
//! | `0x1c` | CLEAR_INTERRUPT: any write |

use isomer_core::{Clock, Device, FwNode, IrqLine, Placement, StateError, Timers, clock::Timer};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// Bytes in the register window.
pub const WINDOW_LEN: u64 = 0x1000;

const TIME_LOW: u64 = 0x00;
const TIME_HIGH: u64 = 0x04;
const ALARM_LOW: u64 = 0x08;
const ALARM_HIGH: u64 = 0x0c;
const IRQ_ENABLED: u64 = 0x10;
const CLEAR_ALARM: u64 = 0x14;
const ALARM_STATUS: u64 = 0x18;
const CLEAR_INTERRUPT: u64 = 0x1c;

/// The registers, as a snapshot keeps them; the time as its distance from the machine's clock, which is restored
/// with the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldfishRtcState {
    offset_ns: u64,
    /// What TIME_HIGH shows.
    time_high: u32,
    alarm_ns: u64,
    alarm_set: bool,
    irq_pending: bool,
    irq_enabled: bool,
}

struct Core {
    state: GoldfishRtcState,
    clock: Arc<Clock>,
    irq: IrqLine,
    timer: Option<Timer>,
    /// Between quiesce or restore and resume: no timers run, no alarms ring.
    parked: bool,
}

impl Core {
    fn time_ns(&self) -> u64 {
        self.clock.wall_ns().wrapping_add(self.state.offset_ns)
    }

    fn set_time(&mut self, time_ns: u64) {
        self.state.offset_ns = time_ns.wrapping_sub(self.clock.wall_ns());
    }

    /// Rings an alarm that is due, waits for one that is not, and drives the line.
    fn update(&mut self) {
        let ahead = self.state.alarm_ns.saturating_sub(self.time_ns());
        if self.state.alarm_set && ahead == 0 && !self.parked {
            self.state.alarm_set = false;
            self.state.irq_pending = true;
        }
        if let Some(timer) = &self.timer {
            let waiting = self.state.alarm_set && !self.parked;
            timer.set(waiting.then(|| self.clock.now_ns().saturating_add(ahead)));
        }
        self.irq.set(self.state.irq_pending && self.state.irq_enabled);
    }

    fn read(&mut self, offset: u64) -> u32 {
        match offset {
            TIME_LOW => {
                let time_ns = self.time_ns();
                self.state.time_high = (time_ns >> 32) as u32;
                time_ns as u32
            }
            TIME_HIGH => self.state.time_high,
            ALARM_LOW => self.state.alarm_ns as u32,
            ALARM_HIGH => (self.state.alarm_ns >> 32) as u32,
            IRQ_ENABLED => self.state.irq_enabled.into(),
            ALARM_STATUS => self.state.alarm_set.into(),
            _ => 0,
        }
    }

    fn write(&mut self, offset: u64, value: u32) {
        let (time_ns, state) = (self.time_ns(), &mut self.state);
        match offset {
            TIME_LOW => self.set_time(with_low(time_ns, value)),
            TIME_HIGH => self.set_time(with_high(time_ns, value)),
            ALARM_LOW => {
                state.alarm_ns = with_low(state.alarm_ns, value);
                state.alarm_set = true;
            }
            ALARM_HIGH => state.alarm_ns = with_high(state.alarm_ns, value),
            IRQ_ENABLED => state.irq_enabled = value & 1 != 0,
            CLEAR_ALARM => state.alarm_set = false,
            CLEAR_INTERRUPT => state.irq_pending = false,
            _ => return,
        }
        self.update();
    }
}

fn with_low(whole: u64, low: u32) -> u64 {
    (whole & !0xffff_ffff) | u64::from(low)
}

fn with_high(whole: u64, high: u32) -> u64 {
    (whole & 0xffff_ffff) | (u64::from(high) << 32)
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The real-time clock.
pub struct GoldfishRtc(Arc<Mutex<Core>>);

impl fmt::Debug for GoldfishRtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GoldfishRtc").field(&lock(&self.0).state).finish()
    }
}

impl GoldfishRtc {
    /// A clock that shows the wall time of `timers`' clock and drives the level-sensitive `irq`.
    pub fn new(irq: IrqLine, timers: &Timers) -> Self {
        let state = GoldfishRtcState::default();
        let clock = timers.clock().clone();
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

impl Device for GoldfishRtc {
    const NAME: &'static str = "google,goldfish-rtc";
    const VERSION: u32 = 1;
    type State = GoldfishRtcState;

    /// Registers take aligned accesses of 4 bytes.
    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        if (region, size) == (0, 4) { lock(&self.0).read(offset).into() } else { 0 }
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        if (region, size) == (0, 4) {
            lock(&self.0).write(offset, value as u32);
        }
    }

    /// The time the guest may have set is forgotten: it is the wall clock's again.
    fn reset(&mut self) {
        let mut core = lock(&self.0);
        core.state = GoldfishRtcState::default();
        core.update();
    }

    fn save(&self) -> GoldfishRtcState {
        lock(&self.0).state.clone()
    }

    fn restore(&mut self, state: GoldfishRtcState) -> Result<(), StateError> {
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

    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        Some(FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("rtc", &["google,goldfish-rtc"])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Options;
    use isomer_core::VcpuSignal;
    use std::time::{Duration, Instant};

    const EPOCH_NS: u64 = 1_700_000_000_123_456_789;

    struct Rig {
        rtc: GoldfishRtc,
        irq: Arc<VcpuSignal>,
        timers: Timers,
    }

    impl Rig {
        fn new() -> Self {
            let timers = Timers::new(Arc::new(Clock::virtual_time(EPOCH_NS)));
            let irq = Arc::new(VcpuSignal::default());
            Self { rtc: GoldfishRtc::new(IrqLine::new(irq.clone(), 0), &timers), irq, timers }
        }
        fn get(&mut self, offset: u64) -> u64 {
            Device::read(&mut self.rtc, 0, offset, 4)
        }
        fn set(&mut self, offset: u64, value: u64) {
            Device::write(&mut self.rtc, 0, offset, 4, value & 0xffff_ffff);
        }
        fn time(&mut self) -> u64 {
            self.get(TIME_LOW) | (self.get(TIME_HIGH) << 32)
        }
        fn set_alarm(&mut self, at_ns: u64) {
            self.set(ALARM_HIGH, at_ns >> 32);
            self.set(ALARM_LOW, at_ns);
            self.set(IRQ_ENABLED, 1);
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
    fn the_upper_half_is_latched_with_the_lower() {
        let mut rig = Rig::new();
        assert_eq!(rig.time(), EPOCH_NS);
        let low = rig.get(TIME_LOW);
        rig.timers.clock().advance_to(10_000_000_000); // more than 2^32 ns
        assert_eq!(low | (rig.get(TIME_HIGH) << 32), EPOCH_NS);
        assert_eq!(rig.time(), EPOCH_NS + 10_000_000_000);
    }

    #[test]
    fn the_time_can_be_set() {
        let mut rig = Rig::new();
        let new = 0x1234_5678_9abc_def0;
        rig.set(TIME_HIGH, new >> 32);
        rig.set(TIME_LOW, new);
        assert_eq!(rig.time(), new);
        rig.timers.clock().advance_to(5);
        assert_eq!(rig.time(), new + 5);
        Device::reset(&mut rig.rtc);
        assert_eq!(rig.time(), EPOCH_NS + 5);
    }

    #[test]
    fn an_alarm_rings_and_is_cleared() {
        let mut rig = Rig::new();
        rig.set_alarm(EPOCH_NS + 1000);
        assert_eq!((rig.get(ALARM_STATUS), rig.irq.lines()), (1, 0));
        assert_eq!(rig.get(ALARM_LOW) | (rig.get(ALARM_HIGH) << 32), EPOCH_NS + 1000);
        rig.timers.clock().advance_to(1000);
        rig.wait_for_irq();
        assert_eq!(rig.get(ALARM_STATUS), 0);
        rig.set(IRQ_ENABLED, 0);
        assert_eq!(rig.irq.lines(), 0);
        rig.set(IRQ_ENABLED, 1);
        assert_eq!(rig.irq.lines(), 1);
        rig.set(CLEAR_INTERRUPT, 1);
        assert_eq!(rig.irq.lines(), 0);
    }

    #[test]
    fn an_alarm_in_the_past_rings_at_once_and_a_cleared_one_never() {
        let mut rig = Rig::new();
        rig.set_alarm(5000);
        assert_eq!(rig.irq.lines(), 1);
        rig.set(CLEAR_INTERRUPT, 1);
        rig.set_alarm(EPOCH_NS + 10);
        rig.set(CLEAR_ALARM, 1);
        rig.timers.clock().advance_to(1000);
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!((rig.irq.lines(), rig.get(ALARM_STATUS)), (0, 0));
    }

    #[test]
    fn an_alarm_survives_a_snapshot() {
        let mut rig = Rig::new();
        rig.set_alarm(EPOCH_NS + 1000);
        rig.rtc.quiesce();
        rig.timers.clock().advance_to(2000);
        assert_eq!(rig.get(ALARM_STATUS), 1);
        let mut other = Rig::new();
        Device::restore(&mut other.rtc, Device::save(&rig.rtc)).unwrap();
        other.rtc.resume();
        assert_eq!((other.irq.lines(), other.get(ALARM_STATUS)), (0, 1));
        other.timers.clock().advance_to(2000);
        other.wait_for_irq();
        rig.rtc.resume();
        assert_eq!(rig.irq.lines(), 1);
    }
}
