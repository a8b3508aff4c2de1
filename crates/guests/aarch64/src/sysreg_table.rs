//! System registers of control, memory management, exceptions and identification of software (the manual, D24.2).
//! Rows: name, encoding, how to read and write, what is needed, what traps.

use crate::{
    Features,
    pstate::{daif, fpcr, spsr},
    sysreg::{Access, Register, Verdict, constant, field, special},
    system::{hcr, sctlr},
};

const ALL: u64 = u64::MAX;
/// ESR_ELx: ISS2, EC, IL, ISS.
const ESR: u64 = 0x00ff_ffff_ffff_ffff;

// --- SCTLR

/// Bits that software may change, besides those that features add.
const SCTLR: u64 = sctlr::M
    | sctlr::A
    | sctlr::C
    | sctlr::SA
    | sctlr::SA0
    | sctlr::UMA
    | sctlr::I
    | sctlr::DZE
    | sctlr::UCT
    | sctlr::NTWI
    | sctlr::NTWE
    | sctlr::WXN
    | sctlr::E0E
    | sctlr::EE
    | sctlr::UCI;

/// Bits that each feature adds.
const SCTLR_FEATURES: &[(Features, u64)] = &[
    (Features::PAUTH, sctlr::ENIA | sctlr::ENIB | sctlr::ENDA | sctlr::ENDB),
    (Features::BTI, sctlr::BT0 | sctlr::BT1),
    (Features::SSBS, sctlr::DSSBS),
    (Features::PAN, sctlr::SPAN),
    (Features::PAN3, sctlr::EPAN),
    (Features::LSE2, sctlr::NAA),
    (Features::SPECRES, sctlr::ENRCTX),
    (Features::RAS, 1 << 21),
];

/// Bits whose change makes cached translations wrong.
const SCTLR_TRANSLATION: u64 = sctlr::M | sctlr::WXN | sctlr::EPAN | sctlr::EE;

fn write_sctlr(a: &mut Access<'_, '_>, el: usize, value: u64) {
    let features = SCTLR_FEATURES.iter().filter(|(feature, _)| a.has(*feature));
    let writable = features.fold(SCTLR, |all, (_, bits)| all | bits);
    // Without AArch32 its bits are fixed: SED and ITD.
    let fixed = (sctlr::RES1 | 3 << 7) & !writable;
    let old = a.cx.cpu.sys.sctlr[el];
    let new = value & writable | fixed;
    a.cpu().sys.sctlr[el] = new;
    a.update_mode();
    if (old ^ new) & SCTLR_TRANSLATION != 0 {
        a.flush_tlb();
    }
}

// --- translation

fn write_tcr(a: &mut Access<'_, '_>, el: usize, value: u64) {
    let old = std::mem::replace(&mut a.cpu().sys.tcr[el], value);
    if old != value {
        a.flush_tlb();
        a.select_address_space();
        a.update_mode();
    }
}

fn write_ttbr0(a: &mut Access<'_, '_>, el: usize, value: u64) {
    a.cpu().sys.ttbr0[el] = value;
    a.select_address_space();
}

fn write_ttbr1(a: &mut Access<'_, '_>, el: usize, value: u64) {
    a.cpu().sys.ttbr1[el] = value;
    a.select_address_space();
}

fn write_vtcr(a: &mut Access<'_, '_>, value: u64) {
    let old = std::mem::replace(&mut a.cpu().sys.vtcr, value);
    if old != value {
        a.flush_tlb();
        a.select_address_space();
    }
}

// --- EL2

fn write_hcr(a: &mut Access<'_, '_>, value: u64) {
    let base = hcr::VM
        | hcr::SWIO
        | hcr::PTW
        | hcr::FMO
        | hcr::IMO
        | hcr::AMO
        | hcr::VF
        | hcr::VI
        | hcr::VSE
        | hcr::FB
        | hcr::BSU
        | hcr::DC
        | hcr::TWI
        | hcr::TWE
        | hcr::TID1
        | hcr::TID2
        | hcr::TID3
        | hcr::TSC
        | hcr::TIDCP
        | hcr::TACR
        | hcr::TSW
        | hcr::TPCP
        | hcr::TPU
        | hcr::TTLB
        | hcr::TVM
        | hcr::TGE
        | hcr::TDZ
        | hcr::HCD
        | hcr::TRVM
        | hcr::CD
        | hcr::ID;
    let added = [
        (Features::VHE, hcr::E2H),
        (Features::LOR, hcr::TLOR),
        (Features::RAS, hcr::TERR | hcr::TEA | 1 << 38),
        (Features::PAUTH, hcr::APK | hcr::API),
        (Features::S2FWB, 1 << 46),
        (Features::EVT, hcr::TID4 | hcr::TICAB | hcr::TOCU | hcr::TTLBIS | hcr::TTLBOS),
    ];
    let writable =
        added.into_iter().filter(|(feature, _)| a.has(*feature)).fold(base, |all, (_, bits)| all | bits);
    a.cpu().sys.hcr = value & writable | hcr::RW;
    a.select_address_space();
    a.update_mode();
    a.cx.env.reconsider();
}

