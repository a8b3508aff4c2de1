# Exceptions: classes, return addresses, saved state, vectors; alignment of pc and stack; illegal returns.
    .include "test.inc"
    start
    record_traps
    adr     x20, 0f
    adr     x28, 1f
0:  svc     #0x1234
1:  esr     x0, 0                   // #= x0 0x56001234
    elr     x1, 0
    sub     x1, x1, x20             // #= x1 4                    # behind the svc
    adr     x20, 0f
    adr     x28, 1f
0:  brk     #0x55
1:  esr     x2, 1                   // #= x2 0xf2000055
    elr     x3, 1
    sub     x3, x3, x20             // #= x3 0                    # at the brk
    try     .inst 0x00000000        // udf
    esr     x4, 2                   // #= x4 0x2000000
    try     hvc #0                  // no EL2
    class   x5, 3                   // #= x5 0
    try     smc #0                  // no EL3
    class   x6, 4                   // #= x6 0
    # A branch to an address that is not aligned is done; the exception is the destination's.
    ldr     x20, =0x80000002
    adr     x28, 1f
    blr     x20
1:  esr     x7, 5                   // #= x7 0x8a000000
    elr     x8, 5                   // #= x8 0x80000002
    far     x9, 5                   // #= x9 0x80000002
    attempt svc #7
    spsr    x10, 6                  // #= x10 0
    esr     x11, 6                  // #= x11 0x56000007
    attempt br x20
    esr     x12, 7                  // #= x12 0x8a000000
    elr     x13, 7                  // #= x13 0x80000002
    # Misaligned data: the MMU is off, so memory is Device.
    try     ldr x21, [x20]
    esr     x14, 8                  // #= x14 0x96000021
    far     x15, 8                  // #= x15 0x80000002
    try     str x21, [x20]
    esr     x16, 9                  // #= x16 0x96000061
    # Nobody answers there.
    mov     x22, #0x10
    try     ldr x21, [x22]
    esr     x17, 10                 // #= x17 0x96000010
    try     str x21, [x22]
    esr     x18, 11                 // #= x18 0x96000050
    try     br x22
    esr     x19, 12                 // #= x19 0x86000010
    elr     x21, 12                 // #= x21 0x10
    # The stack pointer.
    mrs     x23, sctlr_el1
    orr     x23, x23, #8
    msr     sctlr_el1, x23
    isb
    ldr     x23, =0x80000008
    mov     sp, x23
    try     ldr x24, [sp]
    esr     x22, 13                 // #= x22 0x9a000000
    mov     x23, #0
    mov     sp, x23
    # A return to a state that is not allowed.
    adr     x28, 1f
    mov     x23, #0x3cd             // EL3
    msr     spsr_el1, x23
    adr     x24, 0f
    msr     elr_el1, x24
    msr     nzcv, xzr
    eret
0:  nop
1:  class   x23, 14                 // #= x23 0xe
    spsr    x24, 14                 // #= x24 0x1003c5
    # Vectors: from EL0 0x400, from the same level by its own stack 0x200, by SP_EL0 0.
    ldr     x29, =which_vectors
    msr     vbar_el1, x29
    isb
    mov     x25, #0
    adr     x28, 1f
    svc     #0
1:  adr     x28, 1f
    msr     spsel, #0
    svc     #0
1:  msr     spsel, #1
    adr     x28, 1f
    user    2f, 0
2:  svc     #0
1:                                  // #= x25 0x040008
    mov     x20, #0
    mov     x26, #0
    done
    trap_recorder
    .balign 2048
which_vectors:
    .set    n, 0
    .rept   16
    mov     x26, #n
    orr     x25, x26, x25, lsl #8
    mov     x29, #0x3c5
    msr     spsr_el1, x29
    msr     elr_el1, x28
    eret
    .balign 128
    .set    n, n + 1
    .endr
