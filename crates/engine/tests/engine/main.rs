//! Tests of the engines as a machine uses them: small riscv64 programs on one to four harts.

mod asm;
mod faults;
mod harts;
mod injection;
mod kept;
mod limits;
mod machine;
mod random;
mod self_modifying;
mod sleep;
mod stress;
mod switching;
mod translation;
