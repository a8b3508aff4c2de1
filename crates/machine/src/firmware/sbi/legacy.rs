//! Legacy extensions (SBI 2.0, 5): one call each, hart masks by reference in the caller's own address space.

use super::{Answer, Call, Done, SbiError, ipi, rfence, srst};
use isomer_core::Gva;
use isomer_devices::test_finisher::PowerEvent;
use isomer_engine::FirmwareResult;
use isomer_ir::Guest;
use isomer_riscv64::{Trap, trap::irq};

pub(super) fn console_putchar(call: &mut Call<'_>) -> Answer {
    call.shared.console.write(&[call.args[0] as u8]);
    Ok(Done::Value(0))
}

/// A byte, or -1 if there is none.
pub(super) fn console_getchar(call: &mut Call<'_>) -> Answer {
    let byte = call.shared.console.read(1).first().copied();
    byte.map(|byte| Done::Value(byte.into())).ok_or(SbiError::Failed)
}

/// Tells whether one was pending.
pub(super) fn clear_ipi(call: &mut Call<'_>) -> Answer {
    let pending = call.cpu.mip & irq::SSI != 0;
    call.cpu.mip &= !irq::SSI;
    call.env.reconsider();
    Ok(Done::Value(pending.into()))
}

pub(super) fn send_ipi(call: &mut Call<'_>) -> Answer {
    with_harts(call, ipi::send)
}

pub(super) fn remote_fence_i(call: &mut Call<'_>) -> Answer {
    with_harts(call, rfence::fence_i)
}

pub(super) fn remote_sfence_vma(call: &mut Call<'_>) -> Answer {
    let [_, start, size, ..] = call.args;
    with_harts(call, |call, harts| rfence::sfence_vma(call, harts, start, size, None))
}

pub(super) fn remote_sfence_vma_asid(call: &mut Call<'_>) -> Answer {
    let [_, start, size, asid, ..] = call.args;
    with_harts(call, |call, harts| rfence::sfence_vma(call, harts, start, size, Some(asid)))
}

pub(super) fn shutdown(call: &mut Call<'_>) -> Answer {
    Ok(srst::power(call, PowerEvent::Off))
}

/// Calls `then` with the harts of the mask a0 points to, or all harts where it is null (as kernels of SBI 0.1 did).
/// A fault on reading it is the caller's, at its `ecall`. Bits of harts that do not exist are ignored.
fn with_harts(call: &mut Call<'_>, then: impl FnOnce(&mut Call<'_>, &[usize]) -> Answer) -> Answer {
    let count = call.hart_count();
    let pointer = call.args[0];
    if pointer == 0 {
        return then(call, &(0..count).collect::<Vec<_>>());
    }
    let words = (0..count.div_ceil(64) as u64).map(|n| read_word(call, pointer.wrapping_add(8 * n)));
    match words.collect::<Result<Vec<_>, _>>() {
        Ok(words) => {
            let named = |hart: &usize| words[hart / 64] >> (hart % 64) & 1 != 0;
            then(call, &(0..count).filter(named).collect::<Vec<_>>())
        }
        Err(trap) => {
            call.guest.take(call.cpu, trap);
            Ok(Done::Gone(FirmwareResult::Continue))
        }
    }
}

fn read_word(call: &mut Call<'_>, address: u64) -> Result<u64, Trap> {
    let mmu = call.cpu.data_mmu();
    call.env.load(call.guest, call.cpu, Gva(address), 8, mmu)
}
