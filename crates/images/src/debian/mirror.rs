//! Which archive this host uses: sources.list(5), in both of its formats.

use crate::ImageError;
use std::{fs, path::PathBuf};

/// An archive to download from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where it is.
    pub uri: String,
    /// Where its security updates are, if the host has such a source.
    pub security: Option<String>,
}

/// A source of packages.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
}

impl Mirror {
    /// An archive the user names.
    pub fn named(uri: &str) -> Self {
        Self { uri: uri.trim_end_matches('/').to_owned(), security: None }
    }

    /// The one this host's apt uses.
    ///
    /// # Errors
    /// When this host has no apt, or no source of Debian.
    pub fn of_host() -> Result<Self, ImageError> {
        let id = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let value = |name: &str| {
            id.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim_matches('"').to_owned())
        };
        let codename = match value("ID=").as_deref() {
            Some("debian") => value("VERSION_CODENAME="),
            _ => None,
        };
        let files = source_files();
        let sources = files.iter().filter_map(|path| {
            fs::read_to_string(path).ok().map(|text| {
                match path.extension().is_some_and(|extension| extension == "sources") {
                    true => in_deb822(&text),
                    false => in_list(&text),
                }
            })
        });
        let sources: Vec<Source> = sources.flatten().collect();
        Self::among(&sources, codename.as_deref()).ok_or_else(|| ImageError::Debian {
            why: "this host's apt has no source of Debian".into(),
            fix: "name an archive: --mirror http://HOST/debian".into(),
        })
    }

    /// The archive that has the release itself, else the host's own release.
    fn among(sources: &[Source], codename: Option<&str>) -> Option<Self> {
        let find = |suffix: &str| {
            let suites = [Some(super::SUITE), Some("stable"), codename];
            suites.into_iter().flatten().find_map(|suite| {
                let suite = format!("{suite}{suffix}");
                let has = |source: &&Source| {
                    source.suites.contains(&suite) && source.components.iter().any(|c| c == "main")
                };
                sources.iter().find(has).map(|source| source.uri.trim_end_matches('/').to_owned())
            })
        };
        Some(Self { uri: find("")?, security: find("-security") })
    }

    /// What the guest's apt gets (deb822 format). A mirror on this host's loopback is at another address there.
    pub(super) fn sources(&self, suite: &str) -> String {
        let paragraph = |uri: &str, suites: &str| {
            let uri = uri.replace("//localhost", "//10.0.2.2").replace("//127.0.0.1", "//10.0.2.2");
            format!(
                "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\n\
                 Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
            )
        };
        let mut text = paragraph(&self.uri, &format!("{suite} {suite}-updates"));
        if let Some(security) = &self.security {
            text += &format!("\n{}", paragraph(security, &format!("{suite}-security")));
        }
        text
    }
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
    parts.insert(0, PathBuf::from("/etc/apt/sources.list"));
    parts
}

/// Only what a plain client can fetch.
fn is_http(uri: &str) -> bool {
    uri.starts_with("http://") || uri.starts_with("https://")
}

/// The one-line format: `deb [options] uri suite components...`.
fn in_list(text: &str) -> Vec<Source> {
    let source = |line: &str| {
        let rest = line.split('#').next().unwrap_or_default().trim().strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_ascii_whitespace().map(str::to_owned);
        let (uri, suite) = (words.next()?, words.next()?);
        is_http(&uri).then(|| Source { uri, suites: vec![suite], components: words.collect() })
    };
    text.lines().filter_map(source).collect()
}

/// The deb822 format: paragraphs of `Types`, `URIs`, `Suites` and `Components`, parted by empty lines.
fn in_deb822(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let paragraphs = lines.split(|line| line.trim().is_empty());
    let source = |paragraph: &[&str]| {
        let is = |field, word: &str| words(paragraph, field).iter().any(|value| value == word);
        if is("Enabled", "no") || is("Enabled", "false") || !is("Types", "deb") {
            return None;
        }
        let uri = words(paragraph, "URIs").into_iter().find(|uri| is_http(uri))?;
        Some(Source { uri, suites: words(paragraph, "Suites"), components: words(paragraph, "Components") })
    };
    paragraphs.filter_map(source).collect()
}

/// A field's words, which may go on in indented lines.
fn words(paragraph: &[&str], field: &str) -> Vec<String> {
    let mut found = false;
    let mut words = Vec::new();
    for line in paragraph {
        let indented = line.starts_with([' ', '\t']);
        let rest = match line.split_once(':') {
            Some((name, rest)) if !indented => {
                found = name.eq_ignore_ascii_case(field);
                rest
            }
            _ => line,
        };
        if found {
            words.extend(rest.split_ascii_whitespace().map(str::to_owned));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let list = "# deb http://off.example/debian trixie main\n\
                    deb [arch=amd64 signed-by=/k] https://one.example/debian/ bookworm main contrib # why\n\
                    deb cdrom:[x]/ trixie main\ndeb-src http://src.example trixie main\n";
        let sources = in_list(list);
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        let deb822 = "Types: deb\n# a comment\nURIs: http://two.example/debian\nSuites: bookworm\n bookworm-updates\n\
                      Components: main\nEnabled: no\n\ntypes: deb deb-src\nuris: http://three.example/debian\n\
                      suites: bookworm\n trixie\nComponents: main\n\nTypes: deb\nURIs: http://three.example/debian-security\n\
                      Suites: bookworm-security\nComponents: main\n";
        let sources: Vec<_> = sources.into_iter().chain(in_deb822(deb822)).collect();
        assert_eq!(sources.len(), 3);
        let mirror = Mirror::among(&sources, Some("bookworm")).unwrap();
        assert_eq!(mirror.uri, "http://three.example/debian", "what has the release comes first");
        assert_eq!(mirror.security.as_deref(), Some("http://three.example/debian-security"));
        let older = Mirror::among(&sources[..1], Some("bookworm")).unwrap();
        assert_eq!((older.uri.as_str(), older.security), ("https://one.example/debian", None));
        assert_eq!(
            Mirror::among(&sources[..1], None),
            None,
            "another distribution's sources are not Debian's"
        );
    }

    #[test]
    fn the_guest_gets_the_same_sources() {
        let mirror = Mirror {
            security: Some("http://m.example/security".into()),
            ..Mirror::named("http://localhost:80/debian/")
        };
        let text = mirror.sources("trixie");
        assert!(text.contains("URIs: http://10.0.2.2:80/debian\nSuites: trixie trixie-updates\n"), "{text}");
        assert!(text.contains("URIs: http://m.example/security\nSuites: trixie-security\n"), "{text}");
    }
}
