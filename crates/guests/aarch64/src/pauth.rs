//! Pointer authentication (Arm ARM, D8.10; J1.1 "AddPAC", "Auth", "Strip"; FEAT_PAuth, FEAT_PAuth2, FEAT_FPAC).

use crate::{
    Aarch64, Cpu, Features, Trap,
    helpers_integer::IntegerHelper,
    lift::Lift,
    mode::Key,
    operands::{R1, R2},
    qarma::{self, Variant},
    trap,
};
use isomer_ir::{HelperCx, Value};

/// What a branch's destination is authenticated against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Modifier {
    /// `braaz`.
    Zero,
    /// `braa`: the register in the place of Rd.
    Register,
    /// `retaa`.
    StackPointer,
}

/// What an instruction does with a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    /// `pac*`.
    Add,
    /// `aut*`.
    Check,
}

/// Where a pointer's code lies: from bit `bottom` up, but for bit 55, to bit 54 if the top byte is ignored, else to 63.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Layout {
    bottom: u32,
    tbi: bool,
}

impl Layout {
    /// Of pointers whose bit 55 is `upper` (Arm ARM, "CalculateBottomPACBit", "EffectiveTBI").
    fn of(guest: &Aarch64, cpu: &Cpu, upper: bool, data: bool) -> Self {
        let level = cpu.sys.regime_el(cpu.el);
        let tcr = cpu.sys.tcr[level];
        let bit = |n: u32| tcr >> n & 1 != 0;
        let two_ranges = level == 1 || cpu.sys.e2h();
        let (size, tbi, tbid, large) = match (two_ranges, upper) {
            (true, true) => (tcr >> 16, bit(38), bit(52), tcr >> 30 & 3 == 3),
            (true, false) => (tcr, bit(37), bit(51), tcr >> 14 & 3 == 1),
            _ => (tcr, bit(20), bit(29), tcr >> 14 & 3 == 1),
        };
        let wide = bit(if two_ranges { 59 } else { 32 }) && guest.has(Features::LPA2);
        let least = if wide || large && guest.has(Features::LVA) { 12 } else { 16 };
        let most = match (guest.has(Features::TTST), large) {
            (false, _) => 39,
            (true, true) => 47,
            (true, false) => 48,
        };
        let size = (size as u32 & 0x3f).clamp(least, most);
        Self { bottom: 64 - size, tbi: tbi && (data || !(tbid && guest.has(Features::PAUTH))) }
    }

    /// The bits that a code takes.
    fn code(self) -> u64 {
        let top = if self.tbi { 1 << 55 } else { 0 };
        let above = u64::MAX << self.bottom;
        (if self.tbi { above & (top - 1) } else { above }) & !(1 << 55)
    }

    /// The pointer with copies of `sign` where a code would be.
    fn extended(self, pointer: u64, sign: bool) -> u64 {
        let bits = self.code() | 1 << 55;
        if sign { pointer | bits } else { pointer & !bits }
    }
}

const SIGN: u64 = 1 << 55;

/// The code of a pointer by this model's algorithm.
fn compute_pac(guest: &Aarch64, data: u64, modifier: u64, key: qarma::Key) -> u64 {
    if guest.has(Features::PACQARMA3) {
        qarma::compute_pac(data, modifier, key, Variant::Qarma3)
    } else if guest.has(Features::PACIMP) {
        mix(data, modifier, key)
    } else {
        qarma::compute_pac(data, modifier, key, Variant::Qarma5)
    }
}

