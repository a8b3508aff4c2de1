# F and D: conversions, rounding modes, classes, fused multiply-add (volume I, 20.7 to 20.9).
    .include "test.inc"
    start
    la      s0, doubles
    fld     fs0, 0(s0)              # 2.5
    fld     fs1, 8(s0)              # -2.5
    fld     fs2, 16(s0)             # 1e300
    fld     fs3, 24(s0)             # a quiet NaN
    fld     fs4, 32(s0)             # 1 + 2^-52
    fld     fs5, 40(s0)             # -(1 + 2^-51)

    fcvt.l.d a0, fs0, rne           #= a0 2                    # ties to even
    fcvt.l.d a1, fs0, rmm           #= a1 3                    # ties away from zero
    fcvt.l.d a2, fs1, rdn           #= a2 -3
    fcvt.l.d a3, fs1, rup           #= a3 -2
    fcvt.l.d a4, fs1, rtz           #= a4 -2
    fsrm    zero
    fsrmi   3
    fcvt.l.d a5, fs0                #= a5 3                    # dyn: upwards
    fsrmi   0

    fsflags zero
    fcvt.w.d a6, fs2                #= a6 0x7fffffff           # saturates
    fcvt.lu.d a7, fs1               #= a7 0
    fcvt.l.d s1, fs3                #= s1 0x7fffffffffffffff   # NaN: the largest
    frflags s2                      #= s2 16                   # invalid only, not inexact
    fcvt.wu.d s3, fs2               #= s3 -1                   # 2^32 - 1, sign-extended

    li      t0, 0x20000000000001
    fsflags zero
    fcvt.d.l fa0, t0                #= fa0 0x4340000000000000  # 2^53 + 1 is a tie
    frflags s4                      #= s4 1
    li      t0, -1
    fcvt.d.wu fa1, t0               #= fa1 0x41efffffffe00000
    fcvt.s.d fa2, fs2               #= fa2 0xffffffff7f800000
    fcvt.d.s fa3, fa2               #= fa3 0x7ff0000000000000
    fcvt.d.w fa4, t0                #= fa4 0xbff0000000000000

    # (1 + e)^2 - (1 + 2e) is e^2 if rounded once, and 0 if the product is rounded, too.
    fsflags zero
    fmadd.d fa5, fs4, fs4, fs5      #= fa5 0x3970000000000000
    frflags s5                      #= s5 0
    fnmsub.d fa6, fs4, fs4, fs4     #= fa6 0xbcb0000000000001  # -(1+e)^2 + (1+e) = -e - e^2

    fclass.d s6, fs3                #= s6 0x200                # quiet NaN
    fclass.d s7, fs1                #= s7 2                    # negative normal
    fneg.d  ft0, fa3
    fclass.d s8, ft0                #= s8 1                    # negative infinity
    fmv.d.x ft1, zero
    fclass.d s9, ft1                #= s9 0x10                 # positive zero
    fmv.x.w s10, fa2                #= s10 0x7f800000
    done
    .data
    .balign 8
doubles:
    .dword  0x4004000000000000, 0xc004000000000000, 0x7e37e43c8800759c
    .dword  0x7ff8000000000000, 0x3ff0000000000001, 0xbff0000000000002
