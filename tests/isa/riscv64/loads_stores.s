# Loads and stores of every size: extension, byte order, negative offsets (volume I, 2.6).
    .include "test.inc"
    start
    la      s0, value
    lb      a0, 7(s0)               #= a0 0xffffffffffffff88
    lbu     a1, 7(s0)               #= a1 0x88
    lh      a2, 6(s0)               #= a2 0xffffffffffff8877
    lhu     a3, 6(s0)               #= a3 0x8877
    lw      a4, 4(s0)               #= a4 0xffffffff88776655
    lwu     a5, 4(s0)               #= a5 0x88776655
    ld      a6, 0(s0)               #= a6 0x8877665544332211
    lb      a7, 0(s0)               #= a7 0x11

    # Each store changes only its own bytes.
    li      s1, -1
    addi    s2, s0, 24
    sb      s1, -16(s2)
    ld      s3, 8(s0)               #= s3 0xff
    sh      s1, -14(s2)
    ld      s4, 8(s0)               #= s4 0xffff00ff
    sw      s1, -12(s2)
    ld      s5, 8(s0)               #= s5 0xffffffffffff00ff
    sd      zero, -16(s2)
    ld      s6, 8(s0)               #= s6 0
    # A load into its own base register.
    mv      s7, s0
    ld      s7, 0(s7)               #= s7 0x8877665544332211
    # A load to x0 is done, and its result forgotten.
    lw      zero, 0(s0)             #= zero 0
    done
    .data
    .balign 8
value:
    .dword  0x8877665544332211, 0, 0
