//! Operands as the functions that lift take them, and the assembly form each kind has.

use crate::{
    lift::Lift,
    pattern::{Field, Fields},
};
use isomer_ir::types::Order;

/// Declares operand structs filled from the fields of the same names.
macro_rules! operands {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty = $source:ident),* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) struct $name { $(pub(crate) $field: $ty),* }
        impl From<&Fields> for $name {
            fn from(fields: &Fields) -> Self {
                Self { $($field: fields.get(Field::$source) as $ty),* }
            }
        }
    )*};
}

operands! {
    /// Two sources.
    R { rd: u8 = Rd, rs1: u8 = Rs1, rs2: u8 = Rs2 }
    /// One source.
    R1 { rd: u8 = Rd, rs1: u8 = Rs1 }
    /// Two sources and a selector.
    RSel { rd: u8 = Rd, rs1: u8 = Rs1, rs2: u8 = Rs2, select: u8 = Imm }
    /// A source and an immediate: arithmetic, loads, `jalr`.
    I { rd: u8 = Rd, rs1: u8 = Rs1, imm: i64 = Imm }
    /// A store: `rs2` to `rs1 + imm`.
    S { rs1: u8 = Rs1, rs2: u8 = Rs2, imm: i64 = Imm }
    /// A conditional branch to pc + `imm`.
    B { rs1: u8 = Rs1, rs2: u8 = Rs2, imm: i64 = Imm }
    /// A destination and an immediate: `lui`, `auipc`, `jal`, `fli`.
    U { rd: u8 = Rd, imm: i64 = Imm }
    /// A CSR access; `source` is a register number or the immediate itself.
    Csr { rd: u8 = Rd, csr: u16 = Csr, rs1: u8 = Rs1, uimm: u8 = Imm }
    /// Floating point with a rounding mode field.
    Fp { rd: u8 = Rd, rs1: u8 = Rs1, rs2: u8 = Rs2, rs3: u8 = Rs3, rm: u8 = Rm }
    /// `fence`.
    Fence { fm: u8 = Fm, pred: u8 = Pred, succ: u8 = Succ }
}

/// An atomic access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Amo {
    pub(crate) rd: u8,
    pub(crate) rs1: u8,
    pub(crate) rs2: u8,
    /// From `aq` and `rl` (volume I, 13.1).
    pub(crate) order: Order,
}

impl From<&Fields> for Amo {
    fn from(fields: &Fields) -> Self {
        let order = match (fields.byte(Field::Aq), fields.byte(Field::Rl)) {
            (0, 0) => Order::Relaxed,
            (1, 0) => Order::Acquire,
            (0, _) => Order::Release,
            _ => Order::SeqCst,
        };
        Self { rd: fields.byte(Field::Rd), rs1: fields.byte(Field::Rs1), rs2: fields.byte(Field::Rs2), order }
    }
}

/// Declares the kinds of instruction: operand struct, and assembly operands. In the latter, lower-case names
/// are fields (registers with an `f` in front are floating-point ones); what an encoding lacks is left out.
macro_rules! forms {
    ($($(#[$doc:meta])* $form:ident($operands:ty) $assembly:literal)*) => {
        /// A kind of instruction with the function that lifts it.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Form {
            $($(#[$doc])* $form(fn(&mut Lift<'_>, $operands)),)*
            /// No operands.
            Plain(fn(&mut Lift<'_>)),
        }

        impl Form {
            /// Lifts.
            pub(crate) fn lift(&self, lift: &mut Lift<'_>, fields: &Fields) {
                match self {
                    $(Self::$form(function) => function(lift, fields.into()),)*
                    Self::Plain(function) => function(lift),
                }
            }

            /// The operands in assembly.
            pub(crate) const fn assembly(&self) -> &'static str {
                match self {
                    $(Self::$form(_) => $assembly,)*
                    Self::Plain(_) => "",
                }
            }
        }
    };
}

forms! {
    /// Integer, two sources.
    R(R) "rd,rs1,rs2"
    /// Integer, one source.
    R1(R1) "rd,rs1"
    /// Integer, two sources and a byte selector.
    RSel(RSel) "rd,rs1,rs2,imm"
    /// Integer with immediate.
    I(I) "rd,rs1,imm"
    /// Encodings with fields that mean nothing.
    Nop(I) ""
    /// `c.mop.n`.
    Mop(U) ""
    /// Shift by an immediate.
    Shift(I) "rd,rs1,hex"
    /// `lui`, `auipc`.
    U(U) "rd,upper"
    /// Load.
    Load(I) "rd,imm(rs1)"
    /// Store.
    Store(S) "rs2,imm(rs1)"
    /// Floating-point load.
    FpLoad(I) "frd,imm(rs1)"
    /// Floating-point store.
    FpStore(S) "frs2,imm(rs1)"
    /// Conditional branch.
    B(B) "rs1,rs2,address"
    /// `jal`.
    J(U) "rd,address"
    /// `jalr`.
    Jalr(I) "rd,imm(rs1)"
    /// `c.jr`, `c.jalr`.
    Jr(I) "rs1"
    /// Load-reserved.
    Lr(Amo) "rd,(rs1)"
    /// Read-modify-write, store-conditional.
    Amo(Amo) "rd,rs2,(rs1)"
    /// CSR and register.
    Csr(Csr) "rd,csr,rs1"
    /// CSR and immediate.
    CsrImm(Csr) "rd,csr,imm"
    /// `fence`.
    Fence(Fence) "pred,succ"
    /// `sfence.vma` and relatives.
    Sfence(R) "rs1,rs2"
    /// Cache-block operation.
    Cbo(R1) "(rs1)"
    /// Prefetch hint.
    Prefetch(S) "imm(rs1)"
    /// Floating point, two sources, rounding.
    FpRm(Fp) "frd,frs1,frs2,rm"
    /// Floating point, one source, rounding.
    Fp1Rm(Fp) "frd,frs1,rm"
    /// Fused multiply-add.
    Fp4(Fp) "frd,frs1,frs2,frs3,rm"
    /// Floating point, two sources.
    FpR(R) "frd,frs1,frs2"
    /// Floating point to integer, two sources.
    FpCompare(R) "rd,frs1,frs2"
    /// Floating point to integer, rounding.
    FpToInt(Fp) "rd,frs1,rm"
    /// `fcvtmod.w.d`, which names the only rounding it has.
    FcvtMod(R1) "rd,frs1,rtz"
    /// Integer to floating point, rounding.
    IntToFp(Fp) "frd,rs1,rm"
    /// Bits to integer.
    FpMoveTo(R1) "rd,frs1"
    /// Integer to bits.
    FpMoveFrom(R1) "frd,rs1"
    /// `fli`: a constant by number.
    Fli(U) "frd,constant"
}
