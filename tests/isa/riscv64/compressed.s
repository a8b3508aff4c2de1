# C: every format of the 16-bit instructions (volume I, 28).
    .include "test.inc"
    start
    la      sp, stack
    c.li    a0, -32                 #= a0 -32
    c.lui   a1, 0xfffe0
    c.addi  a1, 31
    c.addiw a1, 1                   #= a1 0xfffffffffffe0020
    c.li    a2, -1
    c.slli  a2, 50
    c.srli  a2, 47
    c.andi  a2, -16
    c.mv    s2, a2                  #= s2 0x1fff0
    c.li    a3, -8
    c.srai  a3, 2
    c.mv    a4, a0
    c.add   a4, a3                  #= a4 -34
    c.mv    s0, sp
    c.addi4spn s1, sp, 1020
    c.sub   s1, s0                  #= s1 1020
    c.addi16sp sp, -512
    sub     a5, sp, s0              #= a5 -512
    mv      sp, s0

    c.sdsp  a0, 504(sp)
    c.ldsp  t0, 504(sp)             #= t0 -32
    c.lwsp  t1, 252(sp)             #= t1 0
    c.swsp  a0, 252(sp)
    c.lw    a2, 124(s0)
    c.sd    a0, 248(s0)
    c.ld    a2, 248(s0)
    c.fsdsp fa0, 0(sp)
    fmv.d.x fs0, a0
    c.fsd   fs0, 8(s0)
    c.fld   fs1, 8(s0)              #= fs1 -32
    c.fldsp ft0, 8(sp)              #= ft0 -32

    c.li    s0, 12
    c.li    a2, 10
    c.xor   s0, a2                  # 6
    c.or    s0, a2                  # 14
    c.and   s0, a2                  #= s0 10
    c.li    a3, 3
    c.subw  a3, s0                  # -7
    c.addw  a3, a3                  #= a3 -14
    c.li    a2, 0
    c.beqz  a2, 1f
    c.li    a2, 1
1:  c.bnez  a2, 2f
    c.addi  a2, 5                   #= a2 5
2:  la      t2, 3f
    c.jr    t2
    c.li    a2, 9                   # jumped over
3:  la      t2, 4f
    c.jalr  t2
4:  sub     t2, ra, t2              #= t2 0                    # the link is two bytes on
    c.j     5f
    c.li    a2, 9                   # jumped over
5:  c.nop
    done
    .data
    .balign 16
stack:
    .zero   2048
