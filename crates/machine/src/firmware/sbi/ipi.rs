//! IPI extension (SBI 2.0, 7): supervisor software interrupts at other harts.

use super::{Answer, Call, Done, SbiError};
use isomer_engine::Request;
use isomer_riscv64::{Cpu, Riscv64, trap::irq};
use std::sync::atomic::Ordering;

pub(super) fn call(call: &mut Call<'_>) -> Answer {
    match call.function {
        0 => {
            let harts = call.harts(call.args[0], call.args[1])?;
            send(call, &harts)
        }
        _ => Err(SbiError::NotSupported),
    }
}

/// Sets SSIP at each hart. Harts that are off get none: they start without pending interrupts.
pub(super) fn send(call: &mut Call<'_>, harts: &[usize]) -> Answer {
    for &hart in harts {
        if hart == call.hart {
            call.cpu.mip |= irq::SSI;
            call.env.reconsider();
            continue;
        }
        let peer = call.peer(hart);
        let Some(posted) = call.shared.ipi_posted.get(hart) else { continue };
        if !peer.is_powered() || posted.swap(true, Ordering::SeqCst) {
            continue;
        }
        let shared = call.shared.clone();
        peer.post(Request::Call(Box::new(move |_: &Riscv64, cpu: &mut Cpu| {
            // First the mark, then the interrupt: an IPI sent in between posts again rather than being lost.
            shared.ipi_posted[hart].store(false, Ordering::SeqCst);
            cpu.mip |= irq::SSI;
        })));
    }
    Ok(Done::Value(0))
}
