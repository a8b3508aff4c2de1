# F and D: accrued exception flags, NaNs, NaN boxing (volume I, 20 and 21). Flags: 1 inexact, 2 underflow, 4 overflow,
# 8 division by zero, 16 invalid.
    .include "test.inc"
    # Runs one instruction with the flags clear and reads the flags into \flags.
    .macro flags_of flags, instruction:vararg
    fsflags zero
    \instruction
    frflags \flags
    .endm

    start
    la      s0, doubles
    fld     fs0, 0(s0)              # 1.0
    fld     fs1, 8(s0)              # 3.0
    fld     fs2, 16(s0)             # the largest
    fld     fs3, 24(s0)             # the smallest normal
    fld     fs4, 32(s0)             # -1.0
    fld     fs5, 40(s0)             # a signalling NaN
    fmv.d.x fs6, zero               # 0.0

    flags_of a0, fadd.d fa0, fs0, fs1
    #= a0 0
    #= fa0 0x4010000000000000
    flags_of a1, fdiv.d fa1, fs0, fs1
    #= a1 1
    #= fa1 0x3fd5555555555555
    flags_of a2, fdiv.d fa2, fs4, fs6
    #= a2 8
    #= fa2 0xfff0000000000000
    flags_of a3, fmul.d fa3, fs2, fs1
    #= a3 5
    #= fa3 0x7ff0000000000000
    flags_of a4, fdiv.d fa4, fs3, fs1
    #= a4 3
    #= fa4 0x0005555555555555
    flags_of a5, fsqrt.d fa5, fs4
    #= a5 16
    #= fa5 0x7ff8000000000000       # the canonical NaN
    flags_of a6, fadd.d fa6, fs5, fs0
    #= a6 16
    #= fa6 0x7ff8000000000000       # no payload survives
    flags_of a7, fmin.d fa7, fs5, fs0
    #= a7 16
    #= fa7 0x3ff0000000000000       # the number, and invalid for a signalling NaN
    fsqrt.d ft0, fs4
    flags_of s1, feq.d s2, ft0, ft0
    #= s1 0
    #= s2 0
    flags_of s3, flt.d s4, ft0, fs0
    #= s3 16
    #= s4 0
    # A single in a register that is not NaN-boxed counts as the canonical NaN.
    flags_of s5, fadd.s ft1, fs0, fs0
    #= s5 0
    #= ft1 0xffffffff7fc00000
    # Moves and sign injections raise nothing and keep payloads.
    flags_of s6, fsgnjn.d ft2, fs5, fs5
    #= s6 0
    #= ft2 0xfff0000000000001
    # -0.0 is the smaller zero.
    fneg.d  ft3, fs6
    fmax.d  ft4, ft3, fs6
    #= ft4 0
    # Flags accrue.
    fsflags zero
    fdiv.d  ft5, fs0, fs6
    fdiv.d  ft5, fs0, fs1
    frflags s7
    #= s7 9
    done
    .data
    .balign 8
doubles:
    .dword  0x3ff0000000000000, 0x4008000000000000, 0x7fefffffffffffff
    .dword  0x0010000000000000, 0xbff0000000000000, 0x7ff0000000000001
