# System registers: identification, what EL0 may reach, PSTATE's fields, stack pointers, addresses translated by `at`.
    .include "test.inc"
    start
    record_traps
    mrs     x0, currentel           // #= x0 4
    mrs     x1, daif                // #= x1 0x3c0
    msr     daifclr, #0xa
    mrs     x2, daif                // #= x2 0x140
    msr     daifset, #0xf
    msr     spsel, #0
    mov     sp, #64
    msr     spsel, #1
    mov     sp, #128
    mrs     x3, sp_el0              // #= x3 64
    mrs     x4, spsel               // #= x4 1
    msr     pan, #1
    mrs     x5, pan                 // #= x5 0x400000
    msr     pan, #0
    msr     uao, #1
    mrs     x6, uao                 // #= x6 0x800000
    msr     uao, #0
    msr     dit, #1
    mrs     x7, dit                 // #= x7 0x1000000
    msr     ssbs, #1
    mrs     x8, ssbs                // #= x8 0x1000
    mov     x20, #0x1234
    msr     tpidr_el0, x20
    msr     tpidrro_el0, x20
    msr     tpidr_el1, x20
    mrs     x9, tpidrro_el0         // #= x9 0x1234
    mrs     x10, mpidr_el1
    and     x10, x10, #0xffffff     // #= x10 0
    # EL0 sees no identification registers: Linux emulates them, by the class of a trapped access (FEAT_IDST).
    attempt mrs x21, midr_el1
    class   x11, 0                  // #= x11 0x18
    esr     x12, 0                  // #= x12 0x623002a1
    attempt mrs x21, id_aa64pfr0_el1
    class   x13, 1                  // #= x13 0x18
    attempt mrs x21, sctlr_el1
    class   x14, 2                  // #= x14 0
    attempt msr tpidrro_el0, x20
    class   x15, 3                  // #= x15 0
    attempt mrs x16, tpidr_el0      // #= x16 0x1234
    attempt mrs x21, ctr_el0        // SCTLR_EL1.UCT is clear
    esr     x17, 5                  // #= x17 0x6232c2a1
    attempt msr daifset, #2         // SCTLR_EL1.UMA is clear
    class   x18, 6                  // #= x18 0x18
    attempt mrs x19, dczid_el0      // #= x19 0x14                # SCTLR_EL1.DZE is clear
    mrs     x22, sctlr_el1
    bic     x22, x22, #1 << 16      // nTWI
    msr     sctlr_el1, x22
    attempt wfi
    esr     x20, 8                  // #= x20 0x7e00000
    attempt mrs x21, cntvct_el0     // CNTKCTL_EL1 is 0
    class   x21, 9                  // #= x21 0x18
    mrs     x22, sctlr_el1
    ldr     x23, =1 << 14 | 1 << 15 | 1 << 26 | 1 << 9 | 1 << 16
    orr     x22, x22, x23
    msr     sctlr_el1, x22
    isb
    attempt mrs x22, ctr_el0
    class   x22, 10                 // #= x22 0x15
    attempt mrs x23, dczid_el0      // #= x23 4
    attempt msr daifset, #2
    class   x24, 12                 // #= x24 0x15
    # Floating point can be switched off.
    mov     x25, #1 << 20
    msr     cpacr_el1, x25
    isb
    attempt fmov d0, x25
    esr     x25, 13                 // #= x25 0x1fe00000
    msr     cpacr_el1, xzr
    isb
    try     fmov d0, x25
    class   x26, 14                 // #= x26 7
    mov     x20, #3 << 20
    msr     cpacr_el1, x20
    try     msr vbar_el2, x20
    class   x20, 15
    fmov    d0, x20                 // #= d0 0
    try     mrs x20, s3_0_c0_c7_7   // reserved: reads as zero
    fmov    d1, x20                 // #= d1 0
    #= sp 128
    esr     x20, 8
    done
    trap_recorder
