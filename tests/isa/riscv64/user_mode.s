# S and U modes: delegation, sret, ecall from each, and what each may not do (volume II, 3.1.8 and 10.1).
    .include "test.inc"
    start
    record_traps
    # ecall from U goes to S; everything else stays with M.
    li      t0, 1 << 8
    csrw    medeleg, t0
    la      t0, supervisor
    csrw    stvec, t0
    enter   0, user
user:
    li      a0, 1
    ecall                           # to S
after_ecall:
    addi    a0, a0, 2               # back in U
    la      s10, 1f
    csrr    t0, sstatus             # illegal in U, traps to M
1:  enter   0, user_mret
user_mret:
    la      s10, 2f
    mret                            # illegal
2:  enter   MSTATUS_MPP_S, in_s
in_s:
    la      s10, 3f
    ecall                           # from S, to M
3:  # TVM makes satp, TW makes wfi illegal in S.
    li      t0, (1 << 20) | (1 << 21)
    csrs    mstatus, t0
    enter   MSTATUS_MPP_S, restricted
restricted:
    la      s10, 4f
    csrr    t0, satp
4:  enter   MSTATUS_MPP_S, waits
waits:
    la      s10, 5f
    wfi
5:  #= a0 0x13
    cause   a4, 0                   #= a4 2                    # csrr sstatus
    mode_before a5, 0               #= a5 0                    # U
    cause   a6, 1                   #= a6 2                    # mret
    cause   a7, 2                   #= a7 9                    # ecall from S
    mode_before s2, 2               #= s2 1                    # S
    cause   s3, 3                   #= s3 2                    # csrr satp
    cause   s4, 4                   #= s4 2                    # wfi
    done

    .balign 4
supervisor:
    csrr    a1, scause              #= a1 8
    csrr    a2, sstatus
    andi    a2, a2, 1 << 8          #= a2 0                    # SPP: from U
    csrr    t0, sepc
    addi    t0, t0, 4
    csrw    sepc, t0
    la      a3, after_ecall
    sub     a3, a3, t0              #= a3 0
    addi    a0, a0, 16
    sret
    trap_recorder
