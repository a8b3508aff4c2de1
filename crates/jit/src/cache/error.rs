//! Why there is no cache, or why a chore on it was not done. None of it stops a machine: it runs without.

use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Neither the XDG variables nor `HOME` say where a user's files are.
    #[error("there is no place for the code cache: neither HOME nor the XDG directories are set")]
    NoHome,
    /// Somebody else could have written what is in there.
    #[error("{path} cannot be trusted with code: {why}", path = .path.display())]
    NotPrivate {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nobody can tell which program this is, and so not whether code is its own.
    #[error("the running program's own file cannot be read")]
    UnknownProgram,
    /// The limit is less than the smallest cache.
    #[error("a code cache of {limit_bytes} bytes is too small to keep anything")]
    Limit {
        /// What was asked for.
        limit_bytes: u64,
    },
    /// Another process keeps the cache locked.
    #[error("another process is busy with the code cache in {path}", path = .path.display())]
    Busy {
        /// The cache's directory.
        path: PathBuf,
    },
    /// The host refused.
    #[error("{doing} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried: "cannot open".
        doing: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// The host's answer.
        source: std::io::Error,
    },
}

impl CacheError {
    /// A name that programs can rely on.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoHome => "isomer::cache::no_home",
            Self::NotPrivate { .. } => "isomer::cache::not_private",
            Self::UnknownProgram => "isomer::cache::unknown_program",
            Self::Limit { .. } => "isomer::cache::limit",
            Self::Busy { .. } => "isomer::cache::busy",
            Self::Io { .. } => "isomer::cache::io",
        }
    }

    /// What the user can do about it.
    pub fn fix(&self) -> String {
        match self {
            Self::NoHome => "set HOME, or XDG_CACHE_HOME and XDG_STATE_HOME, to absolute paths".into(),
            Self::NotPrivate { path, .. } => {
                format!(
                    "remove {} if it is yours, and it will be made anew; or run with --cache off",
                    path.display()
                )
            }
            Self::UnknownProgram => "make /proc available, or run with --cache off".into(),
            Self::Limit { .. } => format!("allow at least {} MiB", super::MIN_LIMIT_BYTES >> 20),
            Self::Busy { .. } => "try again when the other process is done".into(),
            Self::Io { .. } => "make the path usable, or run with --cache off".into(),
        }
    }

    pub(super) fn io(doing: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Self::Io { doing, path: path.to_owned(), source: source.into() }
    }

    pub(super) fn not_private(path: &Path, why: &'static str) -> Self {
        Self::NotPrivate { path: path.to_owned(), why }
    }
}

/// Turns the host's answer into an error that names what was tried with which path.
pub(super) trait Tried<T> {
    fn tried(self, doing: &'static str, path: &Path) -> Result<T, CacheError>;
}

impl<T> Tried<T> for Result<T, Errno> {
    fn tried(self, doing: &'static str, path: &Path) -> Result<T, CacheError> {
        self.map_err(|source| CacheError::io(doing, path, source))
    }
}

impl<T> Tried<T> for std::io::Result<T> {
    fn tried(self, doing: &'static str, path: &Path) -> Result<T, CacheError> {
        self.map_err(|source| CacheError::io(doing, path, source))
    }
}
