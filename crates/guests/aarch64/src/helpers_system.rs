//! Helpers of system instructions; [`crate::privileged`] has their code.

use crate::{helpers::helper_rows, privileged};

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
    Mrs "mrs" Any privileged::mrs;
    Msr "msr" Any privileged::msr;
    MsrImmediate "msr_imm" Any privileged::msr_immediate;
    WriteDaif "write_daif" Any privileged::write_daif;
    Sys "sys" Any privileged::sys;
    Eret "eret" Any privileged::eret;
    Elr "elr" Any privileged::elr;
    Wfi "wfi" Any privileged::wfi;
    Wfe "wfe" Any privileged::wfe;
    Event "event" Any privileged::event;
    Isb "isb" Any privileged::isb;
    Dsb "dsb" Any privileged::dsb;
}
