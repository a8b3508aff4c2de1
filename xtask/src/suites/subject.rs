//! What bare test programs need to be told about each instruction set.

use isomer_aarch64::{Aarch64, CpuInterface, interrupts::line};
use isomer_core::VcpuSignal;
use isomer_ir::Guest;
use isomer_riscv64::{
    Riscv64,
    regs::{F_NAMES, X_NAMES},
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// An instruction set whose programs can be run bare.
pub(crate) trait Subject: Guest + Sized {
    /// The CPU model of this name, wired to the interrupt inputs, as a program with these symbols wants it.
    fn model(name: &str, inputs: &Arc<VcpuSignal>, symbols: &BTreeSet<&str>) -> Option<Self>;
    /// The CPU as reset leaves it, at a program's entry.
    fn start(&self, entry: u64) -> Self::Cpu;
    /// A register by its name.
    fn register(cpu: &Self::Cpu, name: &str) -> Option<u128>;
}

/// riscv64's machine timer input.
const MTI: u32 = 7;

impl Subject for Riscv64 {
    fn model(name: &str, inputs: &Arc<VcpuSignal>, _: &BTreeSet<&str>) -> Option<Self> {
        // As after reset of a CLINT, whose comparison time is zero: the expected signatures show it in `mip`.
        inputs.set_line(MTI, true);
        Self::by_name(name)
    }

    fn start(&self, entry: u64) -> Self::Cpu {
        let mut cpu = self.reset(0, entry);
        cpu.x[11] = 0;
        cpu
    }

    fn register(cpu: &Self::Cpu, name: &str) -> Option<u128> {
        let position = |names: &[&str; 32]| names.iter().position(|known| *known == name);
        let x = position(&X_NAMES).map(|n| cpu.x[n]);
        x.or_else(|| position(&F_NAMES).map(|n| cpu.f[n])).map(u128::from)
    }
}

/// A program with this symbol starts at EL2.
const WANTS_EL2: &str = "starts_at_el2";

impl Subject for Aarch64 {
    fn model(name: &str, inputs: &Arc<VcpuSignal>, symbols: &BTreeSet<&str>) -> Option<Self> {
        let model = Self::by_name(name)?.with_el2(symbols.contains(WANTS_EL2));
        Some(model.with_cpu_interface(Arc::new(Wire { inputs: inputs.clone(), asserted: AtomicU32::new(0) })))
    }

    fn start(&self, entry: u64) -> Self::Cpu {
        self.reset(0, entry)
    }

    /// `x0` to `x30`, `sp`, `d0` and `v0` to `d31` and `v31`, and `nzcv` as a digit.
    fn register(cpu: &Self::Cpu, name: &str) -> Option<u128> {
        let wide = |[low, high]: [u64; 2]| u128::from(high) << 64 | u128::from(low);
        match name {
            "sp" => return Some(cpu.sp.into()),
            "nzcv" => return Some(cpu.nzcv.iter().fold(0, |all, flag| all << 1 | u128::from(*flag))),
            _ => {}
        }
        let (kind, number) = name.split_at_checked(1)?;
        let number = number.parse::<usize>().ok().filter(|n| n.to_string() == number)?;
        match kind {
            "x" => cpu.x.get(number).map(|x| (*x).into()),
            "d" => cpu.v.get(number).map(|v| v[0].into()),
            "v" => cpu.v.get(number).copied().map(wide),
            _ => None,
        }
    }
}

/// The least interrupt controller: every private interrupt is the IRQ input.
#[derive(Debug)]
struct Wire {
    inputs: Arc<VcpuSignal>,
    asserted: AtomicU32,
}

impl CpuInterface for Wire {
    fn set_ppi(&self, _: usize, intid: u32, level: bool) {
        let bit = 1 << (intid & 31);
        let before = match level {
            true => self.asserted.fetch_or(bit, Ordering::SeqCst) | bit,
            false => self.asserted.fetch_and(!bit, Ordering::SeqCst) & !bit,
        };
        self.inputs.set_line(line::IRQ, before != 0);
    }

    fn has_registers(&self) -> bool {
        false
    }

    fn read(&self, _: usize, _: u16, _: bool) -> Option<u64> {
        None
    }

    fn write(&self, _: usize, _: u16, _: bool, _: u64) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_have_their_manuals_names() {
        let guest = Aarch64::max();
        let mut cpu = guest.start(0);
        (cpu.x[3], cpu.v[31], cpu.nzcv) = (5, [7, 1], [1, 0, 0, 1]);
        let value = |name| Aarch64::register(&cpu, name);
        assert_eq!((value("x3"), value("d31"), value("v31")), (Some(5), Some(7), Some(1 << 64 | 7)));
        assert_eq!((value("nzcv"), value("sp")), (Some(9), Some(0)));
        assert!(["x31", "v32", "x03", "x", "", "é", "w1"].iter().all(|name| value(name).is_none()));
    }
}
