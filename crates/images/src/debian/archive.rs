//! A Debian archive (Debian wiki, "DebianRepository/Format"): the signed index of a suite, and what hangs from it by
//! digests. Nothing of an archive is used before its digest was found in the index, and the index was verified.

use super::{mirror::Mirror, packages::Package};
use crate::{Client, Expected, ImageError, Progress, Unit, error::file, places::make_private};
use std::{
    collections::HashMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The keys that sign Debian's archive.
const KEYRINGS: &[&str] = &[
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/etc/apt/trusted.gpg.d/debian-archive-keyring.gpg",
];
/// An index unpacks to this much at most.
const MOST_INDEX_BYTES: u64 = 512 << 20;

/// A suite of an archive, whose index is verified.
pub(super) struct Archive<'a> {
    client: &'a Client,
    mirror: String,
    suite: String,
    release: String,
    downloads: PathBuf,
}

impl<'a> Archive<'a> {
    /// Fetches the index and verifies its signature.
    pub(super) fn open(
        client: &'a Client,
        mirror: &Mirror,
        suite: &str,
        downloads: &Path,
        progress: &dyn Progress,
    ) -> Result<Self, ImageError> {
        make_private(downloads)?;
        progress.begin("Fetching the archive's index", None, Unit::Items);
        let base = format!("{}/dists/{suite}", mirror.uri);
        let get = |name: &str| {
            let url = format!("{base}/{name}");
            client.get(&url)?.ok_or_else(|| ImageError::Debian {
                why: format!("{} does not have Debian's {suite}: there is no {url}", mirror.uri),
                fix: "name another archive: --mirror http://HOST/debian".into(),
            })
        };
        let release = verified(&mirror.uri, get)?;
        let release = String::from_utf8_lossy(&release).into_owned();
        progress.end();
        let archive = Self {
            client,
            mirror: mirror.uri.clone(),
            suite: suite.into(),
            release,
            downloads: downloads.into(),
        };
        // A signed index of another release would pass as well.
        match archive.field("Codename") {
            Some(codename) if codename == suite => Ok(archive),
            other => Err(ImageError::Debian {
                why: format!("the index at {base} is of {}", other.unwrap_or("no release")),
                fix: "name another archive: --mirror http://HOST/debian".into(),
            }),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.release.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    }

    /// The release's number, as in 13.1.
    pub(super) fn version(&self) -> &str {
        self.field("Version").unwrap_or("13")
    }

    /// Digest and size of a file of the suite.
    fn listed(&self, path: &str) -> Option<(Expected, u64)> {
        let mut lines = self.release.lines().skip_while(|line| *line != "SHA256:").skip(1);
        let mut lines = std::iter::from_fn(|| lines.next().filter(|line| line.starts_with(' ')));
        lines.find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (digest, size, name) = (words.next()?, words.next()?, words.next()?);
            (name == path).then_some((Expected::sha256(digest).ok()?, size.parse().ok()?))
        })
    }

    /// The list of packages of an architecture.
    pub(super) fn packages(&self, architecture: &str, progress: &dyn Progress) -> Result<String, ImageError> {
        let path = format!("main/binary-{architecture}/Packages.xz");
        let (digest, size) = self.listed(&path).ok_or_else(|| ImageError::Debian {
            why: format!("{} has no packages of {architecture}", self.mirror),
            fix: "name an archive that carries the architecture: --mirror http://HOST/debian".into(),
        })?;
        // By its digest, the list cannot change between the index and us.
        let url = match self.field("Acquire-By-Hash") {
            Some("yes") => {
                let folder = path.trim_end_matches("Packages.xz");
                format!("{}/dists/{}/{folder}by-hash/SHA256/{}", self.mirror, self.suite, digest.hex())
            }
            _ => format!("{}/dists/{}/{path}", self.mirror, self.suite),
        };
        progress.begin("Downloading the list of packages", Some(size), Unit::Bytes);
        let name = format!("Packages-{architecture}-{}.xz", &digest.hex()[..12]);
        let packed = self.client.download(&url, &self.downloads, &name, Some(&digest), progress)?;
        progress.end();
        let reader = fs::File::open(&packed).map_err(file("open", &packed))?;
        let mut text = String::new();
        let mut unpacked = liblzma::read::XzDecoder::new(reader).take(MOST_INDEX_BYTES);
        unpacked.read_to_string(&mut text).map_err(file("unpack", &packed))?;
        Ok(text)
    }

    /// Downloads packages, each checked by its digest, and tells where they are by name.
    pub(super) fn download(
        &self,
        packages: &[Package],
        progress: &dyn Progress,
    ) -> Result<HashMap<String, PathBuf>, ImageError> {
        let total = packages.iter().map(|package| package.size).sum();
        progress.begin("Downloading packages", Some(total), Unit::Bytes);
        let mut files = HashMap::new();
        for package in packages {
            progress.detail(&package.name);
            let url = format!("{}/{}", self.mirror, package.filename);
            let name = package.filename.rsplit('/').next().unwrap_or_default();
            let path = self.client.download(&url, &self.downloads, name, Some(&package.digest), progress)?;
            files.insert(package.name.clone(), path);
        }
        progress.end();
        Ok(files)
    }
}

