//! Loads and stores of general registers (Arm ARM, C4.1.96). The families have a row for each size, made by macros.

use crate::{
    Features as F,
    decode::Insn,
    lift_atomic as atomic,
    lift_mem::{self as mem, Base, has_offset_register},
    mode::Key,
    operands::{Mem, row},
    table::BASE,
};
use isomer_ir::{Type, op::RmwOp};

/// All of them.
pub(crate) static TABLES: &[&[Insn]] =
    &[SINGLES, PAIRS, PREFETCHES, EXCLUSIVES, ORDERED, RCPC, RCPC3, ATOMICS, AUTHENTICATED];

const BYTE: Mem = Mem::new(Type::I8, false, false);
const HALF: Mem = Mem::new(Type::I16, false, false);
const WORD: Mem = Mem::new(Type::I32, false, false);
const LONG: Mem = Mem::new(Type::I64, false, true);
const BYTE_TO_W: Mem = Mem::new(Type::I8, true, false);
const BYTE_TO_X: Mem = Mem::new(Type::I8, true, true);
const HALF_TO_W: Mem = Mem::new(Type::I16, true, false);
const HALF_TO_X: Mem = Mem::new(Type::I16, true, true);
const WORD_TO_X: Mem = Mem::new(Type::I32, true, true);

/// Every addressing mode of the loads and stores of one register: mnemonics (scaled, unscaled, unprivileged), size,
/// opc, the register in assembly, log2 of the size, what moves, and the functions.
macro_rules! singles {
    ($($name:literal $unscaled:literal $unprivileged:literal $size:literal $opc:literal $rt:literal $scale:literal $m:ident $by_units:ident $by_bytes:ident $by_register:ident;)*) => {
        static SINGLES: &[Insn] = &[$(
            row!($name, concat!($size, " 111001 ", $opc, " imm12 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}{off12.", $scale, "}]"), mem::$by_units, $m),
            row!($unscaled, concat!($size, " 111000 ", $opc, " 0 imm9 00 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}{off9}]"), mem::$by_bytes, $m, Base::Kept, false),
            row!($name, concat!($size, " 111000 ", $opc, " 0 imm9 01 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}], #{imm9}"), mem::$by_bytes, $m, Base::Post, false),
            row!($unprivileged, concat!($size, " 111000 ", $opc, " 0 imm9 10 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}{off9}]"), mem::$by_bytes, $m, Base::Kept, true),
            row!($name, concat!($size, " 111000 ", $opc, " 0 imm9 11 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}, #{imm9}]!"), mem::$by_bytes, $m, Base::Pre, false),
            row!($name, concat!($size, " 111000 ", $opc, " 1 Rm option S 10 Rn Rt"), BASE,
                concat!("{", $rt, "}, [{Xnsp}, {offreg.", $scale, "}]"), mem::$by_register, $m)
                .when(has_offset_register),
        )*];
    };
}

singles! {
    "strb"  "sturb"  "sttrb"  "00" "00" "Wt" "0" BYTE      store_scaled store_unscaled store_indexed;
    "ldrb"  "ldurb"  "ldtrb"  "00" "01" "Wt" "0" BYTE      load_scaled  load_unscaled  load_indexed;
    "ldrsb" "ldursb" "ldtrsb" "00" "10" "Xt" "0" BYTE_TO_X load_scaled  load_unscaled  load_indexed;
    "ldrsb" "ldursb" "ldtrsb" "00" "11" "Wt" "0" BYTE_TO_W load_scaled  load_unscaled  load_indexed;
    "strh"  "sturh"  "sttrh"  "01" "00" "Wt" "1" HALF      store_scaled store_unscaled store_indexed;
    "ldrh"  "ldurh"  "ldtrh"  "01" "01" "Wt" "1" HALF      load_scaled  load_unscaled  load_indexed;
    "ldrsh" "ldursh" "ldtrsh" "01" "10" "Xt" "1" HALF_TO_X load_scaled  load_unscaled  load_indexed;
    "ldrsh" "ldursh" "ldtrsh" "01" "11" "Wt" "1" HALF_TO_W load_scaled  load_unscaled  load_indexed;
    "str"   "stur"   "sttr"   "10" "00" "Wt" "2" WORD      store_scaled store_unscaled store_indexed;
    "ldr"   "ldur"   "ldtr"   "10" "01" "Wt" "2" WORD      load_scaled  load_unscaled  load_indexed;
    "ldrsw" "ldursw" "ldtrsw" "10" "10" "Xt" "2" WORD_TO_X load_scaled  load_unscaled  load_indexed;
    "str"   "stur"   "sttr"   "11" "00" "Xt" "3" LONG      store_scaled store_unscaled store_indexed;
    "ldr"   "ldur"   "ldtr"   "11" "01" "Xt" "3" LONG      load_scaled  load_unscaled  load_indexed;
}

