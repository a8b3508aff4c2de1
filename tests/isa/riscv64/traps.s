# Exceptions in machine mode: causes, mepc, mtval, and mstatus around them (volume II, 3.1.15 and 3.3).
    .include "test.inc"
    start
    record_traps
    la      s10, 1f
    la      s0, 0f
0:  ecall
1:  la      s10, 2f
    .option push
    .option norvc
    ebreak
    .option pop
2:  la      s10, 3f
    .4byte  0xffffffff              # no instruction
3:  la      s10, 4f
    .2byte  0                       # defined to be illegal
    .balign 4
4:  la      s10, 5f
    li      t0, 0x10                # nothing is there
    lw      t1, 0(t0)
5:  la      s10, 6f
    sd      t1, 0(t0)
6:  la      s10, 7f
    jr      t0
7:  cause   a0, 0                   #= a0 11                   # ecall from M
    epc     a1, 0
    sub     a1, a1, s0              #= a1 0                    # mepc: the instruction itself
    tval    a2, 0                   #= a2 0
    cause   a3, 1                   #= a3 3                    # breakpoint
    cause   a4, 2                   #= a4 2                    # illegal instruction
    tval    a5, 2                   #= a5 0xffffffff
    cause   a6, 3                   #= a6 2
    tval    a7, 3                   #= a7 0
    cause   s2, 4                   #= s2 5                    # load access fault
    tval    s3, 4                   #= s3 16
    cause   s4, 5                   #= s4 7                    # store access fault
    cause   s5, 6                   #= s5 1                    # instruction access fault
    epc     s6, 6                   #= s6 16
    tval    s7, 6                   #= s7 16
    mode_before s8, 6               #= s8 3                    # from M

    # A trap moves MIE to MPIE and clears it; mret brings it back.
    csrsi   mstatus, MSTATUS_MIE
    la      t0, 8f
    csrw    mtvec, t0
    ecall
    .balign 4
8:  csrr    s9, mstatus
    andi    s9, s9, 0x88            #= s9 0x80
    la      t0, 9f
    csrw    mepc, t0
    mret
9:  csrr    t4, mstatus
    andi    t4, t4, 0x88            #= t4 0x88
    csrci   mstatus, MSTATUS_MIE
    done
    trap_recorder
