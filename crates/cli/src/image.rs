//! `isomer image`: the store of images (pull, import, list, rm, prune), and the tools for image files.

use crate::{
    args::Format,
    debian,
    image_files::{self, FileVerb},
    machines,
    progress::Shown,
    report,
};
use clap::{Args, Subcommand, ValueHint};
use isomer_images::{
    Client, Entry, Expected, ImageError, Places, Store,
    debian::Mirror,
    import::{self, Request},
};
use isomer_machine::Arch;
use miette::Diagnostic;
use serde::Serialize;
use std::io::{self, Write};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  isomer image pull debian                 a small Debian 13 for riscv64
  isomer image pull debian --arch aarch64
  isomer image import disk.qcow2 --name work --sha256 DIGEST
  isomer image list
  isomer image rm debian --arch aarch64
  isomer image prune                       older images, and downloads
  isomer image create disk.qcow2 20G
  isomer image create --backing debian.qcow2 mine.qcow2   an overlay: debian.qcow2 is never changed
  isomer image info mine.qcow2
  isomer image convert mine.qcow2 flat.img                one raw image of the whole chain
  isomer image check mine.qcow2                           exits with 3 for leaks, 1 for corruption
  isomer image resize mine.qcow2 +10G

Pulled and imported images are in $XDG_DATA_HOME/isomer/images. They are never changed: machines write
to overlays of their own.")]
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
    Store(StoreVerb),
    #[command(flatten)]
    File(FileVerb),
}

#[derive(Debug, Subcommand)]
enum StoreVerb {
    /// Get a named image: debian, assembled from the archive that this host's apt uses
    Pull {
        /// The image's name
        name: String,
        /// Its instruction set
        #[arg(long, default_value = Arch::default().name(), value_parser = crate::args::archs())]
        arch: String,
        /// The archive to take packages from, in place of this host's own
        #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
        mirror: Option<String>,
    },
    /// Bring a disk image into the store, from a file or an address; packed by gzip, xz or zstd or not
    Import {
        /// A path, or an address (http, https)
        from: String,
        /// The image's name
        #[arg(long)]
        name: String,
        /// Its instruction set
        #[arg(long, default_value = Arch::default().name(), value_parser = crate::args::archs())]
        arch: String,
        /// The digest that its maker publishes
        #[arg(long, value_name = "HEX", value_parser = Expected::sha256)]
        sha256: Option<Expected>,
        /// The same, as SHA-512
        #[arg(long, value_name = "HEX", value_parser = Expected::sha512, conflicts_with = "sha256")]
        sha512: Option<Expected>,
        /// The image sets itself up with cloud-init: machines get a NoCloud seed
        #[arg(long)]
        cloud_init: bool,
    },
    /// Show all images
    List {
        /// Compare every file with its digest
        #[arg(long)]
        verify: bool,
    },
    /// Remove an image by name, or one by its id
    Rm {
        /// Name or id
        name: String,
        /// Only of this instruction set
        #[arg(long, value_parser = crate::args::archs())]
        arch: Option<String>,
    },
    /// Remove images that a newer one has replaced and no machine needs, and all downloads
    Prune,
}

/// An image, as it is shown.
#[derive(Debug, Serialize)]
struct Shape {
    id: String,
    name: String,
    arch: String,
    title: String,
    source: String,
    created_secs: u64,
    stored_bytes: u64,
    disk: String,
    machines: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
}

/// What a verb has to say.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Got { image: Shape },
    Listed { images: Vec<Shape> },
    Removed { removed: Vec<String>, free_bytes: u64 },
}

/// Does what `args` ask for and returns the exit code.
pub(crate) fn run(args: &ImageArgs) -> u8 {
    let verb = match &args.verb {
        Verb::Store(verb) => verb,
        Verb::File(verb) => return image_files::run(verb, args.format),
    };
    match outcome(verb, args.format) {
        Ok(outcome) => {
            match args.format {
                Format::Json => report::json(&outcome),
                Format::Text => {
                    let _ = io::stdout().lock().write_all(text(&outcome).as_bytes());
                }
            }
            let damaged = |images: &[Shape]| images.iter().any(|image| image.damage.is_some());
            u8::from(matches!(&outcome, Outcome::Listed { images } if damaged(images)))
        }
        Err(error) => {
            report::error(&*error, args.format);
            1
        }
    }
}

