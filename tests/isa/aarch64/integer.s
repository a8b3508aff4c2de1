# Data processing: immediates, shifted and extended registers, bit fields, multiplication, division, bits.
    .include "test.inc"
    start
    mov     x20, #5
    mov     x21, #-3
    add     x0, x20, x21, lsl #4    // #= x0 -43
    add     x1, x20, w21, uxtb #2   // #= x1 0x3f9
    sub     x2, x20, w21, sxth #1   // #= x2 11
    add     w3, w21, w20            // #= x3 2
    sub     x4, x20, #0xabc, lsl #12 // #= x4 0xffffffffff544005
    mov     x5, #0x1234
    movk    x5, #0xabcd, lsl #48    // #= x5 0xabcd000000001234
    movn    w6, #0x55, lsl #16      // #= x6 0xffaaffff
    and     x7, x5, #0xff00ff00ff00ff00 // #= x7 0xab00000000001200
    orr     x8, x20, #0xf0f0f0f0f0f0f0f0 // #= x8 0xf0f0f0f0f0f0f0f5
    eon     x9, x20, x21, ror #4    // #= x9 0x2000000000000005
    bic     w10, w21, w20, asr #1   // #= x10 0xfffffffd
    orn     x11, xzr, x20           // #= x11 -6
    ubfx    x12, x5, #4, #8         // #= x12 0x23
    sbfiz   x13, x5, #8, #5         // #= x13 -3072
    bfi     x14, x21, #60, #4
    bfxil   x14, x5, #8, #4         // #= x14 0xd000000000000002
    extr    x15, x5, x20, #8        // #= x15 0x3400000000000000
    ror     w16, w5, #5             // #= x16 0xa0000091
    lsl     x17, x20, x21           // #= x17 0xa000000000000000
    asr     w18, w21, w20           // #= x18 0xffffffff
    madd    x19, x20, x21, x20      // #= x19 -10
    smull   x22, w21, w20           // #= x22 -15
    umulh   x23, x21, x20           // #= x23 4
    smulh   x24, x21, x20           // #= x24 -1
    umsubl  x25, w20, w20, x20      // #= x25 -20
    mov     x26, #0x8000000000000000
    mov     x27, #-1
    sdiv    x26, x26, x27           // #= x26 0x8000000000000000
    udiv    x27, x20, xzr           // #= x27 0
    sdiv    w28, w21, w20           // #= x28 0

    # The second half lives in vector registers' low halves.
    mov     x0, #0x00ff000000000000
    clz     x1, x0
    fmov    d0, x1                  // #= d0 8
    cls     w1, w21
    fmov    d1, x1                  // #= d1 29
    rbit    w1, w20
    fmov    d2, x1                  // #= d2 0xa0000000
    rev     x1, x5
    fmov    d3, x1                  // #= d3 0x341200000000cdab
    rev16   w1, w5
    fmov    d4, x1                  // #= d4 0x3412
    rev32   x1, x5
    fmov    d5, x1                  // #= d5 0x0000cdab34120000
    crc32x  w1, w20, x5
    fmov    d6, x1                  // #= d6 0x86760d67
    crc32cb w1, w20, w5
    fmov    d7, x1                  // #= d7 0xc288cab2
    adr     x1, .
    adr     x2, .+4
    sub     x1, x2, x1
    fmov    d8, x1                  // #= d8 8
    adrp    x1, _start
    fmov    d9, x1                  // #= d9 0x80000000
    mov     x0, #-43
    mov     x1, #0x3f9
    mov     x2, #11
    mov     x27, #0
    done
