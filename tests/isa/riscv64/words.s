# RV64I operations on words: 32-bit results, sign-extended (volume I, 4.2).
    .include "test.inc"
    start
    li      s0, 0x17fffffff
    li      s1, 1
    li      s2, 0xffffffff80000000
    li      s3, 33
    li      s4, 0x80000000

    addw    a0, s0, s1              #= a0 0xffffffff80000000
    addiw   a1, s0, 1               #= a1 0xffffffff80000000
    subw    a2, s2, s1              #= a2 0x7fffffff
    sllw    a3, s1, s3              #= a3 2                    # the amount is taken modulo 32
    srlw    a4, s4, s1              #= a4 0x40000000
    sraw    a5, s4, s1              #= a5 0xffffffffc0000000
    srlw    a6, s4, zero            #= a6 0xffffffff80000000   # sign-extended also if nothing is shifted
    slliw   a7, s1, 31              #= a7 0xffffffff80000000
    srliw   s5, s2, 31              #= s5 1
    sraiw   s6, s2, 31              #= s6 -1
    sext.w  s7, s0                  #= s7 0x7fffffff
    negw    s8, s4                  #= s8 0xffffffff80000000
    done
