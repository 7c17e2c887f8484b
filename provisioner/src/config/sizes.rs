//! How large machines are: what a size can be, and the section `plans` of `blockhost.yaml`, which size a plan of the
//! subscription contract gives. The engine reads it for each purchase; the commands of this room do not, so that a mistake in
//! it keeps no machine from being stopped or destroyed.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use blockhost_proto::Layout;
use serde::{Deserialize, Serialize};

use super::blockhost::{BlockhostConfig, open};
use super::{ConfigError, Section};

/// Virtual CPUs that a machine can have.
pub const CORES: RangeInclusive<u32> = 1..=256;
/// MiB of memory.
pub const MEMORY_MB: RangeInclusive<u32> = 128..=4_194_304;
/// GiB of disk.
pub const DISK_GB: RangeInclusive<u32> = 2..=65_536;

const SECTION: &str = "plans";

/// How large a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Virtual CPUs.
    pub cores: u32,
    /// MiB.
    pub memory_mb: u32,
    /// GiB.
    pub disk_gb: u32,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.cores == 1 { "" } else { "s" };
        let (cores, memory, disk) = (self.cores, self.memory_mb, self.disk_gb);
        write!(f, "{cores} core{plural}, {memory} MB, {disk} GB")
    }
}

/// The section. What an entry leaves out, and a plan without one, is as the section `vm` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    file: PathBuf,
    otherwise: Size,
    /// By the plan's number, with the line of its entry.
    plans: BTreeMap<u64, (u64, Size)>,
}

impl Sizes {
    /// Reads `/etc/blockhost/blockhost.yaml` of this world; a missing file means all defaults.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and key.
    pub fn load(layout: &Layout) -> Result<Self, ConfigError> {
        Self::read(open(layout)?)
    }

    /// Reads the parsed file.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and key.
    pub fn read(mut top: Section) -> Result<Self, ConfigError> {
        let section = top.section(SECTION)?;
        let file = top.file().to_owned();
        // What nobody knows there is said by whoever reads the rest of it.
        let vm = BlockhostConfig::read(top, &mut Vec::new())?.vm;
        let otherwise = vm.size();
        let mut plans = BTreeMap::new();
        if let Some(mut section) = section {
            for name in section.names() {
                let id = number(&name).ok_or_else(|| {
                    let problem = "it is no number of a plan: bw plan list tells them";
                    section.invalid(&name, section.line(), problem.into())
                })?;
                let entry = section.section(&name)?.ok_or_else(|| {
                    let problem = "it says nothing: cores, memory_mb or disk_gb belong there";
                    section.invalid(&name, section.line(), problem.into())
                })?;
                plans.insert(id, (entry.line(), size(entry, otherwise)?));
            }
        }
        Ok(Self {
            file,
            otherwise,
            plans,
        })
    }

    /// What a purchase of this plan gives.
    #[must_use]
    pub fn of(&self, plan: u64) -> Size {
        self.plans.get(&plan).map_or(self.otherwise, |(_, of)| *of)
    }

    /// What a plan without an entry gives.
    #[must_use]
    pub const fn otherwise(&self) -> Size {
        self.otherwise
    }

    /// The plans that have an entry, in the order of their numbers.
    pub fn entries(&self) -> impl Iterator<Item = (u64, Size)> {
        self.plans.iter().map(|(id, (_, size))| (*id, *size))
    }

    /// An error about the entry of a plan, for what only the contract knows.
    #[must_use]
    pub fn invalid(&self, plan: u64, problem: &str) -> ConfigError {
        ConfigError::Value {
            file: self.file.clone(),
            line: self.plans.get(&plan).map_or(1, |(line, _)| *line),
            key: format!("{SECTION}.{plan}"),
            problem: problem.into(),
        }
    }
}

/// One way to write each number, so that no plan is named twice.
fn number(name: &str) -> Option<u64> {
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    let id: u64 = digits.then(|| name.parse().ok()).flatten()?;
    (id > 0 && id.to_string() == name).then_some(id)
}

