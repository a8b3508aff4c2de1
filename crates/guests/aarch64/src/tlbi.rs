//! TLB maintenance (the manual, C5.5 and D8.17).
//!
//! The engine's TLB knows addresses and address spaces ([`crate::sysreg::address_space`]). What cannot be told in its
//! terms is widened: once a guest runs under stage 2, or top bytes are ignored, operations drop more than they name.
//! Operations on stage 2 drop everything.

use crate::{
    Cpu, Features, Trap,
    sysop::{Operation, operation},
    sysreg::{Access, address_space_with},
    system::hcr,
};
use isomer_core::Gva;
use isomer_ir::guest::TlbFlush;
use std::sync::atomic::Ordering;

/// What an operation names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    /// Everything of a regime.
    All,
    /// One ASID.
    Asid,
    /// An address under one ASID.
    Address,
    /// An address under every ASID.
    EveryAsid,
}

/// Which regime's tables an operation is about: a host's EL1 names mean its own.
fn regime_el(cpu: &Cpu, names_el2: bool) -> usize {
    if names_el2 || cpu.sys.in_host() && cpu.el == 2 { 2 } else { 1 }
}

/// Does an operation reach other PEs? CRm says, and among stage 2's outer shareable ones op2.
fn is_broadcast(key: u16) -> bool {
    match (key >> 3 & 15, key & 7) {
        (4, op2) => matches!(op2, 0 | 3 | 4 | 7),
        (crm, _) => !matches!(crm, 6 | 7),
    }
}

fn flush(a: &mut Access<'_, '_>, what: TlbFlush) {
    let forced = a.el() == 1 && a.cx.cpu.sys.hcr() & hcr::FB != 0;
    if forced || is_broadcast(a.key) {
        a.cx.env.flush_tlb_everywhere(what);
    } else {
        a.cx.env.flush_tlb(what);
    }
}

/// Drops what `scope` names of the regime of `el`: `len` bytes (0: one page) from `address`.
fn invalidate(a: &mut Access<'_, '_>, el: usize, scope: Scope, (address, len): (u64, u64), asid: u64) {
    let guest = a.cx.guest;
    let exact = !guest.guests_seen.load(Ordering::SeqCst);
    let two_ranges = el == 1 || a.cx.cpu.sys.e2h();
    // A mapping at an address may be global: then it goes, too, whatever the ASID.
    let by_asid = scope == Scope::Asid;
    let by_address = matches!(scope, Scope::Address | Scope::EveryAsid);
    let named = by_address && !guest.tags_seen.load(Ordering::SeqCst);
    let what = TlbFlush {
        gva: named.then_some(Gva(address)),
        len,
        address_space: (exact && two_ranges && by_asid).then(|| address_space_with(a.cx.cpu, el, asid)),
    };
    flush(a, what);
}

/// Bits 55:12 of an address, sign-extended where there are two ranges.
fn address(value: u64, two_ranges: bool) -> u64 {
    let address = value << 12;
    if two_ranges && address >> 55 & 1 != 0 { address | 0xff << 56 } else { address & (u64::MAX >> 8) }
}

fn by_scope(a: &mut Access<'_, '_>, value: u64, scope: Scope, names_el2: bool) -> Result<(), Trap> {
    let el = regime_el(a.cx.cpu, names_el2);
    let two_ranges = el == 1 || a.cx.cpu.sys.e2h();
    invalidate(a, el, scope, (address(value, two_ranges), 0), value >> 48);
    Ok(())
}

/// A range: NUM + 1 times a power of 32 granules (the manual, C5.5 "TLBI RVAE1").
fn by_range(a: &mut Access<'_, '_>, value: u64, scope: Scope, names_el2: bool) -> Result<(), Trap> {
    let granule = match value >> 46 & 3 {
        1 => 12,
        2 => 14,
        3 => 16,
        _ => return Ok(()),
    };
    let el = regime_el(a.cx.cpu, names_el2);
    let two_ranges = el == 1 || a.cx.cpu.sys.e2h();
    let tcr = a.cx.cpu.sys.tcr[el];
    let wide = a.has(Features::LPA2) && tcr & 1 << (if two_ranges { 59 } else { 32 }) != 0;
    // With 52-bit addresses the base counts 64 KiB units.
    let unit = if wide { 16 } else { granule };
    let base = value & ((1 << 37) - 1);
    let base = if two_ranges { ((base << 27) as i64 >> 27) as u64 } else { base };
    let (number, scale) = (value >> 39 & 31, value >> 44 & 3);
    let len = (number + 1) << (5 * scale + 1) << granule;
    invalidate(a, el, scope, (base << unit, len), value >> 48);
    Ok(())
}

/// Everything, whatever its regime: stage 2 has changed, or all of EL1 or EL2 is meant.
fn everything(a: &mut Access<'_, '_>, _: u64) -> Result<(), Trap> {
    flush(a, TlbFlush::default());
    Ok(())
}

/// FEAT_EVT's traps by shareability, beside HCR_EL2.TTLB.
const fn traps(crm: u16) -> u64 {
    hcr::TTLB
        | match crm {
            2 | 3 => hcr::TTLBIS,
            1 | 5 => hcr::TTLBOS,
            _ => 0,
        }
}

