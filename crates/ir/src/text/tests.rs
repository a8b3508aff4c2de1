//! Text and blocks, there and back.

use super::{parse, print};
use crate::{
    testing::{self, SLOTS},
    verify::verify,
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_block_survives(block in testing::blocks()) {
        let text = print(&block);
        let parsed = parse(&text, SLOTS);
        prop_assert_eq!(parsed.as_ref(), Ok(&block), "{}", text);
        prop_assert_eq!(verify(&block), Ok(()));
    }

    #[test]
    fn broken_text_gives_an_error_or_a_block(
        block in testing::blocks(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), "[ -~\\n\u{e9}]{0,3}"), 1..4),
    ) {
        let mut chars: Vec<char> = print(&block).chars().collect();
        for (at, replacement) in edits {
            let at = at.index(chars.len());
            chars.splice(at..=at, replacement.chars());
            if chars.is_empty() {
                break;
            }
        }
        let text: String = chars.into_iter().collect();
        match parse(&text, SLOTS) {
            Ok(block) => {
                // Whatever parses prints to something that parses to the same, and the verifier has an answer.
                prop_assert_eq!(parse(&print(&block), SLOTS), Ok(block.clone()));
                let _ = verify(&block);
            }
            Err(error) => {
                let lines = text.lines().count();
                prop_assert!(error.line >= 1 && error.line <= lines + 1, "{} of {} lines", error, lines);
                let width = text.lines().nth(error.line - 1).map_or(0, |line| line.chars().count());
                prop_assert!(error.column >= 1 && error.column <= width + 1, "{} in {} columns", error, width);
            }
        }
    }

    #[test]
    fn noise_gives_an_error(text in "\\PC{0,200}") {
        prop_assert!(parse(&text, SLOTS).is_err());
    }
}

const SAMPLE: &str = "\
block mode=0x3 len=10 insns=3 fp=canonical,after {
  insn +0 4
  v0 = get x1
  v1 = const.i64 0xfffffffffffffff0
  v2 = add.i64 v0, v1
  v3 = load.i64.i32.s [v2], mmu=1 relaxed
  store.i16 [v2], v3, mmu=1 acq_rel big aligned
  insn +4 2
  v4 = const.i8 0x0
  v5, v6, v7 = sub_borrow.i64 v3, v0, v4
  set d0.high, v5
  v8 = call.i32 #3, v5, v6
  v9 = fp.mul.f32.dynamic v8, v8
  fence seq_cst
  insn +6 4
  branch v6, -16, +10
}
";

#[test]
fn the_form_is_stable() {
    let block = parse(SAMPLE, SLOTS).expect("the sample is well-formed");
    assert_eq!(verify(&block), Ok(()));
    assert_eq!(print(&block), SAMPLE);
    assert_eq!((block.insts.len(), block.value_types.len()), (14, 10));
}

#[test]
fn comments_and_empty_lines_do_not_count() {
    let commented =
        SAMPLE.replace("  insn", "\n ; a comment\n\tinsn").replace("v0 = get x1", "v0=get   x1 ; x1");
    assert_eq!(parse(&commented, SLOTS), parse(SAMPLE, SLOTS));
}

#[test]
fn errors_name_the_place() {
    let cases = [
        ("get x1", "get x99", "line 3, column 12: there is no such slot"),
        ("add.i64", "add.i63", "line 5, column 12: `i63` is not a type"),
        ("add.i64", "plus.i64", "line 5, column 8: there is no operation `plus`"),
        ("v2 = add", "v3 = add", "line 5, column 3: `add` gives 1 results, which are [v2] here"),
        (
            "0xfffffffffffffff0",
            "0x1fffffffffffffff0",
            "line 4, column 18: expected a hexadecimal number that fits",
        ),
        (", mmu=1 relaxed", "", "line 6, column 27: expected `,`"),
        ("-16, ", "16, ", "line 16, column 14: expected an offset with its sign"),
        ("}\n", "", "line 17, column 1: the text ends where `}` is expected"),
        ("insn +0 4", "insn +0 400", "line 2, column 11: expected a length below 256"),
    ];
    for (from, to, message) in cases {
        let error = parse(&SAMPLE.replacen(from, to, 1), SLOTS).expect_err(to);
        assert_eq!(error.to_string(), message);
    }
}