fn write_cptr(a: &mut Access<'_, '_>, value: u64) {
    const TCPAC: u64 = 1 << 31;
    const TFP: u64 = 1 << 10;
    let e2h = a.cx.cpu.sys.e2h();
    a.cpu().sys.cptr = if e2h { value & (3 << 20 | TCPAC) } else { value & (TFP | TCPAC) | 0x33ff & !TFP };
    a.update_mode();
}

fn write_cpacr(a: &mut Access<'_, '_>, value: u64) {
    a.cpu().sys.cpacr = value & 3 << 20;
    a.update_mode();
}

/// CPTR_EL2.TCPAC: EL1's accesses to CPACR_EL1 trap.
fn cpacr_guard(a: &Access<'_, '_>) -> Verdict {
    Verdict::intercepted(a.el() == 1 && a.cx.cpu.sys.has_el2 && a.cx.cpu.sys.cptr & 1 << 31 != 0)
}

// --- PSTATE

/// SCTLR_EL1.UMA lets EL0 at DAIF.
pub(crate) fn daif_guard(a: &Access<'_, '_>) -> Verdict {
    let cpu = &*a.cx.cpu;
    Verdict::enabled(cpu.el != 0 || cpu.sys.sctlr[cpu.sys.regime_el(0)] & sctlr::UMA != 0)
}

fn write_daif(a: &mut Access<'_, '_>, value: u64) {
    a.cpu().daif = value & spsr::DAIF;
    a.cx.env.reconsider();
}

fn write_spsel(a: &mut Access<'_, '_>, value: u64) {
    let el = a.el();
    a.cpu().set_level(el, value & 1 != 0);
    a.update_mode();
}

fn write_pan(a: &mut Access<'_, '_>, value: u64) {
    a.cpu().pan = value & 1 << 22 != 0;
    a.update_mode();
}

fn write_uao(a: &mut Access<'_, '_>, value: u64) {
    a.cpu().uao = value & 1 << 23 != 0;
    a.update_mode();
}

fn read_nzcv(a: &mut Access<'_, '_>) -> u64 {
    a.cx.cpu.spsr_value() & 0xf << 28
}

fn write_nzcv(a: &mut Access<'_, '_>, value: u64) {
    a.cpu().nzcv = [31, 30, 29, 28].map(|bit| value >> bit & 1);
}

/// SP_EL0 exists while another stack pointer is in use.
fn sp_el0_guard(a: &Access<'_, '_>) -> Verdict {
    Verdict::exists(a.cx.cpu.sp_bank() != 0)
}

/// FZ16 is there with half precision only.
fn write_fpcr(a: &mut Access<'_, '_>, value: u64) {
    let missing = if a.has(Features::FP16) { 0 } else { u64::from(fpcr::FZ16) };
    a.cpu().set_fpcr(value & !missing);
}

/// ISR_EL1: what is pending, virtual where that is what this level gets.
fn read_isr(a: &mut Access<'_, '_>) -> u64 {
    use crate::interrupts::{self, line};
    // What became due just now counts.
    interrupts::tell(a.cx.guest, a.cx.cpu, a.cx.env.now_ns());
    let lines = a.cx.env.lines();
    let bits = if a.el() == 1 { a.cx.cpu.sys.hcr() } else { 0 };
    let asserted = |virtualized: u64, physical: u32, line: u32, by_hcr: u64| {
        let on = |n: u32| lines >> n & 1 != 0;
        if bits & virtualized != 0 { on(line) || bits & by_hcr != 0 } else { on(physical) }
    };
    let irq = asserted(hcr::IMO, line::IRQ, line::VIRTUAL_IRQ, hcr::VI);
    let fiq = asserted(hcr::FMO, line::FIQ, line::VIRTUAL_FIQ, hcr::VF);
    let error = bits & (hcr::AMO | hcr::VSE) == hcr::AMO | hcr::VSE;
    let flag = |condition: bool, bit: u64| if condition { bit } else { 0 };
    flag(error, daif::A) | flag(irq, daif::I) | flag(fiq, daif::F)
}

