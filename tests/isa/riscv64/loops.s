# Loops with more than one entry, nested, with calls and CSR accesses inside: what a compiler may keep in host registers.
    .include "test.inc"

    start
    # A loop entered at its head or in its middle: what is read only there must be right either way.
    li      a0, 0
    li      s2, 0
1:  li      s0, 50
    li      s1, 7
    andi    t0, s2, 1
    beqz    t0, 3f
2:  add     a0, a0, s1
3:  addi    s0, s0, -1
    addi    a0, a0, 1
    bnez    s0, 2b
    addi    s2, s2, 1
    li      t0, 40
    bne     s2, t0, 1b              #= a0 15860

    # The same with a CSR access in the loop, which reads and writes registers behind the compiler's back.
    li      a1, 0
    li      s2, 0
1:  li      s0, 30
    li      s1, 5
    csrw    mscratch, zero
    andi    t0, s2, 1
    beqz    t0, 3f
2:  csrrw   s3, mscratch, s0
    add     a1, a1, s3
    add     a1, a1, s1
3:  addi    s0, s0, -1
    csrr    s4, mscratch
    add     a1, a1, s4
    bnez    s0, 2b
    addi    s2, s2, 1
    li      t0, 40
    bne     s2, t0, 1b              #= a1 41860

    # Loops in loops that share counters, with a call in the innermost.
    li      a2, 0
    li      s0, 12
1:  li      s1, 9
2:  li      s3, 5
3:  call    add_all
    addi    s3, s3, -1
    bnez    s3, 3b
    addi    s1, s1, -1
    bnez    s1, 2b
    addi    s0, s0, -1
    bnez    s0, 1b                  #= a2 7830
    j       9f

add_all:
    add     a2, a2, s0
    add     a2, a2, s1
    add     a2, a2, s3
    ret
9:  done
