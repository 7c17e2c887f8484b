//! Who may ask for what: the resolved rules against the kernel's word about the peer.

use crate::ipc::ResolvedRule;
use crate::policy::covers;

/// What a peer may do at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No rule names this peer: it learns nothing but `forbidden`.
    Stranger,
    /// Some rule does.
    Known,
}

fn applies(rule: &ResolvedRule, uid: u32, gid: u32, groups: &[u32]) -> bool {
    match (rule.uid, rule.gid) {
        (Some(wanted), None) => wanted == uid,
        (None, Some(wanted)) => wanted == gid || groups.contains(&wanted),
        _ => false,
    }
}

/// Whether any rule names the peer.
pub fn standing(rules: &[ResolvedRule], uid: u32, gid: u32, groups: &[u32]) -> Standing {
    if rules.iter().any(|rule| applies(rule, uid, gid, groups)) {
        Standing::Known
    } else {
        Standing::Stranger
    }
}

/// Whether a rule lets the peer ask for the action.
pub fn allowed(rules: &[ResolvedRule], uid: u32, gid: u32, groups: &[u32], action: &str) -> bool {
    rules.iter().any(|rule| {
        applies(rule, uid, gid, groups)
            && rule.actions.iter().any(|pattern| covers(pattern, action))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(uid: Option<u32>, gid: Option<u32>, actions: &[&str]) -> ResolvedRule {
        ResolvedRule {
            uid,
            gid,
            actions: actions.iter().map(|&a| a.to_owned()).collect(),
        }
    }

    #[test]
    fn a_rule_without_a_subject_applies_to_nobody() {
        assert!(!allowed(
            &[rule(None, None, &["*"])],
            0,
            0,
            &[0],
            "qm-start"
        ));
        assert!(!allowed(
            &[rule(Some(5), Some(5), &["*"])],
            5,
            5,
            &[5],
            "qm-start"
        ));
    }

    #[test]
    fn a_group_rule_sees_primary_and_supplementary_groups() {
        let rules = [rule(None, Some(50), &["qm-*"])];
        assert!(allowed(&rules, 1, 50, &[], "qm-start"));
        assert!(allowed(&rules, 1, 1, &[3, 50], "qm-start"));
        assert!(
            !allowed(&rules, 50, 1, &[3], "qm-start"),
            "a uid is not a gid"
        );
        assert!(!allowed(&rules, 1, 50, &[], "generate-wallet"));
    }

    #[test]
    fn root_has_no_rights_but_those_of_the_rules() {
        assert_eq!(
            standing(&[rule(Some(7), None, &["*"])], 0, 0, &[]),
            Standing::Stranger
        );
    }
}
