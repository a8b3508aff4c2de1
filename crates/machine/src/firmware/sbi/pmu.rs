//! Performance monitoring extension (SBI 2.0, 11): `cycle` (0), `instret` (2), and the hart's programmable counters, all
//! of which can count the two hardware events there are. No firmware counters and no snapshots.

use super::{Answer, Call, Done, SbiError};
use isomer_riscv64::{
    Extensions,
    counters::{self, hpmevent},
};

/// Counter numbers, which are those of the CSRs and of `mcountinhibit`'s bits, are below this; 1 would be `time`,
/// which is none.
const COUNTERS: u64 = counters::LAST as u64 + 1;
const CYCLE: u64 = 0;
const INSTRET: u64 = 2;
const CSR_CYCLE: u64 = 0xc00;
const WIDTH: u64 = 64;

/// A hardware event, and what counts it.
struct Event {
    /// SBI_PMU_HW_...
    index: u64,
    /// In `mhpmevent`.
    selector: u64,
    /// The counter that counts nothing else.
    fixed: u64,
}

const EVENTS: &[Event] = &[
    Event { index: 1, selector: counters::CYCLES, fixed: CYCLE },
    Event { index: 2, selector: counters::INSTRUCTIONS, fixed: INSTRET },
];

const CONFIG_SKIP_MATCH: u64 = 1;
const CONFIG_CLEAR_VALUE: u64 = 1 << 1;
const CONFIG_AUTO_START: u64 = 1 << 2;
/// Hints on filtering, and what they become. Without Sscofpmf, and for the fixed counters, there is nothing to become.
const CONFIG_FILTERS: [(u64, u64); 3] =
    [(1 << 5, hpmevent::UINH), (1 << 6, hpmevent::SINH), (1 << 7, hpmevent::MINH)];
/// The flags that are defined; bits 3 and 4 filter virtual modes, of which there are none.
const CONFIG_DEFINED: u64 = 0xff;
const START_SET_VALUE: u64 = 1;
const START_FROM_SNAPSHOT: u64 = 1 << 1;
const STOP_RESET: u64 = 1;
const STOP_TO_SNAPSHOT: u64 = 1 << 1;

/// What one hart's firmware remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct State {
    /// Counters given out by config_matching and not yet taken back, a bit each.
    configured: u64,
}

pub(super) fn call(call: &mut Call<'_>) -> Answer {
    let [base, mask, flags, ..] = call.args;
    match call.function {
        0 => Ok(Done::Value(COUNTERS)),
        1 => info(base),
        2 => config_matching(call, &set(base, mask)?, flags),
        3 => start(call, &set(base, mask)?, flags),
        4 => stop(call, &set(base, mask)?, flags),
        // No counter is a firmware counter.
        5 | 6 => Err(SbiError::InvalidParam),
        _ => Err(SbiError::NotSupported),
    }
}

fn exists(counter: u64) -> bool {
    matches!(counter, CYCLE | INSTRET) || is_programmable(counter)
}

fn is_programmable(counter: u64) -> bool {
    counter < COUNTERS && counters::is_programmable(counter as usize)
}

/// The counters a base and a mask name.
fn set(base: u64, mask: u64) -> Result<Vec<u64>, SbiError> {
    let named = (0..64).filter(|bit| mask >> bit & 1 != 0).map(|bit| base.checked_add(bit));
    let valid = |counter: Option<u64>| counter.filter(|c| exists(*c)).ok_or(SbiError::InvalidParam);
    let counters = named.map(valid).collect::<Result<Vec<_>, _>>()?;
    if counters.is_empty() { Err(SbiError::InvalidParam) } else { Ok(counters) }
}

fn info(counter: u64) -> Answer {
    if !exists(counter) {
        return Err(SbiError::InvalidParam);
    }
    Ok(Done::Value((CSR_CYCLE + counter) | (WIDTH - 1) << 12))
}

