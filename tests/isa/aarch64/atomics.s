# FEAT_LSE and FEAT_LRCPC: read-modify-write, swap, compare and swap, and ordered accesses.
    .include "test.inc"
    start
    record_traps
    ldr     x20, =cell
    mov     x21, #5
    ldadd   x21, x0, [x20]          // #= d0 10
    ldaddal w21, w1, [x20]          // #= d1 15
    ldclr   x21, x2, [x20]          // #= d2 20
    ldeora  x21, x3, [x20]          // #= d3 16
    ldset   x21, x4, [x20]          // #= x4 21
    mov     x22, #-7
    ldsmax  x22, x5, [x20]          // #= x5 21
    ldumax  x22, x6, [x20]          // #= x6 21
    ldsmin  x21, x7, [x20]          // #= x7 -7
    ldumin  x21, x8, [x20]          // #= x8 -7
    swp     x22, x9, [x20]          // #= x9 5
    swpb    w21, w10, [x20]         // #= x10 0xf9
    ldsmaxh w21, w11, [x20]         // #= x11 0xff05
    ldr     x12, [x20]              // #= x12 0xffffffffffff0005
    ldaddb  w22, w13, [x20]         // #= x13 5
    ldrb    w14, [x20]              // #= x14 0xfe
    mov     x15, #0xffffffffffff00fe
    cas     x15, x21, [x20]         // #= x15 0xffffffffffff00fe
    mov     x16, #1
    cas     w16, w22, [x20]         // #= x16 5                   # not equal: nothing is stored
    ldr     x17, [x20]              // #= x17 5
    fmov    d0, x0
    fmov    d1, x1
    fmov    d2, x2
    fmov    d3, x3
    ldr     x26, =pair
    mov     x0, #1
    mov     x1, #2
    mov     x2, #3
    mov     x3, #4
    caspal  x0, x1, x2, x3, [x26]
    ldp     x18, x19, [x26]         // #= x18 3
    #= x19 4
    caspal  w0, w1, w2, w3, [x26]
    #= x0 3
    #= x1 0
    stlr    x21, [x20]
    ldar    x23, [x20]              // #= x23 5
    ldapr   w24, [x20]              // #= x24 5
    stlurb  w22, [x20, #3]
    ldapursb x25, [x20, #3]         // #= x25 -7
    stadd   x21, [x20]
    ldr     x26, [x20]              // #= x26 0xf900000a
    # Atomic accesses are aligned.
    add     x20, x20, #1
    try     ldadd x21, x3, [x20]
    esr     x2, 0                   // #= x2 0x96000021
    far     x3, 0
    sub     x3, x3, x20             // #= x3 0
    mov     x20, #0
    done
    trap_recorder
    .data
    .balign 16
cell:
    .dword  10, 0
pair:
    .dword  1, 2
