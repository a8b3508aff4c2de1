//! The list of packages of a suite (deb-control(5)), and what a set of packages depends on.

use crate::{Expected, ImageError};
use std::collections::{HashMap, HashSet};

/// What is known of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    /// Where it is, relative to the archive.
    pub(super) filename: String,
    pub(super) size: u64,
    pub(super) digest: Expected,
    /// Alternatives of each thing it needs before it can be set up.
    depends: Vec<Vec<String>>,
}

/// A paragraph's fields that matter here.
#[derive(Clone, Copy, Default)]
struct Fields<'a> {
    name: &'a str,
    filename: &'a str,
    size: &'a str,
    sha256: &'a str,
    pre_depends: &'a str,
    depends: &'a str,
    provides: &'a str,
    essential: bool,
    required: bool,
    important: bool,
}

/// All packages of an architecture.
pub(super) struct Index {
    packages: HashMap<String, Listed>,
    /// Names that packages provide, each with who does.
    providers: HashMap<String, Vec<String>>,
    architecture: String,
}

struct Listed {
    package: Package,
    /// Essential or required: on every system.
    required: bool,
    important: bool,
}

impl Index {
    /// Reads the list.
    pub(super) fn parse(text: String, architecture: &str) -> Result<Self, ImageError> {
        let mut index = Self {
            packages: HashMap::new(),
            providers: HashMap::new(),
            architecture: architecture.to_owned(),
        };
        for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
            let fields = fields(paragraph);
            let (Ok(size), Ok(digest)) = (fields.size.parse(), Expected::sha256(fields.sha256)) else {
                return Err(index.wrong(format!("the list of packages is garbled at {:?}", fields.name)));
            };
            if fields.filename.is_empty() || fields.filename.split('/').any(|part| part == "..") {
                return Err(index.wrong(format!("{} is at {:?}", fields.name, fields.filename)));
            }
            for provided in fields.provides.split(',').map(bare).filter(|name| !name.is_empty()) {
                index.providers.entry(provided.to_owned()).or_default().push(fields.name.to_owned());
            }
            let mut depends = alternatives(fields.pre_depends);
            depends.extend(alternatives(fields.depends));
            let package = Package {
                name: fields.name.to_owned(),
                filename: fields.filename.to_owned(),
                size,
                digest,
                depends,
            };
            let listed = Listed {
                package,
                required: fields.essential || fields.required,
                important: fields.important,
            };
            index.packages.insert(fields.name.to_owned(), listed);
        }
        Ok(index)
    }

    fn wrong(&self, why: String) -> ImageError {
        ImageError::Debian { why, fix: "try another archive: --mirror http://HOST/debian".into() }
    }

    /// The package called `name`.
    pub(super) fn get(&self, name: &str) -> Result<Package, ImageError> {
        let listed = self.packages.get(name);
        let missing = || self.wrong(format!("the archive has no {name} for {}", self.architecture));
        listed.map(|listed| listed.package.clone()).ok_or_else(missing)
    }

    /// Names of the packages that are on every system, in alphabetical order.
    pub(super) fn required(&self) -> Vec<String> {
        let required = self.packages.values().filter(|listed| listed.required);
        let mut names: Vec<_> = required.map(|listed| listed.package.name.clone()).collect();
        names.sort();
        names
    }

    /// The kernel that a metapackage stands for.
    pub(super) fn kernel(&self, metapackage: &str) -> Result<Package, ImageError> {
        let meta = self.get(metapackage)?;
        let first = meta.depends.iter().flatten().find(|name| name.starts_with("linux-image-"));
        self.get(first.ok_or_else(|| self.wrong(format!("{metapackage} names no kernel")))?)
    }

    /// The packages with everything they depend on, each after what it depends on, as far as that is possible.
    /// Versions are not looked at: within one release they fit.
    pub(super) fn closure(&self, wanted: &[String]) -> Result<Vec<Package>, ImageError> {
        let mut walk =
            Walk { index: self, wanted: wanted.iter().map(String::as_str).collect(), seen: HashSet::new() };
        let mut chosen = Vec::new();
        // What is wanted by name counts as there for every alternative, whatever comes first.
        for name in wanted {
            walk.add(name, &mut chosen)?;
        }
        Ok(chosen)
    }

    /// Who stands for `name`: itself, or whoever provides it, the more important ones first.
    fn stand_in(&self, name: &str) -> Option<&str> {
        if let Some((name, _)) = self.packages.get_key_value(name) {
            return Some(name);
        }
        let providers = self.providers.get(name)?;
        let rank = |provider: &&String| {
            let listed = self.packages.get(*provider);
            let rank = listed.map_or(3, |l| {
                if l.required {
                    0
                } else if l.important {
                    1
                } else {
                    2
                }
            });
            (rank, (*provider).clone())
        };
        providers.iter().min_by_key(rank).map(String::as_str)
    }
}

struct Walk<'a> {
    index: &'a Index,
    wanted: HashSet<&'a str>,
    seen: HashSet<String>,
}

