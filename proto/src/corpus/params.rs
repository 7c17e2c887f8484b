//! Parameters that break their types' rules, for every family but the options of machines. Those of the ledger are in
//! `ledger`.

use super::values::{
    NOT_A_COMMENT, NOT_A_DEVICE, NOT_A_HOST, NOT_A_KEYFILE, NOT_A_PORT, NOT_A_SOURCE, NOT_A_VMID,
    NOT_A_WALLET, NOT_AN_ADDRESS, NOT_AN_IMAGE,
};
use super::{Hostile, action, ledger};

pub(super) fn params() -> Vec<Hostile> {
    let mut list: Vec<Hostile> = PARAMS
        .iter()
        .chain(ledger::PARAMS)
        .map(|(name, verb, params)| action(format!("{verb}: {name}"), verb, params))
        .collect();
    for (name, value) in NOT_A_VMID {
        list.push(action(
            format!("vmid: {name}"),
            "qm-start",
            &format!(r#"{{"vmid":{value}}}"#),
        ));
    }
    for (name, value) in NOT_A_PORT {
        let params = format!(r#"{{"port":{value},"comment":"x"}}"#);
        list.push(action(format!("port: {name}"), "iptables-open", &params));
    }
    for (name, value) in NOT_A_HOST {
        for verb in ["ip6-route-add", "ip6-route-del"] {
            list.push(action(
                format!("{verb}: address {name}"),
                verb,
                &format!(r#"{{"address":"{value}","dev":"vmbr0"}}"#),
            ));
        }
    }
    for (name, value) in NOT_A_DEVICE {
        let params = format!(r#"{{"address":"fd00::1/128","dev":"{value}"}}"#);
        list.push(action(format!("device: {name}"), "ip6-route-add", &params));
    }
    for (name, value) in NOT_A_COMMENT {
        let params = format!(r#"{{"port":80,"comment":"{value}"}}"#);
        list.push(action(format!("comment: {name}"), "iptables-open", &params));
    }
    for (name, value) in NOT_A_SOURCE {
        let params = format!(r#"{{"port":80,"comment":"x","source":"{value}"}}"#);
        list.push(action(format!("source: {name}"), "iptables-open", &params));
    }
    for (name, value) in NOT_AN_IMAGE {
        let params = format!(r#"{{"vmid":100,"storage":"local","disk_path":"{value}"}}"#);
        list.push(action(format!("image: {name}"), "qm-importdisk", &params));
    }
    for (name, value) in NOT_A_WALLET {
        list.push(action(
            format!("wallet: {name}"),
            "generate-wallet",
            &format!(r#"{{"name":"{value}"}}"#),
        ));
    }
    for (name, value) in NOT_A_KEYFILE {
        let params = format!(
            r#"{{"entries":{{"hot":{{"address":"0x0000000000000000000000000000000000000001","keyfile":{value}}}}}}}"#
        );
        list.push(action(
            format!("keyfile: {name}"),
            "addressbook-save",
            &params,
        ));
    }
    for (name, value) in NOT_AN_ADDRESS {
        let params = format!(r#"{{"entries":{{"hot":{{"address":{value}}}}}}}"#);
        list.push(action(
            format!("wallet address: {name}"),
            "addressbook-save",
            &params,
        ));
    }
    list.push(action(
        "qm-create: missing args",
        "qm-create",
        r#"{"vmid":100,"name":"a"}"#,
    ));
    let hash = "ab".repeat(32);
    list.extend([
        action(
            "guest command of 16385 bytes",
            "qm-guest-exec",
            &format!(r#"{{"vmid":100,"command":"{}"}}"#, "x".repeat(16_385)),
        ),
        action(
            "event data of 20 kB",
            "ledger-append",
            &format!(
                r#"{{"category":"chain","action":"x","data":{{"a":"{}"}}}}"#,
                "x".repeat(20_000)
            ),
        ),
        action(
            "a proof of 65 hashes",
            "ledger-anchored",
            &format!(
                r#"{{"chain_id":1,"contract":"0x0000000000000000000000000000000000000001","tx":"0x{hash}","block":5,"size":6,"root":"{hash}","head_size":8,"proof":[{}]}}"#,
                vec![format!("\"{hash}\""); 65].join(",")
            ),
        ),
        action(
            "an encrypted file of 40961 bytes",
            "ledger-blob",
            &format!(
                r#"{{"category":"network","action":"x","ciphertext":"YWdlLWVuY3J5cHRpb24ub3JnL3YxC{}"}}"#,
                "A".repeat(54_620)
            ),
        ),
        action(
            "a reason of 201 characters",
            "ledger-shred",
            &format!(r#"{{"sha256":"{}","reason":"{}"}}"#, "0".repeat(64), "x".repeat(201)),
        ),
        action(
            "a pruning for a reason of 201 characters",
            "ledger-prune",
            &format!(r#"{{"before":65537,"reason":"{}"}}"#, "x".repeat(201)),
        ),
        action(
            "an address book of 1025 entries",
            "addressbook-save",
            &book(1025),
        ),
    ]);
    list
}

fn book(entries: usize) -> String {
    let entry = |n| format!(r#""w{n}":{{"address":"0x0000000000000000000000000000000000000001"}}"#);
    format!(
        r#"{{"entries":{{{}}}}}"#,
        (0..entries).map(entry).collect::<Vec<_>>().join(",")
    )
}

const PARAMS: &[(&str, &str, &str)] = &[
    ("params as a list", "qm-start", "[100]"),
    ("params as a text", "qm-start", "\"100\""),
    ("params null", "qm-start", "null"),
    ("nothing", "qm-start", "{}"),
    (
        "an unknown parameter",
        "qm-start",
        r#"{"vmid":100,"skiplock":1}"#,
    ),
    ("a parameter in capitals", "qm-start", r#"{"VMID":100}"#),
    (
        "a parameter where there are none",
        "qm-list",
        r#"{"full":true}"#,
    ),
    (
        "a parameter where there are none",
        "agent-info",
        r#"{"verbose":true}"#,
    ),
    ("timeout 0", "qm-shutdown", r#"{"vmid":100,"timeout":0}"#),
    (
        "timeout 601",
        "qm-shutdown",
        r#"{"vmid":100,"timeout":601}"#,
    ),
    (
        "timeout true",
        "qm-shutdown",
        r#"{"vmid":100,"timeout":true}"#,
    ),
    (
        "timeout as text",
        "qm-shutdown",
        r#"{"vmid":100,"timeout":"60"}"#,
    ),
    (
        "a force flag",
        "qm-shutdown",
        r#"{"vmid":100,"forceStop":true}"#,
    ),
    (
        "template as text",
        "qm-destroy",
        r#"{"vmid":100,"template":"true"}"#,
    ),
    (
        "template as number",
        "qm-destroy",
        r#"{"vmid":100,"template":1}"#,
    ),
    (
        "a skiplock flag",
        "qm-destroy",
        r#"{"vmid":100,"skiplock":true}"#,
    ),
    (
        "onto itself",
        "qm-clone",
        r#"{"vmid":100,"newid":100,"name":"a"}"#,
    ),
    (
        "name with a capital",
        "qm-clone",
        r#"{"vmid":100,"newid":101,"name":"Web"}"#,
    ),
    (
        "name with a dot",
        "qm-clone",
        r#"{"vmid":100,"newid":101,"name":"web.example"}"#,
    ),
    (
        "name with an option",
        "qm-clone",
        r#"{"vmid":100,"newid":101,"name":"--full"}"#,
    ),
    (
        "name ending in a dash",
        "qm-clone",
        r#"{"vmid":100,"newid":101,"name":"web-"}"#,
    ),
    (
        "name with a newline",
        "qm-clone",
        r#"{"vmid":100,"newid":101,"name":"web\n"}"#,
    ),
    (
        "name of 64",
        "qm-clone",
        r#"{"vmid":100,"newid":101,"name":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#,
    ),
    (
        "name that is empty",
        "qm-clone",
        r#"{"vmid":100,"newid":101,"name":""}"#,
    ),
    (
        "full as number",
        "qm-clone",
        r#"{"vmid":100,"newid":101,"name":"a","full":1}"#,
    ),
    (
        "a target node",
        "qm-clone",
        r#"{"vmid":100,"newid":101,"name":"a","target":"other"}"#,
    ),
    (
        "a storage that is an option",
        "qm-importdisk",
        r#"{"vmid":100,"disk_path":"a","storage":"--format"}"#,
    ),
    (
        "a storage with a colon",
        "qm-importdisk",
        r#"{"vmid":100,"disk_path":"a","storage":"local:x"}"#,
    ),
    (
        "a storage with a path",
        "qm-importdisk",
        r#"{"vmid":100,"disk_path":"a","storage":"../etc"}"#,
    ),
    (
        "a storage with a capital",
        "qm-importdisk",
        r#"{"vmid":100,"disk_path":"a","storage":"Local"}"#,
    ),
    (
        "two paths",
        "qm-importdisk",
        r#"{"vmid":100,"disk_path":"a","image_path":"b","storage":"local"}"#,
    ),
    (
        "a format",
        "qm-importdisk",
        r#"{"vmid":100,"disk_path":"a","storage":"local","format":"raw"}"#,
    ),
    (
        "a negative size",
        "qm-resize",
        r#"{"vmid":100,"disk":"scsi0","size":"-10G"}"#,
    ),
    (
        "size zero",
        "qm-resize",
        r#"{"vmid":100,"disk":"scsi0","size":"0G"}"#,
    ),
    (
        "growth of nothing",
        "qm-resize",
        r#"{"vmid":100,"disk":"scsi0","size":"+0G"}"#,
    ),
    (
        "size without a unit",
        "qm-resize",
        r#"{"vmid":100,"disk":"scsi0","size":"20"}"#,
    ),
    (
        "size as number",
        "qm-resize",
        r#"{"vmid":100,"disk":"scsi0","size":20}"#,
    ),
    (
        "size in petabytes",
        "qm-resize",
        r#"{"vmid":100,"disk":"scsi0","size":"1P"}"#,
    ),
    (
        "size beyond 64 bits",
        "qm-resize",
        r#"{"vmid":100,"disk":"scsi0","size":"18446744073709551616G"}"#,
    ),
    (
        "size with two signs",
        "qm-resize",
        r#"{"vmid":100,"disk":"scsi0","size":"++10G"}"#,
    ),
    (
        "size with an option",
        "qm-resize",
        r#"{"vmid":100,"disk":"scsi0","size":"10G --skiplock"}"#,
    ),
    (
        "a drive that does not exist",
        "qm-resize",
        r#"{"vmid":100,"disk":"scsi31","size":"+1G"}"#,
    ),
    (
        "a drive that is an option",
        "qm-resize",
        r#"{"vmid":100,"disk":"--skiplock","size":"+1G"}"#,
    ),
    (
        "a drive that is a network",
        "qm-resize",
        r#"{"vmid":100,"disk":"net0","size":"+1G"}"#,
    ),
    (
        "a drive with a zero in front",
        "qm-resize",
        r#"{"vmid":100,"disk":"scsi00","size":"+1G"}"#,
    ),
    (
        "an empty command",
        "qm-guest-exec",
        r#"{"vmid":100,"command":""}"#,
    ),
    (
        "a command with a NUL",
        "qm-guest-exec",
        r#"{"vmid":100,"command":"a\u0000b"}"#,
    ),
    (
        "a command as a list",
        "qm-guest-exec",
        r#"{"vmid":100,"command":["ls","-l"]}"#,
    ),
    (
        "secret as text",
        "qm-guest-exec",
        r#"{"vmid":100,"command":"a","secret":"no"}"#,
    ),
    (
        "protocol icmp",
        "iptables-open",
        r#"{"port":80,"comment":"x","proto":"icmp"}"#,
    ),
    (
        "protocol all",
        "iptables-open",
        r#"{"port":80,"comment":"x","proto":"all"}"#,
    ),
    (
        "protocol in capitals",
        "iptables-open",
        r#"{"port":80,"comment":"x","proto":"TCP"}"#,
    ),
    ("a missing comment", "iptables-open", r#"{"port":80}"#),
    ("a missing comment", "iptables-close", r#"{"port":80}"#),
    (
        "a null source",
        "iptables-open",
        r#"{"port":80,"comment":"x","source":null}"#,
    ),
    (
        "a chain",
        "iptables-open",
        r#"{"port":80,"comment":"x","chain":"FORWARD"}"#,
    ),
    ("a missing name", "generate-wallet", "{}"),
    ("a name as number", "generate-wallet", r#"{"name":1}"#),
    (
        "a key from the client",
        "generate-wallet",
        r#"{"name":"hot","key":"00"}"#,
    ),
    ("entries as a list", "addressbook-save", r#"{"entries":[]}"#),
    ("entries null", "addressbook-save", r#"{"entries":null}"#),
    (
        "an entry as a list",
        "addressbook-save",
        r#"{"entries":{"hot":["0x0000000000000000000000000000000000000001"]}}"#,
    ),
    (
        "an entry as a text",
        "addressbook-save",
        r#"{"entries":{"hot":"0x0000000000000000000000000000000000000001"}}"#,
    ),
    (
        "an entry without an address",
        "addressbook-save",
        r#"{"entries":{"hot":{}}}"#,
    ),
    (
        "an unknown field in an entry",
        "addressbook-save",
        r#"{"entries":{"hot":{"address":"0x0000000000000000000000000000000000000001","key":"00"}}}"#,
    ),
    (
        "a name with a climb",
        "addressbook-save",
        r#"{"entries":{"../x":{"address":"0x0000000000000000000000000000000000000001"}}}"#,
    ),
    (
        "a name with a newline",
        "addressbook-save",
        r#"{"entries":{"admin\n":{"address":"0x0000000000000000000000000000000000000001"}}}"#,
    ),
    (
        "a name that is empty",
        "addressbook-save",
        r#"{"entries":{"":{"address":"0x0000000000000000000000000000000000000001"}}}"#,
    ),
];
