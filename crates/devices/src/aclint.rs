//! Core-local interrupts: the SiFive CLINT of the `virt` board, which is MSWI and MTIMER of the RISC-V Advanced
//! Core Local Interruptor Specification 1.0-rc4 (chapters 2 and 3) in one window, and its SSWI (chapter 4).
//!
//! | Offset | Register |
//! |---|---|
//! | `0x4 * h` | `msip` of hart h (32 bits, bit 0) |
//! | `0x4000 + 8h` | `mtimecmp` of hart h (64 bits) |
//! | `0xbff8` | `mtime` (64 bits) |
//!
//! 64-bit registers take aligned accesses of 8 bytes and of 4 bytes to either half.

use isomer_core::{
    Clock, Device, FwNode, FwValue, IrqLine, Placement, StateError, Timers, VcpuSignal,
    clock::{Timer, ns_to_ticks, ticks_to_ns},
    device::FwCell,
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

/// Frequency of `mtime`, in Hz (`timebase-frequency`).
pub const TIMEBASE_HZ: u64 = 10_000_000;
/// Bytes in the CLINT's register window.
pub const CLINT_WINDOW_LEN: u64 = 0x1_0000;
/// Bytes in the SSWI's register window.
pub const SSWI_WINDOW_LEN: u64 = 0x4000;
/// Most harts one CLINT has registers for.
pub const MAX_HARTS: usize = 4095;

const MTIMECMP: u64 = 0x4000;
const MTIME: u64 = 0xbff8;

/// `mip` bit of a supervisor software interrupt.
const SSI: u32 = 1;
/// `mip` bit of a machine software interrupt.
const MSI: u32 = 3;
/// `mip` bit of a machine timer interrupt.
const MTI: u32 = 7;

/// `mtime`: guest time in ticks plus what the guest moved it by. The harts' `time` CSR is to show the same.
#[derive(Debug)]
pub struct Timebase {
    clock: Arc<Clock>,
    offset: AtomicU64,
}

impl Timebase {
    fn new(clock: Arc<Clock>) -> Self {
        Self { clock, offset: AtomicU64::new(0) }
    }

    /// `mtime` now.
    pub fn ticks(&self) -> u64 {
        self.clock_ticks().wrapping_add(self.offset.load(Ordering::Acquire))
    }

    /// Guest time, in nanoseconds, at which `mtime` will be `ticks`; `None` if it has passed or is beyond reach.
    pub fn deadline_ns(&self, ticks: u64) -> Option<u64> {
        let clock_ticks = self.clock_ticks();
        let now = clock_ticks.wrapping_add(self.offset.load(Ordering::Acquire));
        let ahead = ticks.checked_sub(now).filter(|ahead| *ahead > 0)?;
        let deadline_ns = ticks_to_ns(clock_ticks.checked_add(ahead)?, TIMEBASE_HZ);
        Some(deadline_ns).filter(|ns| *ns != u64::MAX)
    }

    fn set(&self, ticks: u64) {
        self.offset.store(ticks.wrapping_sub(self.clock_ticks()), Ordering::Release);
    }

    fn clock_ticks(&self) -> u64 {
        ns_to_ticks(self.clock.now_ns(), TIMEBASE_HZ)
    }
}

/// The registers, as a snapshot keeps them; `mtime` as its distance from the machine's clock, which is
/// restored with the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClintState {
    msip: Vec<bool>,
    mtimecmp: Vec<u64>,
    mtime_offset: u64,
}

struct Core {
    msip: Vec<bool>,
    mtimecmp: Vec<u64>,
    timebase: Arc<Timebase>,
    msi: Vec<IrqLine>,
    mti: Vec<IrqLine>,
    timers: Vec<Timer>,
    /// Between quiesce or restore and resume: no timers run.
    parked: bool,
}

