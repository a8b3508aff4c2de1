//! The optimising compiler: regions through Cranelift. Guest registers are SSA values inside a region and are written
//! to the CPU before anything that may leave it, so that state is exact whenever somebody looks.

mod control;
mod fp;
mod graph;
mod int;
mod memory;
mod pages;
mod slots;
mod translate;
mod vector;

pub(crate) use control::jump_offset;
pub(crate) use translate::{code_signature, elsewhere_signature, memory, rare_signature};

use crate::{CompileError, Compiled, host::HostFeatures, region::Region};
use cranelift_codegen::{
    Context,
    control::ControlPlane,
    isa::{self, OwnedTargetIsa},
    settings::{self, Configurable},
};
use cranelift_frontend::FunctionBuilderContext;
use isomer_ir::{guest::Effects, types::HelperId};

/// What the compiler may assume of the guest beyond its blocks.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// What a helper may touch.
    pub effects: fn(HelperId) -> Effects,
}

/// Compiles regions; keeps its memory between them.
pub struct RegionCompiler {
    isa: OwnedTargetIsa,
    context: Context,
    builder: FunctionBuilderContext,
    features: HostFeatures,
}

impl std::fmt::Debug for RegionCompiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegionCompiler({})", self.isa.triple())
    }
}

/// Cranelift for this host.
pub(crate) fn host_isa(features: HostFeatures) -> Result<OwnedTargetIsa, CompileError> {
    let refused = |error: &dyn std::fmt::Display| CompileError::Codegen(error.to_string());
    let mut flags = settings::builder();
    let general = [
        // The IR has been through passes of our own. Cranelift's take a quarter of the time and change nothing measurable.
        ("opt_level", "none"),
        ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
        // Tail calls on x86-64 need them.
        ("preserve_frame_pointers", "true"),
        ("unwind_info", "false"),
        ("enable_probestack", "false"),
        ("is_pic", "true"),
    ];
    for (name, value) in general {
        flags.set(name, value).map_err(|error| refused(&error))?;
    }
    let mut builder = isa::lookup(target_lexicon::Triple::host()).map_err(|error| refused(&error))?;
    let sse42 = features.sse42;
    let optional: &[(&str, bool)] = if cfg!(target_arch = "x86_64") {
        &[
            ("has_sse3", sse42),
            ("has_ssse3", sse42),
            ("has_sse41", sse42),
            ("has_sse42", sse42),
            ("has_avx", features.avx),
            ("has_avx2", features.avx2),
            ("has_fma", features.fma),
            ("has_bmi1", features.bmi1),
            ("has_bmi2", features.bmi2),
            ("has_lzcnt", features.lzcnt),
            ("has_popcnt", features.popcnt),
            ("has_cmpxchg16b", features.cmpxchg16b),
        ]
    } else if cfg!(target_arch = "aarch64") {
        &[("has_lse", features.lse)]
    } else {
        &[]
    };
    for (name, _) in optional.iter().filter(|(_, has)| *has) {
        builder.enable(name).map_err(|error| refused(&error))?;
    }
    builder.finish(settings::Flags::new(flags)).map_err(|error| refused(&error))
}

impl RegionCompiler {
    /// A compiler for this host.
    pub fn new(features: HostFeatures) -> Result<Self, CompileError> {
        Ok(Self {
            isa: host_isa(features)?,
            context: Context::new(),
            builder: FunctionBuilderContext::new(),
            features,
        })
    }

    /// Compiles a region.
    pub fn compile(&mut self, region: &Region, facts: Facts) -> Result<Compiled, CompileError> {
        self.context.clear();
        self.generate(region, facts)
    }

    fn generate(&mut self, region: &Region, facts: Facts) -> Result<Compiled, CompileError> {
        translate::translate(
            &mut self.context.func,
            &mut self.builder,
            &*self.isa,
            region,
            facts,
            self.features,
        )?;
        let compiled = self
            .context
            .compile(&*self.isa, &mut ControlPlane::default())
            .map_err(|error| CompileError::Codegen(error.inner.to_string()))?;
        if !compiled.buffer.relocs().is_empty() {
            return Err(CompileError::Codegen("the code has relocations".to_owned()));
        }
        Ok(Compiled { code: compiled.code_buffer().to_vec(), ranges: region.ranges(), insns: region.insns })
    }

    /// The region's host code as text: for people.
    pub fn disassemble(&mut self, region: &Region, facts: Facts) -> Result<String, CompileError> {
        self.context.clear();
        self.context.set_disasm(true);
        self.generate(region, facts)?;
        let text = self.context.compiled_code().and_then(|code| code.vcode.clone());
        Ok(text.unwrap_or_default())
    }

    /// The region in Cranelift's text form, before optimisation: for people.
    pub fn show(&mut self, region: &Region, facts: Facts) -> Result<String, CompileError> {
        self.context.clear();
        let func = &mut self.context.func;
        translate::translate(func, &mut self.builder, &*self.isa, region, facts, self.features)?;
        Ok(self.context.func.display().to_string())
    }
}
