//! The words of compact code.

/// One operation: what to do, the units of the CPU it names, and an immediate.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Word {
    pub(super) op: Opc,
    /// Destination; in terminals the block's instruction count.
    pub(super) d: u8,
    pub(super) a: u8,
    pub(super) b: u8,
    pub(super) imm: i32,
}

/// The second word of some operations.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Extra {
    pub(super) lo: i32,
    pub(super) hi: i32,
}

const _: () = assert!(size_of::<Word>() == 8 && size_of::<Extra>() == 8);

/// Declares the operation codes: single ones, and pairs of neighbours that need one dispatch.
macro_rules! opcodes {
    ($(#[$doc:meta])* { $($single:ident,)* } { $($pair:ident = $first:ident $second:ident;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub(super) enum Opc {
            $($single,)*
            $($pair,)*
        }

        impl Opc {
            /// The pair of two neighbours. It replaces the first word's code; the second word stays as it is.
            pub(super) const fn paired(first: Self, second: Self) -> Option<Self> {
                match (first, second) {
                    $((Self::$first, Self::$second) => Some(Self::$pair),)*
                    _ => None,
                }
            }

            /// All pairs, with what they are made of.
            #[cfg(test)]
            pub(super) const PAIRS: &[(Self, [Self; 2])] = &[$((Self::$pair, [Self::$first, Self::$second])),*];
        }
    };
}

