//! Helpers of integer instructions: pointer authentication, checksums, landing checks.

use crate::{crc, helpers::helper_rows, landing, pauth};

helper_rows! {
    /// Helpers of integer instructions.
    IntegerHelper at INTEGER_BASE;
    Crc32 "crc32" Pure |_, [sum, data, bytes, _]| Ok(crc::crc32(sum, data, bytes));
    Crc32c "crc32c" Pure |_, [sum, data, bytes, _]| Ok(crc::crc32c(sum, data, bytes));
    PacAdd "pac_add" ReadsState |cx, args| Ok(pauth::add(cx, args));
    PacCheck "pac_check" ReadsState |cx, args| pauth::check(cx, args);
    PacCheckTrap "pac_check_trap" Any |cx, args| pauth::check(cx, args);
    PacStrip "pac_strip" ReadsState |cx, args| Ok(pauth::strip(cx, args));
    PacGeneric "pac_generic" ReadsState |cx, args| Ok(pauth::generic(cx, args));
    CheckLanding "check_landing" Any landing::check;
}
