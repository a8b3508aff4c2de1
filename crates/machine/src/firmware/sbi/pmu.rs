//! Performance monitoring extension (SBI 2.0, 11), for the two counters there are: `cycle` (0) and `instret` (2), each
//! counting the one event it is named for. There are no firmware counters, no event filters and no snapshots.

use super::{Answer, Call, Done, SbiError};

/// Counter numbers are below this; 1 would be `time`, which is none.
const COUNTERS: u64 = 3;
const CYCLE: u64 = 0;
const INSTRET: u64 = 2;
const CSR_CYCLE: u64 = 0xc00;
const WIDTH: u64 = 64;

const EVENT_CPU_CYCLES: u64 = 1;
const EVENT_INSTRUCTIONS: u64 = 2;

const CONFIG_SKIP_MATCH: u64 = 1;
const CONFIG_CLEAR_VALUE: u64 = 1 << 1;
const CONFIG_AUTO_START: u64 = 1 << 2;
/// The flags that are defined; the others are hints on filtering, which may be ignored.
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
    matches!(counter, CYCLE | INSTRET)
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
    let (event, data) = (call.args[3], call.args[4]);
    let wanted = match (event, data) {
        (EVENT_CPU_CYCLES, 0) => Some(CYCLE),
        (EVENT_INSTRUCTIONS, 0) => Some(INSTRET),
        _ => None,
    };
    let counter = if flags & CONFIG_SKIP_MATCH != 0 {
        counters.first().copied()
    } else {
        let free = |c: &&u64| Some(**c) == wanted && call.pmu.configured >> **c & 1 == 0;
        counters.iter().find(free).copied()
    };
    let counter = counter.ok_or(SbiError::NotSupported)?;
    call.pmu.configured |= 1 << counter;
    if flags & CONFIG_CLEAR_VALUE != 0 {
        set_value(call, counter, 0);
    }
    if flags & CONFIG_AUTO_START != 0 {
        set_inhibited(call, counter, false);
    }
    Ok(Done::Value(counter))
}

fn start(call: &mut Call<'_>, counters: &[u64], flags: u64) -> Answer {
    if flags & !(START_SET_VALUE | START_FROM_SNAPSHOT) != 0 {
        return Err(SbiError::InvalidParam);
    }
    if flags & START_FROM_SNAPSHOT != 0 {
        return Err(SbiError::NoSharedMemory);
    }
    let value = call.args[3];
    let mut answer = Ok(Done::Value(0));
    for &counter in counters {
        if !inhibited(call, counter) {
            answer = Err(SbiError::AlreadyStarted);
            continue;
        }
        if flags & START_SET_VALUE != 0 {
            set_value(call, counter, value);
        }
        set_inhibited(call, counter, false);
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
        if inhibited(call, counter) {
            answer = Err(SbiError::AlreadyStopped);
        }
        set_inhibited(call, counter, true);
        if flags & STOP_RESET != 0 {
            call.pmu.configured &= !(1 << counter);
        }
    }
    answer
}

/// `mcountinhibit` has the counters' own bit numbers.
fn inhibited(call: &Call<'_>, counter: u64) -> bool {
    call.cpu.mcountinhibit >> counter & 1 != 0
}

/// The stored difference to the retired instructions (or, while inhibited, the value): see [`isomer_riscv64::Cpu`].
fn field<'a>(call: &'a mut Call<'_>, counter: u64) -> &'a mut u64 {
    if counter == CYCLE { &mut call.cpu.mcycle } else { &mut call.cpu.minstret }
}

fn set_value(call: &mut Call<'_>, counter: u64, value: u64) {
    let insns = if inhibited(call, counter) { 0 } else { call.cpu.header.insns };
    *field(call, counter) = value.wrapping_sub(insns);
}

fn set_inhibited(call: &mut Call<'_>, counter: u64, inhibit: bool) {
    if inhibited(call, counter) == inhibit {
        return;
    }
    let insns = call.cpu.header.insns;
    let field = field(call, counter);
    *field = if inhibit { field.wrapping_add(insns) } else { field.wrapping_sub(insns) };
    call.cpu.mcountinhibit ^= 1 << counter;
}
