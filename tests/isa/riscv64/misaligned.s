# Misaligned accesses, inside one page and across two (RVA22, Zicclsm), in machine mode.
    .include "test.inc"
    start
    la      s0, page_end
    li      s1, 0x1122334455667788
    sd      s1, -3(s0)              # three bytes in the first page, five in the second
    ld      a0, -3(s0)              #= a0 0x1122334455667788
    lbu     a1, -3(s0)              #= a1 0x88
    lbu     a2, -1(s0)              #= a2 0x66
    lbu     a3, 0(s0)               #= a3 0x55
    lbu     a4, 4(s0)               #= a4 0x11
    lw      a5, -2(s0)              #= a5 0x44556677
    lh      a6, -1(s0)              #= a6 0x5566
    sw      zero, -1(s0)
    ld      a7, -3(s0)              #= a7 0x1122000000007788

    addi    s2, s0, 1025
    sd      s1, 0(s2)
    ld      s3, 0(s2)               #= s3 0x1122334455667788
    lhu     s4, 0(s2)               #= s4 0x7788
    fld     fa0, 0(s2)              #= fa0 0x1122334455667788
    fsd     fa0, -5(s0)
    ld      s5, -5(s0)              #= s5 0x1122334455667788
    flw     fa1, -2(s0)             #= fa1 0xffffffff22334455
    done
    .data
    .balign 4096
    .zero   4096
page_end:
    .zero   4096