fn size(mut entry: Section, otherwise: Size) -> Result<Size, ConfigError> {
    let size = Size {
        cores: entry.u32_or("cores", CORES, otherwise.cores)?,
        memory_mb: entry.u32_or("memory_mb", MEMORY_MB, otherwise.memory_mb)?,
        disk_gb: entry.u32_or("disk_gb", DISK_GB, otherwise.disk_gb)?,
    };
    // Passed over, a mistyped key would sell something else than was meant.
    match entry.names().first() {
        None => Ok(size),
        Some(other) => {
            let problem = "nobody knows this key: a plan has cores, memory_mb and disk_gb";
            Err(entry.invalid(other, entry.line(), problem.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(text: &str) -> Result<Sizes, String> {
        let file = Path::new("/etc/blockhost/blockhost.yaml");
        let parsed = Section::parse(file, text);
        let sizes = parsed.and_then(Sizes::read);
        sizes.map_err(|e| e.to_string())
    }

    const fn size(cores: u32, memory_mb: u32, disk_gb: u32) -> Size {
        Size {
            cores,
            memory_mb,
            disk_gb,
        }
    }

    #[test]
    fn a_plan_gives_what_its_entry_says_and_otherwise_what_any_machine_gets() {
        let text = "vm: {memory_mb: 2048}\nplans:\n  1: {cores: 2}\n  '3': {cores: 8, memory_mb: 16384, disk_gb: 200}\n";
        let sizes = read(text).unwrap();
        assert_eq!(sizes.of(1), size(2, 2048, 10));
        assert_eq!(sizes.of(2), size(1, 2048, 10));
        assert_eq!(sizes.of(3), size(8, 16384, 200));
        assert_eq!(sizes.of(u64::MAX), sizes.otherwise());
        for none in ["", "plans: {}\n", "plans:\n"] {
            assert_eq!(read(none).unwrap().of(1), size(1, 1024, 10), "{none:?}");
        }
        assert_eq!(sizes.of(1).to_string(), "2 cores, 2048 MB, 10 GB");
    }

    #[test]
    fn what_cannot_be_sold_is_named_with_file_line_and_key() {
        for (entry, key) in [
            ("0: {cores: 1}", "plans.0"),
            ("small: {cores: 1}", "plans.small"),
            ("01: {cores: 1}", "plans."),
            ("'+1': {cores: 1}", "plans.+1"),
            ("-1: {cores: 1}", "plans.-1"),
            ("1.5: {cores: 1}", "plans."),
            ("99999999999999999999: {cores: 1}", "plans."),
            ("1:", "plans.1"),
            ("1: large", "plans.1"),
            ("1: [2]", "plans.1"),
            ("1: {cores: 0}", "plans.1.cores"),
            ("1: {cores: 257}", "plans.1.cores"),
            ("1: {cores: -1}", "plans.1.cores"),
            ("1: {cores: 1.5}", "plans.1.cores"),
            ("1: {cores: '2'}", "plans.1.cores"),
            ("1: {memory_mb: 127}", "plans.1.memory_mb"),
            ("1: {memory_mb: 4194305}", "plans.1.memory_mb"),
            ("1: {memory_mb: 8G}", "plans.1.memory_mb"),
            ("1: {disk_gb: 1}", "plans.1.disk_gb"),
            ("1: {disk_gb: 65537}", "plans.1.disk_gb"),
            ("1: {memory: 8192}", "plans.1.memory"),
            ("1: {cores: 1, cores: 2}", "cores"),
            ("1: {cores: 1}\n  1: {cores: 2}", "1"),
            ("1: {cores: 1}\n  '1': {cores: 2}", "1"),
        ] {
            let error = read(&format!("vm: {{cores: 1}}\nplans:\n  {entry}\n")).expect_err(entry);
            assert!(
                error.starts_with("/etc/blockhost/blockhost.yaml") && error.contains(key),
                "{entry}: {error}"
            );
        }
        let error = read("vm: {cores: 1}\nplans:\n  7: {cores: 0}\n").unwrap_err();
        assert!(error.contains(".yaml:3: key \"plans.7.cores\""), "{error}");
        let sizes = read("plans:\n\n  7: {cores: 2}\n").unwrap();
        let error = sizes.invalid(7, "there is none").to_string();
        assert!(
            error.contains(".yaml:3: key \"plans.7\": there is none"),
            "{error}"
        );
        assert!(read("plans: [1]\n").unwrap_err().contains("plans"));
    }
}
