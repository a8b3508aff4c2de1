//! Debian packages through a private apt root: sources.list(5), signatures checked against debian-archive-keyring.
//!
//! The mirror is the one the system itself uses. The private root lets a Debian 12 host download the packages of
//! Debian 13, and those of other architectures, without a change to its own apt configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process;
use crate::tools::Tool;

/// The keys that sign Debian's archive.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What this module runs and reads.
pub(crate) const TOOLS: [Tool; 4] = [
    Tool::program("apt-get", "apt"),
    Tool::program("dpkg-deb", "dpkg"),
    Tool::program("tar", "tar"),
    Tool::file(KEYRING, "debian-archive-keyring"),
];

/// An apt root of its own, with one signed Debian suite in it.
pub(crate) struct Archive {
    options: Vec<String>,
}

/// A package file that apt downloaded and checked.
pub(crate) struct Package {
    pub(crate) path: PathBuf,
}

impl Archive {
    /// Sets the root up in `root` and fetches the package lists of the host's and the guest's architecture.
    ///
    /// # Errors
    /// When the mirror does not answer, does not carry the suite, or its signature does not check.
    pub(crate) fn open(root: &Path, mirror: &str, suite: &str, guest: &str) -> Result<Self> {
        let host = process::capture(Command::new("dpkg").arg("--print-architecture"))?;
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(root.join("status"), "")?;
        fs::write(
            root.join("sources.list"),
            format!("deb [signed-by={KEYRING} target=Packages] {mirror} {suite} main\n"),
        )?;

        let archive = Self { options: apt_options(root, &host, guest) };
        process::run(archive.command("apt-get").arg("update")).with_context(|| {
            format!("{mirror} does not serve a signed Debian {suite}; name another archive with --mirror")
        })?;
        Ok(archive)
    }

    /// Downloads the newest version of a package into `folder`; one that is there already is checked and kept.
    ///
    /// # Errors
    /// When the suite lacks the package, or the download's digest is not the one of the signed lists.
    pub(crate) fn download(&self, name: &str, architecture: Option<&str>, folder: &Path) -> Result<Package> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let package = architecture.map_or_else(|| name.to_owned(), |arch| format!("{name}:{arch}"));
        let planned = process::capture(self.command("apt-get").args(["download", "--print-uris", &package]))?;
        // 'URI' FILE SIZE DIGEST
        let file = planned
            .split_ascii_whitespace()
            .nth(1)
            .with_context(|| format!("apt-get does not say where {package} is: {planned:?}"))?;
        process::run(self.command("apt-get").args(["download", &package]).current_dir(folder))?;
        Ok(Package { path: folder.join(file) })
    }

    /// The names of packages and of all that they depend on, those of the guest's architecture alone.
    ///
    /// # Errors
    /// When the suite lacks a package, or one that it needs.
    pub(crate) fn with_dependencies(&self, names: &[&str], architecture: &str) -> Result<Vec<String>> {
        let wanted = names.iter().map(|name| format!("{name}:{architecture}"));
        let mut install = self.command("apt-get");
        // Nothing is installed; without the option apt would wait for the lock of the system's dpkg.
        install.args([
            "install",
            "--yes",
            "--no-install-recommends",
            "--print-uris",
            "-o",
            "Debug::NoLocking=1",
        ]);
        let plan = process::capture(install.args(wanted))?;
        Ok(packages_in_plan(&plan, architecture))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--quiet").args(&self.options).env("LC_ALL", "C");
        command
    }
}

/// The packages of an architecture among apt's lines of `'URI' NAME_VERSION_ARCHITECTURE.deb SIZE DIGEST`.
fn packages_in_plan(plan: &str, architecture: &str) -> Vec<String> {
    let file_of = |line: &str| Some(line.strip_prefix('\'')?.split_ascii_whitespace().nth(1)?.to_owned());
    let suffix = format!("_{architecture}.deb");
    let files = plan.lines().filter_map(file_of).filter(|file| file.ends_with(&suffix));
    files.filter_map(|file| Some(file.split_once('_')?.0.to_owned())).collect()
}

