//! CPU and system power (PSCI 5.4 to 5.13).

use super::{Answer, Call, Done, Error, value};
use isomer_core::Gpa;
use isomer_devices::test_finisher::PowerEvent;

/// Affinity fields of `MPIDR_EL1`.
const AFFINITY_MASK: u64 = 0xff_00ff_ffff;
const ON: u64 = 0;
const OFF: u64 = 1;
/// Bits of a power state in the original format that mean something: state, kind, level.
const POWER_STATE_MASK: u64 = 0x0301_ffff;
/// Reset types above this are a vendor's own.
const ARCHITECTURAL_RESETS: u64 = 0x8000_0000;

impl Call<'_> {
    /// The CPU that `mpidr` names.
    fn cpu(&self, mpidr: u64) -> Result<usize, Error> {
        let named = |cpu: &usize| self.machine.affinity(*cpu) & AFFINITY_MASK == mpidr;
        (0..self.machine.cpus()).find(named).ok_or(Error::InvalidParameters)
    }

    /// An address a CPU is to start at.
    fn entry(&self, address: u64) -> Result<Gpa, Error> {
        let fits = address.is_multiple_of(4) && self.machine.is_code(Gpa(address));
        if fits { Ok(Gpa(address)) } else { Err(Error::InvalidAddress) }
    }
}

/// CPU_ON(target, entry point, context).
pub(super) fn cpu_on(call: &mut Call<'_>) -> Answer {
    let [mpidr, entry, context] = call.args;
    let cpu = call.cpu(mpidr)?;
    let entry = call.entry(entry)?;
    if call.machine.start(cpu, entry, context) {
        return value(0);
    }
    Err(if call.machine.is_on(cpu) { Error::AlreadyOn } else { Error::OnPending })
}

/// CPU_SUSPEND(power state, entry point, context). A CPU is not powered down for it, which the caller must expect: it
/// wakes and goes on behind the call.
pub(super) fn cpu_suspend(call: &mut Call<'_>) -> Answer {
    let [state, ..] = call.args;
    if state & !POWER_STATE_MASK != 0 || state >> 32 != 0 {
        Err(Error::InvalidParameters)
    } else {
        Ok(Done::Wait)
    }
}

/// AFFINITY_INFO(target, lowest level): a cluster is on if one of its CPUs is.
pub(super) fn affinity_info(call: &mut Call<'_>) -> Answer {
    let [target, level, _] = call.args;
    // Aff3 is apart from the others.
    let ignored = match level {
        0 => 0,
        1 => 0xff,
        2 => 0xffff,
        3 => 0xff_ffff,
        _ => return Err(Error::InvalidParameters),
    };
    let mask = AFFINITY_MASK & !ignored;
    let named = |cpu: &usize| (call.machine.affinity(*cpu) ^ target) & mask == 0;
    let mut members = (0..call.machine.cpus()).filter(named).peekable();
    if target & !AFFINITY_MASK != 0 || members.peek().is_none() {
        return Err(Error::InvalidParameters);
    }
    value(if members.any(|cpu| call.machine.is_on(cpu)) { ON } else { OFF })
}

/// SYSTEM_OFF and SYSTEM_RESET.
pub(super) fn system(call: &mut Call<'_>, event: PowerEvent) -> Answer {
    tracing::debug!(cpu = call.caller, ?event, "PSCI");
    call.machine.power(event);
    Ok(Done::Stop)
}

/// SYSTEM_RESET2(type, cookie): a warm reset is a reset here.
pub(super) fn system_reset2(call: &mut Call<'_>) -> Answer {
    match call.args[0] {
        0 => system(call, PowerEvent::Reset),
        1..ARCHITECTURAL_RESETS => Err(Error::InvalidParameters),
        _ => Err(Error::NotSupported),
    }
}
