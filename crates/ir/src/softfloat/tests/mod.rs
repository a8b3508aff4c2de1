//! Tests of the soft float: chosen cases, an independent implementation, the host's FPU.

mod cases;
mod guests;
mod oracle;

use super::{Env, Flags, Fmt, NanRule, Round};

const FORMATS: [Fmt; 4] = [Fmt::F16, Fmt::Bf16, Fmt::F32, Fmt::F64];

/// Runs an operation in RISC-V's environment with no flags set; returns its result and the `fflags` it raised.
fn riscv<T>(round: Round, operation: impl FnOnce(&mut Env) -> T) -> (T, Flags) {
    let (result, flags) = with(Env::riscv(round), operation);
    (result, Flags::from_bits(flags.fflags()))
}

/// Runs an operation in `env`; returns its result and the flags afterwards.
fn with<T>(mut env: Env, operation: impl FnOnce(&mut Env) -> T) -> (T, Flags) {
    let result = operation(&mut env);
    (result, env.flags)
}

fn nan_rule(nan: NanRule) -> Env {
    Env { nan, ..Env::default() }
}

fn f32_bits(x: f32) -> u64 {
    u64::from(x.to_bits())
}