/// Options on the command line win over every configuration file, so that the system's proxies stay in force and
/// its sources, preferences and relaxed checks do not.
fn apt_options(root: &Path, host: &str, guest: &str) -> Vec<String> {
    let root = root.display();
    [
        format!("Dir::State={root}/state"),
        format!("Dir::State::status={root}/status"),
        format!("Dir::Cache={root}/cache"),
        format!("Dir::Etc::SourceList={root}/sources.list"),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        "Dir::Etc::Preferences=/dev/null".to_owned(),
        "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
        "Dir::Etc::Trusted=/dev/null".to_owned(),
        "Dir::Etc::TrustedParts=/dev/null".to_owned(),
        format!("APT::Architecture={host}"),
        format!("APT::Architectures={host},{guest}"),
        "APT::Sandbox::User=".to_owned(),
        "APT::Get::AllowUnauthenticated=false".to_owned(),
        "Acquire::AllowInsecureRepositories=false".to_owned(),
        "Acquire::AllowDowngradeToInsecureRepositories=false".to_owned(),
        "Acquire::Languages=none".to_owned(),
    ]
    .into_iter()
    .flat_map(|option| ["-o".to_owned(), option])
    .collect()
}

impl Package {
    /// The package's time stamp in seconds since 1970: `SOURCE_DATE_EPOCH` of Debian's build, which dpkg-deb
    /// writes into the headers of the outer archive.
    pub(crate) fn epoch(&self) -> Result<u64> {
        let bytes = self.bytes()?;
        // ar(5): "!<arch>\n", then a header with the name in 16 bytes and the time in 12.
        let stamp = bytes.get(24..36).and_then(|field| std::str::from_utf8(field).ok());
        stamp
            .and_then(|text| text.trim_end().parse().ok())
            .with_context(|| format!("{} is not a Debian package", self.path.display()))
    }

    /// The first package that this one depends on: what a metapackage stands for.
    pub(crate) fn first_dependency(&self) -> Result<String> {
        let depends = self.field("Depends")?;
        let first = depends.split([' ', ',']).next().unwrap_or_default();
        ensure!(!first.is_empty(), "{} depends on nothing", self.path.display());
        Ok(first.to_owned())
    }

    /// The time stamp as a date and time, UTC.
    pub(crate) fn source_date(&self) -> Result<String> {
        let epoch = self.epoch()?;
        process::capture(Command::new("date").args(["-u", "-d", &format!("@{epoch}"), "+%Y-%m-%dT%H:%M:%SZ"]))
    }

    /// One field of the package's control file; empty when the package lacks it.
    pub(crate) fn field(&self, name: &str) -> Result<String> {
        process::capture(Command::new("dpkg-deb").arg("--field").arg(&self.path).arg(name))
    }

    /// Unpacks the package's files into an empty folder.
    pub(crate) fn unpack(&self, folder: &Path) -> Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        process::run(Command::new("dpkg-deb").arg("--extract").arg(&self.path).arg(folder))
    }

    /// Unpacks those of the package's files that match one of tar's patterns (`./boot/vmlinux-*`) into a folder.
    pub(crate) fn unpack_only(&self, patterns: &[&str], folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut list = Command::new("dpkg-deb");
        list.arg("--fsys-tarfile").arg(&self.path);
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(folder).args(["-x", "--wildcards"]).args(patterns);
        process::pipe(&mut list, &mut tar)
    }

    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))
    }
}

/// The Debian archive the system itself installs from: the first enabled binary source with the release's own code
/// name as suite and `main` among its components.
///
/// # Errors
/// When the system has none, as on another distribution; `--mirror` takes its place.
pub(crate) fn system_mirror() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename =
        release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default();
    let codename = codename.trim_matches('"');
    ensure!(
        !codename.is_empty(),
        "/etc/os-release has no VERSION_CODENAME; name a Debian archive with --mirror"
    );

    for path in source_files() {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let deb822 = path.extension().is_some_and(|extension| extension == "sources");
        let found = if deb822 { mirror_in_deb822(&text, codename) } else { mirror_in_list(&text, codename) };
        if let Some(uri) = found {
            return Ok(uri);
        }
    }
    bail!("no apt source of this system carries {codename}/main; name a Debian archive with --mirror")
}

