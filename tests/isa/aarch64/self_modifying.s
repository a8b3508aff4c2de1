# Code that is written: seen after `ic ivau` and `isb`, also in a loop that ran often, and a page that is mapped anew.
    .include "test.inc"
    start
    flat_memory
    mov     x20, #3000
    mov     x0, #0
1:  bl      function
    subs    x20, x20, #1
    b.ne    1b                      // #= x0 3000
    ldr     w21, =0x91000c00        // add x0, x0, #3
    bl      patch
    mov     x20, #3000
    mov     x0, #0
2:  bl      function
    subs    x20, x20, #1
    b.ne    2b
    mov     x1, x0                  // #= x1 9000
    # Every turn another immediate.
    mov     x20, #200
    mov     x2, #0
3:  ldr     w21, =0x91000000        // add x0, x0, #0
    orr     w21, w21, w20, lsl #10
    bl      patch
    mov     x0, #0
    bl      function
    add     x2, x2, x0
    subs    x20, x20, #1
    b.ne    3b                      // #= x2 20100
    mov     x0, #3000
    mov     x20, #0
    mov     x21, #0
    mov     x22, #0
    mov     x23, #0
    done
patch:
    adr     x22, function
    str     w21, [x22]
    dc      cvau, x22
    dsb     ish
    ic      ivau, x22
    dsb     ish
    isb
    ret
    .balign 64
function:
    add     x0, x0, #1
    ret
    flat_tables
