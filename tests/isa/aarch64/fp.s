# Scalar floating point: arithmetic, FPSR's flags, NaNs, rounding modes, flushing, conversions, half precision.
    .include "test.inc"
    .equ IOC, 1
    .equ DZC, 2
    .equ OFC, 4
    .equ UFC, 8
    .equ IXC, 16
    .equ IDC, 128
    # Runs one instruction with the flags clear and reads them.
    .macro flags_of register, instruction:vararg
    msr     fpsr, xzr
    \instruction
    mrs     \register, fpsr
    .endm
    .macro load register, bits
    ldr     x29, =\bits
    fmov    \register, x29
    .endm
    start
    fmov    d16, #1.0
    fmov    d17, #3.0
    load    d18, 0x7fefffffffffffff // the largest
    load    d19, 0x0010000000000000 // the smallest normal
    fmov    d20, #-1.0
    load    d21, 0x7ff0000000000001 // signalling
    load    d22, 0x7ff8000000001234 // quiet
    fmov    d23, xzr
    load    d24, 0x0000000000000003 // subnormal
    flags_of x0, fadd d0, d16, d17
    #= x0 0
    #= d0 0x4010000000000000
    flags_of x1, fdiv d1, d16, d17
    #= x1 16
    #= d1 0x3fd5555555555555
    flags_of x2, fdiv d2, d20, d23
    #= x2 2
    #= d2 0xfff0000000000000
    flags_of x3, fmul d3, d18, d17
    #= x3 0x14
    #= d3 0x7ff0000000000000
    flags_of x4, fdiv d4, d19, d17
    #= x4 0x18
    #= d4 0x0005555555555555
    flags_of x5, fsqrt d5, d20
    #= x5 1
    #= d5 0x7ff8000000000000
    flags_of x6, fadd d6, d21, d22  // the signalling one, quieted
    #= x6 1
    #= d6 0x7ff8000000000001
    flags_of x7, fadd d7, d16, d22
    #= x7 0
    #= d7 0x7ff8000000001234
    flags_of x8, fminnm d8, d16, d22
    #= x8 0
    #= d8 0x3ff0000000000000
    flags_of x9, fmin d9, d16, d22
    #= x9 0
    #= d9 0x7ff8000000001234
    flags_of x10, fcvtzs x11, d18
    #= x10 1
    #= x11 0x7fffffffffffffff
    flags_of x12, fcvtzu w13, d20
    #= x12 1
    #= x13 0
    flags_of x14, fcvtns x15, d22
    #= x14 1
    #= x15 0
    fmov    d25, #2.5
    fcvtns  x16, d25                // #= x16 2
    fcvtas  x17, d25                // #= x17 3
    fcvtps  x18, d25                // #= x18 3
    fcvtms  x19, d25                // #= x19 2
    fcvtzs  x20, d25, #4            // #= x20 40
    scvtf   d10, w20, #3            // #= d10 0x4014000000000000
    ucvtf   s11, x15                // #= d11 0
    fcvt    s12, d16                // #= d12 0x3f800000
    fcvt    h13, d17                // #= d13 0x4200
    fmadd   d14, d17, d17, d16      // #= d14 0x4024000000000000
    fnmsub  s15, s12, s12, s12      // #= d15 0
    flags_of x21, fcmp d16, d22
    #= x21 0
    mrs     x22, nzcv               // #= x22 0x30000000
    flags_of x23, fcmpe d16, d22
    #= x23 1
    fccmp   d16, d17, #0, vs
    mrs     x24, nzcv               // #= x24 0x80000000
    fcsel   d26, d16, d17, mi       // #= d26 0x3ff0000000000000
    # Default NaN, flush to zero, rounding up.
    mov     x29, #1 << 25
    msr     fpcr, x29
    fadd    d27, d16, d22           // #= d27 0x7ff8000000000000
    mov     x29, #1 << 24
    msr     fpcr, x29
    flags_of x25, fadd d28, d24, d24
    #= x25 0x80
    #= d28 0
    flags_of x26, fmul d29, d19, d1
    #= x26 8
    #= d29 0
    mov     x29, #1 << 22
    msr     fpcr, x29
    fdiv    d30, d16, d17           // #= d30 0x3fd5555555555556
    frinti  d31, d1                 // #= d31 0x3ff0000000000000
    msr     fpcr, xzr
    frintm  d16, d25                // #= d16 0x4000000000000000
    frint32z d17, d18               // #= d17 0xc1e0000000000000
    fjcvtzs w28, d25
    #= x28 2
    fabd    d18, d20, d25           // #= d18 0x400c000000000000
    fmov    h19, #1.5
    fadd    h19, h19, h13           // #= d19 0x4480
    fmulx   d20, d23, d2            // #= d20 0xc000000000000000
    frecpe  d21, d25                // #= d21 0x3fd9900000000000
    frsqrte d22, d25                // #= d22 0x3fe4300000000000
    fneg    d23, d23                // #= d23 0x8000000000000000
    frecps  d24, d25, d25           // #= d24 0xc011000000000000
    #= d25 0x4004000000000000
    done