impl Walk<'_> {
    fn add(&mut self, name: &str, chosen: &mut Vec<Package>) -> Result<(), ImageError> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let package = self.index.get(name)?;
        for alternatives in &package.depends {
            if alternatives.iter().any(|name| self.is_there(name)) {
                // It may only be wanted so far: before us, then.
                let wanted = alternatives.iter().find(|name| self.wanted.contains(name.as_str()));
                if let Some(wanted) = wanted.cloned() {
                    self.add(&wanted, chosen)?;
                }
                continue;
            }
            let found = alternatives.iter().find_map(|name| self.index.stand_in(name)).map(str::to_owned);
            let found = found.ok_or_else(|| {
                self.index
                    .wrong(format!("{name} needs {}, which the archive lacks", alternatives.join(" or ")))
            })?;
            self.add(&found, chosen)?;
        }
        chosen.push(package);
        Ok(())
    }

    /// Is `name`, or somebody who provides it, chosen already or sure to be?
    fn is_there(&self, name: &str) -> bool {
        let known = |name: &str| self.seen.contains(name) || self.wanted.contains(name);
        let providers = self.index.providers.get(name);
        known(name) || providers.is_some_and(|providers| providers.iter().any(|name| known(name)))
    }
}

fn fields(paragraph: &str) -> Fields<'_> {
    let mut fields = Fields::default();
    for line in paragraph.lines() {
        let Some((name, value)) = line.split_once(':').filter(|_| !line.starts_with([' ', '\t'])) else {
            continue;
        };
        let value = value.trim();
        match name {
            "Package" => fields.name = value,
            "Filename" => fields.filename = value,
            "Size" => fields.size = value,
            "SHA256" => fields.sha256 = value,
            "Pre-Depends" => fields.pre_depends = value,
            "Depends" => fields.depends = value,
            "Provides" => fields.provides = value,
            "Essential" => fields.essential = value == "yes",
            "Priority" => {
                fields.required = value == "required";
                fields.important = value == "important";
            }
            _ => {}
        }
    }
    fields
}

/// `a (>= 1) | b:any, c` as names.
fn alternatives(depends: &str) -> Vec<Vec<String>> {
    let groups = depends.split(',').map(|group| {
        let names = group.split('|').map(bare).filter(|name| !name.is_empty());
        names.map(str::to_owned).collect::<Vec<_>>()
    });
    groups.filter(|group| !group.is_empty()).collect()
}

/// A name without version and architecture.
fn bare(word: &str) -> &str {
    let name = word.trim().split([' ', '(']).next().unwrap_or_default();
    name.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(packages: &[(&str, &str)]) -> Index {
        let paragraph = |(name, rest): &(&str, &str)| {
            format!(
                "Package: {name}\nFilename: pool/{name}.deb\nSize: 1\nSHA256: {}\n{rest}\n",
                "0".repeat(64)
            )
        };
        let text: Vec<_> = packages.iter().map(paragraph).collect();
        Index::parse(text.join("\n"), "riscv64").unwrap()
    }

    fn names(index: &Index, wanted: &[&str]) -> Vec<String> {
        let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
        index.closure(&wanted).unwrap().into_iter().map(|package| package.name).collect()
    }

    #[test]
    fn what_is_depended_on_comes_first_and_circles_end() {
        let index = index(&[
            ("a", "Depends: b (>= 1), c:any | d\nPre-Depends: e\nDescription: text\n Depends: nothing"),
            ("b", "Depends: a"),
            ("c", ""),
            ("d", ""),
            ("e", "Essential: yes"),
            ("f", "Priority: required"),
        ]);
        assert_eq!(names(&index, &["a"]), ["e", "b", "c", "a"]);
        assert_eq!(index.required(), ["e", "f"]);
    }

    #[test]
    fn alternatives_prefer_what_is_there_anyway() {
        let index = index(&[
            ("base", "Depends: awk, mail"),
            ("gawk", "Provides: awk"),
            ("mawk", "Provides: awk (= 1), other\nPriority: required"),
            ("exim", "Provides: mail"),
            ("postfix", "Provides: mail\nPriority: important"),
            ("tool", "Depends: x | y"),
            ("x", ""),
            ("y", ""),
        ]);
        assert_eq!(names(&index, &["base"]), ["mawk", "postfix", "base"]);
        assert_eq!(names(&index, &["base", "gawk", "exim"]), ["base", "gawk", "exim"]);
        assert_eq!(names(&index, &["tool", "y"]), ["y", "tool"]);
    }

    #[test]
    fn what_is_missing_or_garbled_is_an_error() {
        let index = index(&[("a", "Depends: nowhere"), ("linux-image-x", "Depends: linux-image-6-x (= 1)")]);
        assert!(index.closure(&["a".to_owned()]).is_err());
        assert!(
            index.get("b").is_err() && index.kernel("linux-image-x").is_err() && index.kernel("a").is_err()
        );
        assert!(Index::parse("Package: a\nFilename: x\nSize: many\n".into(), "riscv64").is_err());
        let outside = format!("Package: a\nFilename: ../x\nSize: 1\nSHA256: {}\n", "0".repeat(64));
        assert!(Index::parse(outside, "riscv64").is_err());
    }
}
