# Zicntr: minstret counts each instruction that retires, also across blocks and traps (volume II, 3.1.10).
    .include "test.inc"
    start
    record_traps
    csrr    s0, minstret
    csrr    s1, minstret
    sub     a0, s1, s0              #= a0 1

    csrr    s0, minstret
    j       1f
1:  nop
    beqz    zero, 2f
2:  csrr    s1, minstret
    sub     a1, s1, s0              #= a1 4

    # The loop: 1 + 100 * 2.
    csrr    s0, minstret
    li      t0, 100
3:  addi    t0, t0, -1
    bnez    t0, 3b
    csrr    s1, minstret
    sub     a2, s1, s0              #= a2 202

    # A write takes effect after the instruction that makes it.
    li      t0, 1000
    csrw    minstret, t0
    csrr    a3, minstret            #= a3 1000
    # An instruction that traps does not retire; csrr and the handler's 16 do.
    la      s10, 4f
    csrr    s0, minstret
    ecall
4:  csrr    s1, minstret
    sub     a4, s1, s0              #= a4 17

    # Stopped by mcountinhibit.
    csrwi   mcountinhibit, 4
    csrr    s0, minstret
    nop
    csrr    s1, minstret
    sub     a5, s1, s0              #= a5 0
    csrwi   mcountinhibit, 0
    done
    trap_recorder
