//! Hart state management extension (SBI 2.0, 9): starting, stopping and suspending harts.
//!
//! A hart is STARTED or STOPPED. Suspension is a wait for an interrupt, after which the hart is STARTED at once; nobody
//! can tell the two apart, so the states in between are never reported.

use super::{Answer, Call, Done, SbiError, boot_state, pmu};
use isomer_core::Gpa;
use isomer_engine::{FirmwareResult, Request};
use isomer_ir::guest::TlbFlush;
use isomer_riscv64::{Cpu, Riscv64, counters};

const STARTED: u64 = 0;
const STOPPED: u64 = 1;
const SUSPEND_RETENTIVE: u32 = 0;
const SUSPEND_NON_RETENTIVE: u32 = 0x8000_0000;

pub(super) fn call(call: &mut Call<'_>) -> Answer {
    match call.function {
        0 => start(call),
        1 => stop(call),
        2 => {
            let hart = call.hart(call.args[0])?;
            Ok(Done::Value(if call.peer(hart).is_powered() { STARTED } else { STOPPED }))
        }
        3 => suspend(call),
        _ => Err(SbiError::NotSupported),
    }
}

fn start(call: &mut Call<'_>) -> Answer {
    let [id, address, opaque, ..] = call.args;
    let hart = call.hart(id)?;
    call.check_start(address)?;
    let peer = call.peer(hart);
    if !peer.claim_power_on() {
        return Err(SbiError::AlreadyAvailable);
    }
    peer.post(Request::PowerOn(Box::new(move |guest: &Riscv64, cpu: &mut Cpu| {
        let insns = cpu.header.insns;
        *cpu = boot_state(guest, id, Gpa(address), opaque);
        // The engine's count of work done goes on.
        cpu.header.insns = insns;
    })));
    Ok(Done::Value(0))
}

/// The hart leaves nothing behind: when it starts again, translation is off.
fn stop(call: &mut Call<'_>) -> Answer {
    translation_off(call);
    call.cpu.mip = 0;
    *call.pmu = pmu::State::default();
    Ok(Done::Gone(FirmwareResult::PowerOff))
}

fn suspend(call: &mut Call<'_>) -> Answer {
    let [kind, address, opaque, ..] = call.args;
    match kind as u32 {
        SUSPEND_RETENTIVE => Ok(Done::Then(FirmwareResult::Wait)),
        SUSPEND_NON_RETENTIVE => {
            call.check_start(address)?;
            translation_off(call);
            let resumed = boot_state(call.guest, call.hart as u64, Gpa(address), opaque);
            let cpu = &mut *call.cpu;
            // What decides when to wake, and what never stops counting, outlives the suspension.
            let before = cpu.clone();
            *cpu = resumed;
            (cpu.mie, cpu.mip, cpu.stimecmp) = (before.mie, before.mip, before.stimecmp);
            counters::carry_over(cpu, &before);
            Ok(Done::Gone(FirmwareResult::Wait))
        }
        // Reserved, or a platform's own of which there are none.
        _ => Err(SbiError::InvalidParam),
    }
}

/// Sets `satp` to 0 and forgets all translations.
fn translation_off(call: &mut Call<'_>) {
    call.cpu.satp = 0;
    call.env.set_address_space(isomer_riscv64::address_space(0));
    call.env.flush_tlb(TlbFlush::default());
}