/// The suite's index, once its signature is verified with what the host has for that. gpgv takes the index that has its
/// signature in it, so that the two cannot be of different ages; sqv takes them apart.
fn verified(mirror: &str, get: impl Fn(&str) -> Result<Vec<u8>, ImageError>) -> Result<Vec<u8>, ImageError> {
    let wrong =
        |why: String, fix: &str| ImageError::Signature { mirror: mirror.to_owned(), why, fix: fix.into() };
    let keyring = KEYRINGS.iter().find(|path| Path::new(path).exists());
    let keyring = keyring.ok_or_else(|| {
        wrong("this host does not have Debian's keys".into(), "install the package debian-archive-keyring")
    })?;
    let folder = tempfile::tempdir().map_err(file("create a folder in", &std::env::temp_dir()))?;
    let at = |name: &str| folder.path().join(name);
    let write = |name: &str| {
        let path = at(name);
        fs::write(&path, get(name)?).map_err(file("write", &path))?;
        Ok::<_, ImageError>(path)
    };
    let read = |path: PathBuf| fs::read(&path).map_err(file("read", &path));
    let failed = |said: &[u8]| {
        let fix =
            "if Debian has new keys, upgrade the package debian-archive-keyring; else use another archive";
        wrong(last_line(said), fix)
    };
    let run = |program: &str| {
        let mut command = Command::new(program);
        command.arg("--keyring").arg(keyring).stdin(Stdio::null()).env("LC_ALL", "C");
        command
    };
    let is_there = |program: &str| run(program).arg("--version").output().is_ok();
    if is_there("gpgv") {
        let signed = write("InRelease")?;
        let mut command = run("gpgv");
        command.args(["--status-fd", "1", "--output"]).arg(at("Release")).arg(signed);
        let output = command.output().map_err(|error| wrong(error.to_string(), "check that gpgv works"))?;
        return match is_good(&String::from_utf8_lossy(&output.stdout)) {
            // What was signed, and nothing that stands around it.
            true => read(at("Release")),
            false => Err(failed(&output.stderr)),
        };
    }
    if is_there("sqv") {
        let (release, signature) = (write("Release")?, write("Release.gpg")?);
        let output = run("sqv").arg(signature).arg(&release).output();
        let output = output.map_err(|error| wrong(error.to_string(), "check that sqv works"))?;
        return if output.status.success() { read(release) } else { Err(failed(&output.stderr)) };
    }
    Err(wrong("there is neither gpgv nor sqv to verify it with".into(), "install the package gpgv, or sqv"))
}

/// gpgv's status lines (GnuPG, doc/DETAILS): a key that we do not have is no failure if another one is good, as with
/// apt; a bad signature is.
fn is_good(status: &str) -> bool {
    let has = |word: &str| {
        status.lines().any(|line| line.strip_prefix("[GNUPG:] ").is_some_and(|rest| rest.starts_with(word)))
    };
    has("VALIDSIG ") && has("GOODSIG ") && !has("BADSIG ")
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_good_signatures_count() {
        let good = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 6ED0 Debian\n[GNUPG:] VALIDSIG 4CB5 2026\n";
        assert!(is_good(good));
        assert!(is_good(&format!("[GNUPG:] ERRSIG 1 1 8 00 1 9\n[GNUPG:] NO_PUBKEY 1\n{good}")));
        assert!(!is_good(&format!("{good}[GNUPG:] BADSIG 78DB Debian\n")));
        assert!(!is_good("[GNUPG:] EXPKEYSIG 1 Debian\n[GNUPG:] VALIDSIG 4CB5\n"));
        assert!(!is_good("") && !is_good("GOODSIG VALIDSIG"));
    }

    #[test]
    fn an_index_that_nobody_signed_is_refused() {
        let index = |_: &str| Ok(b"Codename: trixie\n".to_vec());
        let refused = verified("http://m.example", index).unwrap_err();
        assert!(matches!(refused, ImageError::Signature { .. }), "{refused}");
    }

    #[test]
    fn files_are_listed_by_their_sha256() {
        let client = Client::new();
        let release = "Codename: trixie\nVersion: 13.1\nMD5Sum:\n 00 1 main/a\nSHA256:\n \
                       ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad 3 main/a\nOther: x\n 11 2 main/b\n";
        let archive = Archive {
            client: &client,
            mirror: String::new(),
            suite: "trixie".into(),
            release: release.into(),
            downloads: PathBuf::new(),
        };
        assert_eq!(
            archive.listed("main/a"),
            Expected::sha256("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
                .ok()
                .map(|digest| (digest, 3))
        );
        assert_eq!((archive.listed("main/b"), archive.version()), (None, "13.1"));
    }
}
