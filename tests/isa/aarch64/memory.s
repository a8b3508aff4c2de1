# Loads and stores: sizes, extension, addressing, pairs, misaligned and across pages.
    .include "test.inc"
    start
    flat_memory
    ldr     x20, =data
    ldrb    w0, [x20, #7]           // #= x0 0x81
    ldrsb   w1, [x20, #7]           // #= x1 0xffffff81
    ldrsb   x2, [x20, #7]           // #= x2 0xffffffffffffff81
    ldrh    w3, [x20, #6]           // #= x3 0x8182
    ldrsh   x4, [x20, #6]           // #= x4 0xffffffffffff8182
    ldrsw   x5, [x20, #4]           // #= x5 0xffffffff81828384
    ldr     w6, [x20, #4]           // #= x6 0x81828384
    ldur    x7, [x20, #3]           // #= x7 0x97988182838485     # misaligned
    and     x7, x7, #0xffffffffffffff
    mov     x21, #-1
    ldr     x8, [x20, w21, sxtw #3] // #= x8 0x1122334455667788
    mov     x21, #2
    ldrh    w9, [x20, x21, lsl #1]  // #= x9 0x8384
    ldrb    w10, [x20, w21, uxtw]   // #= x10 0x86
    mov     x22, x20
    ldr     x11, [x22], #8          // #= x11 0x8182838485868788
    ldr     x12, [x22, #-16]!       // #= x12 0x1122334455667788
    sub     x13, x22, x20           // #= x13 -8
    ldp     x14, x15, [x20, #-8]    // #= x14 0x1122334455667788
    #= x15 0x8182838485868788
    ldpsw   x16, x17, [x20]         // #= x16 0xffffffff85868788
    #= x17 0xffffffff81828384
    ldr     x18, literal            // #= x18 0x0123456789abcdef
    ldrsw   x19, literal            // #= x19 0xffffffff89abcdef
    ldr     x22, =buffer + 4096
    stp     x11, x12, [x22, #-16]!
    ldr     q0, [x22]               // #= v0 0x11223344556677888182838485868788
    str     q0, [x22, #9]           // across two pages
    ldr     x23, [x22, #9]          // #= x23 0x8182838485868788
    ldrb    w24, [x22, #24]         // #= x24 0x11
    strh    w21, [x22, #16]
    ldur    w25, [x22, #15]         // #= x25 0x77000282
    stur    wzr, [x22, #-3]
    str     b0, [x22, #-1]
    ldur    d1, [x22, #-7]          // #= d1 0x88000000000000
    ldnp    d2, d3, [x22]           // #= d2 0x8182838485868700
    #= d3 0x8283848586878888
    ldp     q4, q5, [x22], #32      // #= v4 0x82838485868788888182838485868700
    #= v5 0x112233445566770002
    prfm    pldl1keep, [x22]
    mov     sp, x22
    str     x11, [sp, #-16]!
    ldr     s6, [sp], #16           // #= d6 0x85868788
    mov     x22, sp
    ldr     x21, =buffer + 4096 + 16
    sub     x21, x22, x21           // #= x21 0
    mov     x20, #0
    mov     x22, #0
    done
    .balign 8
literal:
    .dword  0x0123456789abcdef
    flat_tables
    .data
    .balign 8
    .dword  0x1122334455667788
data:
    .dword  0x8182838485868788
    .dword  0x9192939495969798
    .balign 4096
buffer:
    .zero   8192
