# Zba, Zbb, Zbc and Zbs (volume I, 30).
    .include "test.inc"
    start
    li      s0, 0x80000000ffffffff
    li      s1, 0x0102030405060708
    li      s2, 68

    add.uw  a0, s0, s1              #= a0 0x0102030505060707
    sh3add  a1, s1, s2              #= a1 0x0810182028303884
    sh1add.uw a2, s0, zero          #= a2 0x1fffffffe
    slli.uw a3, s0, 4               #= a3 0xffffffff0
    andn    a4, s1, s0              #= a4 0x0102030400000000
    orn     a5, zero, s1            #= a5 0xfefdfcfbfaf9f8f7
    xnor    a6, s1, s1              #= a6 -1
    clz     a7, s1                  #= a7 7
    ctz     s3, zero                #= s3 64
    clzw    s4, zero                #= s4 32
    cpop    s5, s0                  #= s5 33
    cpopw   s6, s0                  #= s6 32
    max     s7, s0, s2              #= s7 68
    maxu    s8, s0, s2              #= s8 0x80000000ffffffff
    sext.b  s9, s0                  #= s9 -1
    zext.h  s10, s0                 #= s10 0xffff
    rol     s11, s1, s2             #= s11 0x1020304050607080
    rorw    t0, s1, s2              #= t0 0xffffffff80506070
    rev8    t1, s1                  #= t1 0x0807060504030201
    orc.b   t2, s1                  #= t2 -1
    bset    t3, zero, s2            #= t3 16                   # the index is taken modulo 64
    bext    t4, s0, s2              #= t4 1
    binv    t5, s0, s2
    sub     gp, s0, t5              #= gp 16
    bclri   tp, s0, 63              #= tp 0xffffffff
    clmul   ra, s2, s2              #= ra 0x1010
    clmulh  sp, s0, s0              #= sp 0x4000000000000000
    done
