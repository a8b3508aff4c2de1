# Zicsr: reading and writing control and status registers, and those that are not there (volume I, 6; volume II, 2).
    .include "test.inc"
    start
    record_traps
    li      s0, 0x1234
    csrw    mscratch, s0
    csrrw   a0, mscratch, zero      #= a0 0x1234
    csrrsi  a1, mscratch, 21        #= a1 0
    csrrci  a2, mscratch, 5         #= a2 21
    csrr    a3, mscratch            #= a3 16
    # Source and destination in one register.
    li      a4, 7
    csrrw   a4, mscratch, a4        #= a4 16
    li      a5, 8
    csrrs   a5, mscratch, a5        #= a5 7
    csrr    a6, mscratch            #= a6 15

    # A read-only register may be read by csrrs with x0, and by nothing that writes.
    csrrs   a7, mhartid, zero       #= a7 0
    la      s10, 1f
    csrw    mhartid, zero
1:  la      s10, 2f
    csrr    t0, 0x123               # no such register
2:  cause   s1, 0                   #= s1 2                    # illegal instruction
    tval    s2, 0                   #= s2 0xf1401073           # mtval: its bits
    cause   s3, 1                   #= s3 2
    tval    s4, 1                   #= s4 0x123022f3

    # Fields that hold only legal values.
    li      t0, -1
    csrw    mepc, t0
    csrr    s5, mepc                #= s5 -2                   # bit 0 is always clear
    csrw    misa, zero
    csrr    s6, misa
    srli    s6, s6, 62              #= s6 2                    # MXL: 64 bits
    csrw    fflags, t0
    csrr    s7, fcsr                #= s7 0x1f
    csrwi   frm, 5
    csrr    s8, fcsr                #= s8 0xbf
    # A rounding mode that is reserved makes dynamic rounding illegal.
    la      s10, 3f
    fadd.d  fa0, fa0, fa0
3:  cause   s9, 2                   #= s9 2
    done
    trap_recorder
