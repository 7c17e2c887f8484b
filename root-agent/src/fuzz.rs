//! Fuzz targets of what the root agent reads from others than clients: what its programs print, what the kernel and the
//! switch answer, disk images, the policy file. For tests and for `fuzz/`; not part of the program.

use blockhost_proto::fuzz::Target;

use crate::compartment::fuzz as compartments;
use crate::exec::{Captured, escape};
use crate::policy::Policy;

/// All of this crate.
#[must_use]
pub fn targets() -> Vec<Target> {
    let mut list = vec![
        Target {
            name: "policy",
            seeds: || {
                POLICIES
                    .iter()
                    .map(|text| text.as_bytes().to_vec())
                    .collect()
            },
            run: policy,
        },
        Target {
            name: "captured",
            seeds: || vec![b"\x04some output\n\x1b[31mred\xff\xe2\x80\xae\n".to_vec()],
            run: captured,
        },
    ];
    list.extend(blockhost_netlink::fuzz::TARGETS);
    list.extend(compartments::targets());
    list
}

const POLICIES: &[&str] = &[
    "",
    "rules:\n  - user: 0\n    actions: ['*']\n  - group: blockhost\n    actions: [qm-*, agent-info]\n",
    "backend: embedded\nlandlock: optional\nlimits:\n  connections: 64\n  idle_s: 30\n  frame_s: 5\n",
    "rules:\n  - socket: operators\n    user: web\n    actions: [qm-*]\n    only:\n      vmids: {first: 100, last: 199}\n      firewall_ports: ['443']\n",
    "allow:\n  bridges: [vmbr0, br1]\n  storages: [local]\n  image_dirs: [/var/lib/blockhost/images]\n",
    "programs:\n  qm: /usr/sbin/qm\ntime_limits:\n  qm-start: 60\nidentities: {}\n",
];

/// A policy that is accepted means the same when it is written out, and none of its rules is for everybody.
fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Policy::parse(text, "root-agent.yaml") {
        Ok(policy) => {
            let written = serde_json::to_string(&policy).unwrap_or_default();
            let again = Policy::parse(&written, "root-agent.yaml");
            assert!(
                again.as_ref().is_ok_and(|again| *again == policy),
                "{written} is read back as {again:?}"
            );
            let for_everybody = policy
                .rules
                .iter()
                .any(|rule| rule.user.is_none() && rule.group.is_none() && rule.socket.is_none());
            assert!(!for_everybody, "a rule that names nobody");
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("root-agent.yaml"), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}

/// Output of bounded size, however it arrives: its ends are kept as they were, and nothing raw reaches a log.
fn captured(data: &[u8]) {
    const KEEP: usize = 64;
    let Some((step, stream)) = data.split_first() else {
        return;
    };
    let mut kept = Captured::new(KEEP);
    for part in stream.chunks(usize::from(*step).max(1)) {
        kept.push(part);
    }
    let left_out = u64::try_from(stream.len().saturating_sub(KEEP)).unwrap_or(u64::MAX);
    assert_eq!(kept.dropped(), left_out);
    assert_eq!(kept.whole(), (left_out == 0).then(|| stream.to_vec()));
    let text = kept.to_text();
    let raw = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!text.contains(raw), "{text:?}");
    let head = stream.get(..KEEP / 2).unwrap_or(stream);
    // What is cut in the middle of a character is escaped; up to there the text is that of the whole.
    let before = escape(
        &head
            .iter()
            .copied()
            .take_while(u8::is_ascii)
            .collect::<Vec<_>>(),
    );
    assert!(text.starts_with(&before), "{text:?} after {before:?}");
}

#[cfg(test)]
mod tests {
    use blockhost_proto::fuzz::replay;

    #[test]
    fn no_mutated_input_breaks_a_parser_of_the_agent() {
        for target in super::targets() {
            replay(&target, 5000, 0xb10c);
        }
    }

    #[test]
    fn the_seeds_of_the_policy_are_policies() {
        for text in super::POLICIES {
            let parsed = super::Policy::parse(text, "seed");
            assert!(parsed.is_ok(), "{text}: {parsed:?}");
        }
    }
}