/// The addressing modes of pairs.
macro_rules! pairs {
    ($($name:literal $opc:literal $load:literal $rt:literal $rt2:literal $scale:literal $m:ident $function:ident;)*) => {
        static PAIRS: &[Insn] = &[
            row!("stnp", "00 101 0 000 0 imm7 Rt2 Rn Rt", BASE, "{Wt}, {Wt2}, [{Xnsp}{off7.2}]", mem::store_pair, WORD, Base::Kept),
            row!("ldnp", "00 101 0 000 1 imm7 Rt2 Rn Rt", BASE, "{Wt}, {Wt2}, [{Xnsp}{off7.2}]", mem::load_pair, WORD, Base::Kept),
            row!("stnp", "10 101 0 000 0 imm7 Rt2 Rn Rt", BASE, "{Xt}, {Xt2}, [{Xnsp}{off7.3}]", mem::store_pair, LONG, Base::Kept),
            row!("ldnp", "10 101 0 000 1 imm7 Rt2 Rn Rt", BASE, "{Xt}, {Xt2}, [{Xnsp}{off7.3}]", mem::load_pair, LONG, Base::Kept),
            $(
            row!($name, concat!($opc, " 101 0 001 ", $load, " imm7 Rt2 Rn Rt"), BASE,
                concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}], #{imm7.", $scale, "}"), mem::$function, $m, Base::Post),
            row!($name, concat!($opc, " 101 0 010 ", $load, " imm7 Rt2 Rn Rt"), BASE,
                concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}{off7.", $scale, "}]"), mem::$function, $m, Base::Kept),
            row!($name, concat!($opc, " 101 0 011 ", $load, " imm7 Rt2 Rn Rt"), BASE,
                concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}, #{imm7.", $scale, "}]!"), mem::$function, $m, Base::Pre),
        )*];
    };
}

pairs! {
    "stp"   "00" "0" "Wt" "Wt2" "2" WORD store_pair;
    "ldp"   "00" "1" "Wt" "Wt2" "2" WORD load_pair;
    "ldpsw" "01" "1" "Xt" "Xt2" "2" WORD_TO_X load_pair;
    "stp"   "10" "0" "Xt" "Xt2" "3" LONG store_pair;
    "ldp"   "10" "1" "Xt" "Xt2" "3" LONG load_pair;
}

/// Literals, and prefetches, which do nothing and never fault.
#[rustfmt::skip]
static PREFETCHES: &[Insn] = &[
    row!("ldr",   "00 011 0 00 imm19 Rt",                      BASE, "{Wt}, {imm19}", mem::load_literal, WORD),
    row!("ldr",   "01 011 0 00 imm19 Rt",                      BASE, "{Xt}, {imm19}", mem::load_literal, LONG),
    row!("ldrsw", "10 011 0 00 imm19 Rt",                      BASE, "{Xt}, {imm19}", mem::load_literal, WORD_TO_X),
    row!("prfm",  "11 011 0 00 imm19 Rt",                      BASE, "{prfop}, {imm19}", mem::nothing),
    row!("prfm",  "11 111001 10 imm12 Rn Rt",                  BASE, "{prfop}, [{Xnsp}{off12.3}]", mem::nothing),
    row!("prfum", "11 111000 10 0 imm9 00 Rn Rt",              BASE, "{prfop}, [{Xnsp}{off9}]", mem::nothing),
    row!("prfm",  "11 111000 10 1 Rm option S 10 Rn Rt",       BASE, "{prfop}, [{Xnsp}, {offreg.3}]", mem::nothing).when(has_offset_register),
];

