//! NaN results (IEEE 754-2019, 6.2): which operand survives, and what an invalid operation returns.

use super::env::{Env, Flags, NanRule};
use super::format::{Fields, Format};

/// The default NaN of a rule.
#[inline]
pub fn default<F: Format>(rule: NanRule) -> F::Bits {
    F::default_nan(rule == NanRule::X86)
}

/// Result of an invalid operation on numbers: raises NV.
#[cold]
pub(super) fn invalid<F: Format>(env: &mut Env) -> F::Bits {
    env.raise(Flags::NV);
    default::<F>(env.nan)
}

/// Result of an operation with at least one NaN among `operands`, which are in the rule's order of preference.
/// Raises NV if one is signalling.
#[cold]
pub(super) fn propagate<F: Format>(operands: &[F::Bits], env: &mut Env) -> F::Bits {
    let signaling = operands.iter().copied().find(|&x| F::is_signaling(x));
    if signaling.is_some() {
        env.raise(Flags::NV);
    }
    let first = operands.iter().copied().find(|&x| F::is_nan(x));
    let chosen = match env.nan {
        NanRule::Canonical => None,
        NanRule::Arm => signaling.or(first),
        NanRule::X86 | NanRule::Power => first,
    };
    chosen.map_or(default::<F>(env.nan), quiet::<F>)
}

/// A NaN converted to another format: the upper bits of the payload survive.
#[cold]
pub(super) fn convert<F: Format, G: Format>(nan: F::Bits, env: &mut Env) -> G::Bits {
    if F::is_signaling(nan) {
        env.raise(Flags::NV);
    }
    if env.nan == NanRule::Canonical {
        return default::<G>(env.nan);
    }
    let f = F::split(nan);
    let frac = f.frac << (64 - F::PRECISION) >> (64 - G::PRECISION);
    G::join(Fields { sign: f.sign, exp: G::EXP_MAX, frac: frac | G::QUIET_BIT })
}

fn quiet<F: Format>(nan: F::Bits) -> F::Bits {
    let f = F::split(nan);
    F::join(Fields { frac: f.frac | F::QUIET_BIT, ..f })
}
