# Code that changes: what fence.i makes visible (volume I, 5).
    .include "test.inc"
    start
    .option norvc
    # A function that has run is patched.
    la      s0, function
    jalr    s0
    mv      a1, a0                  #= a1 1
    lw      t0, replacement
    sw      t0, (s0)
    fence.i
    jalr    s0
    mv      a2, a0                  #= a2 2

    # The instruction right after the fence.
    la      t1, 1f
    lw      t0, replacement
    sw      t0, (t1)
    fence.i
1:  addi    a0, zero, 77
    mv      a3, a0                  #= a3 2

    # A loop that writes a new immediate into itself, 100 times: 0 + 1 + ... + 99.
    li      a4, 0
    li      t0, 0
    li      t3, 100
    la      t1, 2f
    lw      t2, (t1)
1:  slli    t4, t0, 20
    add     t4, t4, t2
    sw      t4, (t1)
    fence.i
2:  addi    a4, a4, 0
    addi    t0, t0, 1
    bne     t0, t3, 1b
    #= a4 4950

    # A function is copied over another one, eight bytes at a time, and called through a page that had no code.
    la      s1, room
    la      s2, function
    ld      t0, (s2)
    sd      t0, (s1)
    fence.i
    jalr    s1
    mv      a5, a0                  #= a5 2
    # One byte: the immediate's upper bits.
    li      t0, 0x7f
    sb      t0, 3(s1)
    fence.i
    jalr    s1
    mv      a6, a0                  #= a6 0x7f2
    # An atomic operation changes code, too.
    li      t0, 0x100000
    amoadd.w zero, t0, (s1)
    fence.i
    jalr    s1
    mv      a7, a0                  #= a7 0x7f3
    # Data beside code changes often and the code stays what it is.
    li      t0, 1000
3:  sd      t0, 64(s1)
    addi    t0, t0, -1
    bnez    t0, 3b
    jalr    s1
    mv      s3, a0                  #= s3 0x7f3
    done

    .balign 8
function:
    addi    a0, zero, 1
    ret
replacement:
    addi    a0, zero, 2
    .data
    .balign 4096
room:
    .zero   4096