impl Core {
    /// Drives the hart's timer interrupt and sets the host timer for when it will rise.
    fn update_timer(&self, hart: usize) {
        let due = self.timebase.ticks() >= self.mtimecmp[hart];
        self.mti[hart].set(due);
        if let Some(timer) = self.timers.get(hart) {
            let deadline = if due || self.parked { None } else { self.deadline_ns(hart) };
            timer.set(deadline);
        }
    }

    /// The tick may come between `update_timer`'s look and this one: then the timer is due at once.
    fn deadline_ns(&self, hart: usize) -> Option<u64> {
        let passed = self.timebase.ticks() >= self.mtimecmp[hart];
        if passed { Some(0) } else { self.timebase.deadline_ns(self.mtimecmp[hart]) }
    }

    fn update(&self) {
        for hart in 0..self.msip.len() {
            self.msi[hart].set(self.msip[hart]);
            self.update_timer(hart);
        }
    }

    /// The aligned 8 bytes at `offset`.
    fn read(&self, offset: u64) -> u64 {
        let index = (offset / 8) as usize;
        match offset {
            0..MTIMECMP => {
                let msip = |hart: usize| u64::from(self.msip.get(hart).copied().unwrap_or(false));
                msip(2 * index) | (msip(2 * index + 1) << 32)
            }
            MTIME => self.timebase.ticks(),
            MTIMECMP..MTIME => self.mtimecmp.get(index - MTIMECMP as usize / 8).copied().unwrap_or(0),
            _ => 0,
        }
    }

    fn write(&mut self, offset: u64, value: u64) {
        let index = (offset / 8) as usize;
        match offset {
            0..MTIMECMP => {
                for (hart, bits) in [(2 * index, value), (2 * index + 1, value >> 32)] {
                    if let Some(msip) = self.msip.get_mut(hart) {
                        *msip = bits & 1 != 0;
                        self.msi[hart].set(*msip);
                    }
                }
            }
            MTIME => {
                self.timebase.set(value);
                self.update();
            }
            MTIMECMP..MTIME => {
                let hart = index - MTIMECMP as usize / 8;
                if let Some(mtimecmp) = self.mtimecmp.get_mut(hart) {
                    *mtimecmp = value;
                    self.update_timer(hart);
                }
            }
            _ => {}
        }
    }
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

/// MSWI and MTIMER: software and timer interrupts for M-mode of every hart.
pub struct Clint(Arc<Mutex<Core>>);

impl fmt::Debug for Clint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clint").field(&self.save()).finish()
    }
}

impl Clint {
    /// A CLINT for `harts` (at most [`MAX_HARTS`]; the rest have no registers) that raises lines 3 and 7 of each.
    pub fn new(harts: &[Arc<VcpuSignal>], timers: &Timers) -> Self {
        let harts = &harts[..harts.len().min(MAX_HARTS)];
        let lines = |line| harts.iter().map(|hart| IrqLine::new(hart.clone(), line)).collect();
        let core = Arc::new(Mutex::new(Core {
            msip: vec![false; harts.len()],
            mtimecmp: vec![u64::MAX; harts.len()],
            timebase: Arc::new(Timebase::new(timers.clock().clone())),
            msi: lines(MSI),
            mti: lines(MTI),
            timers: Vec::new(),
            parked: false,
        }));
        let expired = |hart: usize| {
            let core: Weak<Mutex<Core>> = Arc::downgrade(&core);
            timers.add(move || {
                if let Some(core) = core.upgrade() {
                    lock(&core).update_timer(hart);
                }
            })
        };
        let hart_timers = (0..harts.len()).map(expired).collect();
        lock(&core).timers = hart_timers;
        Self(core)
    }

    /// `mtime`, for the harts' `time` CSR.
    pub fn timebase(&self) -> Arc<Timebase> {
        lock(&self.0).timebase.clone()
    }
}

