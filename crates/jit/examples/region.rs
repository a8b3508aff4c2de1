//! Shows what the region compiler makes of a function: `cargo run --release -p isomer-jit --example region -- ELF SYMBOL
//! [clif]`.

use isomer_ir::{Block, Guest, guest::lift_block, passes};
use isomer_jit::{
    HostFeatures,
    clif::{Facts, RegionCompiler},
    region::{Region, RegionLimits, Source},
};
use isomer_riscv64::Riscv64;
use std::time::Instant;

struct Page(Riscv64, u32, Vec<u8>);

impl Source for Page {
    fn block(&self, offset: u16, max_insns: u32) -> Option<Block> {
        let code = self.2.get(usize::from(offset)..).filter(|code| code.len() >= 2)?;
        let mut block = lift_block(&self.0, self.1, code, max_insns)?;
        passes::optimize_for::<Riscv64>(&mut block);
        Some(block)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    use object::{Object, ObjectSection, ObjectSymbol};
    let args: Vec<String> = std::env::args().collect();
    let [_, path, name, rest @ ..] = &args[..] else { return Err("usage: region ELF SYMBOL [clif]".into()) };
    let bytes = std::fs::read(path)?;
    let file = object::File::parse(&*bytes)?;
    let address = match u64::from_str_radix(name.trim_start_matches("0x"), 16) {
        Ok(address) if name.starts_with("0x") => address,
        _ => file.symbol_by_name(name).ok_or("no such symbol")?.address(),
    };
    let text = file
        .sections()
        .find(|s| (s.address()..s.address() + s.size()).contains(&address))
        .ok_or("the symbol is in no section")?;
    let page = address & !0xfff;
    let data = text.data()?;
    let mut code = vec![0; 4096];
    for (i, byte) in code.iter_mut().enumerate() {
        let at = (page + i as u64).wrapping_sub(text.address());
        *byte = data.get(at as usize).copied().unwrap_or(0);
    }
    let guest = Riscv64::max();
    // User mode, floating point on and dirty.
    let source = Page(guest, 2 << 3, code);
    let start = Instant::now();
    let region =
        Region::form(&source, (address & 0xfff) as u16, RegionLimits::REGION).ok_or("nothing to compile")?;
    let formed = start.elapsed();
    let facts = Facts { effects: |helper| Riscv64::HELPERS[usize::from(helper.0)].effects };
    let mut compiler = RegionCompiler::new(HostFeatures::detect())?;
    let mut compiled = compiler.compile(&region, facts)?;
    let mut took = std::time::Duration::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        compiled = compiler.compile(&region, facts)?;
        took = took.min(start.elapsed());
    }
    if rest.iter().any(|arg| arg == "clif") {
        println!("{}", compiler.show(&region, facts)?);
    } else {
        println!("{}", compiler.disassemble(&region, facts)?);
    }
    println!(
        "{} blocks, {} instructions: formed in {formed:?}, compiled in {took:?} ({:.1} us an instruction), {} bytes",
        region.blocks.len(),
        region.insns,
        took.as_secs_f64() * 1e6 / f64::from(region.insns),
        compiled.code.len()
    );
    Ok(())
}
