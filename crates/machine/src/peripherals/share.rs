//! `--share`: host directories over virtio-fs or 9p. The embedded guest mounts them by itself.

use super::Slots;
use crate::{
    Arch, MachineError, Spec,
    embedded::Mount,
    spec::{ShareKind, ShareSpec, ShareTrust},
};
use isomer_devices::{
    backend::share::{OpenFlagLayout, Share, ShareOptions},
    virtio::{
        fs::{self, Freshness, FsOptions, VirtioFs},
        nine_p::{self, Virtio9p},
    },
};
use std::sync::Arc;

/// Where the embedded guest mounts a share that was given a tag and no path.
const MOUNT_POINT: &str = "/mnt";
/// Longest 9p message: what Linux's virtio transport takes.
const NINE_P_MSIZE: u32 = 512_000;

pub(super) fn attach<S: Slots>(spec: &Spec, slots: &mut S) -> Result<(), MachineError> {
    for (index, share) in spec.shares.iter().enumerate() {
        let tag = tag(index, share);
        check(spec, index, share, &tag)?;
        let options = ShareOptions {
            read_only: share.read_only,
            owners: share.owners,
            open_flags: match (share.kind, spec.arch) {
                // 9P has numbers of its own.
                (ShareKind::NineP, _) | (_, Arch::Riscv64) => OpenFlagLayout::Generic,
                (ShareKind::VirtioFs, Arch::Aarch64) => OpenFlagLayout::Arm,
            },
        };
        let directory = Arc::new(Share::open(&share.path, &options)?);
        match share.kind {
            ShareKind::VirtioFs => {
                let freshness = match share.trust {
                    ShareTrust::Nothing => Freshness::NONE,
                    ShareTrust::Second => Freshness::SECOND,
                    ShareTrust::Always => Freshness::ALWAYS,
                };
                let queues = spec.cpus as u16;
                slots.virtio(VirtioFs::new(
                    directory,
                    &FsOptions { tag, queues, freshness, host_locks: share.host_locks },
                ))?;
            }
            ShareKind::NineP => slots.virtio(Virtio9p::new(directory, &tag))?,
        }
    }
    Ok(())
}

/// What the guest knows a share by.
fn tag(index: usize, share: &ShareSpec) -> String {
    match (&share.guest, index) {
        (Some(guest), _) => guest.clone(),
        (None, 0) => "share".to_owned(),
        (None, index) => format!("share{}", index + 1),
    }
}

fn check(spec: &Spec, index: usize, share: &ShareSpec, tag: &str) -> Result<(), MachineError> {
    let most = match share.kind {
        ShareKind::VirtioFs => fs::TAG_BYTES,
        ShareKind::NineP => nine_p::TAG_BYTES,
    };
    let (why, fix) = if tag.len() > most {
        (
            format!("{tag:?} is longer than the {most} bytes a tag can have"),
            "choose a shorter one, or type=9p",
        )
    } else if spec.shares[..index].iter().enumerate().any(|(at, other)| self::tag(at, other) == tag) {
        (format!("two shares are called {tag:?}"), "give each a name of its own: --share DIRECTORY:NAME")
    } else {
        return Ok(());
    };
    Err(MachineError::Spec { why, fix: fix.into() })
}

/// What the embedded guest is told to mount.
pub(crate) fn mounts(spec: &Spec) -> Vec<Mount> {
    let mount = |(index, share): (usize, &ShareSpec)| {
        let tag = tag(index, share);
        let path = if tag.starts_with('/') { tag.clone() } else { format!("{MOUNT_POINT}/{tag}") };
        let access = if share.read_only { "ro" } else { "rw" };
        let (kind, options) = match share.kind {
            ShareKind::VirtioFs => ("virtiofs", access.to_owned()),
            ShareKind::NineP => {
                ("9p", format!("{access},trans=virtio,version=9p2000.L,msize={NINE_P_MSIZE}"))
            }
        };
        Mount { kind, tag, path, options }
    };
    spec.shares.iter().enumerate().map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(guest: Option<&str>, kind: ShareKind) -> ShareSpec {
        ShareSpec { path: "/tmp".into(), guest: guest.map(Into::into), kind, ..ShareSpec::default() }
    }

    #[test]
    fn tags_are_told_apart_and_fit() {
        let check = |shares: Vec<ShareSpec>| {
            let spec = Spec { shares, ..Spec::default() };
            spec.shares.iter().enumerate().try_for_each(|(at, one)| check(&spec, at, one, &tag(at, one)))
        };
        let fs = ShareKind::VirtioFs;
        assert!(check(vec![share(None, fs), share(None, fs), share(Some("x"), fs)]).is_ok());
        assert!(check(vec![share(Some("x"), fs), share(Some("x"), ShareKind::NineP)]).is_err());
        let long = "x".repeat(37);
        assert!(check(vec![share(Some(&long), fs)]).is_err());
        assert!(check(vec![share(Some(&long), ShareKind::NineP)]).is_ok());
    }

    #[test]
    fn the_embedded_guest_is_told_where_to_mount_what() {
        let shares = vec![share(None, ShareKind::VirtioFs), share(Some("/src"), ShareKind::NineP)];
        let mounts = mounts(&Spec { shares, ..Spec::default() });
        assert_eq!((mounts[0].kind, mounts[0].path.as_str()), ("virtiofs", "/mnt/share"));
        assert_eq!((mounts[1].tag.as_str(), mounts[1].path.as_str()), ("/src", "/src"));
        assert!(mounts[1].options.contains("trans=virtio"));
    }
}
