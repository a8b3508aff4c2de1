//! Loads and stores (volume I, 2.6), cache-block operations (volume I, 19: Zicbom, Zicbop, Zicboz).
//!
//! Misaligned accesses work. There is no cache to manage, so `cbo.clean`, `cbo.flush` and `cbo.inval` check that the
//! block may be accessed and do nothing else.

use crate::{
    Mode, Riscv64, Trap, cause,
    helpers::Helper,
    lift::Lift,
    operands::{I, R1, S},
};
use isomer_core::Gva;
use isomer_ir::{Access, CpuState, HelperCx, Type, op::BinOp, types::FpFormat};

/// Bytes in a cache block: what `cbo.zero` clears, and what the device tree's `riscv,cboz-block-size` says.
pub const CACHE_BLOCK: u64 = 64;

macro_rules! loads {
    ($($name:ident $mem:ident $signed:literal)*) => {$(
        pub(crate) fn $name(l: &mut Lift<'_>, o: I) {
            let (addr, flags) = (l.address(o.rs1, o.imm), l.plain());
            let value = l.b.load(Type::I64, Type::$mem, $signed, addr, flags);
            l.set_x(o.rd, value);
        }
    )*};
}

loads! {
    lb I8 true
    lbu I8 false
    lh I16 true
    lhu I16 false
    lw I32 true
    lwu I32 false
    ld I64 false
}

macro_rules! stores {
    ($($name:ident $mem:ident)*) => {$(
        pub(crate) fn $name(l: &mut Lift<'_>, o: S) {
            let (addr, flags) = (l.address(o.rs1, o.imm), l.plain());
            let value = l.x(o.rs2);
            l.b.store(Type::$mem, addr, value, flags);
        }
    )*};
}

stores! {
    sb I8
    sh I16
    sw I32
    sd I64
}

macro_rules! fp_accesses {
    ($($load:ident $store:ident $fmt:ident)*) => {$(
        pub(crate) fn $load(l: &mut Lift<'_>, o: I) {
            let (addr, flags, ty) = (l.address(o.rs1, o.imm), l.plain(), FpFormat::$fmt.ty());
            let value = l.b.load(ty, ty, false, addr, flags);
            l.set_f(FpFormat::$fmt, o.rd, value);
        }
        pub(crate) fn $store(l: &mut Lift<'_>, o: S) {
            let (addr, flags) = (l.address(o.rs1, o.imm), l.plain());
            let value = l.f_bits(o.rs2);
            l.b.store(FpFormat::$fmt.ty(), addr, value, flags);
        }
    )*};
}

fp_accesses! {
    flh fsh F16
    flw fsw F32
    fld fsd F64
}

/// A hint that changes nothing and never faults.
pub(crate) fn prefetch(_: &mut Lift<'_>, _: S) {}

pub(crate) fn cbo_inval(l: &mut Lift<'_>, o: R1) {
    let enabled = l.mode.cbo_inval_enabled();
    l.cbo_manage(enabled, o);
}

pub(crate) fn cbo_clean(l: &mut Lift<'_>, o: R1) {
    let enabled = l.mode.cbo_clean_enabled();
    l.cbo_manage(enabled, o);
}

pub(crate) fn cbo_flush(l: &mut Lift<'_>, o: R1) {
    let enabled = l.mode.cbo_clean_enabled();
    l.cbo_manage(enabled, o);
}

/// Zeroes the block that holds the address; a page fault finds the block's first byte in the trap value.
pub(crate) fn cbo_zero(l: &mut Lift<'_>, o: R1) {
    if !l.mode.cbo_zero_enabled() {
        return l.illegal();
    }
    let (addr, flags, zero) = (l.x(o.rs1), l.plain(), l.imm(0));
    let block = l.b.bin_imm(BinOp::And, addr, !(CACHE_BLOCK - 1));
    for offset in (0..CACHE_BLOCK).step_by(8) {
        let addr = l.b.bin_imm(BinOp::Add, block, offset);
        l.b.store(Type::I64, addr, zero, flags);
    }
}

impl Lift<'_> {
    fn cbo_manage(&mut self, enabled: bool, o: R1) {
        if !enabled {
            return self.illegal();
        }
        let addr = self.x(o.rs1);
        self.call_void(Helper::CboManage, &[addr]);
    }
}

/// `cbo_manage(addr)`: faults as a store would where neither loads nor stores may go (volume I, 19.3.2).
pub(crate) fn cbo_manage(cx: &mut HelperCx<'_, Riscv64>, [addr, ..]: [u64; 4]) -> Result<u64, Trap> {
    let mmu = Mode(cx.cpu.header().mode).data_mmu();
    let as_store = |trap: Trap| Trap {
        cause: match trap.cause {
            cause::LOAD_PAGE => cause::STORE_PAGE,
            cause::LOAD_ACCESS => cause::STORE_ACCESS,
            other => other,
        },
        ..trap
    };
    let readable = cx.env.translate(cx.guest, cx.cpu, Gva(addr), Access::Load, mmu);
    readable
        .or_else(|_| cx.env.translate(cx.guest, cx.cpu, Gva(addr), Access::Store, mmu))
        .map(|_| 0)
        .map_err(as_store)
}
