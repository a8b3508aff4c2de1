# Physical memory protection: NAPOT, TOR and NA4 regions, priority, the lock, regions smaller than a page
# (volume II, 3.7).
    .include "test.inc"
    .equ NAPOT, 3 << 3
    .equ NA4, 2 << 3
    .equ TOR, 1 << 3
    .equ LOCK, 1 << 7
    start
    record_traps
    # 0: 4 KiB, read only. 1: four bytes in it would be writable, but 0 comes first. 2 and 3: from `top` up to
    # `top` + 8 nothing. 4: four bytes execute only. 5: all else open.
    la      t0, page
    srli    t0, t0, 2
    ori     t1, t0, 0x1ff
    csrw    pmpaddr0, t1
    csrw    pmpaddr1, t0
    la      t0, top
    srli    t0, t0, 2
    csrw    pmpaddr2, t0
    addi    t0, t0, 2
    csrw    pmpaddr3, t0
    addi    t0, t0, 2
    csrw    pmpaddr4, t0
    li      t0, -1
    csrw    pmpaddr5, t0
    li      t0, (NAPOT | 1) | (NA4 | 3) << 8 | TOR << 24 | (NA4 | 4) << 32 | (NAPOT | 7) << 40
    csrw    pmpcfg0, t0
    sfence.vma

    la      s0, page
    la      s1, top
    attempt ld      t0, (s0)        # 0
    attempt sw      zero, (s0)      # 1
    attempt jr      s0              # 2
    attempt lw      t0, -4(s1)      # 3: below the region
    attempt lw      t0, 4(s1)       # 4: its last word
    attempt ld      t0, 8(s1)       # 5: beyond it
    attempt lw      t0, 16(s1)      # 6: execute only
    attempt ld      t0, 16(s1)      # 7: half of it
    attempt lw      t0, 20(s1)      # 8
    .set    n, 0
    li      a0, 0
    .rept   9
    ld      t0, trap_records + 32 * n
    slli    a0, a0, 4
    or      a0, a0, t0
    .set    n, n + 1
    .endr
    #= a0 0x971959559
    tval    a1, 1
    sub     a1, a1, s0              #= a1 0
    tval    a2, 4
    sub     a2, a2, s1              #= a2 4

    # Machine mode is bound only by what is locked.
    sw      zero, (s0)
    li      t0, NAPOT | 1 | LOCK
    csrs    pmpcfg0, t0
    la      s10, 1f
    sw      zero, (s0)              # 9
1:  cause   a3, 9                   #= a3 7
    # Neither configuration nor address of a locked entry can be written.
    csrw    pmpcfg0, zero
    csrr    a4, pmpcfg0
    andi    a4, a4, 0xff            #= a4 0x99
    csrr    t0, pmpaddr0
    csrw    pmpaddr0, zero
    csrr    a5, pmpaddr0
    sub     a5, a5, t0              #= a5 0
    done
    trap_recorder
    .data
    .balign 4096
page:
    .zero   4096
    .zero   64
top:
    .zero   64
