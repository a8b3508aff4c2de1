# A: load-reserved and store-conditional, and the read-modify-write operations (volume I, 14).
    .include "test.inc"
    start
    la      s0, cell
    lr.d    a0, (s0)                #= a0 0x80000000
    li      t0, 5
    sc.d    a1, t0, (s0)            #= a1 0                    # done
    sc.d    a2, t0, (s0)            #= a2 1                    # the reservation is gone
    ld      a3, (s0)                #= a3 5

    lr.w    t1, (s0)
    addi    t2, s0, 64
    sc.w    a4, t0, (t2)            #= a4 1                    # not the address that is reserved
    ld      a5, (t2)                #= a5 0

    # rd gets the old value, memory the new one; words are sign-extended.
    li      t1, 0x80000000
    amoswap.w a6, t1, (s0)          #= a6 5
    amoadd.w  a7, t1, (s0)          #= a7 0xffffffff80000000
    ld      s1, (s0)                #= s1 0                    # only the low word took the sum
    li      t1, -2
    amoadd.d  zero, t1, (s0)
    li      t1, 3
    amomin.d  s2, t1, (s0)          #= s2 -2
    amomaxu.d s3, t1, (s0)          #= s3 -2
    amomax.d  s4, t1, (s0)          #= s4 -2
    amominu.d s5, zero, (s0)        #= s5 3
    li      t1, 0xff
    amoor.d   s6, t1, (s0)          #= s6 0
    li      t1, 0x0f
    amoand.d  s7, t1, (s0)          #= s7 0xff
    li      t1, -1
    amoxor.d  s8, t1, (s0)          #= s8 0xf
    ld      s9, (s0)                #= s9 0xfffffffffffffff0
    # Word operations compare words, whatever stands above them.
    li      t1, 1
    amomaxu.w s10, t1, (s0)         #= s10 -16
    # Operand and destination in one register.
    li      t2, 8
    amoadd.w t2, t2, (s0)           #= t2 -16
    ld      s11, (s0)               #= s11 0xfffffffffffffff8
    done
    .data
    .balign 64
cell:
    .dword  0x80000000
    .zero   120