/// An algorithm of our own: multiplications and shifts that let every bit of pointer, modifier and key reach every bit
/// of the code. Guests spend a code or two on every function, and QARMA5 is fifty times slower in software.
fn mix(data: u64, modifier: u64, key: qarma::Key) -> u64 {
    let mut h = data.wrapping_add(key.low);
    h = (h ^ h >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ modifier.wrapping_add(key.high).rotate_left(17);
    h = (h ^ h >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ h >> 32).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ h >> 31
}

/// A key by its number in [`Key`].
fn key(cpu: &Cpu, number: u64) -> qarma::Key {
    let sys = &cpu.sys;
    let [low, high] = [sys.apia, sys.apib, sys.apda, sys.apdb][number as usize & 3];
    qarma::Key { high, low }
}

/// Keys 2 and 3 are for data.
fn is_data(number: u64) -> bool {
    number & 2 != 0
}

/// `pac_add(pointer, modifier, key)`: the pointer with its code.
pub(crate) fn add(cx: &HelperCx<'_, Aarch64>, [pointer, modifier, number, _]: [u64; 4]) -> u64 {
    let layout = Layout::of(cx.guest, cx.cpu, pointer & SIGN != 0, is_data(number));
    // The sign comes from bit 63 where no range ignores its top byte; tags make it bit 55.
    let sign = pointer & if tags(cx.guest, cx.cpu, is_data(number)) { SIGN } else { 1 << 63 } != 0;
    let mut code = compute_pac(cx.guest, layout.extended(pointer, sign), modifier, key(cx.cpu, number));
    let extension = pointer & (layout.code() | SIGN);
    let better = cx.guest.has(Features::PAUTH2);
    if !better && extension != 0 && extension != layout.code() | SIGN {
        // A pointer that was no pointer gets a code that will not authenticate.
        code ^= 1 << if layout.tbi { 54 } else { 62 };
    }
    let bits = layout.code();
    let signed = pointer & !(bits | SIGN) | if sign { SIGN } else { 0 };
    signed | bits & if better { pointer ^ code } else { code }
}

/// Does a range of this regime ignore top bytes?
fn tags(guest: &Aarch64, cpu: &Cpu, data: bool) -> bool {
    [false, true].iter().any(|&upper| Layout::of(guest, cpu, upper, data).tbi)
}

/// `pac_check(pointer, modifier, key)`: the pointer without its code; a wrong one spoils the pointer or traps.
pub(crate) fn check(
    cx: &HelperCx<'_, Aarch64>,
    [pointer, modifier, number, _]: [u64; 4],
) -> Result<u64, Trap> {
    let sign = pointer & SIGN != 0;
    let layout = Layout::of(cx.guest, cx.cpu, sign, is_data(number));
    let (bits, plain) = (layout.code(), layout.extended(pointer, sign));
    let code = compute_pac(cx.guest, plain, modifier, key(cx.cpu, number)) & bits;
    if cx.guest.has(Features::PAUTH2) {
        let result = pointer ^ code;
        let failed = result & bits != plain & bits;
        if failed && cx.guest.has(Features::FPAC) {
            return Err(Trap::new(trap::syndrome(trap::ec::FPAC, number as u32 & 3)));
        }
        return Ok(result);
    }
    if pointer & bits == code {
        return Ok(plain);
    }
    // Two bits that differ are no extension of an address.
    let error = if number & 1 == 0 { 1 } else { 2 };
    let low = if layout.tbi { 53 } else { 61 };
    Ok(plain & !(3 << low) | error << low)
}

/// `pac_strip(pointer, data)`: the pointer without its code, unchecked.
pub(crate) fn strip(cx: &HelperCx<'_, Aarch64>, [pointer, data, ..]: [u64; 4]) -> u64 {
    let sign = pointer & SIGN != 0;
    Layout::of(cx.guest, cx.cpu, sign, data != 0).extended(pointer, sign)
}

/// `pac_generic(value, modifier)`: 32 bits of code in the high half.
pub(crate) fn generic(cx: &HelperCx<'_, Aarch64>, [value, modifier, ..]: [u64; 4]) -> u64 {
    let [low, high] = cx.cpu.sys.apga;
    compute_pac(cx.guest, value, modifier, qarma::Key { high, low }) & !0xffff_ffff
}

impl Lift<'_> {
    /// The pointer with a code added or checked; itself if the key is switched off. `None` if that traps: the block has
    /// ended.
    fn coded(&mut self, code: Code, key: Key, pointer: Value, modifier: Value) -> Option<Value> {
        if !self.mode.key_enabled(key) {
            return Some(pointer);
        }
        if self.mode.pauth_trapped() {
            self.trap(trap::PAUTH_ACCESS, None);
            return None;
        }
        let helper = match code {
            Code::Add => IntegerHelper::PacAdd,
            Code::Check if self.guest.has(Features::FPAC) => IntegerHelper::PacCheckTrap,
            Code::Check => IntegerHelper::PacCheck,
        };
        let number = self.imm(key as i64);
        Some(self.call(helper.id(), &[pointer, modifier, number]))
    }

    /// The pointer authenticated, without its code; see [`Self::coded`].
    pub(crate) fn authenticate(&mut self, key: Key, pointer: Value, modifier: Value) -> Option<Value> {
        self.coded(Code::Check, key, pointer, modifier)
    }
}

/// `pacia`, `autdb` and their kin: Rd with Rn or SP as modifier.
pub(crate) fn code(l: &mut Lift<'_>, o: R1, code: Code, key: Key) {
    let (pointer, modifier) = (l.x(o.rd), l.x_sp(o.rn));
    if let Some(value) = l.coded(code, key, pointer, modifier) {
        l.set_x(o.rd, value);
    }
}

/// `paciza`, `autdzb` and their kin.
pub(crate) fn code_zero(l: &mut Lift<'_>, o: R1, code: Code, key: Key) {
    let (pointer, modifier) = (l.x(o.rd), l.imm(0));
    if let Some(value) = l.coded(code, key, pointer, modifier) {
        l.set_x(o.rd, value);
    }
}

/// `pacia1716`, `paciasp`, `paciaz` and their kin: hints with fixed registers.
pub(crate) fn code_hint(l: &mut Lift<'_>, _: (), code: Code, key: Key, registers: Hint) {
    let (rd, modifier) = match registers {
        Hint::X17X16 => (17, l.x(16)),
        Hint::LrSp => (30, l.x_sp(31)),
        Hint::LrZero => (30, l.imm(0)),
    };
    let pointer = l.x(rd);
    if let Some(value) = l.coded(code, key, pointer, modifier) {
        l.set_x(rd, value);
    }
}

/// Pointer and modifier of the hints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hint {
    X17X16,
    LrSp,
    LrZero,
}

/// `xpaci`, `xpacd`.
pub(crate) fn strip_code(l: &mut Lift<'_>, o: R1, data: bool) {
    let (pointer, data) = (l.x(o.rd), l.imm(i64::from(data)));
    let value = l.call(IntegerHelper::PacStrip.id(), &[pointer, data]);
    l.set_x(o.rd, value);
}

/// `xpaclri`.
pub(crate) fn strip_lr(l: &mut Lift<'_>, _: ()) {
    strip_code(l, R1 { sf: true, rd: 30, rn: 31 }, false);
}

/// `pacga`.
pub(crate) fn pacga(l: &mut Lift<'_>, o: R2) {
    if l.mode.pauth_trapped() {
        return l.trap(trap::PAUTH_ACCESS, None);
    }
    let (value, modifier) = (l.x(o.rn), l.x_sp(o.rm));
    let value = l.call(IntegerHelper::PacGeneric.id(), &[value, modifier]);
    l.set_x(o.rd, value);
}
