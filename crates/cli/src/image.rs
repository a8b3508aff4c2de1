//! `isomer image`: everything about disk images.

use crate::{
    args::Format,
    image_files::{self, FileVerb},
};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  isomer image create disk.qcow2 20G
  isomer image create --backing debian.qcow2 mine.qcow2   an overlay: debian.qcow2 is never changed
  isomer image info mine.qcow2
  isomer image convert mine.qcow2 flat.img                one raw image of the whole chain
  isomer image check mine.qcow2                           exits with 3 for leaks, 1 for corruption
  isomer image resize mine.qcow2 +10G")]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    verb: Verb,

    /// How results are printed
    #[arg(long, value_enum, default_value_t, global = true)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    File(FileVerb),
}

/// Does what was asked for and returns the exit code.
pub(crate) fn run(args: &ImageArgs) -> u8 {
    match &args.verb {
        Verb::File(verb) => image_files::run(verb, args.format),
    }
}
