//! The programs a kernel build needs, and the Debian packages they come from.

use anyhow::Result;

use super::arch::Recipe;
use crate::debian;
use crate::tools::{self, Tool};

/// What every build uses beside [`debian::TOOLS`], whatever the instruction set.
const TOOLS: [Tool; 7] = [
    Tool::program("make", "make"),
    Tool::program("gcc", "gcc"),
    Tool::program("flex", "flex"),
    Tool::program("bison", "bison"),
    Tool::program("bc", "bc"),
    Tool::program("xz", "xz-utils"),
    Tool::program("perl", "perl"),
];

/// The x86 build's `objtool` reads ELF files and digests with libraries of the host.
const X86_TOOLS: [Tool; 2] = [Tool::file("/usr/include/gelf.h", "libelf-dev"), Tool::program("zstd", "zstd")];

/// Makes sure that the build's tools are there.
///
/// # Errors
/// See [`tools::require`].
pub(crate) fn require(recipe: &Recipe) -> Result<()> {
    let x86_only = X86_TOOLS.iter().filter(|_| recipe.kbuild == "x86");
    let all = debian::TOOLS.iter().chain(&TOOLS).chain(x86_only).chain([&recipe.compiler]);
    tools::require("the kernel build", all)
}
