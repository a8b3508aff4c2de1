//! Binary interchange formats (IEEE 754-2019, 3.4) and their raw fields.

use std::fmt::Debug;

/// The three fields of an encoded number.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Sign bit.
    pub sign: bool,
    /// Biased exponent field, right-aligned.
    pub exp: u32,
    /// Trailing significand field, right-aligned, without the leading bit.
    pub frac: u64,
}

/// A binary floating-point format of at most 64 significand bits.
///
/// The algorithms need only `split` and `join`, so a format with an explicit leading bit (x87) can drop and
/// restore it there; a wider significand (binary128) needs wider products in `arith` as well.
pub trait Format: Copy {
    /// Integer that carries an encoded number.
    type Bits: Copy + Eq + Debug;
    /// Width of the exponent field in bits.
    const EXP_BITS: u32;
    /// Significand digits, the leading one included.
    const PRECISION: u32;

    /// Exponent field of infinities and NaNs.
    const EXP_MAX: u32 = (1 << Self::EXP_BITS) - 1;
    /// Exponent bias.
    const BIAS: i32 = (1 << (Self::EXP_BITS - 1)) - 1;
    /// All ones in the trailing significand field.
    const FRAC_MASK: u64 = (1 << (Self::PRECISION - 1)) - 1;
    /// The bit of the trailing significand field that makes a NaN quiet.
    const QUIET_BIT: u64 = 1 << (Self::PRECISION - 2);

    /// Takes an encoded number apart.
    fn split(bits: Self::Bits) -> Fields;
    /// Puts an encoded number together; fields must fit their widths.
    fn join(fields: Fields) -> Self::Bits;

    /// A zero.
    #[inline]
    fn zero(sign: bool) -> Self::Bits {
        Self::join(Fields { sign, exp: 0, frac: 0 })
    }

    /// An infinity.
    #[inline]
    fn infinity(sign: bool) -> Self::Bits {
        Self::join(Fields { sign, exp: Self::EXP_MAX, frac: 0 })
    }

    /// The finite number of greatest magnitude.
    #[inline]
    fn max_finite(sign: bool) -> Self::Bits {
        Self::join(Fields { sign, exp: Self::EXP_MAX - 1, frac: Self::FRAC_MASK })
    }

    /// The quiet NaN without payload.
    #[inline]
    fn default_nan(sign: bool) -> Self::Bits {
        Self::join(Fields { sign, exp: Self::EXP_MAX, frac: Self::QUIET_BIT })
    }

    /// Whether `bits` encodes a NaN.
    #[inline]
    fn is_nan(bits: Self::Bits) -> bool {
        let f = Self::split(bits);
        f.exp == Self::EXP_MAX && f.frac != 0
    }

    /// Whether `bits` encodes a signalling NaN.
    #[inline]
    fn is_signaling(bits: Self::Bits) -> bool {
        Self::is_nan(bits) && Self::split(bits).frac & Self::QUIET_BIT == 0
    }
}

/// A format whose numbers fit the `u64` that carries them where the format is chosen at run time.
pub trait Carried: Format {
    /// The number in the low bits of `carrier`.
    fn low(carrier: u64) -> Self::Bits;
    /// The number zero-extended.
    fn wide(bits: Self::Bits) -> u64;
}

macro_rules! interchange_format {
    ($name:ident, $bits:ty, $exp_bits:literal, $precision:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Copy, Clone, Debug)]
        pub struct $name;

        impl Format for $name {
            type Bits = $bits;
            const EXP_BITS: u32 = $exp_bits;
            const PRECISION: u32 = $precision;

            #[inline]
            fn split(bits: $bits) -> Fields {
                Fields {
                    sign: bits >> (<$bits>::BITS - 1) != 0,
                    exp: (bits >> ($precision - 1)) as u32 & Self::EXP_MAX,
                    frac: Self::wide(bits) & Self::FRAC_MASK,
                }
            }

            #[inline]
            fn join(fields: Fields) -> $bits {
                Self::low(fields.frac)
                    | (fields.exp as $bits) << ($precision - 1)
                    | <$bits>::from(fields.sign) << (<$bits>::BITS - 1)
            }
        }

        impl Carried for $name {
            #[inline]
            fn low(carrier: u64) -> $bits {
                carrier as $bits
            }

            #[inline]
            fn wide(bits: $bits) -> u64 {
                bits as u64
            }
        }
    };
}

interchange_format!(F16, u16, 5, 11, "binary16, half precision.");
interchange_format!(Bf16, u16, 8, 8, "bfloat16: the upper half of a binary32.");
interchange_format!(F32, u32, 8, 24, "binary32, single precision.");
interchange_format!(F64, u64, 11, 53, "binary64, double precision.");
