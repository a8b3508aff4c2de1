//! The user's directories (XDG Base Directory Specification 0.8): images are data, downloads are a cache.

use crate::{ImageError, error::file};
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Where things are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Images, and machines with their disks: what nobody wants to lose.
    pub data: PathBuf,
    /// Downloads: deleting them costs time only.
    pub cache: PathBuf,
    /// Logs.
    pub state: PathBuf,
    /// Sockets and process numbers, until the host is restarted.
    pub runtime: PathBuf,
}

impl Places {
    /// `isomer` in each of the XDG directories. Without `XDG_RUNTIME_DIR`, sockets are in the state directory.
    ///
    /// # Errors
    /// [`ImageError::NoHome`].
    pub fn of_user() -> Result<Self, ImageError> {
        Self::from_variables(|name| std::env::var_os(name).map(PathBuf::from))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, ImageError> {
        // The specification has relative paths ignored.
        let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
        let home = absolute("HOME");
        let base = |name: &str, default: &str| {
            absolute(name)
                .or_else(|| home.as_ref().map(|home| home.join(default)))
                .map(|base| base.join("isomer"))
                .ok_or(ImageError::NoHome)
        };
        let state = base("XDG_STATE_HOME", ".local/state")?;
        let runtime =
            absolute("XDG_RUNTIME_DIR").map_or_else(|| state.join("run"), |runtime| runtime.join("isomer"));
        Ok(Self {
            data: base("XDG_DATA_HOME", ".local/share")?,
            cache: base("XDG_CACHE_HOME", ".cache")?,
            state,
            runtime,
        })
    }

    /// All inside one directory, for tests.
    pub fn under(root: &Path) -> Self {
        let at = |name: &str| root.join(name);
        Self { data: at("data"), cache: at("cache"), state: at("state"), runtime: at("run") }
    }
}

/// Makes a directory that is the user's alone, with all above it.
///
/// # Errors
/// When the host refuses.
pub fn make_private(path: &Path) -> Result<(), ImageError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(file("create", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_rule_and_relative_ones_do_not() {
        let of = |variables: &[(&str, &str)]| {
            Places::from_variables(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            })
        };
        let plain = of(&[("HOME", "/h"), ("XDG_CACHE_HOME", "relative")]).unwrap();
        assert_eq!(plain.data, Path::new("/h/.local/share/isomer"));
        assert_eq!(plain.cache, Path::new("/h/.cache/isomer"));
        assert_eq!(plain.runtime, Path::new("/h/.local/state/isomer/run"));
        let set = of(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d"), ("XDG_RUNTIME_DIR", "/r")]).unwrap();
        assert_eq!((set.data, set.runtime), (PathBuf::from("/d/isomer"), PathBuf::from("/r/isomer")));
        assert!(matches!(of(&[]), Err(ImageError::NoHome)));
    }
}
