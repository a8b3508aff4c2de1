# PMUv3: the cycle counter, instructions retired, events of software, overflow and its interrupt, EL0's access.
    .include "test.inc"
    start
    record_traps
    mov     x20, #7                 // enable, reset
    msr     pmcr_el0, x20
    mov     x20, #8                 // instructions
    msr     pmevtyper0_el0, x20
    msr     pmevtyper1_el0, xzr     // software increments
    ldr     x20, =1 << 31 | 3
    msr     pmcntenset_el0, x20
    mrs     x0, pmcntenset_el0      // #= x0 0x80000003
    isb
    mrs     x20, pmevcntr0_el0
    .rept   10
    nop
    .endr
    mrs     x21, pmevcntr0_el0
    sub     x1, x21, x20            // #= x1 11
    mrs     x22, pmccntr_el0
    nop
    mrs     x23, pmccntr_el0
    cmp     x23, x22
    cset    x2, hi                  // #= x2 1
    mov     x20, #2
    msr     pmswinc_el0, x20
    msr     pmswinc_el0, x20
    mrs     x3, pmevcntr1_el0       // #= x3 2
    # Overflow.
    mov     x20, #-2
    msr     pmevcntr1_el0, x20
    mov     x20, #2
    msr     pmintenset_el1, x20
    msr     pmswinc_el0, x20
    mrs     x4, pmovsclr_el0        // #= x4 0
    msr     pmswinc_el0, x20
    mrs     x5, pmovsclr_el0        // #= x5 2
    isb
    mrs     x6, isr_el1             // #= x6 0x80
    adr     x28, 1f
    msr     daifclr, #2
    isb
    nop
1:  spsr    x7, 0
    and     x7, x7, #0xf            // #= x7 5
    msr     pmovsclr_el0, x20
    isb
    mrs     x8, isr_el1             // #= x8 0
    # An instruction counter that overflows while code runs.
    mov     x20, #-100
    msr     pmevcntr0_el0, x20
    mov     x20, #1
    msr     pmintenset_el1, x20
    adr     x28, 3f
    msr     daifclr, #2
    ldr     x21, =100000
2:  subs    x21, x21, #1
    b.ne    2b
    msr     daifset, #2
3:  cmp     x21, #0
    cset    x9, ne                  // #= x9 1                    # before the loop's end
    mrs     x10, pmovsclr_el0       // #= x10 1
    msr     pmovsclr_el0, x10
    attempt mrs x20, pmccntr_el0
    class   x11, 2                  // #= x11 0x18
    mov     x20, #4
    msr     pmuserenr_el0, x20
    attempt mrs x20, pmccntr_el0
    class   x12, 3                  // #= x12 0x15
    attempt mrs x20, pmevcntr0_el0
    class   x13, 4                  // #= x13 0x18
    msr     pmcr_el0, xzr
    mrs     x22, pmccntr_el0
    nop
    mrs     x23, pmccntr_el0
    sub     x14, x23, x22           // #= x14 0
    mov     x20, #0
    mov     x21, #0
    mov     x22, #0
    mov     x23, #0
    done
    trap_recorder
