# Conditional branches, taken and not, and jumps with their links (volume I, 2.5).
    .include "test.inc"
    # Sets bit \bit of a0 if the branch is taken.
    .macro taken bit, branch:vararg
    \branch, 1f
    j       2f
1:  ori     a0, a0, 1 << \bit
2:
    .endm

    start
    li      s0, -1
    li      s1, 1
    li      a0, 0
    li      a3, 0
    taken   0, beq s0, s0
    taken   1, beq s0, s1
    taken   2, bne s0, s1
    taken   3, bne s0, s0
    taken   4, blt s0, s1
    taken   5, blt s1, s0
    taken   6, bge s1, s0
    taken   7, bge s0, s0
    taken   8, bltu s1, s0
    taken   9, bltu s0, s1
    taken   10, bgeu s0, s1         #= a0 0x5d5

    # A counted loop backwards.
    li      a1, 0
    li      t0, 1000
1:  add     a1, a1, t0              #= a1 500500
    addi    t0, t0, -1
    bnez    t0, 1b

    .option push
    .option norvc
1:  jal     ra, 2f
2:  la      t0, 1b
    sub     a2, ra, t0              #= a2 4
    # The link is written after the address is read, and the address loses bit 0.
    la      ra, 3f + 1
4:  jalr    ra, 0(ra)
    li      a3, 99                  # jumped over
3:  la      t0, 4b
    sub     a4, ra, t0              #= a4 4
    .option pop
    #= a3 0
    done
