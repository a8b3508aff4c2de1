# RV64I register and immediate arithmetic (volume I, 2.4 and 4.2).
    .include "test.inc"
    start
    li      s0, -1
    li      s1, 0x7fffffffffffffff
    li      s2, 65

    addi    a0, s1, 1               #= a0 0x8000000000000000   # wraps
    sub     a1, zero, s1            #= a1 0x8000000000000001
    slt     a2, s0, zero            #= a2 1
    sltu    a3, s0, zero            #= a3 0                    # -1 is the largest
    sltiu   a4, zero, -1            #= a4 1                    # the immediate is sign-extended, then unsigned
    sll     a5, s0, s2              #= a5 -2                   # the amount is taken modulo 64
    srl     a6, s0, s2              #= a6 0x7fffffffffffffff
    sra     a7, s0, s2              #= a7 -1
    xori    s3, s1, -1              #= s3 0x8000000000000000
    ori     s4, zero, -2048         #= s4 0xfffffffffffff800
    andi    s5, s0, 0x7ff           #= s5 0x7ff
    lui     s6, 0x80000             #= s6 0xffffffff80000000   # sign-extended
    add     zero, s0, s0            #= zero 0
    srai    s7, s6, 63              #= s7 -1
    slli    s8, s2, 63              #= s8 0x8000000000000000
1:  auipc   s9, 0xfffff
    la      s10, 1b
    sub     s9, s9, s10             #= s9 -4096
    # A register that is source and destination.
    li      t0, 3
    sub     t0, t0, t0
    addi    t0, t0, 5               #= t0 5
    xor     t1, t0, t0              #= t1 0
    sltu    t2, t1, t0              #= t2 1
    done