/// RNDR and RNDRRS: the host's generator does not fail, so NZCV is 0000.
fn read_random(a: &mut Access<'_, '_>) -> u64 {
    a.cpu().nzcv = [0; 4];
    a.cx.env.entropy()
}

// --- pointer authentication keys

/// HCR_EL2.APK lets EL1 at its keys.
fn key_guard(a: &Access<'_, '_>) -> Verdict {
    let sys = &a.cx.cpu.sys;
    Verdict::intercepted(a.el() == 1 && sys.has_el2 && sys.hcr & hcr::APK == 0)
}

macro_rules! auth_key {
    ($name:literal ($($number:literal),*) $field:ident[$half:literal]) => {
        field!($name ($($number),*) sys.$field[$half] = ALL).needs(Features::PAUTH).guard(key_guard)
    };
}

// --- RAS

/// Under HCR_EL2.AMO, EL1's DISR_EL1 is VDISR_EL2.
fn disr<'a>(a: &'a mut Access<'_, '_>) -> &'a mut u64 {
    let virtualized = a.el() == 1 && a.cx.cpu.sys.hcr() & hcr::AMO != 0;
    let sys = &mut a.cx.cpu.sys;
    if virtualized { &mut sys.vdisr } else { &mut sys.disr }
}

const LOR_SIZE: u64 = 0x0000_ffff_ffff_0003;

