# Advanced SIMD: integer arithmetic, saturation and QC, widening and narrowing, permutations, reductions, structures.
    .include "test.inc"
    start
    flat_memory
    ldr     x20, =data
    ldp     q16, q17, [x20]
    ldp     q18, q19, [x20, #32]
    add     v0.16b, v16.16b, v17.16b // #= v0 0x8123cdef800080010123cdef
    sqadd   v1.8h, v16.8h, v17.8h   // #= v1 0x3f8076e6579a80ff00018024579a
    mrs     x0, fpsr
    #= x0 0x8000000
    msr     fpsr, xzr
    uqsub   v2.4s, v16.4s, v17.4s   // #= v2 0xc0a00001404845677fff7eef80ff4567
    srhadd  v3.16b, v16.16b, v17.16b // #= v3 0xcdefcdefcdefcdefcdefcdefcdefcdef
    smull2  v4.4s, v16.8h, v17.8h   // #= v4 0x3ffffedd000000007f8997aa4e201100
    mov     v15.16b, v17.16b
    umlal   v4.4s, v16.4h, v15.h[3]
    sqdmulh v5.4s, v16.4s, v17.s[1] // #= v5 0xfede399bf6694a57ef4643ac00018805
    sqrdmlah v5.8h, v16.8h, v17.8h
    addhn   v6.8b, v16.8h, v17.8h   // #= v6 0x42458acebf01c075cdc50a4c8146094c
    raddhn2 v6.16b, v17.8h, v18.8h
    sqxtun  v7.4h, v18.4s           // #= v7 0x89ab0000000000000001ffffffff
    sshl    v8.8h, v16.8h, v19.8h   // #= v8 0xffffffffffffff81ffffffffffffff81
    sqrshrn v9.8b, v18.8h, #3       // #= v9 0xc0a0000012ff00033f8000004048f5c3
    sri     v9.4s, v16.4s, #5
    tbl     v10.16b, {v16.16b, v17.16b}, v19.16b // #= v10 0xcdabefef45230101
    tbx     v10.8b, {v17.16b}, v18.8b
    zip1    v11.8h, v16.8h, v17.8h  // #= v11 0x7fff012320459415050606c37eefcdef
    uzp2    v12.16b, v16.16b, v17.16b // #= v12 0x4048f5c3
    trn1    v13.2d, v16.2d, v17.2d  // #= v13 0x7fc00000000000000192a2b3bd4f2fff
    ext     v14.16b, v16.16b, v17.16b, #5 // #= v14 0x3ff000000000000040090000c6b86000
    addv    b15, v16.16b            // #= v15 0xc3dfb72ea61d950d43dfffc03fe00020
    smaxv   h20, v17.8h             // #= v20 0xaa000000ffffffffffffffffffffffff
    uaddlv  s21, v16.8h             // #= v21 0x39e25
    cmhi    v22.16b, v16.16b, v17.16b // #= v22 0x1f1e001112000003010200044048f508
    bsl     v22.16b, v18.16b, v19.16b
    cnt     v23.16b, v18.16b        // #= v23 0x2020000000000010601000001020604
    rev64   v24.4h, v16.4h          // #= v24 0xcdef89ab45670123
    sdot    v25.4s, v16.16b, v17.16b // #= v25 0x1d6700002277fffffff500002387
    usmmla  v26.4s, v16.16b, v17.16b // #= v26 0xffff39de00003df0ffff8f280000107c
    pmull   v27.8h, v16.8b, v17.8b  // #= v27 0x7f1ee1000022dd4480000022f65455
    abs     v28.2d, v17.2d          // #= v28 0x7edcba98765432117fff00ff80007eef
    movi    v29.4s, #0x5a, msl #8   // #= v29 0x5a0f00005a0f00005a0f00005a0f
    bic     v29.8h, #0xf0
    ld3     {v0.8h, v1.8h, v2.8h}, [x20], #48 // #= x20 0
    add     v1.8h, v1.8h, v0.8h
    ldr     x21, =buffer
    st4     {v16.4s, v17.4s, v18.4s, v19.4s}, [x21]
    ldp     q30, q31, [x21, #16]    // #= v30 0x10203043f8000007fff00ff01234567
    #= v31 0x12ff00030000000189abcdef80ff7f01
    ld1r    {v3.8h}, [x21]
    ld2     {v5.b, v6.b}[7], [x21]
    umov    w1, v17.h[5]            // #= x1 0x89ab
    smov    x2, v17.b[15]           // #= x2 0xffffffffffffff81
    ins     v7.s[3], w1
    dup     v8.2d, x2
    fadd    v9.4s, v18.4s, v19.4s
    fcmla   v11.4s, v18.4s, v19.4s, #90
    fmaxnmv s12, v18.4s
    bfdot   v13.4s, v18.8h, v19.8h
    fcvtl   v14.4s, v18.4h
    scvtf   v15.2d, v17.2d
    urecpe  v20.4s, v18.4s
    mrs     x3, fpsr                // #= x3 0x8000010
    mov     x20, #0
    mov     x21, #0
    done
    flat_tables
    .data
    .balign 16
data:
    .dword  0x0123456789abcdef, 0x8000800180ff7f01
    .dword  0x7fff00ff80007eef, 0x8123456789abcdef
    .dword  0x3f8000004048f5c3, 0xc0a0000000000001
    .dword  0x0102030405060708, 0x1f1e101112ff0003
buffer:
    .zero   128