/// Exclusives and compare-and-swaps of each size.
macro_rules! exclusives {
    ($($suffix:literal $size:literal $rt:literal $rs:literal $ty:ident;)*) => {
        static EXCLUSIVES: &[Insn] = &[
            row!("stxp",  "10 001000 001 Rs 0 Rt2 Rn Rt", BASE, "{Ws}, {Wt}, {Wt2}, [{Xnsp}]", atomic::store_exclusive_pair),
            row!("stlxp", "10 001000 001 Rs 1 Rt2 Rn Rt", BASE, "{Ws}, {Wt}, {Wt2}, [{Xnsp}]", atomic::store_exclusive_pair),
            row!("ldxp",  "10 001000 011 xxxxx 0 Rt2 Rn Rt", BASE, "{Wt}, {Wt2}, [{Xnsp}]", atomic::load_exclusive_pair),
            row!("ldaxp", "10 001000 011 xxxxx 1 Rt2 Rn Rt", BASE, "{Wt}, {Wt2}, [{Xnsp}]", atomic::load_exclusive_pair),
            row!("stxp",  "11 001000 001 Rs 0 Rt2 Rn Rt", BASE, "{Ws}, {Xt}, {Xt2}, [{Xnsp}]", atomic::store_exclusive_quad),
            row!("stlxp", "11 001000 001 Rs 1 Rt2 Rn Rt", BASE, "{Ws}, {Xt}, {Xt2}, [{Xnsp}]", atomic::store_exclusive_quad),
            row!("ldxp",  "11 001000 011 xxxxx 0 Rt2 Rn Rt", BASE, "{Xt}, {Xt2}, [{Xnsp}]", atomic::load_exclusive_quad),
            row!("ldaxp", "11 001000 011 xxxxx 1 Rt2 Rn Rt", BASE, "{Xt}, {Xt2}, [{Xnsp}]", atomic::load_exclusive_quad),
            $(
            row!(concat!("stxr", $suffix), concat!($size, " 001000 000 Rs 0 xxxxx Rn Rt"), BASE, concat!("{Ws}, {", $rt, "}, [{Xnsp}]"), atomic::store_exclusive, Type::$ty),
            row!(concat!("stlxr", $suffix), concat!($size, " 001000 000 Rs 1 xxxxx Rn Rt"), BASE, concat!("{Ws}, {", $rt, "}, [{Xnsp}]"), atomic::store_exclusive, Type::$ty),
            row!(concat!("ldxr", $suffix), concat!($size, " 001000 010 xxxxx 0 xxxxx Rn Rt"), BASE, concat!("{", $rt, "}, [{Xnsp}]"), atomic::load_exclusive, Type::$ty),
            row!(concat!("ldaxr", $suffix), concat!($size, " 001000 010 xxxxx 1 xxxxx Rn Rt"), BASE, concat!("{", $rt, "}, [{Xnsp}]"), atomic::load_exclusive, Type::$ty),
            row!(concat!("cas", $suffix), concat!($size, " 001000 101 Rs 0 11111 Rn Rt"), F::LSE, concat!("{", $rs, "}, {", $rt, "}, [{Xnsp}]"), atomic::compare_and_swap, Type::$ty),
            row!(concat!("casl", $suffix), concat!($size, " 001000 101 Rs 1 11111 Rn Rt"), F::LSE, concat!("{", $rs, "}, {", $rt, "}, [{Xnsp}]"), atomic::compare_and_swap, Type::$ty),
            row!(concat!("casa", $suffix), concat!($size, " 001000 111 Rs 0 11111 Rn Rt"), F::LSE, concat!("{", $rs, "}, {", $rt, "}, [{Xnsp}]"), atomic::compare_and_swap, Type::$ty),
            row!(concat!("casal", $suffix), concat!($size, " 001000 111 Rs 1 11111 Rn Rt"), F::LSE, concat!("{", $rs, "}, {", $rt, "}, [{Xnsp}]"), atomic::compare_and_swap, Type::$ty),
        )*];
    };
}

exclusives! {
    "b" "00" "Wt" "Ws" I8;
    "h" "01" "Wt" "Ws" I16;
    "" "10" "Wt" "Ws" I32;
    "" "11" "Xt" "Xs" I64;
}