#[rustfmt::skip]
pub(crate) static TABLE: &[Register] = &[
    // --- control and translation
    special!("SCTLR_EL1" (3, 0, 1, 0, 0) |a| a.cx.cpu.sys.sctlr[1], |a, v| write_sctlr(a, 1, v)).memory_control(),
    field!("ACTLR_EL1" (3, 0, 1, 0, 1) sys.actlr[1] = 0).traps(hcr::TACR),
    special!("CPACR_EL1" (3, 0, 1, 0, 2) |a| a.cx.cpu.sys.cpacr, write_cpacr).guard(cpacr_guard),
    special!("TTBR0_EL1" (3, 0, 2, 0, 0) |a| a.cx.cpu.sys.ttbr0[1], |a, v| write_ttbr0(a, 1, v)).memory_control(),
    special!("TTBR1_EL1" (3, 0, 2, 0, 1) |a| a.cx.cpu.sys.ttbr1[1], |a, v| write_ttbr1(a, 1, v)).memory_control(),
    special!("TCR_EL1" (3, 0, 2, 0, 2) |a| a.cx.cpu.sys.tcr[1], |a, v| write_tcr(a, 1, v)).memory_control(),
    field!("AFSR0_EL1" (3, 0, 5, 1, 0) sys.afsr0[1] = 0).memory_control(),
    field!("AFSR1_EL1" (3, 0, 5, 1, 1) sys.afsr1[1] = 0).memory_control(),
    field!("ESR_EL1" (3, 0, 5, 2, 0) sys.esr[1] = ESR).memory_control(),
    field!("FAR_EL1" (3, 0, 6, 0, 0) sys.far[1] = ALL).memory_control(),
    field!("PAR_EL1" (3, 0, 7, 4, 0) sys.par = ALL),
    field!("MAIR_EL1" (3, 0, 10, 2, 0) sys.mair[1] = ALL).memory_control(),
    field!("AMAIR_EL1" (3, 0, 10, 3, 0) sys.amair[1] = 0).memory_control(),
    field!("CONTEXTIDR_EL1" (3, 0, 13, 0, 1) sys.contextidr[1] = 0xffff_ffff).memory_control(),
    // --- limited ordering regions: none are implemented
    field!("LORSA_EL1" (3, 0, 10, 4, 0) sys.lor[0] = LOR_SIZE).needs(Features::LOR).traps(hcr::TLOR),
    field!("LOREA_EL1" (3, 0, 10, 4, 1) sys.lor[1] = LOR_SIZE).needs(Features::LOR).traps(hcr::TLOR),
    field!("LORN_EL1" (3, 0, 10, 4, 2) sys.lor[2] = 0).needs(Features::LOR).traps(hcr::TLOR),
    field!("LORC_EL1" (3, 0, 10, 4, 3) sys.lor[3] = 0).needs(Features::LOR).traps(hcr::TLOR),
    constant!("LORID_EL1" (3, 0, 10, 4, 7) |_| 0).needs(Features::LOR).traps(hcr::TLOR),
    // --- exceptions
    field!("SPSR_EL1" (3, 0, 4, 0, 0) sys.spsr[1] = spsr::MASK),
    field!("ELR_EL1" (3, 0, 4, 0, 1) sys.elr[1] = ALL),
    field!("SP_EL0" (3, 0, 4, 1, 0) sp_el[0] = ALL).guard(sp_el0_guard),
    field!("VBAR_EL1" (3, 0, 12, 0, 0) sys.vbar[1] = !0x7ff),
    constant!("RVBAR_EL1" (3, 0, 12, 0, 1) |_| 0).guard(|a| Verdict::exists(!a.cx.cpu.sys.has_el2)),
    constant!("ISR_EL1" (3, 0, 12, 1, 0) read_isr),
    special!("DISR_EL1" (3, 0, 12, 1, 1) |a| *disr(a), |a, v| *disr(a) = v & 0x8000_0000_81ff_ffff).needs(Features::RAS),
    constant!("ERRIDR_EL1" (3, 0, 5, 3, 0) |_| 0).needs(Features::RAS).traps(hcr::TERR),
    special!("ERRSELR_EL1" (3, 0, 5, 3, 1) |_| 0, |_, _| {}).needs(Features::RAS).traps(hcr::TERR),
    // --- PSTATE
    special!("SPSel" (3, 0, 4, 2, 0) |a| u64::from(a.cx.cpu.spsel), write_spsel),
    constant!("CurrentEL" (3, 0, 4, 2, 2) |a| u64::from(a.el()) << 2),
    special!("PAN" (3, 0, 4, 2, 3) |a| u64::from(a.cx.cpu.pan) << 22, write_pan).needs(Features::PAN),
    special!("UAO" (3, 0, 4, 2, 4) |a| u64::from(a.cx.cpu.uao) << 23, write_uao).needs(Features::UAO),
    special!("NZCV" (3, 3, 4, 2, 0) read_nzcv, write_nzcv),
    special!("DAIF" (3, 3, 4, 2, 1) |a| a.cx.cpu.daif, write_daif).guard(daif_guard),
    special!("DIT" (3, 3, 4, 2, 5) |a| u64::from(a.cx.cpu.dit) << 24, |a, v| a.cx.cpu.dit = v & 1 << 24 != 0).needs(Features::DIT),
    special!("SSBS" (3, 3, 4, 2, 6) |a| u64::from(a.cx.cpu.ssbs) << 12, |a, v| a.cx.cpu.ssbs = v & 1 << 12 != 0).needs(Features::SSBS),
    special!("FPCR" (3, 3, 4, 4, 0) |a| u64::from(a.cx.cpu.fpcr), write_fpcr),
    special!("FPSR" (3, 3, 4, 4, 1) |a| a.cx.cpu.fpsr(), |a, v| a.cpu().set_fpsr(v)),
    constant!("RNDR" (3, 3, 2, 4, 0) read_random).needs(Features::RNG),
    constant!("RNDRRS" (3, 3, 2, 4, 1) read_random).needs(Features::RNG),
    // --- software's own
    field!("TPIDR_EL0" (3, 3, 13, 0, 2) tpidr_el0 = ALL),
    special!("TPIDRRO_EL0" (3, 3, 13, 0, 3) |a| a.cx.cpu.tpidrro_el0, |a, v| a.cx.cpu.tpidrro_el0 = v)
        .guard(|a| Verdict::exists(a.el() > 0 || !a.is_write)),
    field!("TPIDR_EL1" (3, 0, 13, 0, 4) tpidr_el1 = ALL),
    // --- pointer authentication keys
    auth_key!("APIAKeyLo_EL1" (3, 0, 2, 1, 0) apia[0]),
    auth_key!("APIAKeyHi_EL1" (3, 0, 2, 1, 1) apia[1]),
    auth_key!("APIBKeyLo_EL1" (3, 0, 2, 1, 2) apib[0]),
    auth_key!("APIBKeyHi_EL1" (3, 0, 2, 1, 3) apib[1]),
    auth_key!("APDAKeyLo_EL1" (3, 0, 2, 2, 0) apda[0]),
    auth_key!("APDAKeyHi_EL1" (3, 0, 2, 2, 1) apda[1]),
    auth_key!("APDBKeyLo_EL1" (3, 0, 2, 2, 2) apdb[0]),
    auth_key!("APDBKeyHi_EL1" (3, 0, 2, 2, 3) apdb[1]),
    auth_key!("APGAKeyLo_EL1" (3, 0, 2, 3, 0) apga[0]),
    auth_key!("APGAKeyHi_EL1" (3, 0, 2, 3, 1) apga[1]),
    // --- EL2
    field!("VPIDR_EL2" (3, 4, 0, 0, 0) sys.vpidr = 0xffff_ffff),
    field!("VMPIDR_EL2" (3, 4, 0, 0, 5) sys.vmpidr = ALL),
    special!("SCTLR_EL2" (3, 4, 1, 0, 0) |a| a.cx.cpu.sys.sctlr[2], |a, v| write_sctlr(a, 2, v)),
    field!("ACTLR_EL2" (3, 4, 1, 0, 1) sys.actlr[2] = 0),
    special!("HCR_EL2" (3, 4, 1, 1, 0) |a| a.cx.cpu.sys.hcr, write_hcr),
    special!("MDCR_EL2" (3, 4, 1, 1, 1) |a| a.cx.cpu.sys.mdcr, |a, v| { a.cpu().sys.mdcr = v & 0xfff; a.update_mode(); }),
    special!("CPTR_EL2" (3, 4, 1, 1, 2) |a| a.cx.cpu.sys.cptr, write_cptr),
    field!("HSTR_EL2" (3, 4, 1, 1, 3) sys.hstr = 0),
    field!("HACR_EL2" (3, 4, 1, 1, 7) sys.hacr = 0),
    special!("TTBR0_EL2" (3, 4, 2, 0, 0) |a| a.cx.cpu.sys.ttbr0[2], |a, v| write_ttbr0(a, 2, v)),
    special!("TTBR1_EL2" (3, 4, 2, 0, 1) |a| a.cx.cpu.sys.ttbr1[2], |a, v| write_ttbr1(a, 2, v)).needs(Features::VHE),
    special!("TCR_EL2" (3, 4, 2, 0, 2) |a| a.cx.cpu.sys.tcr[2], |a, v| write_tcr(a, 2, v)),
    special!("VTTBR_EL2" (3, 4, 2, 1, 0) |a| a.cx.cpu.sys.vttbr, |a, v| { a.cpu().sys.vttbr = v; a.select_address_space(); }),
    special!("VTCR_EL2" (3, 4, 2, 1, 2) |a| a.cx.cpu.sys.vtcr, write_vtcr),
    field!("SPSR_EL2" (3, 4, 4, 0, 0) sys.spsr[2] = spsr::MASK),
    field!("ELR_EL2" (3, 4, 4, 0, 1) sys.elr[2] = ALL),
    field!("SP_EL1" (3, 4, 4, 1, 0) sp_el[1] = ALL),
    field!("AFSR0_EL2" (3, 4, 5, 1, 0) sys.afsr0[2] = 0),
    field!("AFSR1_EL2" (3, 4, 5, 1, 1) sys.afsr1[2] = 0),
    field!("ESR_EL2" (3, 4, 5, 2, 0) sys.esr[2] = ESR),
    field!("VSESR_EL2" (3, 4, 5, 2, 3) sys.vsesr = 0x1ff_ffff).needs(Features::RAS),
    field!("FAR_EL2" (3, 4, 6, 0, 0) sys.far[2] = ALL),
    field!("HPFAR_EL2" (3, 4, 6, 0, 4) sys.hpfar = 0x0000_0fff_ffff_fff0),
    field!("MAIR_EL2" (3, 4, 10, 2, 0) sys.mair[2] = ALL),
    field!("AMAIR_EL2" (3, 4, 10, 3, 0) sys.amair[2] = 0),
    field!("VBAR_EL2" (3, 4, 12, 0, 0) sys.vbar[2] = !0x7ff),
    constant!("RVBAR_EL2" (3, 4, 12, 0, 1) |_| 0),
    field!("VDISR_EL2" (3, 4, 12, 1, 1) sys.vdisr = 0x8000_0000_81ff_ffff).needs(Features::RAS),
    field!("CONTEXTIDR_EL2" (3, 4, 13, 0, 1) sys.contextidr[2] = 0xffff_ffff).needs(Features::VHE),
    field!("TPIDR_EL2" (3, 4, 13, 0, 2) tpidr_el2 = ALL),
];
