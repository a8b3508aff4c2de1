//! The few pieces of host code that are not made from guest code: how the engine enters compiled code, and how compiled
//! code reaches the engine without losing a register. Cranelift makes them, so no host needs assembly here.

use crate::{
    CompileError,
    abi::{Context as Abi, Enter, ExitReason, JumpEntry},
    clif::{code_signature, elsewhere_signature, host_isa, jump_offset, memory, rare_signature},
    code_memory::{CodeMemory, CodeSpan},
    host::HostFeatures,
};
use cranelift_codegen::{
    Context,
    control::ControlPlane,
    ir::{AbiParam, Function, InstBuilder, Signature, UserFuncName, condcodes::IntCC, types::I64},
    isa::{CallConv, TargetIsa},
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use isomer_ir::CpuHeader;
use std::{ffi::c_void, mem::offset_of, sync::Arc};

/// One of the engine's functions as a stub calls it: CPU, context, two words.
pub type RareFunction = unsafe extern "C" fn(*mut u8, *mut crate::abi::Context, u64, u64);

/// The stubs of one engine.
#[derive(Debug)]
pub struct Stubs {
    enter: CodeSpan,
    elsewhere: CodeSpan,
    rare: [CodeSpan; 3],
    by_words: [CodeSpan; 3],
}

impl Stubs {
    /// Makes them: `access`, `call` and `compute` are what the context's functions do.
    pub fn new(
        memory: &Arc<CodeMemory>,
        features: HostFeatures,
        [access, call, compute]: [RareFunction; 3],
    ) -> Result<Self, CompileError> {
        let isa = host_isa(features)?;
        let mut context = Context::new();
        let mut builder = FunctionBuilderContext::new();
        let mut make = |fill: &mut dyn FnMut(&mut Function, &mut FunctionBuilderContext)| {
            context.clear();
            context.func.name = UserFuncName::user(0, 0);
            fill(&mut context.func, &mut builder);
            let compiled = context
                .compile(&*isa, &mut ControlPlane::default())
                .map_err(|error| CompileError::Codegen(error.inner.to_string()))?;
            memory
                .install(compiled.code_buffer())
                .ok_or_else(|| CompileError::Codegen("no room for code".to_owned()))
        };
        let enter = make(&mut |func, builder| enter(func, builder, &*isa))?;
        let elsewhere = make(&mut |func, builder| elsewhere(func, builder, &*isa))?;
        let mut rare = |function: RareFunction| {
            let function = function as usize as i64;
            let mut stub =
                |by_words| make(&mut |func, builder| preserve(func, builder, &*isa, function, by_words));
            Ok::<_, CompileError>((stub(false)?, stub(true)?))
        };
        let (access, call, compute) = (rare(access)?, rare(call)?, rare(compute)?);
        Ok(Self {
            enter,
            elsewhere,
            rare: [access.0, call.0, compute.0],
            by_words: [access.1, call.1, compute.1],
        })
    }

    /// How the engine enters compiled code.
    #[allow(unsafe_code)]
    pub fn enter(&self) -> Enter {
        // SAFETY: the span holds the code made by `enter` below, which has this signature.
        unsafe { std::mem::transmute::<*const u8, Enter>(self.enter.address()) }
    }

    /// The address for [`Abi::elsewhere`].
    pub fn elsewhere(&self) -> *const c_void {
        self.elsewhere.address().cast()
    }

    /// The addresses for [`crate::abi::Context`]'s `access`, `call` and `compute`.
    pub fn rare(&self) -> [*const c_void; 3] {
        [0, 1, 2].map(|i| self.rare[i].address().cast())
    }

    /// The addresses for [`crate::abi::Context::by_words`].
    pub fn by_words(&self) -> [*const c_void; 3] {
        [0, 1, 2].map(|i| self.by_words[i].address().cast())
    }
}

fn host_signature(params: usize, returns: usize) -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(I64); params];
    signature.returns = vec![AbiParam::new(I64); returns];
    signature
}

