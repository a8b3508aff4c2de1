//! What becomes of any block: verified, printed and parsed, optimized, compiled.

use isomer_ir::{Block, Guest, interp::Code, passes, text, verify::verify};

/// Takes a block of `G`, or of no guest in particular, through everything that blocks go through. Only a verified one
/// gets far; whether it was is returned.
pub fn take_through<G: Guest>(block: &Block, of_guest: bool) -> bool {
    if verify(block).is_err() {
        return false;
    }
    let printed = if of_guest { text::print_for::<G>(block) } else { text::print(block) };
    let parsed = if of_guest { text::parse_for::<G>(&printed) } else { text::parse(&printed, block.slots) };
    match parsed {
        Ok(parsed) => assert_eq!(&parsed, block, "another block after printing and parsing:\n{printed}"),
        Err(error) => panic!("what was printed cannot be parsed: {error}\n{printed}"),
    }
    // The interpreter may find a block too complex; it must not panic.
    let _ = Code::compile(block);
    let mut optimized = block.clone();
    if of_guest {
        passes::optimize_for::<G>(&mut optimized)
    } else {
        passes::optimize(&mut optimized)
    }
    assert!(optimized.insts.len() <= block.insts.len(), "passes added operations:\n{printed}");
    if let Err(error) = verify(&optimized) {
        panic!("the passes broke a block: {error}\nbefore:\n{printed}\nafter:\n{}", text::print(&optimized));
    }
    let again = text::print(&optimized);
    assert!(text::parse(&again, optimized.slots).is_ok_and(|parsed| parsed == optimized), "{again}");
    let _ = Code::compile(&optimized);
    true
}
