//! What the types of the policy cannot say: ranges, and values that must fit each other.

use std::path::Path;

use super::rule::matches_some_action;
use super::sockets::{MAIN, MAX_SOCKETS};
use super::{Allowlists, Policy, PolicyError};
use crate::allow::Vmids;

impl Policy {
    /// What the types cannot say.
    pub(super) fn check(&self, file: &str) -> Result<(), PolicyError> {
        let wrong = |key: &str, detail: String| {
            Err(PolicyError::Value {
                file: file.to_owned(),
                key: key.to_owned(),
                detail,
            })
        };
        for (number, rule) in (1..).zip(&self.rules) {
            let key = format!("rules: rule {number}");
            if rule.user.is_some() && rule.group.is_some() {
                return wrong(
                    &key,
                    "names a user and a group; write one rule for each".to_owned(),
                );
            }
            if rule.user.is_none() && rule.group.is_none() && rule.socket.is_none() {
                return wrong(&key, "names neither user, group nor socket".to_owned());
            }
            for pattern in &rule.actions {
                if !matches_some_action(pattern) {
                    let detail = format!(
                        "`{}` names no action of the catalog",
                        pattern.escape_default()
                    );
                    return wrong(&key, detail);
                }
            }
            let Some(only) = &rule.only else { continue };
            if only.is_empty() {
                return wrong(&key, "`only` narrows nothing; leave it out".to_owned());
            }
            if only.route_prefixes.as_ref().is_some_and(Vec::is_empty) {
                let detail = "an empty `only.route_prefixes` would mean any address; name prefixes, or leave it out";
                return wrong(&key, detail.to_owned());
            }
            if only.clone_from.as_ref().is_some_and(Vmids::is_empty) {
                let detail = "an empty `only.clone_from` would mean what `vmids` says; name machines, or leave `qm-clone` out of `actions`";
                return wrong(&key, detail.to_owned());
            }
            check_lists(&only.in_place_of(&self.allow))
                .or_else(|(list, detail)| wrong(&format!("{key}: only.{list}"), detail))?;
        }
        if self.sockets.len() > MAX_SOCKETS {
            return wrong("sockets", format!("more than {MAX_SOCKETS}"));
        }
        let mut files = vec![format!("{MAIN}.sock")];
        for (name, spec) in &self.sockets {
            let file = spec.file(name).as_str().to_owned();
            if name.as_str() == MAIN || files.contains(&file) {
                let detail = format!("{name}: `{file}` is that of another socket");
                return wrong("sockets", detail);
            }
            files.push(file);
        }
        for (name, seconds) in &self.time_limits {
            if blockhost_proto::catalog::find(name).is_none() {
                return wrong(
                    "time_limits",
                    format!("`{}` is no action of the catalog", name.escape_default()),
                );
            }
            if !(1..=86_400).contains(seconds) {
                return wrong(
                    "time_limits",
                    format!("{name}: {seconds} s; between 1 and 86400"),
                );
            }
        }
        let limits = &self.limits;
        let in_range = |key: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                wrong(key, format!("{value}; between {low} and {high}"))
            }
        };
        in_range(
            "limits.request_bytes",
            limits.request_bytes.into(),
            1024,
            4 << 20,
        )?;
        in_range(
            "limits.response_bytes",
            limits.response_bytes.into(),
            1024,
            4 << 20,
        )?;
        in_range("limits.frame_s", limits.frame_s, 1, 3600)?;
        in_range("limits.idle_s", limits.idle_s, 1, 86_400)?;
        in_range("limits.write_stall_s", limits.write_stall_s, 1, 3600)?;
        in_range("limits.connections", limits.connections as u64, 1, 480)?;
        in_range(
            "limits.connections_per_uid",
            limits.connections_per_uid as u64,
            1,
            480,
        )?;
        in_range("limits.in_flight", limits.in_flight as u64, 1, 1024)?;
        in_range(
            "limits.firewall_rules",
            limits.firewall_rules as u64,
            1,
            65_536,
        )?;
        in_range("limits.ledger_blobs", limits.ledger_blobs, 0, 1 << 20)?;
        in_range(
            "limits.ledger_blob_bytes",
            limits.ledger_blob_bytes,
            0,
            1 << 40,
        )?;
        in_range(
            "limits.ledger_retention_days",
            limits.ledger_retention_days,
            0,
            36_500,
        )?;
        in_range("limits.drain_s", limits.drain_s, 0, 3600)?;
        check_lists(&self.allow)
            .or_else(|(list, detail)| wrong(&format!("allow.{list}"), detail))?;
        let programs = [
            ("programs.qm", &self.programs.qm),
            ("programs.pct", &self.programs.pct),
            ("programs.xtables", &self.programs.xtables),
        ];
        for (key, path) in programs {
            path.iter()
                .try_for_each(|path| absolute(path))
                .or_else(|detail| wrong(key, detail))?;
        }
        Ok(())
    }
}

fn absolute(path: &Path) -> Result<(), String> {
    let plain = path
        .components()
        .all(|part| !matches!(part, std::path::Component::ParentDir));
    if path.is_absolute() && plain {
        Ok(())
    } else {
        Err(format!(
            "`{}` is not an absolute path without `..`",
            path.display()
        ))
    }
}

/// The same for the host's lists and for those of a rule. Gives the list and what is wrong in it.
fn check_lists(lists: &Allowlists) -> Result<(), (&'static str, String)> {
    for (list, vmids) in [("vmids", &lists.vmids), ("clone_from", &lists.clone_from)] {
        for range in vmids.ranges() {
            if range.first < 100 || range.last > 999_999 || range.first > range.last {
                let detail = format!("{}-{}; inside 100-999999", range.first, range.last);
                return Err((list, detail));
            }
        }
    }
    let directories = [
        ("image_dirs", &lists.image_dirs),
        ("template_dirs", &lists.template_dirs),
    ];
    for (list, paths) in directories {
        paths
            .iter()
            .try_for_each(|path| absolute(path))
            .map_err(|detail| (list, detail))?;
    }
    Ok(())
}
