//! Base extension (SBI 2.0, 4): versions, and which extensions there are.

use super::{Answer, Call, Done, EXTENSIONS, SbiError};

/// SBI 2.0.
const SPEC_VERSION: u64 = 2 << 24;
/// "ISOM". The specification has assigned 0 to 11 so far; this number is our own choice and far from them.
pub(super) const IMPLEMENTATION_ID: u64 = 0x4953_4f4d;
/// The crate's version: major, minor and patch level, 8 bits each.
const IMPLEMENTATION_VERSION: u64 = number(env!("CARGO_PKG_VERSION_MAJOR")) << 16
    | number(env!("CARGO_PKG_VERSION_MINOR")) << 8
    | number(env!("CARGO_PKG_VERSION_PATCH"));

const fn number(text: &str) -> u64 {
    let (digits, mut value, mut at) = (text.as_bytes(), 0, 0);
    while at < digits.len() {
        value = value * 10 + (digits[at] - b'0') as u64;
        at += 1;
    }
    value
}

pub(super) fn call(call: &mut Call<'_>) -> Answer {
    let probed = || EXTENSIONS.iter().any(|extension| extension.id == call.args[0]);
    let value = match call.function {
        0 => SPEC_VERSION,
        1 => IMPLEMENTATION_ID,
        2 => IMPLEMENTATION_VERSION,
        3 => probed().into(),
        // mvendorid, marchid, mimpid: as the CSRs read.
        4..=6 => 0,
        _ => return Err(SbiError::NotSupported),
    };
    Ok(Done::Value(value))
}
