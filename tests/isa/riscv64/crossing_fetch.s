# An instruction that lies in two pages: its second half is fetched through the second page's own translation
# (volume I, 1.5; volume II, 12.3.2).
    .include "test.inc"
    .equ RX, PTE_V | PTE_R | PTE_X | PTE_A
    start
    record_traps
    map     root, 0, middle, PTE_V
    map     middle, 0, leaves, PTE_V
    map     leaves, 16, first, RX
    map     leaves, 17, second, RX
    sv39    root
    li      s0, 0x10ffe

    li      a0, 0
    .macro  step n                  # record \n
    la      s10, 1f
    csrw    mepc, s0
    li      t6, MSTATUS_MPP
    csrc    mstatus, t6
    li      t6, MSTATUS_MPP_S
    csrs    mstatus, t6
    mret
1:
    .endm

    step    0
    mv      a1, a0                  #= a1 1
    epc     a2, 0                   #= a2 0x11002              # the ecall after it
    # Another frame under the second page: another immediate.
    map     leaves, 17, other, RX
    sfence.vma
    li      a0, 0
    step    1
    mv      a3, a0                  #= a3 2
    # Only the second page is flushed.
    map     leaves, 17, second, RX
    li      t0, 0x11000
    sfence.vma t0
    li      a0, 0
    step    2
    mv      a4, a0                  #= a4 1
    # New code in the second half.
    la      t0, second
    lhu     t1, other
    sh      t1, (t0)
    fence.i
    li      a0, 0
    step    3
    mv      a5, a0                  #= a5 2
    # No second page: the fault is the instruction's, its address the second page's.
    sd      zero, leaves + 8 * 17, t6
    sfence.vma
    li      a0, 0
    step    4
    mv      a6, a0                  #= a6 0
    cause   a7, 4                   #= a7 12
    epc     s1, 4                   #= s1 0x10ffe
    tval    s2, 4                   #= s2 0x11000
    # Nor the first.
    sd      zero, leaves + 8 * 16, t6
    sfence.vma
    step    5
    cause   s3, 5                   #= s3 12
    tval    s4, 5                   #= s4 0x10ffe
    done
    trap_recorder
    .data
    .balign 4096
root:
    .zero   4096
middle:
    .zero   4096
leaves:
    .zero   4096
# `addi a0, zero, N` is 0x00N00513, its first half the same for every N.
second:
    .2byte  0x0010, 0x0073, 0x0000  # N = 1, ecall
    .zero   4096 - 6
other:
    .2byte  0x0020, 0x0073, 0x0000  # N = 2, ecall
    .zero   4096 - 6
first:
    .zero   4094
    .2byte  0x0513