fn config_matching(call: &mut Call<'_>, counters: &[u64], flags: u64) -> Answer {
    if flags & !CONFIG_DEFINED != 0 {
        return Err(SbiError::InvalidParam);
    }
    // Neither event takes data.
    let (index, data) = (call.args[3], call.args[4]);
    let event =
        EVENTS.iter().find(|event| event.index == index && data == 0).ok_or(SbiError::NotSupported)?;
    let counter = if flags & CONFIG_SKIP_MATCH != 0 {
        counters.first().copied().filter(|c| event.can_use(*c))
    } else {
        matching(call, counters, event)
    };
    let counter = counter.ok_or(SbiError::NotSupported)?;
    call.pmu.configured |= 1 << counter;
    if is_programmable(counter) {
        let named = CONFIG_FILTERS.iter().filter(|(flag, _)| flags & flag != 0);
        let fields = named.fold(event.selector, |fields, (_, field)| fields | field);
        call.set_event(counter, fields);
    }
    if flags & CONFIG_CLEAR_VALUE != 0 {
        call.set_value(counter, 0);
    }
    if flags & CONFIG_AUTO_START != 0 {
        call.set_inhibited(counter, false);
    }
    Ok(Done::Value(counter))
}

impl Event {
    fn can_use(&self, counter: u64) -> bool {
        is_programmable(counter) || self.fixed == counter
    }
}

/// A free counter for `event`: with Sscofpmf one that can filter and interrupt, if there is one.
fn matching(call: &Call<'_>, counters: &[u64], event: &Event) -> Option<u64> {
    let able = call.guest.ext.contains(Extensions::SSCOFPMF);
    let free = counters.iter().copied().filter(|c| event.can_use(*c) && call.pmu.configured >> c & 1 == 0);
    free.min_by_key(|c| is_programmable(*c) != able)
}

fn start(call: &mut Call<'_>, counters: &[u64], flags: u64) -> Answer {
    if flags & !(START_SET_VALUE | START_FROM_SNAPSHOT) != 0 {
        return Err(SbiError::InvalidParam);
    }
    if flags & START_FROM_SNAPSHOT != 0 {
        return Err(SbiError::NoSharedMemory);
    }
    if counters.iter().any(|c| is_programmable(*c) && call.pmu.configured >> c & 1 == 0) {
        return Err(SbiError::InvalidParam);
    }
    let value = call.args[3];
    let mut answer = Ok(Done::Value(0));
    for &counter in counters {
        if !call.inhibited(counter) {
            answer = Err(SbiError::AlreadyStarted);
            continue;
        }
        if flags & START_SET_VALUE != 0 {
            call.set_value(counter, value);
        }
        // An overflow is reported once: starting arms the counter again.
        call.set_event(counter, call.event(counter) & !hpmevent::OF);
        call.set_inhibited(counter, false);
    }
    answer
}

fn stop(call: &mut Call<'_>, counters: &[u64], flags: u64) -> Answer {
    if flags & !(STOP_RESET | STOP_TO_SNAPSHOT) != 0 {
        return Err(SbiError::InvalidParam);
    }
    if flags & STOP_TO_SNAPSHOT != 0 {
        return Err(SbiError::NoSharedMemory);
    }
    let mut answer = Ok(Done::Value(0));
    for &counter in counters {
        if call.inhibited(counter) {
            answer = Err(SbiError::AlreadyStopped);
        }
        call.set_inhibited(counter, true);
        if flags & STOP_RESET != 0 {
            call.pmu.configured &= !(1 << counter);
            call.set_event(counter, 0);
        }
    }
    answer
}

/// The calling hart's counters, between its instructions. `counter` exists.
impl Call<'_> {
    fn inhibited(&self, counter: u64) -> bool {
        self.cpu.mcountinhibit >> counter & 1 != 0
    }

    fn set_inhibited(&mut self, counter: u64, inhibit: bool) {
        let (bit, at) = (1 << counter, self.cpu.header.insns);
        let others = self.cpu.mcountinhibit & !bit;
        counters::inhibit(self.guest, self.cpu, others | if inhibit { bit } else { 0 }, at);
    }

    fn set_value(&mut self, counter: u64, value: u64) {
        let at = self.cpu.header.insns;
        counters::write(self.guest, self.cpu, counter as usize, value, at);
    }

    /// The event register; the fixed counters have none, which reads 0 and ignores writes.
    fn event(&self, counter: u64) -> u64 {
        self.cpu.mhpmevent[counter as usize]
    }

    fn set_event(&mut self, counter: u64, fields: u64) {
        let at = self.cpu.header.insns;
        counters::set_event(self.guest, self.cpu, counter as usize, fields, at);
    }
}
