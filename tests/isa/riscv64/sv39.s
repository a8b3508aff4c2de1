# Sv39: leaves of all levels, permissions, A and D, faults with their addresses (volume II, 12.3 and 12.4).
    .include "test.inc"
    .equ RW, PTE_V | PTE_R | PTE_W | PTE_A | PTE_D
    start
    record_traps
    map     root, 0, middle, PTE_V
    map     root, 2, 0x80000000, RW | PTE_X, li     # 1 GiB onto itself: this program
    map     middle, 0, leaves, PTE_V
    map     middle, 1, 0x80200000, RW, li           # 2 MiB
    map     middle, 2, 0x80201000, RW, li           # 2 MiB, not aligned
    map     leaves, 1, frame2, RW                   # not in the order of their addresses
    map     leaves, 2, frame1, PTE_V | PTE_R | PTE_A
    map     leaves, 3, frame1, PTE_V | PTE_X | PTE_A
    map     leaves, 4, frame1, RW | PTE_U
    map     leaves, 5, frame3, PTE_V | PTE_R | PTE_W
    map     leaves, 6, frame3, PTE_V | PTE_R | PTE_W | PTE_A
    map     leaves, 8, frame1, PTE_V | PTE_W | PTE_A | PTE_D
    sv39    root
    li      s0, 0x1000
    li      s1, 0x200000
    li      t0, 0x80200010
    sd      t0, (t0)

    attempt ld      a0, 8(s0)
    #= a0 0x22
    cause   a1, 0                   #= a1 9
    slli    s2, s0, 1
    attempt sd      zero, 8(s2)
    cause   a2, 1                   #= a2 15                   # R only
    tval    a3, 1                   #= a3 0x2008
    li      s2, 0x3000
    attempt ld      t0, (s2)
    cause   a4, 2                   #= a4 13                   # X only
    li      t0, MSTATUS_MXR
    csrs    mstatus, t0
    attempt ld      t0, (s2)
    cause   a5, 3                   #= a5 9                    # MXR makes it readable
    li      s2, 0x4000
    attempt ld      t0, (s2)
    cause   a6, 4                   #= a6 13                   # a user's page
    li      t0, MSTATUS_SUM
    csrs    mstatus, t0
    attempt ld      t0, (s2)
    cause   a7, 5                   #= a7 9

    # A and D: faults, or set by hardware, as menvcfg.ADUE says.
    li      t1, 1 << 61
    csrc    menvcfg, t1
    sfence.vma
    li      s2, 0x5000
    attempt ld      t0, (s2)
    cause   s3, 6                   #= s3 13                   # A is clear
    li      s2, 0x6000
    attempt sd      zero, (s2)
    cause   s4, 7                   #= s4 15                   # D is clear
    csrs    menvcfg, t1
    sfence.vma
    li      s2, 0x5000
    attempt sd      zero, (s2)
    cause   s5, 8                   #= s5 9
    ld      s6, leaves + 8 * 5
    andi    s6, s6, 0xff            #= s6 0xc7

    # The causes of these stand in s7, one hexadecimal digit each.
    li      s2, 0x7000
    attempt ld      t0, (s2)        # 9: not valid
    li      s2, 0x8000
    attempt ld      t0, (s2)        # 10: W without R is reserved
    attempt jr      s0              # 11: not executable
    li      s2, 1 << 38
    attempt ld      t0, (s2)        # 12: the upper bits are not copies of bit 38
    attempt ld      ra, 16(s1)      # 13
    #= ra 0x80200010
    li      s2, 0x400000
    attempt ld      t0, (s2)        # 14: a 2 MiB leaf that is not aligned
    li      s2, 0x1ffd
    attempt ld      t2, (s2)        # 15: across two pages whose frames are not neighbours
    #= t2 0x0000000011444444
    li      s2, 0x6ffc
    attempt ld      t0, (s2)        # 16: the second page is not there
    li      s2, 0x1ffc
    attempt sd      zero, (s2)      # 17: the second page is not writable
    map     leaves, 2, frame1, RW
    sfence.vma
    attempt sd      zero, (s2)      # 18: now it is
    li      s7, 0
    .set    n, 9
    .rept   10
    ld      t0, trap_records + 32 * n
    slli    s7, s7, 4
    or      s7, s7, t0
    .set    n, n + 1
    .endr
    #= s7 0xddcd9d9df9
    epc     s8, 11                  #= s8 0x1000
    tval    s9, 11                  #= s9 0x1000
    tval    t3, 16                  #= t3 0x7000               # the part that is not there
    tval    t4, 17                  #= t4 0x2000
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
frame1:
    .byte   0x11
    .zero   4095
frame2:
    .dword  0, 0x22
    .zero   4096 - 19
    .byte   0x44, 0x44, 0x44
frame3:
    .zero   4096
