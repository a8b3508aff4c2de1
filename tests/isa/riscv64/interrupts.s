# Interrupts: pending, enabled, taken at once, vectored, delegated (volume II, 3.1.7 to 3.1.9).
# The timer's line is up throughout; software makes the others pending.
    .include "test.inc"
    start
    li      a0, 0
    li      a4, 0
    csrr    t0, mip
    andi    a1, t0, 0x80            #= a1 0x80                 # MTIP

    la      t0, vectors + 1
    csrw    mtvec, t0
    li      t0, 0x80
    csrw    mie, t0
    nop                             # nothing happens: mstatus.MIE is clear
    addi    a0, a0, 1
    la      s0, 1f
    csrsi   mstatus, MSTATUS_MIE
1:  addi    a0, a0, 16              # after the handler
    #= a0 0x91

    # The supervisor's software interrupt goes to S only once delegated, and is never taken in M then.
    csrci   mstatus, MSTATUS_MIE
    csrw    mie, zero
    li      t0, 2
    csrw    mideleg, t0
    csrs    mie, t0
    csrs    mip, t0
    csrsi   mstatus, MSTATUS_MIE
    nop
    csrci   mstatus, MSTATUS_MIE
    la      t0, in_supervisor
    csrw    stvec, t0
    csrsi   mstatus, 2              # SIE
    enter   MSTATUS_MPP_S, 2f
2:  li      a4, 99                  #= a4 0                    # the interrupt comes first
    j       2b

    .balign 4
in_supervisor:
    csrr    a2, scause              #= a2 0x8000000000000001
    csrr    a3, sepc
    la      t0, 2b
    sub     a3, a3, t0              #= a3 0
    csrr    a5, sip                 #= a5 2
    csrci   sip, 2
    csrr    a6, sip                 #= a6 0
    done

    .option push
    .option norvc
    .balign 256
vectors:
    j       unexpected_trap
    .rept   6
    j       unexpected_trap
    .endr
    j       timer
    .option pop
timer:
    csrr    s1, mcause              #= s1 0x8000000000000007
    csrr    s2, mepc
    sub     s2, s2, s0              #= s2 0                    # right after the instruction that enabled it
    ori     a0, a0, 0x80
    csrw    mie, zero
    mret
