# M: products, their upper halves, and divisions by zero and of the most negative number (volume I, 13).
    .include "test.inc"
    start
    li      s0, -1
    li      s1, 0x8000000000000000
    li      s2, 7
    li      s3, -2
    li      s4, 0x80000000

    mul     a0, s0, s3              #= a0 2
    mulh    a1, s1, s1              #= a1 0x4000000000000000
    mulhu   a2, s0, s0              #= a2 0xfffffffffffffffe
    mulhsu  a3, s0, s0              #= a3 -1                   # -1 times 2^64 - 1
    mulhsu  a4, s2, s0              #= a4 6
    mulw    a5, s4, s0              #= a5 0xffffffff80000000
    div     a6, s2, zero            #= a6 -1
    divu    a7, s2, zero            #= a7 -1
    rem     s5, s2, zero            #= s5 7
    remu    s6, s3, zero            #= s6 -2
    div     s7, s1, s0              #= s7 0x8000000000000000   # overflow
    rem     s8, s1, s0              #= s8 0
    div     s9, s2, s3              #= s9 -3                   # towards zero
    rem     s10, s2, s3             #= s10 1                   # the dividend's sign
    divw    s11, s4, s0             #= s11 0xffffffff80000000  # overflow
    remw    t0, s4, s0              #= t0 0
    divuw   t1, s4, zero            #= t1 -1
    remuw   t2, s4, zero            #= t2 0xffffffff80000000
    divuw   t3, s0, s2              #= t3 0x24924924
    remw    t4, s3, s2              #= t4 -2
    done