const fn needs(crm: u16) -> Features {
    let outer = if matches!(crm, 1 | 5) { Features::TLBIOS } else { Features::empty() };
    let range = if matches!(crm, 2 | 5 | 6) { Features::TLBIRANGE } else { Features::empty() };
    outer.union(range)
}

macro_rules! el1 {
    ($name:literal $crm:literal $op2:literal $by:ident $scope:ident) => {
        operation($name, 0, 8, $crm, $op2, |a, value| $by(a, value, Scope::$scope, false))
            .needs(needs($crm))
            .traps(traps($crm))
    };
}

macro_rules! el2 {
    ($name:literal $crm:literal $op2:literal $by:ident $scope:ident) => {
        operation($name, 4, 8, $crm, $op2, |a, value| $by(a, value, Scope::$scope, true)).needs(needs($crm))
    };
}

const fn all(name: &'static str, crm: u16, op2: u16) -> Operation {
    operation(name, 4, 8, crm, op2, everything).needs(needs(crm))
}

/// Stage 2 by address: there are no names for it in the engine's TLB. Ranges too.
const fn stage2(name: &'static str, crm: u16, op2: u16, needs: Features) -> Operation {
    operation(name, 4, 8, crm, op2, everything).needs(needs)
}

#[rustfmt::skip]
pub(crate) static TABLE: &[Operation] = &[
    el1!("vmalle1is" 3 0 by_scope All), el1!("vae1is" 3 1 by_scope Address), el1!("aside1is" 3 2 by_scope Asid),
    el1!("vaae1is" 3 3 by_scope EveryAsid), el1!("vale1is" 3 5 by_scope Address), el1!("vaale1is" 3 7 by_scope EveryAsid),
    el1!("vmalle1" 7 0 by_scope All), el1!("vae1" 7 1 by_scope Address), el1!("aside1" 7 2 by_scope Asid),
    el1!("vaae1" 7 3 by_scope EveryAsid), el1!("vale1" 7 5 by_scope Address), el1!("vaale1" 7 7 by_scope EveryAsid),
    el1!("vmalle1os" 1 0 by_scope All), el1!("vae1os" 1 1 by_scope Address), el1!("aside1os" 1 2 by_scope Asid),
    el1!("vaae1os" 1 3 by_scope EveryAsid), el1!("vale1os" 1 5 by_scope Address), el1!("vaale1os" 1 7 by_scope EveryAsid),
    el1!("rvae1is" 2 1 by_range Address), el1!("rvaae1is" 2 3 by_range EveryAsid),
    el1!("rvale1is" 2 5 by_range Address), el1!("rvaale1is" 2 7 by_range EveryAsid),
    el1!("rvae1os" 5 1 by_range Address), el1!("rvaae1os" 5 3 by_range EveryAsid),
    el1!("rvale1os" 5 5 by_range Address), el1!("rvaale1os" 5 7 by_range EveryAsid),
    el1!("rvae1" 6 1 by_range Address), el1!("rvaae1" 6 3 by_range EveryAsid),
    el1!("rvale1" 6 5 by_range Address), el1!("rvaale1" 6 7 by_range EveryAsid),
    all("alle2is", 3, 0), el2!("vae2is" 3 1 by_scope Address), all("alle1is", 3, 4),
    el2!("vale2is" 3 5 by_scope Address), all("vmalls12e1is", 3, 6),
    all("alle2", 7, 0), el2!("vae2" 7 1 by_scope Address), all("alle1", 7, 4),
    el2!("vale2" 7 5 by_scope Address), all("vmalls12e1", 7, 6),
    all("alle2os", 1, 0), el2!("vae2os" 1 1 by_scope Address), all("alle1os", 1, 4),
    el2!("vale2os" 1 5 by_scope Address), all("vmalls12e1os", 1, 6),
    el2!("rvae2is" 2 1 by_range Address), el2!("rvale2is" 2 5 by_range Address),
    el2!("rvae2os" 5 1 by_range Address), el2!("rvale2os" 5 5 by_range Address),
    el2!("rvae2" 6 1 by_range Address), el2!("rvale2" 6 5 by_range Address),
    stage2("ipas2e1is", 0, 1, Features::empty()), stage2("ipas2le1is", 0, 5, Features::empty()),
    stage2("ipas2e1", 4, 1, Features::empty()), stage2("ipas2le1", 4, 5, Features::empty()),
    stage2("ipas2e1os", 4, 0, Features::TLBIOS), stage2("ipas2le1os", 4, 4, Features::TLBIOS),
    stage2("ripas2e1is", 0, 2, Features::TLBIRANGE), stage2("ripas2le1is", 0, 6, Features::TLBIRANGE),
    stage2("ripas2e1", 4, 2, Features::TLBIRANGE), stage2("ripas2le1", 4, 6, Features::TLBIRANGE),
    stage2("ripas2e1os", 4, 3, Features::TLBIRANGE), stage2("ripas2le1os", 4, 7, Features::TLBIRANGE),
];
