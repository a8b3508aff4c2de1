# NZCV: arithmetic, logic, conditional selection, comparison and branches, FEAT_FlagM.
    .include "test.inc"
    # NZCV as \register's low digit.
    .macro flags register
    mrs     \register, nzcv
    lsr     \register, \register, #28
    .endm
    start
    mov     x20, #1
    mov     x21, #-1
    mov     x22, #0x7fffffffffffffff
    adds    x23, x20, x21
    flags   x0                      // #= x0 6
    adds    x23, x22, x20
    flags   x1                      // #= x1 9
    subs    x23, x20, x20
    flags   x2                      // #= x2 6
    cmp     x20, x22
    flags   x3                      // #= x3 8
    cmn     w21, w21
    flags   x4                      // #= x4 0xa
    ands    x23, x21, #0x8000000000000000
    flags   x5                      // #= x5 8
    bics    x23, x20, x21
    flags   x6                      // #= x6 4
    subs    xzr, x20, x21           // no carry: a borrow
    adcs    x7, x20, x20            // #= x7 2
    sbcs    x8, x20, x20            // #= x8 -1
    cmp     x20, x20
    sbc     w9, w20, w22            // #= x9 2
    ngcs    x10, x21
    flags   x11
    #= x10 1
    #= x11 0
    # All sixteen conditions, a bit each, for three sets of flags.
    .macro conditions register, bits
    mov     x23, #\bits
    lsl     x23, x23, #28
    mov     \register, #0
    .irp    cond, eq, ne, cs, cc, mi, pl, vs, vc, hi, ls, ge, lt, gt, le, al
    msr     nzcv, x23
    cset    x24, \cond
    orr     \register, x24, \register, lsl #1
    .endr
    .endm
    cmp     x20, x20
    csel    x12, x20, x21, ne       // #= x12 -1
    csinc   x13, x20, x21, ne       // #= x13 0
    csinv   w14, w20, w21, ne       // #= x14 0
    csneg   x15, x20, x22, eq       // #= x15 1
    ccmp    x20, #0, #0xd, ne
    flags   x16                     // #= x16 0xd
    ccmp    x20, #1, #0, gt
    flags   x17
    #= x17 0
    ccmn    w20, w21, #0, vc
    flags   x18                     // #= x18 6
    mov     x19, #0
    b.eq    1f
    mov     x19, #1
1:  b.ne    2f
    add     x19, x19, #2
2:  cbz     x20, 3f
    add     x19, x19, #4
3:  cbnz    w20, 4f
    add     x19, x19, #8
4:  tbz     x21, #63, 5f
    add     x19, x19, #16
5:  tbnz    w20, #0, 6f
    add     x19, x19, #32
6:                                  // #= x19 22
    msr     nzcv, xzr
    cfinv
    flags   x23                     // #= x23 2
    mov     x24, #0x1b0
    rmif    x24, #4, #0xf
    flags   x24                     // #= x24 0xb
    mov     w25, #0x7f80
    setf8   w25
    flags   x25                     // #= x25 0xa
    mov     x26, #0x10000
    setf16  w26
    flags   x26                     // #= x26 7
    msr     nzcv, x21
    axflag
    mrs     x27, nzcv
    lsr     x27, x27, #28
    xaflag
    mrs     x28, nzcv
    lsr     x28, x28, #28
    #= x27 4
    #= x28 3
    #= nzcv 3
    done