#[rustfmt::skip]
opcodes! {
    /// Operation codes. `d`, `a`, `b` stand for the named units, `imm` is sign-extended.
    ///
    /// A unit that holds a value narrower than 64 bits may have anything above it: operations look at the bits they are
    /// about only. Those whose name ends in `32` use the low halves of their operands; those ending in `W` give a
    /// 32-bit result sign-extended.
    ///
    /// Pairs were chosen by how often they run while a Linux kernel boots.
    {
        // d = a; d, d+1 = a, a+1; d = imm; d = next word; d = pc + imm; d = pc + next word
        Mov, Mov2, Li, Li64, PcRel, PcRel64,
        // d = state bytes at imm, zero-extended; state bytes at imm = a
        Get8, Get16, Get32, Get64, Set8, Set16, Set32, Set64,
        // d = a op b
        Add, Sub, Mul, And, Or, Xor, AndNot, Shl, ShrU, ShrS, Rotr, Rotl,
        MulHiU, MulHiS, MulHiSU, DivU, DivS, RemU, RemS, MinU, MaxU, MinS, MaxS,
        AddW, SubW, MulW, ShlW, ShrUW, ShrSW, RotrW, RotlW, DivUW, DivSW, RemUW, RemSW,
        // d = a op imm
        AddI, MulI, AndI, OrI, XorI, ShlI, ShrUI, ShrSI, RotrI,
        AddIW, ShlIW, ShrUIW, ShrSIW, RotrIW,
        // d = a extended from the named width; (a << b) >> imm
        Zext8, Zext16, Zext32, Sext8, Sext16, Sext32, ExtU, ExtS,
        // d = (a << imm) + b; the same with a zero-extended from 32 bits
        ShAdd, ShAddUw,
        // d = op a
        Clz, Ctz, Popcnt, Bswap, Clz32, Ctz32, Popcnt32, Bswap32,
        // d = (a with bits imm[7:0] .. + imm[15:8] replaced by b)
        Deposit,
        // d = a cond b; a cond imm
        SetEq, SetNe, SetLtU, SetGeU, SetLtS, SetGeS,
        SetEqI, SetNeI, SetLtUI, SetGeUI, SetLtSI, SetGeSI,
        SetEq32, SetNe32, SetLtU32, SetGeU32, SetLtS32, SetGeS32,
        SetEqI32, SetNeI32, SetLtUI32, SetGeUI32, SetLtSI32, SetGeSI32,
        // d = unit imm's low byte is not 0 ? a : b; the whole unit is 0 ? a : b
        SelNz, SelEqz,
        // d = memory at a + imm, sign- or zero-extended; b: see `plain_flags`
        Ld8U, Ld8S, Ld16U, Ld16S, Ld32U, Ld32S, Ld64,
        // memory at a + imm = b; d: see `plain_flags`
        St8, St16, St32, St64,
        // d = a operation on binary32 or binary64 numbers a, b and a third: see `float`
        Fp32, Fp64,
        // everything else: entry imm of the block's table
        Cold,
        // d = helper imm (a, b: instruction's number in the block); next word: the arguments' units
        Call,
        // trap imm with value b if a's low byte is not 0
        TrapIf,

        // --- terminals. To imm; next word: link, if not guarded
        Jump, JumpGuarded,
        // to imm if a (cond b), else to extra.lo; next words: extra, and links if taken and if not, if not guarded
        BrNz, BrNzGuarded,
        BrEq, BrNe, BrLtU, BrGeU, BrLtS, BrGeS,
        BrEq32, BrNe32, BrLtU32, BrGeU32, BrLtS32, BrGeS32,
        // the same with extra.hi for b
        BrEqI, BrNeI, BrLtUI, BrGeUI, BrLtSI, BrGeSI,
        BrEqI32, BrNeI32, BrLtUI32, BrGeUI32, BrLtSI32, BrGeSI32,
        // to (a + imm) and not b
        JumpInd,
        // to imm, to a, and look around
        Exit, ExitInd,
        // trap imm with value a
        Trap,
    }
    {
        Ld64Ld64 = Ld64 Ld64; Ld64AddI = Ld64 AddI; Ld64Add = Ld64 Add; Ld64Sub = Ld64 Sub;
        Ld64Xor = Ld64 Xor; Ld64Mov = Ld64 Mov; Ld64St64 = Ld64 St64; Ld64BrEqI = Ld64 BrEqI;
        Ld64BrNeI = Ld64 BrNeI;
        St64St64 = St64 St64; St64AddI = St64 AddI; St64Add = St64 Add; St64Ld64 = St64 Ld64;
        St64Mov = St64 Mov;
        AddIAddI = AddI AddI; AddILd64 = AddI Ld64; AddILd8U = AddI Ld8U; AddISt64 = AddI St64;
        AddIMov = AddI Mov; AddIJump = AddI Jump; AddIJumpInd = AddI JumpInd; AddIBrNe = AddI BrNe;
        AddIBrEq = AddI BrEq; AddIBrNeI = AddI BrNeI;
        AddAdd = Add Add; AddMov = Add Mov; AddLd64 = Add Ld64; AddSetLtU = Add SetLtU; AddBrEq = Add BrEq;
        AddBrNe = Add BrNe; AddBrLtU = Add BrLtU; AddBrNeI = Add BrNeI;
        MovMov = Mov Mov; MovLi = Mov Li; MovAdd = Mov Add; MovAddI = Mov AddI; MovLd64 = Mov Ld64;
        MovJump = Mov Jump; MovBrEqI = Mov BrEqI; MovPcRel = Mov PcRel;
        LiLi = Li Li; LiMov = Li Mov; LiJump = Li Jump; LiBrEq = Li BrEq; LiBrNe = Li BrNe;
        LiBrEqI = Li BrEqI;
        PcRelJump = PcRel Jump; PcRelJumpInd = PcRel JumpInd;
        XorXor = Xor Xor;
        ExtUAdd = ExtU Add;
        ShAddLd64 = ShAdd Ld64;
        SetLtUAdd = SetLtU Add;
        MulAdd = Mul Add;
        AddIWAddI = AddIW AddI; AddIWBrNe = AddIW BrNe;
        AndIBrEqI = AndI BrEqI; AndIBrNeI = AndI BrNeI;
        ShlIExtU = ShlI ExtU; ShlIOr = ShlI Or; ShlIShAdd = ShlI ShAdd; ShlIAdd = ShlI Add;
        ShrUIMul = ShrUI Mul; ShrUIShlI = ShrUI ShlI; ShrUIAndI = ShrUI AndI;
        Ld8UMov = Ld8U Mov; Ld8UAddI = Ld8U AddI; Ld8UAndI = Ld8U AndI; Ld8UBrEqI = Ld8U BrEqI;
        Ld8UBrNeI = Ld8U BrNeI;
        Ld32SBrEqI = Ld32S BrEqI; Ld32SBrNeI = Ld32S BrNeI; Ld32SAddIW = Ld32S AddIW;
    }
}
