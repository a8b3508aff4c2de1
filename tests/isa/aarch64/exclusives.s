# Exclusive accesses: the monitor is set by loads, checked by stores, cleared by clrex, exceptions' returns and other
# addresses.
    .include "test.inc"
    start
    record_traps
    ldr     x20, =cell
    mov     x21, #7
    ldxr    x0, [x20]               // #= x0 10
    stxr    w1, x21, [x20]          // #= x1 0
    stxr    w2, x0, [x20]           // #= x2 1                    # the monitor is open
    ldr     x3, [x20]               // #= x3 7
    ldaxr   w4, [x20]               // #= x4 7
    clrex
    stlxr   w5, w0, [x20]           // #= x5 1
    ldxr    x6, [x20]               // #= x6 7
    add     x22, x20, #64
    stxr    w7, x21, [x22]          // #= x7 1                    # another address
    ldxrb   w8, [x20]               // #= x8 7
    stxrb   w9, w22, [x20]          // #= x9 0
    ldxp    x10, x11, [x20]
    stxp    w12, x11, x10, [x20]    // #= x12 0
    ldp     x13, x14, [x20]         // #= x13 20
    cmp     x14, x10
    cset    x10, eq                 // #= x10 1
    mov     x14, #0
    ldaxp   w15, w16, [x20]         // #= x15 20
    #= x16 0
    stlxp   w17, w21, w21, [x20]    // #= x17 0
    ldr     x18, [x20]              // #= x18 0x700000007
    ldxr    x19, [x20]
    try     svc #1                  // the return of the exception opens the monitor
    stxr    w23, x21, [x20]         // #= x23 1
    add     x24, x20, #2
    try     ldxr x25, [x24]
    class   x24, 1                  // #= x24 0x25
    try     stlxr w26, w21, [x20]
    class   x25, 2                  // #= x25 0x15
    #= x26 1
    mov     x20, #0
    mov     x22, #0
    mov     x19, #0
    done
    trap_recorder
    .data
    .balign 128
cell:
    .dword  10, 20
    .zero   112
