//! What can go wrong with images, each with a code, a cause and a fix.

use miette::Diagnostic;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ImageError {
    /// The host refuses something about a file.
    #[error("cannot {doing} {}: {source}", path.display())]
    #[diagnostic(
        code(isomer::image::file),
        help("check that there is room on the disk and that the path is yours")
    )]
    File {
        /// What was tried ("write").
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// There is no home directory.
    #[error("neither HOME nor the XDG directories are set, so there is no place for images")]
    #[diagnostic(code(isomer::image::no_home), help("set HOME, or XDG_DATA_HOME and XDG_CACHE_HOME"))]
    NoHome,
    /// A download failed.
    #[error("cannot download {url}: {why}")]
    #[diagnostic(code(isomer::image::download), help("{fix}"))]
    Download {
        /// What was asked for.
        url: String,
        /// What came back.
        why: String,
        /// What to do.
        fix: String,
    },
    /// Something is not what its digest says.
    #[error("{what} is not what it should be: its {kind} is {found}, and {expected} was expected")]
    #[diagnostic(
        code(isomer::image::digest),
        help(
            "it was damaged or replaced on its way, or the digest is another file's; nothing of it was kept"
        )
    )]
    Digest {
        /// The file.
        what: String,
        /// The kind of digest.
        kind: &'static str,
        /// What was expected.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The archive's index does not carry a valid signature.
    #[error("the index of {mirror} is not signed by Debian: {why}")]
    #[diagnostic(code(isomer::image::signature), help("{fix}"))]
    Signature {
        /// The archive.
        mirror: String,
        /// What the verifier says.
        why: String,
        /// What to do.
        fix: String,
    },
    /// A program of the host is missing or fails.
    #[error("{program}: {why}")]
    #[diagnostic(code(isomer::image::tool), help("{fix}"))]
    Tool {
        /// Its name.
        program: &'static str,
        /// What happened.
        why: String,
        /// What to do.
        fix: String,
    },
    /// The archive does not fit the recipe.
    #[error("{why}")]
    #[diagnostic(code(isomer::image::debian), help("{fix}"))]
    Debian {
        /// What is wrong.
        why: String,
        /// What to do.
        fix: String,
    },
    /// A package is damaged or does what a package must not.
    #[error("the package {package} cannot be unpacked: {why}")]
    #[diagnostic(
        code(isomer::image::package),
        help("its digest is the signed index's, so please report this with the package's version")
    )]
    Package {
        /// The package.
        package: String,
        /// What is wrong.
        why: String,
    },
    /// There is no such image.
    #[error("there is no image {name}")]
    #[diagnostic(code(isomer::image::not_found), help("{fix}"))]
    NotFound {
        /// What was asked for.
        name: String,
        /// What to do.
        fix: String,
    },
    /// The name cannot be one.
    #[error("{name:?} cannot be the name of an image")]
    #[diagnostic(
        code(isomer::image::name),
        help("use up to 40 lower-case letters, digits, dots and hyphens, beginning with a letter or digit")
    )]
    Name {
        /// What was asked for.
        name: String,
    },
    /// Machines stand on the image.
    #[error("the image {id} is in use by {users}")]
    #[diagnostic(code(isomer::image::in_use), help("delete the machine first: isomer delete NAME"))]
    InUse {
        /// The image.
        id: String,
        /// Who uses it.
        users: String,
    },
    /// Another process works on the same.
    #[error("another isomer is working on {what}")]
    #[diagnostic(code(isomer::image::busy), help("wait until it has finished"))]
    Busy {
        /// On what.
        what: String,
    },
    /// An image is not what was stored.
    #[error("the image {id} is damaged: {why}")]
    #[diagnostic(
        code(isomer::image::damaged),
        help("get it again: isomer image rm {id}, then pull or import it anew")
    )]
    Damaged {
        /// Which.
        id: String,
        /// What is wrong.
        why: String,
    },
    /// A file is no image that can be used.
    #[error("{}: {why}", path.display())]
    #[diagnostic(code(isomer::image::import), help("{fix}"))]
    Import {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// What to do.
        fix: String,
    },
}

/// Makes an [`ImageError::File`] of an I/O error.
pub(crate) fn file<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ImageError + 'a {
    move |source| ImageError::File { doing, path: path.to_owned(), source }
}
