//! Remote fence extension (SBI 2.0, 8): `fence.i` and `sfence.vma` at other harts. The hypervisor's fences do not exist
//! without the hypervisor extension.

use super::{Answer, Call, Done, SbiError};
use isomer_core::{Gva, PAGE_SIZE};
use isomer_engine::{FirmwareResult, Request};
use isomer_ir::guest::TlbFlush;
use isomer_riscv64::Riscv64;

pub(super) fn call(call: &mut Call<'_>) -> Answer {
    let [mask, base, start, size, asid, _] = call.args;
    if call.function > 2 {
        return Err(SbiError::NotSupported);
    }
    let harts = call.harts(mask, base)?;
    match call.function {
        0 => fence_i(call, &harts),
        1 => sfence_vma(call, &harts, start, size, None),
        _ => sfence_vma(call, &harts, start, size, Some(asid)),
    }
}

/// `fence.i` at each hart.
pub(super) fn fence_i(call: &mut Call<'_>, harts: &[usize]) -> Answer {
    if harts.contains(&call.hart) {
        call.env.sync_code();
    }
    everywhere(call, harts, || Request::SyncCode)
}

/// `sfence.vma` at each hart, for the `size` bytes from `start`: everything if both are 0 or `size` is all ones.
pub(super) fn sfence_vma(
    call: &mut Call<'_>,
    harts: &[usize],
    start: u64,
    size: u64,
    asid: Option<u64>,
) -> Answer {
    let what =
        TlbFlush { address_space: asid.and_then(|asid| address_space(call, asid)), ..range(start, size)? };
    if harts.contains(&call.hart) {
        call.env.flush_tlb(what);
    }
    everywhere(call, harts, || Request::FlushTlb(what))
}

/// Whole pages of the range.
fn range(start: u64, size: u64) -> Result<TlbFlush, SbiError> {
    if (start, size) == (0, 0) || size == u64::MAX {
        return Ok(TlbFlush::default());
    }
    let last = start.checked_add(size.max(1) - 1).ok_or(SbiError::InvalidAddress)?;
    let first = Gva(start).page_base();
    let len = Gva(last).page_base().0 - first.0;
    Ok(TlbFlush { gva: Some(first), len: len.saturating_add(PAGE_SIZE), address_space: None })
}

/// The engine's name for an ASID: the caller's translation mode, which all harts of one kernel share, goes with it.
/// Without translation there is no telling, and every address space is meant.
fn address_space(call: &Call<'_>, asid: u64) -> Option<u64> {
    let current = isomer_riscv64::address_space(call.cpu.satp);
    let mode = current & !0xffff;
    (mode != 0).then_some(mode | asid & 0xffff)
}

/// Posts to all harts but the caller and waits for them.
fn everywhere(call: &Call<'_>, harts: &[usize], request: impl Fn() -> Request<Riscv64>) -> Answer {
    let others = harts.iter().filter(|hart| **hart != call.hart);
    let tickets: Vec<_> = others.map(|&hart| (hart, call.peer(hart).post(request()))).collect();
    Ok(if tickets.is_empty() { Done::Value(0) } else { Done::Then(FirmwareResult::ContinueAfter(tickets)) })
}
