//! Helpers of floating-point, SIMD and cryptographic instructions.
//!
//! Most execute a whole instruction (see [`crate::vector`]): they read and write the registers that it names, the
//! accumulated exceptions and QC.

use crate::{crypto, float, helpers::helper_rows, lift_fp, vector::run, vector_fp as fp, vector_int as int};

helper_rows! {
    /// Helpers of floating-point and SIMD instructions.
    FpHelper at FP_BASE;
    Half "half" Any float::half;
    FromHalf "from_half" Any lift_fp::from_half_helper;
    ToHalf "to_half" Any lift_fp::to_half_helper;
    ToFixed "to_fixed" Any lift_fp::to_fixed_helper;
    FromFixed "from_fixed" Any lift_fp::from_fixed_helper;
    ToJavascript "to_javascript" Any lift_fp::to_javascript_helper;
    RoundSized "round_sized" Any lift_fp::round_sized_helper;

    Frecpe "frecpe" Any |cx, a| run(cx, a, fp::frecpe);
    Frsqrte "frsqrte" Any |cx, a| run(cx, a, fp::frsqrte);
    Frecpx "frecpx" Any |cx, a| run(cx, a, fp::frecpx);
    Frecps "frecps" Any |cx, a| run(cx, a, fp::frecps);
    Frsqrts "frsqrts" Any |cx, a| run(cx, a, fp::frsqrts);
    Fmulx "fmulx" Any |cx, a| run(cx, a, fp::fmulx);
    Fcvtxn "fcvtxn" Any |cx, a| run(cx, a, fp::fcvtxn);
    FcvtnHalf "fcvtn_half" Any |cx, a| run(cx, a, fp::fcvtn_half);
    FcvtlHalf "fcvtl_half" Any |cx, a| run(cx, a, fp::fcvtl_half);
    ConvertFixed "convert_fixed" Any |cx, a| run(cx, a, fp::convert_fixed);
    ConvertHalf "convert_half" Any |cx, a| run(cx, a, fp::convert_half);
    FrintSized "frint_sized" Any |cx, a| run(cx, a, fp::frint_sized);
    Fmlal "fmlal" Any |cx, a| run(cx, a, fp::multiply_half_long);
    Bfdot "bfdot" Any |cx, a| run(cx, a, fp::bfdot);
    Bfmmla "bfmmla" Any |cx, a| run(cx, a, fp::bfmmla);

    ShiftByRegister "shift_by_register" Any |cx, a| run(cx, a, int::shift_by_register);
    ShiftLeft "shift_left_saturating" Any |cx, a| run(cx, a, int::shift_left_saturating);
    ShiftRightNarrow "shift_right_narrow" Any |cx, a| run(cx, a, int::shift_right_narrow);
    ExtractNarrow "extract_narrow" Any |cx, a| run(cx, a, int::extract_narrow);
    AddSaturating "add_saturating" Any |cx, a| run(cx, a, int::add_saturating);
    AccumulateSaturating "accumulate_saturating" Any |cx, a| run(cx, a, int::accumulate_saturating);
    NegateSaturating "negate_saturating" Any |cx, a| run(cx, a, int::negate_saturating);
    MultiplyHigh "multiply_doubling_high" Any |cx, a| run(cx, a, int::multiply_doubling_high);
    MultiplyAccumulateHigh "multiply_accumulate_high" Any |cx, a| run(cx, a, int::multiply_accumulate_high);
    MultiplyLong "multiply_doubling_long" Any |cx, a| run(cx, a, int::multiply_doubling_long);
    Pmul "pmul" Any |cx, a| run(cx, a, int::multiply_polynomial);
    Pmull "pmull" Any |cx, a| run(cx, a, int::multiply_polynomial_long);
    DotProduct "dot_product" Any |cx, a| run(cx, a, int::dot_product);
    MatrixMultiply "matrix_multiply" Any |cx, a| run(cx, a, int::matrix_multiply);
    EstimateUnsigned "estimate_unsigned" Any |cx, a| run(cx, a, int::estimate_unsigned);

    Aese "aese" Any |cx, a| run(cx, a, crypto::aese);
    Aesd "aesd" Any |cx, a| run(cx, a, crypto::aesd);
    Aesmc "aesmc" Any |cx, a| run(cx, a, crypto::aesmc);
    Aesimc "aesimc" Any |cx, a| run(cx, a, crypto::aesimc);
    Sha1c "sha1c" Any |cx, a| run(cx, a, crypto::sha1c);
    Sha1p "sha1p" Any |cx, a| run(cx, a, crypto::sha1p);
    Sha1m "sha1m" Any |cx, a| run(cx, a, crypto::sha1m);
    Sha1h "sha1h" Any |cx, a| run(cx, a, crypto::sha1h);
    Sha1su0 "sha1su0" Any |cx, a| run(cx, a, crypto::sha1su0);
    Sha1su1 "sha1su1" Any |cx, a| run(cx, a, crypto::sha1su1);
    Sha256h "sha256h" Any |cx, a| run(cx, a, crypto::sha256h);
    Sha256h2 "sha256h2" Any |cx, a| run(cx, a, crypto::sha256h2);
    Sha256su0 "sha256su0" Any |cx, a| run(cx, a, crypto::sha256su0);
    Sha256su1 "sha256su1" Any |cx, a| run(cx, a, crypto::sha256su1);
    Sha512h "sha512h" Any |cx, a| run(cx, a, crypto::sha512h);
    Sha512h2 "sha512h2" Any |cx, a| run(cx, a, crypto::sha512h2);
    Sha512su0 "sha512su0" Any |cx, a| run(cx, a, crypto::sha512su0);
    Sha512su1 "sha512su1" Any |cx, a| run(cx, a, crypto::sha512su1);
}