/// Load-acquire and store-release.
macro_rules! ordered {
    ($($suffix:literal $size:literal $rt:literal $m:ident;)*) => {
        static ORDERED: &[Insn] = &[
            $(
            row!(concat!("stllr", $suffix), concat!($size, " 001000 100 11111 0 11111 Rn Rt"), F::LOR, concat!("{", $rt, "}, [{Xnsp}]"), atomic::store_release, $m),
            row!(concat!("stlr", $suffix), concat!($size, " 001000 100 11111 1 11111 Rn Rt"), BASE, concat!("{", $rt, "}, [{Xnsp}]"), atomic::store_release, $m),
            row!(concat!("ldlar", $suffix), concat!($size, " 001000 110 11111 0 11111 Rn Rt"), F::LOR, concat!("{", $rt, "}, [{Xnsp}]"), atomic::load_acquire, $m),
            row!(concat!("ldar", $suffix), concat!($size, " 001000 110 11111 1 11111 Rn Rt"), BASE, concat!("{", $rt, "}, [{Xnsp}]"), atomic::load_acquire, $m),
            row!(concat!("ldapr", $suffix), concat!($size, " 111000 101 11111 1 100 00 Rn Rt"), F::LRCPC, concat!("{", $rt, "}, [{Xnsp}]"), atomic::load_rcpc, $m),
            row!(concat!("stlur", $suffix), concat!($size, " 011001 00 0 imm9 00 Rn Rt"), F::LRCPC2, concat!("{", $rt, "}, [{Xnsp}{off9}]"), atomic::store_release_unscaled, $m),
            row!(concat!("ldapur", $suffix), concat!($size, " 011001 01 0 imm9 00 Rn Rt"), F::LRCPC2, concat!("{", $rt, "}, [{Xnsp}{off9}]"), atomic::load_rcpc_unscaled, $m),
        )*];
    };
}

ordered! {
    "b" "00" "Wt" BYTE;
    "h" "01" "Wt" HALF;
    "" "10" "Wt" WORD;
    "" "11" "Xt" LONG;
}

/// Load-acquire RCpc with sign extension.
#[rustfmt::skip]
static RCPC: &[Insn] = &[
    row!("ldapursb", "00 011001 10 0 imm9 00 Rn Rt", F::LRCPC2, "{Xt}, [{Xnsp}{off9}]", atomic::load_rcpc_unscaled, BYTE_TO_X),
    row!("ldapursb", "00 011001 11 0 imm9 00 Rn Rt", F::LRCPC2, "{Wt}, [{Xnsp}{off9}]", atomic::load_rcpc_unscaled, BYTE_TO_W),
    row!("ldapursh", "01 011001 10 0 imm9 00 Rn Rt", F::LRCPC2, "{Xt}, [{Xnsp}{off9}]", atomic::load_rcpc_unscaled, HALF_TO_X),
    row!("ldapursh", "01 011001 11 0 imm9 00 Rn Rt", F::LRCPC2, "{Wt}, [{Xnsp}{off9}]", atomic::load_rcpc_unscaled, HALF_TO_W),
    row!("ldapursw", "10 011001 10 0 imm9 00 Rn Rt", F::LRCPC2, "{Xt}, [{Xnsp}{off9}]", atomic::load_rcpc_unscaled, WORD_TO_X),
];

/// FEAT_LRCPC3.
macro_rules! rcpc3 {
    ($($size:literal $rt:literal $rt2:literal $m:ident $one:literal $two:literal;)*) => {
        static RCPC3: &[Insn] = &[$(
            row!("stilp", concat!($size, " 011001 000 Rm 000010 Rn Rt"), F::LRCPC3, concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}, #-", $two, "]!"), atomic::store_release_pair, $m, Base::Pre),
            row!("stilp", concat!($size, " 011001 000 Rm 000110 Rn Rt"), F::LRCPC3, concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}]"), atomic::store_release_pair, $m, Base::Kept),
            row!("ldiapp", concat!($size, " 011001 010 Rm 000010 Rn Rt"), F::LRCPC3, concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}], #", $two), atomic::load_acquire_pair, $m, Base::Post),
            row!("ldiapp", concat!($size, " 011001 010 Rm 000110 Rn Rt"), F::LRCPC3, concat!("{", $rt, "}, {", $rt2, "}, [{Xnsp}]"), atomic::load_acquire_pair, $m, Base::Kept),
            row!("stlr", concat!($size, " 011001 100 00000 000010 Rn Rt"), F::LRCPC3, concat!("{", $rt, "}, [{Xnsp}, #-", $one, "]!"), atomic::store_release_pre, $m),
            row!("ldapr", concat!($size, " 011001 110 00000 000010 Rn Rt"), F::LRCPC3, concat!("{", $rt, "}, [{Xnsp}], #", $one), atomic::load_rcpc_post, $m),
        )*];
    };
}

