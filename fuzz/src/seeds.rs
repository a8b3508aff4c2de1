//! Inputs to start from, written into the corpus by the targets themselves: a seed is code here and not a file in the
//! repository.

use std::{fs, path::PathBuf};

/// Writes `seeds` into the corpus folder that libFuzzer was started with, if there is one. To be called from the
/// target's `init`, which runs before the corpus is read. Reproducing an artifact names a file, so nothing is written.
pub fn plant(seeds: impl IntoIterator<Item = (&'static str, Vec<u8>)>) {
    let Some(corpus) = std::env::args_os().skip(1).map(PathBuf::from).find(|path| path.is_dir()) else {
        return;
    };
    for (name, bytes) in seeds {
        if let Err(error) = fs::write(corpus.join(format!("seed-{name}")), bytes) {
            eprintln!("cannot write the seed {name} into {}: {error}", corpus.display());
        }
    }
}
