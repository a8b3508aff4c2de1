# FEAT_PAuth: what is signed authenticates with the same key and modifier, and with no other; keys that are off do
# nothing; FEAT_FPAC traps what does not authenticate.
    .include "test.inc"
    start
    record_traps
    mov     x20, #0x1234
    msr     apiakeylo_el1, x20
    msr     apiakeyhi_el1, x20
    mov     x20, #0x4321
    msr     apdakeylo_el1, x20
    msr     apgakeylo_el1, x20
    ldr     x20, =0x80001000
    mov     x21, #77
    mov     x0, x20
    pacia   x0, x21                 // the key is off
    sub     x0, x0, x20             // #= x0 0
    mrs     x22, sctlr_el1
    ldr     x23, =1 << 31 | 1 << 27
    orr     x22, x22, x23
    msr     sctlr_el1, x22
    isb
    mov     x1, x20
    pacia   x1, x21
    cmp     x1, x20
    cset    x2, ne                  // #= x2 1
    mov     x3, x1
    autia   x3, x21
    sub     x3, x3, x20             // #= x3 0
    mov     x4, x1
    xpaci   x4
    sub     x4, x4, x20             // #= x4 0
    mov     x5, x1
    try     autia x5, x20           // another modifier
    esr     x6, 0                   // #= x6 0x72000000
    mov     x7, x20
    pacda   x7, x21
    mov     x8, x7
    autda   x8, x21
    sub     x8, x8, x20             // #= x8 0
    cmp     x7, x1                  // another key
    cset    x9, ne                  // #= x9 1
    try     autda x1, x21
    esr     x10, 1                  // #= x10 0x72000002
    mov     x11, x20
    pacib   x11, x21                // still off
    sub     x11, x11, x20           // #= x11 0
    pacga   x12, x20, x21
    ands    w13, w12, w12           // #= x13 0
    lsr     x12, x12, #32
    cmp     x12, #0
    cset    x12, ne                 // #= x12 1
    # A function that signs its return address.
    mov     x26, #0
    bl      function
    #= x26 3
    ldr     x14, =target
    pacia   x14, x21
    mov     x15, #0
    blraa   x14, x21
    #= x15 9
    ldr     x16, =words
    pacdza  x16
    ldraa   x17, [x16, #8]          // #= x17 0x55
    mov     x1, #0
    mov     x5, #0
    mov     x7, #0
    mov     x14, #0
    mov     x16, #0
    mov     x20, #0
    mov     x22, #0
    mov     x23, #0
    done
function:
    paciasp
    add     x26, x26, #3
    retaa
target:
    add     x15, x15, #9
    ret
    trap_recorder
    .data
    .balign 8
words:
    .dword  0x44, 0x55
