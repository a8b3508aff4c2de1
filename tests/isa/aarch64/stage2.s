# Stage 2 and EL2: a guest's aborts with the syndrome of their instructions, routing, HCR_EL2's traps.
    .include "test.inc"
    .globl  starts_at_el2
    .equ    starts_at_el2, 1
    .globl  _start
_start:
    ldr     x29, =unexpected_vectors
    msr     vbar_el1, x29
    mov     x29, #0x33ff
    msr     cptr_el2, x29
    mov     x29, #3 << 20
    msr     cpacr_el1, x29
    ldr     x27, =trap_records
    ldr     x29, =hyp_vectors
    msr     vbar_el2, x29
    mrs     x0, currentel           // #= x0 8
    # 39 bits, from level 1, pages of 4 KiB: this program's gigabyte, and nothing else.
    ldr     x20, =0x80000000 | 1 << 10 | 3 << 8 | 0xf << 2 | 3 << 6 | 1
    ldr     x21, =stage2_root
    str     x20, [x21, #16]
    msr     vttbr_el2, x21
    ldr     x20, =1 << 31 | 2 << 16 | 3 << 12 | 1 << 6 | 25
    msr     vtcr_el2, x20
    ldr     x20, =1 << 31 | 1       // RW, VM
    msr     hcr_el2, x20
    isb
    mov     x22, #0x1000
    # Runs one instruction at EL1 and comes back: the class is 0x16 (the hvc after it) if it did not trap.
    .macro guest instruction:vararg
    adr     x28, 3f
    mov     x29, #0x3c5
    msr     spsr_el2, x29
    adr     x29, 2f
    msr     elr_el2, x29
    eret
2:  \instruction
    hvc     #0
3:
    .endm
    guest   ldr x5, [x22]
    esr     x1, 0                   // #= x1 0x93c58005
    guest   strb w7, [x22, #1]
    esr     x2, 1                   // #= x2 0x93070045
    guest   ldrsh w9, [x22, #2]
    esr     x3, 2                   // #= x3 0x93690005
    guest   ldar w10, [x22]
    esr     x4, 3                   // #= x4 0x938a4005
    guest   ldp x11, x12, [x22]
    esr     x5, 4                   // #= x5 0x92000005
    guest   ldr x13, [x22], #8
    esr     x6, 5                   // #= x6 0x92000005
    far     x7, 5                   // #= x7 0x1000
    guest   ldr d0, [x22]
    esr     x8, 6                   // #= x8 0x92000005
    guest   br x22
    esr     x9, 7                   // #= x9 0x82000005
    mrs     x10, hpfar_el2          // #= x10 0x10
    guest   mrs x11, currentel      // #= x11 4
    class   x12, 8                  // #= x12 0x16
    # Traps by HCR_EL2.
    ldr     x20, =1 << 31 | 1 | 1 << 13 | 1 << 18 | 1 << 26
    msr     hcr_el2, x20
    isb
    guest   wfi
    esr     x13, 9                  // #= x13 0x7e00000
    guest   mrs x14, id_aa64pfr0_el1
    esr     x14, 10                 // #= x14 0x623001c9
    guest   msr ttbr0_el1, x22
    esr     x15, 11                 // #= x15 0x62300ac0
    mov     x20, #1 << 31
    msr     vpidr_el2, x20
    mov     x20, #1 << 31
    msr     hcr_el2, x20
    guest   mrs x16, midr_el1       // #= x16 0x80000000
    mov     x20, #0
    mov     x21, #0
    mov     x22, #0
    done
    .ltorg
    vectors hyp_vectors, hyp_trap
hyp_trap:
    mrs     x29, esr_el2
    mrs     x30, elr_el2
    stp     x29, x30, [x27], #16
    mrs     x29, far_el2
    mrs     x30, spsr_el2
    stp     x29, x30, [x27], #16
    mov     x29, #0x3c9             // EL2h
    msr     spsr_el2, x29
    msr     elr_el2, x28
    eret
    .data
    .balign 4096
stage2_root:
    .zero   4096
trap_records:
    .zero   32 * 64