impl Device for Clint {
    const NAME: &'static str = "sifive,clint0";
    const VERSION: u32 = 1;
    type State = ClintState;

    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        if region != 0 || size < 4 || !offset.is_multiple_of(size as u64) {
            return 0;
        }
        let value = lock(&self.0).read(offset & !7);
        match size {
            8 => value,
            _ => (value >> (8 * (offset & 4))) & 0xffff_ffff,
        }
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        if region != 0 || size < 4 || !offset.is_multiple_of(size as u64) {
            return;
        }
        let mut core = lock(&self.0);
        let shift = 8 * (offset & 4);
        let whole = match size {
            8 => value,
            _ => (core.read(offset & !7) & !(0xffff_ffff << shift)) | ((value & 0xffff_ffff) << shift),
        };
        core.write(offset & !7, whole);
    }

    /// `mtime` returns to the machine's clock, which the harts' `time` follows, rather than to zero.
    fn reset(&mut self) {
        let mut core = lock(&self.0);
        core.msip.fill(false);
        core.mtimecmp.fill(u64::MAX);
        core.timebase.offset.store(0, Ordering::Release);
        core.update();
    }

    fn save(&self) -> ClintState {
        let core = lock(&self.0);
        ClintState {
            msip: core.msip.clone(),
            mtimecmp: core.mtimecmp.clone(),
            mtime_offset: core.timebase.offset.load(Ordering::Acquire),
        }
    }

    fn restore(&mut self, state: ClintState) -> Result<(), StateError> {
        let mut core = lock(&self.0);
        let harts = core.msip.len();
        if state.msip.len() != harts || state.mtimecmp.len() != harts {
            let why = format!("it has {} harts, this machine {harts}", state.msip.len());
            return Err(StateError::Damaged { device: Self::NAME, why });
        }
        core.msip = state.msip;
        core.mtimecmp = state.mtimecmp;
        core.timebase.offset.store(state.mtime_offset, Ordering::Release);
        core.parked = true;
        core.update();
        Ok(())
    }

    fn quiesce(&mut self) {
        let mut core = lock(&self.0);
        core.parked = true;
        core.timers.iter().for_each(|timer| timer.set(None));
    }

    fn resume(&mut self) {
        let mut core = lock(&self.0);
        core.parked = false;
        core.update();
    }

    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let harts = lock(&self.0).msip.len();
        let node = FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("clint", &["sifive,clint0", "riscv,clint0"])
        };
        Some(node.with("interrupts-extended", outputs(harts, &[MSI, MTI])))
    }
}

/// SSWI: a write of 1 to the 32-bit `setssip` of a hart, at `4 * hart`, sets SSIP in its `mip`.
///
/// SSIP belongs to the hart, whose software clears it: each write is one pulse on line 1, and the sink must latch
/// the rising edge. (A plain [`VcpuSignal`] line shows levels, so a hart that is to have an SSWI needs a sink
/// that records the edge.)
#[derive(Debug)]
pub struct Sswi(Vec<IrqLine>);

impl Sswi {
    /// An SSWI that pulses one wire a hart.
    pub fn new(harts: Vec<IrqLine>) -> Self {
        Self(harts)
    }
}

impl Device for Sswi {
    const NAME: &'static str = "riscv,aclint-sswi";
    const VERSION: u32 = 1;
    type State = ();

    fn read(&mut self, _region: usize, _offset: u64, _size: usize) -> u64 {
        0
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        if region != 0 || size < 4 || !offset.is_multiple_of(size as u64) || offset >= SSWI_WINDOW_LEN {
            return;
        }
        let first = (offset / 4) as usize;
        for (hart, bits) in [(first, value), (first + 1, if size == 8 { value >> 32 } else { 0 })] {
            if let Some(line) = self.0.get(hart).filter(|_| bits & 1 != 0) {
                line.pulse();
            }
        }
    }

    fn reset(&mut self) {}

    fn save(&self) {}