rcpc3! {
    "10" "Wt" "Wm" WORD "4" "8";
    "11" "Xt" "Xm" LONG "8" "16";
}

/// LSE's read-modify-writes: an operation's rows for each size, with all orders in one.
macro_rules! atomics {
    ($($name:literal $opc:literal $op:ident;)*) => {
        static ATOMICS: &[Insn] = &[
            row!("casp{cas.order}", "00 001000 0 L 1 Rs o0 11111 Rn Rt", F::LSE, "{Ws}, {Ws.next}, {Wt}, {Wt.next}, [{Xnsp}]", atomic::compare_and_swap_pair, false).when(atomic::has_even_pairs),
            row!("casp{cas.order}", "01 001000 0 L 1 Rs o0 11111 Rn Rt", F::LSE, "{Xs}, {Xs.next}, {Xt}, {Xt.next}, [{Xnsp}]", atomic::compare_and_swap_pair, true).when(atomic::has_even_pairs),
            $(
            row!(concat!($name, "{order}b"), concat!("00 111000 A R 1 Rs ", $opc, " 00 Rn Rt"), F::LSE, "{Ws}, {Wt}, [{Xnsp}]", atomic::read_modify_write, RmwOp::$op, Type::I8),
            row!(concat!($name, "{order}h"), concat!("01 111000 A R 1 Rs ", $opc, " 00 Rn Rt"), F::LSE, "{Ws}, {Wt}, [{Xnsp}]", atomic::read_modify_write, RmwOp::$op, Type::I16),
            row!(concat!($name, "{order}"), concat!("10 111000 A R 1 Rs ", $opc, " 00 Rn Rt"), F::LSE, "{Ws}, {Wt}, [{Xnsp}]", atomic::read_modify_write, RmwOp::$op, Type::I32),
            row!(concat!($name, "{order}"), concat!("11 111000 A R 1 Rs ", $opc, " 00 Rn Rt"), F::LSE, "{Xs}, {Xt}, [{Xnsp}]", atomic::read_modify_write, RmwOp::$op, Type::I64),
        )*];
    };
}

atomics! {
    "ldadd"  "0000" Add;
    "ldclr"  "0001" AndNot;
    "ldeor"  "0010" Xor;
    "ldset"  "0011" Or;
    "ldsmax" "0100" MaxS;
    "ldsmin" "0101" MinS;
    "ldumax" "0110" MaxU;
    "ldumin" "0111" MinU;
    "swp"    "1000" Xchg;
}

/// Loads through authenticated pointers.
#[rustfmt::skip]
static AUTHENTICATED: &[Insn] = &[
    row!("ldraa", "11 111000 0 S10 1 imm9 0 1 Rn Rt", F::PAUTH, "{Xt}, [{Xnsp}{off10}]", mem::load_authenticated, Key::DA),
    row!("ldraa", "11 111000 0 S10 1 imm9 1 1 Rn Rt", F::PAUTH, "{Xt}, [{Xnsp}{off10}]!", mem::load_authenticated, Key::DA),
    row!("ldrab", "11 111000 1 S10 1 imm9 0 1 Rn Rt", F::PAUTH, "{Xt}, [{Xnsp}{off10}]", mem::load_authenticated, Key::DB),
    row!("ldrab", "11 111000 1 S10 1 imm9 1 1 Rn Rt", F::PAUTH, "{Xt}, [{Xnsp}{off10}]!", mem::load_authenticated, Key::DB),
];