/// `sources.list`, then the files of `sources.list.d` in the order of their names.
fn source_files() -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
        })
        .collect();
    parts.sort();
    let list = PathBuf::from("/etc/apt/sources.list");
    list.exists().then_some(list).into_iter().chain(parts).collect()
}

/// The one-line format: `deb [options] uri suite components...`.
fn mirror_in_list(text: &str, codename: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_ascii_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        (suite == codename && words.any(|component| component == "main")).then(|| uri.to_owned())
    })
}

/// The deb822 format: paragraphs of `Types`, `URIs`, `Suites` and `Components`, parted by empty lines.
fn mirror_in_deb822(text: &str, codename: &str) -> Option<String> {
    let without_comments = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    without_comments.split("\n\n").find_map(|paragraph| {
        let has = |field, word| field_words(paragraph, field).iter().any(|value| value == word);
        let disabled = has("Enabled", "no") || has("Enabled", "false");
        let wanted = !disabled && has("Types", "deb") && has("Suites", codename) && has("Components", "main");
        wanted.then(|| field_words(paragraph, "URIs").into_iter().next()).flatten()
    })
}

/// The words of a field, those of its continuation lines included; field names know no case.
fn field_words(paragraph: &str, field: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut inside = false;
    for line in paragraph.lines() {
        let value = if line.starts_with([' ', '\t']) {
            line
        } else {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            inside = name.eq_ignore_ascii_case(field);
            value
        };
        if inside {
            words.extend(value.split_ascii_whitespace().map(str::to_owned));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_sources_skip_options_comments_and_other_suites() {
        let text = "# deb http://commented.example/debian bookworm main\n\
                    deb-src http://source.example/debian bookworm main\n\
                    deb http://other.example/repo bookworm stable\n\
                    deb http://security.example/debian bookworm-security main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://wanted.example/debian bookworm contrib main # tail\n";
        assert_eq!(mirror_in_list(text, "bookworm").as_deref(), Some("http://wanted.example/debian"));
        assert_eq!(mirror_in_list(text, "trixie"), None);
    }

    #[test]
    fn deb822_sources_skip_disabled_and_foreign_paragraphs() {
        let text = "Types: deb\n# a comment inside\nURIs: http://off.example/debian\nSuites: bookworm\n\
                    Components: main\nEnabled: no\n\nTypes: deb\nURIs: http://foreign.example\nSuites: nodistro\n\
                    Components: main\n\ntypes: deb-src\n deb\nuris: http://wanted.example/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main contrib\n";
        assert_eq!(mirror_in_deb822(text, "bookworm").as_deref(), Some("http://wanted.example/debian"));
        assert_eq!(mirror_in_deb822(text, "trixie"), None);
    }

    #[test]
    fn plans_name_the_packages_of_one_architecture() {
        let plan = "Reading package lists...\n\
                    'http://m.example/a_1_riscv64.deb' a-b_1%3a1+x_riscv64.deb 12 SHA256:00\n\
                    'http://m.example/a_1_amd64.deb' a-b_1%3a1+x_amd64.deb 12 SHA256:00\n\
                    'http://m.example/c_2_riscv64.deb' c_2_riscv64.deb 12 SHA256:00\n";
        assert_eq!(packages_in_plan(plan, "riscv64"), ["a-b", "c"]);
    }

    #[test]
    fn the_checks_of_signatures_cannot_be_relaxed_by_the_system() {
        let options = apt_options(Path::new("/r"), "amd64", "riscv64").join(" ");
        assert!(options.contains("Acquire::AllowInsecureRepositories=false"));
        assert!(options.contains("Dir::Etc::TrustedParts=/dev/null"));
        assert!(!options.to_ascii_lowercase().contains("trusted=yes"));
    }
}