    fn restore(&mut self, _state: ()) -> Result<(), StateError> {
        Ok(())
    }

    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let node = FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("sswi", &["riscv,aclint-sswi"])
        };
        Some(
            node.with("interrupts-extended", outputs(self.0.len(), &[SSI]))
                .with("interrupt-controller", FwValue::Flag)
                .with("#interrupt-cells", FwValue::Cells(vec![0])),
        )
    }
}

/// `interrupts-extended` of a device that drives `lines` of each hart.
fn outputs(harts: usize, lines: &[u32]) -> FwValue {
    let cells = (0..harts).flat_map(|hart| {
        lines.iter().flat_map(move |line| [FwCell::Phandle(format!("cpu{hart}-intc")), FwCell::Cell(*line)])
    });
    FwValue::Mixed(cells.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Options;
    use isomer_core::IrqSink;
    use std::time::{Duration, Instant};

    struct Rig {
        clint: Clint,
        harts: Vec<Arc<VcpuSignal>>,
        timers: Timers,
    }

    impl Rig {
        fn new(harts: usize, clock: Clock) -> Self {
            let timers = Timers::new(Arc::new(clock));
            let harts: Vec<_> = (0..harts).map(|_| Arc::new(VcpuSignal::default())).collect();
            Self { clint: Clint::new(&harts, &timers), harts, timers }
        }
        fn get(&mut self, offset: u64, size: usize) -> u64 {
            Device::read(&mut self.clint, 0, offset, size)
        }
        fn set(&mut self, offset: u64, size: usize, value: u64) {
            Device::write(&mut self.clint, 0, offset, size, value);
        }
        fn wait_for(&self, hart: usize, lines: u64) {
            let start = Instant::now();
            while self.harts[hart].lines() != lines {
                assert!(start.elapsed() < Duration::from_secs(20), "lines {:#x}", self.harts[hart].lines());
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    device_conformance!(
        clint_conformance,
        Rig::new(3, Clock::virtual_time(0)).clint,
        Options { windows: &[CLINT_WINDOW_LEN], self_contained: true, ..Options::default() }
    );
    device_conformance!(
        sswi_conformance,
        Sswi::new(vec![IrqLine::unconnected(); 3]),
        Options { windows: &[SSWI_WINDOW_LEN], self_contained: true, ..Options::default() }
    );

    #[test]
    fn msip_is_the_software_interrupt() {
        let mut rig = Rig::new(3, Clock::virtual_time(0));
        rig.set(4, 4, 0xffff_ffff);
        assert_eq!((rig.get(4, 4), rig.get(0, 8)), (1, 1 << 32));
        assert_eq!(rig.harts[1].lines(), 1 << MSI);
        rig.set(0, 8, 1);
        assert_eq!((rig.harts[0].lines(), rig.harts[1].lines()), (1 << MSI, 0));
        rig.set(12, 4, 1); // no such hart
        assert_eq!(rig.get(12, 4), 0);
    }

    #[test]
    fn mtime_follows_the_clock_and_can_be_set() {
        let mut rig = Rig::new(1, Clock::virtual_time(0));
        rig.timers.clock().advance_to(1_000_000_050);
        assert_eq!(rig.get(MTIME, 8), 10_000_000);
        rig.set(MTIME + 4, 4, 5);
        assert_eq!((rig.get(MTIME + 4, 4), rig.get(MTIME, 4)), (5, 10_000_000));
        rig.set(MTIME, 8, 7);
        assert_eq!(rig.clint.timebase().ticks(), 7);
        rig.timers.clock().advance_to(1_000_001_050);
        assert_eq!(rig.get(MTIME, 8), 17);
    }

    #[test]
    fn mti_is_a_level_comparison() {
        let mut rig = Rig::new(2, Clock::virtual_time(0));
        assert_eq!(rig.harts[1].lines(), 0);
        rig.set(MTIMECMP + 8, 8, 100);
        assert_eq!((rig.get(MTIMECMP + 8, 8), rig.harts[1].lines()), (100, 0));
        rig.timers.clock().advance_to(10_000);
        rig.wait_for(1, 1 << MTI);
        rig.set(MTIMECMP + 8, 4, 101);
        assert_eq!(rig.harts[1].lines(), 0);
        rig.set(MTIME, 8, 200);
        assert_eq!(rig.harts[1].lines(), 1 << MTI);
        rig.set(MTIMECMP + 12, 4, 0xffff_ffff);
        assert_eq!(rig.harts[1].lines(), 0);
        rig.set(MTIMECMP, 8, 0);
        assert_eq!(rig.harts[0].lines(), 1 << MTI);
        Device::reset(&mut rig.clint);
        assert_eq!(rig.harts[0].lines(), 0);
    }

    #[test]
    fn the_timer_fires_on_the_host_clock() {
        let mut rig = Rig::new(1, Clock::host());
        let now = rig.get(MTIME, 8);
        rig.set(MTIMECMP, 8, now + TIMEBASE_HZ / 100);
        rig.wait_for(0, 1 << MTI);
        assert!(rig.get(MTIME, 8) >= now + TIMEBASE_HZ / 100);
    }

    #[test]
    fn timers_rest_between_quiesce_and_resume() {
        let mut rig = Rig::new(1, Clock::virtual_time(0));
        rig.set(MTIMECMP, 8, 1000);
        rig.clint.quiesce();
        rig.timers.clock().advance_to(1_000_000);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(rig.harts[0].lines(), 0);
        let state = Device::save(&rig.clint);
        rig.clint.resume();
        assert_eq!(rig.harts[0].lines(), 1 << MTI);
        let mut other = Rig::new(1, Clock::virtual_time(0));
        Device::restore(&mut other.clint, state.clone()).unwrap();
        other.clint.resume();
        assert_eq!(other.harts[0].lines(), 0);
        other.timers.clock().advance_to(100_000);
        other.wait_for(0, 1 << MTI);
        assert!(Device::restore(&mut Rig::new(2, Clock::virtual_time(0)).clint, state).is_err());
    }

    #[test]
    fn far_deadlines_never_come() {
        let timebase = Timebase::new(Arc::new(Clock::virtual_time(0)));
        assert_eq!(timebase.deadline_ns(u64::MAX), None);
        assert_eq!(timebase.deadline_ns(0), None);
        assert_eq!(timebase.deadline_ns(3), Some(300));
        timebase.set(u64::MAX - 1);
        assert_eq!(timebase.deadline_ns(u64::MAX), Some(100));
    }

    #[test]
    fn setssip_pulses_one_hart() {
        #[derive(Default)]
        struct Edges(Mutex<Vec<(u32, bool)>>);
        impl IrqSink for Edges {
            fn set_level(&self, line: u32, level: bool) {
                self.0.lock().unwrap().push((line, level));
            }
        }
        let edges = Arc::new(Edges::default());
        let mut sswi = Sswi::new((0..4).map(|hart| IrqLine::new(edges.clone(), hart)).collect());
        Device::write(&mut sswi, 0, 8, 4, 1);
        Device::write(&mut sswi, 0, 8, 4, 2);
        Device::write(&mut sswi, 0, 0, 8, 1 << 32);
        Device::write(&mut sswi, 0, 16, 4, 1);
        assert_eq!(*edges.0.lock().unwrap(), [(2, true), (2, false), (1, true), (1, false)]);
        assert_eq!(Device::read(&mut sswi, 0, 8, 4), 0);
    }

    #[test]
    fn the_firmware_nodes_name_both_interrupts_of_each_hart() {
        let node = Rig::new(2, Clock::virtual_time(0)).clint.fw_node(&Placement::default()).unwrap();
        let FwValue::Mixed(cells) = &node.properties[1].1 else { panic!("not mixed") };
        let line = |i: usize| cells[i].clone();
        assert_eq!([line(1), line(3), line(7)], [3, 7, 7].map(FwCell::Cell));
        assert_eq!(line(4), FwCell::Phandle("cpu1-intc".into()));
    }
}
