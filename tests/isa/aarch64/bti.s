# FEAT_BTI: indirect branches into guarded pages have to land on what fits them.
    .include "test.inc"
    start
    record_traps
    map     root, 2, 0x80000000, DESC_BLOCK | DESC_AF | DESC_SH | DESC_GP
    translate root
    # That there are guarded pages counts from the first exception behind a fetch from one.
    adr     x28, 1f
    svc     #0
1:  ldr     x27, =trap_records
    # x0 to x8: classes; 0x15 is the svc of the landing pad's other side.
    .macro land register, n, branch:vararg
    adr     x28, 3f
    \branch
    svc     #0
3:  class   \register, \n
    .endm
    adr     x20, plain
    adr     x21, call
    adr     x22, jump
    adr     x23, both
    adr     x16, plain
    adr     x17, call
    land    x0, 0, br x20
    #= x0 0xd
    esr     x1, 0                   // #= x1 0x36000003
    land    x2, 1, blr x21
    #= x2 0x15
    land    x3, 2, br x21
    #= x3 0xd
    land    x4, 3, br x17           // as a linker's stub does
    #= x4 0x15
    land    x5, 4, br x22
    #= x5 0x15
    land    x6, 5, blr x22
    #= x6 0xd
    land    x7, 6, br x23
    #= x7 0x15
    land    x8, 7, blr x20
    #= x8 0xd
    spsr    x9, 7
    ubfx    x9, x9, #10, #2         // #= x9 2
    adr     x24, paci
    land    x10, 8, blr x24
    #= x10 0x15
    mov     x30, x20
    adr     x28, 4f
    ret     x20                     // returns need no pad
4:  class   x11, 9                  // #= x11 0x15
    elr     x12, 0
    sub     x12, x12, x20           // #= x12 0
    mov     x16, #0
    mov     x17, #0
    mov     x20, #0
    mov     x21, #0
    mov     x22, #0
    mov     x23, #0
    mov     x24, #0
    done
plain:
    nop
    svc     #1
call:
    bti     c
    svc     #1
jump:
    bti     j
    svc     #1
both:
    bti     jc
    svc     #1
paci:
    paciasp
    svc     #1
    trap_recorder
    .data
    .balign 4096
root:
    .zero   4096
