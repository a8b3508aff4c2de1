//! System reset extension (SBI 2.0, 10): power off and reboot.

use super::{Answer, Call, Done, SbiError};
use isomer_devices::test_finisher::PowerEvent;
use isomer_engine::FirmwareResult;

const SHUTDOWN: u32 = 0;
const COLD_REBOOT: u32 = 1;
const WARM_REBOOT: u32 = 2;
const NO_REASON: u32 = 0;
const SYSTEM_FAILURE: u32 = 1;

/// The exit code of a shutdown because of a system failure.
const FAILURE_CODE: u16 = 1;

pub(super) fn call(call: &mut Call<'_>) -> Answer {
    if call.function != 0 {
        return Err(SbiError::NotSupported);
    }
    let (kind, reason) = (call.args[0] as u32, call.args[1] as u32);
    let event = match (kind, reason) {
        (SHUTDOWN, NO_REASON) => PowerEvent::Off,
        (SHUTDOWN, SYSTEM_FAILURE) => PowerEvent::Fail(FAILURE_CODE),
        (COLD_REBOOT | WARM_REBOOT, NO_REASON | SYSTEM_FAILURE) => PowerEvent::Reset,
        _ => return Err(SbiError::InvalidParam),
    };
    Ok(power(call, event))
}

/// Asks the machine; the caller does not return.
pub(super) fn power(call: &Call<'_>, event: PowerEvent) -> Done {
    (call.shared.on_power)(event);
    Done::Then(FirmwareResult::Stop)
}