type Failure = Box<dyn Diagnostic>;

fn outcome(verb: &StoreVerb, format: Format) -> Result<Outcome, Failure> {
    let places = Places::of_user()?;
    let store = Store::open(&places)?;
    let progress = Shown::new(format);
    let used = machines::images_in_use(&places);
    let shape =
        |entry: Entry, damage| shape(&entry, used.get(&entry.id).cloned().unwrap_or_default(), damage);
    Ok(match verb {
        StoreVerb::Pull { name, arch, mirror } => {
            let entry = pull(&store, name, arch, mirror.as_deref(), &progress)?;
            Outcome::Got { image: shape(entry, None) }
        }
        StoreVerb::Import { from, name, arch, sha256, sha512, cloud_init } => {
            let request = Request {
                from: from.clone(),
                name: name.clone(),
                arch: arch.clone(),
                expected: sha256.clone().or_else(|| sha512.clone()),
                cloud_init: *cloud_init,
            };
            let entry = import::import(&store, &Client::new(), &request, &progress)?;
            Outcome::Got { image: shape(entry, None) }
        }
        StoreVerb::List { verify } => {
            let damage = |entry: &Entry| verify.then(|| entry.verify(true).err()).flatten();
            let images = store.list()?.into_iter().map(|entry| {
                let damage = damage(&entry).map(|error| error.to_string());
                shape(entry, damage)
            });
            Outcome::Listed { images: images.collect() }
        }
        StoreVerb::Rm { name, arch } => {
            let (removed, free_bytes) = store.remove(name, arch.as_deref(), &used)?;
            Outcome::Removed { removed, free_bytes }
        }
        StoreVerb::Prune => {
            let (removed, free_bytes) = store.prune(&used)?;
            Outcome::Removed { removed, free_bytes }
        }
    })
}

/// Gets a named image anew.
pub(crate) fn pull(
    store: &Store,
    name: &str,
    arch: &str,
    mirror: Option<&str>,
    progress: &Shown,
) -> Result<Entry, Failure> {
    if name != debian::NAME {
        let fix = format!(
            "the name that can be pulled is {}; others come in by: isomer image import FILE --name {name}",
            debian::NAME
        );
        return Err(ImageError::NotFound { name: name.to_owned(), fix }.into());
    }
    let mirror = mirror.map_or_else(Mirror::of_host, |uri| Ok(Mirror::named(uri)))?;
    Ok(debian::pull(store, &Client::new(), &mirror, arch, progress)?)
}

fn shape(entry: &Entry, machines: Vec<String>, damage: Option<String>) -> Shape {
    let manifest = &entry.manifest;
    Shape {
        id: entry.id.clone(),
        name: manifest.name.clone(),
        arch: manifest.arch.clone(),
        title: manifest.title.clone(),
        source: manifest.source.clone(),
        created_secs: manifest.created_secs,
        stored_bytes: entry.stored_bytes(),
        disk: entry.disk().display().to_string(),
        machines,
        damage,
    }
}

fn text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Got { image } => format!("{}: {}\n", image.id, image.title),
        Outcome::Listed { images } if images.is_empty() => {
            "no images yet. A first one: isomer image pull debian\n".to_owned()
        }
        Outcome::Listed { images } => {
            let mut text = format!("{:<36} {:>10}  {:<16} what it is\n", "image", "on disk", "machines");
            for image in images {
                let machines =
                    if image.machines.is_empty() { "-".to_owned() } else { image.machines.join(",") };
                let size = report::Size(image.stored_bytes).to_string();
                text += &format!("{:<36} {size:>10}  {machines:<16} {}\n", image.id, image.title);
                if let Some(damage) = &image.damage {
                    text += &format!("FAIL  {damage}\n");
                }
            }
            text
        }
        Outcome::Removed { removed, free_bytes } => {
            let mut text: String = removed.iter().map(|id| format!("{id} removed\n")).collect();
            text += &format!("{} free\n", report::Size(*free_bytes));
            text
        }
    }
}
