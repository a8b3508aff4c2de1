# The generic timers: the counter goes on, comparators by value and by countdown, their interrupts, `wfi`, `wfit`.
    .include "test.inc"
    start
    record_traps
    mrs     x0, cntfrq_el0
    cmp     x0, #0
    cset    x0, ne                  // #= x0 1
    isb
    mrs     x20, cntvct_el0
    isb
    mrs     x21, cntvct_el0
    cmp     x21, x20
    cset    x1, hs                  // #= x1 1
    # A comparator in the past.
    msr     cntv_cval_el0, x20
    mov     x22, #1
    msr     cntv_ctl_el0, x22
    isb
    mrs     x2, cntv_ctl_el0        // #= x2 5
    mrs     x3, isr_el1             // #= x3 0x80
    mov     x22, #3                 // masked
    msr     cntv_ctl_el0, x22
    isb
    mrs     x4, cntv_ctl_el0        // #= x4 7
    mrs     x5, isr_el1             // #= x5 0
    mov     x22, #1
    msr     cntv_ctl_el0, x22
    adr     x28, 1f
    msr     daifclr, #2
    isb
    nop
1:  mrs     x6, daif                // #= x6 0x3c0
    spsr    x7, 0
    and     x7, x7, #0x3ff          // #= x7 0x345
    msr     cntv_ctl_el0, xzr
    # In the future: waiting ends with the interrupt.
    mov     x22, #20000
    msr     cntp_tval_el0, x22
    mov     x22, #1
    msr     cntp_ctl_el0, x22
    isb
    mrs     x23, cntp_tval_el0
    cmp     w23, w22, lsl #15
    cset    x8, le                  // #= x8 1
2:  wfi
    mrs     x9, cntp_ctl_el0
    tbz     x9, #2, 2b              // #= x9 5
    mrs     x10, isr_el1            // #= x10 0x80
    msr     cntp_ctl_el0, xzr
    isb
    mrs     x11, isr_el1            // #= x11 0
    mrs     x22, cntvct_el0
    add     x22, x22, #2000
    .inst   0xd5031036              // wfit x22
3:  isb
    mrs     x23, cntvct_el0
    cmp     x23, x22
    b.lo    3b
    cset    x12, hs                 // #= x12 1
    # EL0 may be let in.
    mov     x23, #3
    msr     cntkctl_el1, x23
    attempt mrs x23, cntvct_el0
    class   x13, 1                  // #= x13 0x15
    attempt mrs x23, cntv_ctl_el0
    class   x14, 2                  // #= x14 0x18
    mov     x20, #0
    mov     x21, #0
    mov     x22, #0
    mov     x23, #0
    done
    trap_recorder
