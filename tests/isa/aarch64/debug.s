# Self-hosted debug: software step (of straight code, taken branches, calls), breakpoints, watchpoints in small pages and
# large blocks.
    .include "test.inc"
    .equ SS, 1 << 21
    .equ MDE, 1 << 15
    start
    record_traps
    map     root, 0, middle, DESC_TABLE
    map     root, 2, 0x80000000, DESC_BLOCK | DESC_AF | DESC_SH | DESC_USER | DESC_RO
    map     middle, 0, leaves, DESC_TABLE
    map     middle, 1, 0x80200000, DESC_BLOCK | DESC_AF | DESC_SH | DESC_USER | DESC_UXN
    map     leaves, 1, frame, DESC_PAGE | DESC_AF | DESC_SH | DESC_USER | DESC_UXN
    map     leaves, 2, frame, DESC_PAGE | DESC_AF | DESC_SH | DESC_USER | DESC_UXN
    # EL1 must not write what it executes here, and EL0 executes what EL1 wrote: the records are written through an alias.
    map     root, 3, 0x80000000, DESC_BLOCK | DESC_AF | DESC_SH | DESC_UXN
    mov     x20, #1 << 30
    add     x27, x27, x20
    translate root
    msr     oslar_el1, xzr
    mov     x20, #1                 // software step
    msr     mdscr_el1, x20
    isb
    # Steps one instruction at EL0; the class in the record is 0x32.
    .macro step label, more=0
    adr     x28, 3f
    user    \label, SS | \more
3:
    .endm
    .equ PSTATE_Z, 1 << 30
    mov     x20, #0
    step    straight
    esr     x0, 0                   // #= x0 0xcb000022
    elr     x1, 0
    adr     x21, straight
    sub     x1, x1, x21             // #= x1 4
    #= x20 1
    step    jump
    class   x2, 1                   // #= x2 0x32
    elr     x3, 1
    adr     x21, landed
    sub     x3, x3, x21             // #= x3 0                    # at the destination
    step    conditional, PSTATE_Z
    elr     x4, 2
    sub     x4, x4, x21             // #= x4 0
    step    conditional
    elr     x5, 3
    adr     x22, conditional
    sub     x5, x5, x22             // #= x5 4                    # not taken
    step    indirect
    elr     x6, 4
    sub     x6, x6, x21             // #= x6 0
    step    self
    class   x7, 5                   // #= x7 0x32
    elr     x8, 5
    adr     x22, self
    sub     x8, x8, x22             // #= x8 0
    step    call
    class   x9, 6                   // #= x9 0x15                 # the svc is taken, not a step
    spsr    x10, 6
    and     x10, x10, #SS           // #= x10 0
    mov     x26, #8
    step    faulting
    class   x11, 7                  // #= x11 0x24
    spsr    x12, 7
    and     x12, x12, #SS           // #= x12 0x200000            # not stepped: it did not complete
    # Without SPSR.SS the exception comes before anything is executed.
    adr     x28, 3f
    user    straight, 0
3:  class   x13, 8                  // #= x13 0x32
    elr     x14, 8
    adr     x22, straight
    sub     x14, x14, x22           // #= x14 0
    # Breakpoints at EL0.
    mov     x22, #MDE
    msr     mdscr_el1, x22
    adr     x22, second
    msr     dbgbvr0_el1, x22
    mov     x22, #0xf << 5 | 2 << 1 | 1
    msr     dbgbcr0_el1, x22
    isb
    adr     x28, 3f
    user    straight, 0
3:  esr     x15, 9                  // #= x15 0xc2000022
    elr     x16, 9
    adr     x22, second
    sub     x16, x16, x22           // #= x16 0
    msr     dbgbcr0_el1, xzr
    # A watchpoint on four bytes of a page, for stores by EL0.
    mov     x22, #0x1008
    msr     dbgwvr0_el1, x22
    mov     x22, #0xf << 5 | 2 << 3 | 2 << 1 | 1
    msr     dbgwcr0_el1, x22
    isb
    mov     x23, #0x1000
    attempt str x20, [x23]          // beside it
    class   x17, 10                 // #= x17 0x15
    attempt ldr x24, [x23, #8]      // a load
    class   x18, 11                 // #= x18 0x15
    attempt str x20, [x23, #8]
    esr     x19, 12                 // #= x19 0xd2000062
    far     x25, 12                 // #= x25 0x1008
    attempt str w20, [x23, #12]     // its other half
    class   x26, 13                 // #= x26 0x15
    # Another one in a block of 2 MiB, after accesses that cached the block.
    mov     x23, #0x200000
    attempt str x20, [x23]
    attempt str x20, [x23, #0x1000]
    ldr     x22, =0x201010
    msr     dbgwvr1_el1, x22
    mov     x22, #0xff << 5 | 3 << 3 | 2 << 1 | 1
    msr     dbgwcr1_el1, x22
    isb
    attempt str x20, [x23]
    class   x24, 16
    fmov    d0, x24                 // #= d0 0x15
    ldr     x22, =0x201000
    attempt ldr x24, [x22, #0x10]
    esr     x24, 17
    fmov    d1, x24                 // #= d1 0xd2000022
    far     x24, 17
    fmov    d2, x24                 // #= d2 0x201010
    attempt ldr x24, [x22, #0x18]
    class   x24, 18
    fmov    d3, x24                 // #= d3 0x15
    attempt ldp x24, x21, [x22]
    class   x24, 19
    fmov    d4, x24                 // #= d4 0x15
    attempt ldr q31, [x22, #8]
    class   x24, 20
    fmov    d5, x24                 // #= d5 0x34                # 16 bytes, of which the last 8 are watched
    attempt stur q31, [x22, #1]
    class   x24, 21
    fmov    d6, x24                 // #= d6 0x34
    # EL1's own accesses are not watched: the watchpoint is EL0's.
    try     ldr x24, [x22, #0x10]
    class   x24, 22
    fmov    d7, x24                 // #= d7 0x15
    mov     x20, #1
    mov     x21, #0
    mov     x22, #0
    mov     x23, #0
    mov     x24, #0
    fmov    d31, xzr
    mrs     x29, sctlr_el1
    bic     x29, x29, #1            // `done` writes what EL1 may not, with translation on
    msr     sctlr_el1, x29
    isb
    done
straight:
    add     x20, x20, #1
second:
    add     x20, x20, #2
    svc     #1
jump:
    b       landed
    svc     #2
conditional:
    b.eq    landed
    svc     #3
indirect:
    br      x21
    svc     #4
self:
    b       self
call:
    svc     #5
faulting:
    ldr     x24, [x26]              // x26 is 8: not mapped
    svc     #6
landed:
    svc     #7
    trap_recorder
    .data
    .balign 4096
root:
    .zero   4096
middle:
    .zero   4096
leaves:
    .zero   4096
frame:
    .zero   4096
