//! Helpers of system instructions: register accesses, exception returns, maintenance.

use crate::helpers::helper_rows;

helper_rows! {
    /// Helpers of system instructions.
    SystemHelper at SYSTEM_BASE;
    Clrex "clrex" Any |cx, _| {
        cx.cpu.header.reserve_host = isomer_ir::state::NO_RESERVATION;
        Ok(0)
    };
    Step "step" Any |cx, _| {
        cx.cpu.stepped = true;
        cx.env.reconsider();
        Ok(0)
    };
}
