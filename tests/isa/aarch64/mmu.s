# Stage 1: pages and blocks, permissions, access flag and dirty state by hardware and by software, PAN, ASIDs, `at`.
    .include "test.inc"
    start
    record_traps
    .equ RW, DESC_PAGE | DESC_AF | DESC_SH
    map     root, 0, middle, DESC_TABLE
    map     root, 2, 0x80000000, DESC_BLOCK | DESC_AF | DESC_SH   // this program
    map     middle, 0, leaves, DESC_TABLE
    map     middle, 1, 0x80200000, DESC_BLOCK | DESC_AF | DESC_SH // 2 MiB
    map     leaves, 1, frame2, RW   // not in the order of their addresses
    map     leaves, 2, frame1, RW | DESC_RO
    map     leaves, 3, frame1, RW | DESC_USER | DESC_NG
    map     leaves, 4, frame1, RW | DESC_PXN
    map     leaves, 5, frame3, DESC_PAGE | DESC_SH            // no access flag
    map     leaves, 6, frame3, RW | DESC_RO | DESC_DBM
    map     leaves, 7, frame1, RW | DESC_USER | DESC_RO | DESC_UXN
    map     leaves, 9, frame1, RW | DESC_DEVICE
    translate root
    mov     x20, #0x1000
    ldr     x0, [x20, #8]           // #= x0 0x22
    # The causes stand in x1 to x5, three hexadecimal digits each: access, write, status.
    .macro fault result, n
    esr     x29, \n
    ubfx    x30, x29, #26, #6
    ubfx    x29, x29, #0, #7
    orr     x29, x29, x30, lsl #8
    orr     \result, x29, \result, lsl #16
    .endm
    mov     x1, #0
    mov     x20, #0x2000
    try     str xzr, [x20]          // read only
    fault   x1, 0
    mov     x20, #0x8000
    try     ldr x21, [x20]          // not mapped
    fault   x1, 1
    mov     x20, #0x5000
    try     ldr x21, [x20]          // access flag
    fault   x1, 2
    mov     x20, #0x6000
    try     str xzr, [x20]          // read only while hardware does not manage the dirty state
    fault   x1, 3
    #= x1 0x254f2507250b254f
    mov     x2, #0
    mov     x20, #0x4000
    try     br x20                  // PXN
    fault   x2, 4
    mov     x20, #1 << 39
    try     ldr x21, [x20]          // no such range
    fault   x2, 5
    mov     x20, #0x80 << 21
    try     ldr x21, [x20]          // level 1
    fault   x2, 6
    mov     x20, #2 << 21
    try     ldr x21, [x20]          // level 2
    fault   x2, 7
    #= x2 0x210f250425062506
    mov     x3, #0
    mov     x20, #0x1000
    attempt ldr x21, [x20]          // EL1's
    fault   x3, 8
    mov     x20, #0x7000
    attempt ldr x21, [x20]          // 9: allowed
    fault   x3, 9
    attempt str x21, [x20]          // read only
    fault   x3, 10
    attempt br x20                  // UXN
    fault   x3, 11
    #= x3 0x240f1500244f200f
    # The 2 MiB block, and accesses across pages.
    ldr     x21, =0x80200010
    mov     x20, #0x200000
    str     x21, [x20, #0x10]
    mov     x21, #0
    ldr     x4, [x20, #0x10]        // #= x4 0x80200010
    mov     x20, #0x1ffd
    ldr     x5, [x20]               // #= x5 0x11111111444444     # into page 2
    lsl     x5, x5, #8
    lsr     x5, x5, #8
    try     str x5, [x20]           // of which the second part may not be written
    far     x6, 12                  // #= x6 0x2000
    # PAN keeps EL1 off EL0's pages, but for unprivileged accesses.
    mov     x20, #0x3000
    ldr     x7, [x20]               // #= x7 0x1111111111111111
    msr     pan, #1
    try     ldr x21, [x20]
    mov     x8, #0
    fault   x8, 13                  // #= x8 0x250f
    ldtr    x9, [x20]               // #= x9 0x1111111111111111
    msr     pan, #0
    # Hardware manages access flag and dirty state.
    mrs     x21, tcr_el1
    ldr     x22, =3 << 39
    orr     x21, x21, x22
    msr     tcr_el1, x21
    isb
    tlbi    vmalle1
    dsb     sy
    isb
    mov     x20, #0x5000
    ldr     x10, [x20]              // #= x10 0x33
    ldr     x21, =leaves
    ldr     x11, [x21, #40]
    ubfx    x11, x11, #10, #1       // #= x11 1
    mov     x20, #0x6000
    ldr     x12, [x20]              // #= x12 0x33
    ldr     x13, [x21, #48]
    ubfx    x13, x13, #7, #1        // #= x13 1
    str     x20, [x20]
    ldr     x14, [x21, #48]
    ubfx    x14, x14, #7, #1        // #= x14 0
    # `at`.
    mov     x20, #0x1008
    at      s1e1r, x20
    isb
    mrs     x15, par_el1
    bic     x15, x15, #1 << 9       // NS says nothing   #= x15 0xff00000080008980
    at      s1e0r, x20
    isb
    mrs     x16, par_el1            // #= x16 0x81f
    mov     x20, #0x9000
    at      s1e1w, x20
    isb
    mrs     x17, par_el1
    bic     x17, x17, #1 << 9       // #= x17 0x400000080007900
    # An entry that is not global belongs to its ASID.
    ldr     x21, =root
    ldr     x22, =leaves
    mov     x20, #0x3000
    ldr     x18, [x20]
    ldr     x23, =frame2
    ldr     x24, =RW | DESC_USER | DESC_NG
    orr     x23, x23, x24
    str     x23, [x22, #24]
    dsb     sy
    mov     x24, #1 << 48
    orr     x21, x21, x24
    msr     ttbr0_el1, x21
    isb
    ldr     x19, [x20, #8]          // #= x19 0x22
    # tlbi by address, for all ASIDs.
    ldr     x23, =frame3
    ldr     x24, =RW | DESC_USER | DESC_NG
    orr     x23, x23, x24
    str     x23, [x22, #24]
    dsb     sy
    lsr     x24, x20, #12
    tlbi    vaae1, x24
    dsb     sy
    isb
    ldr     x26, [x20, #8]          // #= x26 0x77
    # The upper range is switched off.
    mov     x20, #-4096
    try     ldr x21, [x20]
    mov     x25, #0
    fault   x25, 14                 // #= x25 0x2504
    mov     x21, #0
    mov     x22, #0
    mov     x23, #0
    done
    trap_recorder
    .data
    .balign 4096
root:
    .zero   4096
middle:
    .zero   4096
leaves:
    .zero   4096
frame1:
    .fill   4096, 1, 0x11
frame2:
    .dword  0, 0x22
    .zero   4096 - 19
    .byte   0x44, 0x44, 0x44
frame3:
    .dword  0x33, 0x77
    .zero   4096 - 16
