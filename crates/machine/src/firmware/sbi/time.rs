//! Timer extension (SBI 2.0, 6): the next timer interrupt.

use super::{Answer, Call, Done, SbiError};

pub(super) fn call(call: &mut Call<'_>) -> Answer {
    match call.function {
        0 => set_timer(call),
        _ => Err(SbiError::NotSupported),
    }
}

/// Sets `stimecmp`, which is in charge of STIP ([`super::boot_state`] sets STCE): a time to come clears the pending
/// interrupt.
pub(super) fn set_timer(call: &mut Call<'_>) -> Answer {
    call.cpu.stimecmp = call.args[0];
    call.env.reconsider();
    Ok(Done::Value(0))
}