/// `code(cpu, context, left, pc)` in the convention of compiled code.
fn enter(func: &mut Function, builder: &mut FunctionBuilderContext, isa: &dyn TargetIsa) {
    func.signature = host_signature(5, 1);
    let mut b = FunctionBuilder::new(func, builder);
    let block = b.create_block();
    b.append_block_params_for_function_params(block);
    b.switch_to_block(block);
    b.seal_block(block);
    let params = b.block_params(block).to_vec();
    let signature = b.import_signature(code_signature());
    let call = b.ins().call_indirect(signature, params[0], &params[1..]);
    let reason = b.inst_results(call)[0];
    b.ins().return_(&[reason]);
    b.finalize(isa.frontend_config());
}

/// Looks at the other place of the jump cache where code for pc may be.
fn elsewhere(func: &mut Function, builder: &mut FunctionBuilderContext, isa: &dyn TargetIsa) {
    func.signature = elsewhere_signature();
    let mut b = FunctionBuilder::new(func, builder);
    let block = b.create_block();
    b.append_block_params_for_function_params(block);
    b.switch_to_block(block);
    b.seal_block(block);
    let [cpu, cx, left, pc, mode] = [0, 1, 2, 3, 4].map(|i| b.block_params(block)[i]);
    let (same_pc, found, missed) = (b.create_block(), b.create_block(), b.create_block());
    let jumps = b.ins().load(I64, memory(), cx, offset_of!(Abi, jumps) as i32);
    let mask = b.ins().load(I64, memory(), cx, offset_of!(Abi, jump_mask) as i32);
    let offset = jump_offset(&mut b, pc, mask);
    // `jump_other`: half the entries away. The mask is twice their number less two.
    let twice = b.ins().iadd_imm_s(mask, 2);
    let half_bytes = b.ins().ishl_imm_s(twice, i64::from((size_of::<JumpEntry>() / 4).trailing_zeros()));
    let offset = b.ins().bxor(offset, half_bytes);
    let entry = b.ins().iadd(jumps, offset);
    let compare = |b: &mut FunctionBuilder<'_>, offset: usize, wanted, next| {
        let tag = b.ins().load(I64, memory(), entry, offset as i32);
        let same = b.ins().icmp(IntCC::Equal, tag, wanted);
        b.ins().brif(same, next, &[], missed, &[]);
        b.switch_to_block(next);
        b.seal_block(next);
    };
    compare(&mut b, offset_of!(JumpEntry, pc), pc, same_pc);
    compare(&mut b, offset_of!(JumpEntry, mode), mode, found);
    let code = b.ins().load(I64, memory(), entry, offset_of!(JumpEntry, entry) as i32);
    let signature = b.import_signature(code_signature());
    b.ins().return_call_indirect(signature, code, &[cpu, cx, left, pc]);
    b.switch_to_block(missed);
    b.seal_block(missed);
    b.ins().store(memory(), pc, cpu, offset_of!(CpuHeader, pc) as i32);
    b.ins().store(memory(), left, cx, offset_of!(Abi, left) as i32);
    let reason = b.ins().iconst(I64, ExitReason::Lookup as i64);
    b.ins().return_(&[reason]);
    b.finalize(isa.frontend_config());
}

/// Calls `function` and keeps every register.
fn preserve(
    func: &mut Function,
    builder: &mut FunctionBuilderContext,
    isa: &dyn TargetIsa,
    function: i64,
    by_words: bool,
) {
    func.signature = rare_signature(if by_words { 2 } else { 4 });
    let mut b = FunctionBuilder::new(func, builder);
    let block = b.create_block();
    b.append_block_params_for_function_params(block);
    b.switch_to_block(block);
    b.seal_block(block);
    let mut params = b.block_params(block).to_vec();
    if by_words {
        let words = std::mem::offset_of!(crate::abi::Context, words) as i32;
        let word = |b: &mut FunctionBuilder<'_>, i| b.ins().load(I64, memory(), params[1], words + 8 * i);
        let words = [word(&mut b, 0), word(&mut b, 1)];
        params.extend(words);
    }
    let signature = b.import_signature(host_signature(4, 0));
    let function = b.ins().iconst(I64, function);
    b.ins().call_indirect(signature, function, &params);
    b.ins().return_(&[]);
    b.finalize(isa.frontend_config());
}
