//! What a named machine is: a TOML file in its directory, with a default for every key, and the options of `isomer run`
//! that it stands for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A named machine. Sizes, disks, cards, ports and shares are written as the options of `isomer run` are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MachineSpec {
    /// The id of the image that its disk stands on; empty for a machine with a kernel of its own.
    pub(crate) image: String,
    /// Instruction set.
    pub(crate) arch: String,
    /// RAM.
    pub(crate) memory: String,
    /// Number of CPUs.
    pub(crate) cpus: usize,
    /// CPU model; the board's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<String>,
    /// What runs guest code: auto, interp or jit.
    pub(crate) engine: String,
    /// Further disks.
    pub(crate) disks: Vec<String>,
    /// Network cards; one with user-mode networking if there is nothing here.
    pub(crate) net: Vec<String>,
    /// Ports of the host that lead to the guest.
    pub(crate) publish: Vec<String>,
    /// Shared directories.
    pub(crate) shares: Vec<String>,
    /// More words for the kernel's command line.
    pub(crate) append: String,
    /// Firmware, for images that bring no kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) firmware: Option<String>,
    /// What firmware starts, such as U-Boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<String>,
}

impl Default for MachineSpec {
    fn default() -> Self {
        Self {
            image: String::new(),
            arch: isomer_machine::Arch::default().name().to_owned(),
            memory: "1G".into(),
            cpus: 1,
            cpu: None,
            engine: "auto".into(),
            disks: Vec::new(),
            net: Vec::new(),
            publish: Vec::new(),
            shares: Vec::new(),
            append: String::new(),
            firmware: None,
            kernel: None,
        }
    }
}

/// Where a machine's disk and boot files are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    /// Its disk, as `--disk` takes it.
    pub(crate) disk: String,
    /// The seed for cloud-init.
    pub(crate) seed: Option<String>,
    /// The image's kernel and initial RAM disk.
    pub(crate) boot: Option<(String, String)>,
    /// The image's kernel command line.
    pub(crate) append: String,
}

impl MachineSpec {
    /// The options of `isomer run` that start this machine.
    pub(crate) fn options(&self, name: &str, files: &Files) -> Vec<String> {
        let mut options = Vec::new();
        let mut add = |option: &str, value: &str| options.extend([option.to_owned(), value.to_owned()]);
        add("--arch", &self.arch);
        add("--memory", &self.memory);
        add("--cpus", &self.cpus.to_string());
        add("--engine", &self.engine);
        if let Some(cpu) = &self.cpu {
            add("--cpu", cpu);
        }
        let kernel = self.kernel.clone().or_else(|| files.boot.as_ref().map(|(kernel, _)| kernel.clone()));
        if let Some(kernel) = &kernel {
            add("--kernel", kernel);
        }
        if let (Some((_, initrd)), None) = (&files.boot, &self.kernel) {
            add("--initrd", initrd);
        }
        if let Some(firmware) = &self.firmware {
            add("--firmware", firmware);
        }
        if files.boot.is_some() || !self.append.is_empty() {
            let host = if files.boot.is_some() { format!(" systemd.hostname={name}") } else { String::new() };
            let append = format!("console=hvc0 {}{host} {}", files.append, self.append);
            add("--append", append.split_whitespace().collect::<Vec<_>>().join(" ").as_str());
        }
        add("--disk", &files.disk);
        if let Some(seed) = &files.seed {
            add("--disk", seed);
        }
        for (option, values) in [
            ("--disk", &self.disks),
            ("--net", &self.net),
            ("--publish", &self.publish),
            ("--share", &self.shares),
        ] {
            values.iter().for_each(|value| add(option, value));
        }
        options
    }
}

/// The JSON Schema of the file.
pub(crate) fn schema() -> serde_json::Value {
    schemars::schema_for!(MachineSpec).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn every_key_has_a_default_and_unknown_ones_are_refused() {
        assert_eq!(toml::from_str::<MachineSpec>("").unwrap(), MachineSpec::default());
        let spec = MachineSpec { publish: vec!["8022:22".into()], cpus: 4, ..MachineSpec::default() };
        assert_eq!(toml::from_str::<MachineSpec>(&toml::to_string(&spec).unwrap()).unwrap(), spec);
        assert!(toml::from_str::<MachineSpec>("cpuz = 2").is_err());
        let schema = schema();
        let properties = schema["properties"].as_object().unwrap();
        let written = serde_json::to_value(&spec).unwrap();
        assert!(written.as_object().unwrap().keys().all(|key| properties.contains_key(key)), "{schema}");
    }

    #[test]
    fn a_spec_is_a_command_line() {
        let spec = MachineSpec {
            publish: vec!["8022:22".into()],
            shares: vec!["/src:src".into()],
            append: "quiet".into(),
            ..MachineSpec::default()
        };
        let files = Files {
            disk: "/d/disk.qcow2,format=qcow2".into(),
            seed: None,
            boot: Some(("/i/kernel".into(), "/i/initrd".into())),
            append: "root=/dev/vda rw".into(),
        };
        let options = spec.options("dev", &files);
        let Command::Run(args) =
            Cli::try_parse_from(["isomer".to_owned(), "run".to_owned()].into_iter().chain(options))
                .unwrap()
                .command
        else {
            panic!("no run");
        };
        assert_eq!(args.kernel.as_deref(), Some(std::path::Path::new("/i/kernel")));
        assert_eq!(args.append.as_deref(), Some("console=hvc0 root=/dev/vda rw systemd.hostname=dev quiet"));
        assert_eq!((args.disk.len(), args.publish.len(), args.share.len()), (1, 1, 1));
    }
}
