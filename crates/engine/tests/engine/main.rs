//! Tests of the engines as a machine uses them: small riscv64 programs on one to four harts.

mod asm;
mod machine;
mod translation;
