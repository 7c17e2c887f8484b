//! Parameters that break their types' rules, for every family but the options of machines.

use super::values::{
    NOT_A_COMMENT, NOT_A_DEVICE, NOT_A_HOST, NOT_A_KEYFILE, NOT_A_PORT, NOT_A_SOURCE, NOT_A_VMID,
    NOT_A_WALLET, NOT_AN_ADDRESS, NOT_AN_IMAGE,
};
use super::{Hostile, action};

pub(super) fn params() -> Vec<Hostile> {
    let mut list: Vec<Hostile> = PARAMS
        .iter()
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
    (
        "data as a list",
        "ledger-append",
        r#"{"category":"chain","action":"x","data":[]}"#,
    ),
    (
        "data with a float",
        "ledger-append",
        r#"{"category":"chain","action":"x","data":{"a":1.5}}"#,
    ),
    (
        "data with an integer beyond 2^53",
        "ledger-append",
        r#"{"category":"chain","action":"x","data":{"a":9007199254740992}}"#,
    ),
    (
        "data with a negative integer beyond 2^53",
        "ledger-append",
        r#"{"category":"chain","action":"x","data":{"a":-9007199254740992}}"#,
    ),
    (
        "data with a space in a key",
        "ledger-append",
        r#"{"category":"chain","action":"x","data":{"a b":1}}"#,
    ),
    (
        "data with a look-alike key",
        "ledger-append",
        "{\"category\":\"chain\",\"action\":\"x\",\"data\":{\"u\u{456}d\":1}}",
    ),
    (
        "data with U+007F",
        "ledger-append",
        "{\"category\":\"chain\",\"action\":\"x\",\"data\":{\"a\":\"\u{7f}\"}}",
    ),
    (
        "data nested 10 deep",
        "ledger-append",
        r#"{"category":"chain","action":"x","data":{"a":[[[[[[[[[1]]]]]]]]]}}"#,
    ),
    (
        "the name of an action of the agent",
        "ledger-append",
        r#"{"category":"compute","action":"qm-destroy","data":{}}"#,
    ),
    (
        "a claimed uid",
        "ledger-append",
        r#"{"category":"chain","action":"x","data":{},"uid":0}"#,
    ),
    (
        "a claimed phase",
        "ledger-append",
        r#"{"category":"chain","action":"x","data":{},"phase":"outcome"}"#,
    ),
    (
        "a category with a newline",
        "ledger-append",
        r#"{"category":"chain\n","action":"x","data":{}}"#,
    ),
    (
        "an anchor of an empty ledger",
        "ledger-anchored",
        r#"{"chain_id":1,"contract":"0x0000000000000000000000000000000000000001","tx":"0xabababababababababababababababababababababababababababababababab","block":5,"size":0,"root":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","head_size":8,"proof":[]}"#,
    ),
    (
        "an anchor beyond the head",
        "ledger-anchored",
        r#"{"chain_id":1,"contract":"0x0000000000000000000000000000000000000001","tx":"0xabababababababababababababababababababababababababababababababab","block":5,"size":9,"root":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","head_size":8,"proof":[]}"#,
    ),
    (
        "an anchored size beyond 2^53",
        "ledger-anchored",
        r#"{"chain_id":1,"contract":"0x0000000000000000000000000000000000000001","tx":"0xabababababababababababababababababababababababababababababababab","block":5,"size":6,"root":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","head_size":9007199254740992,"proof":[]}"#,
    ),
    (
        "chain id 0",
        "ledger-anchored",
        r#"{"chain_id":0,"contract":"0x0000000000000000000000000000000000000001","tx":"0xabababababababababababababababababababababababababababababababab","block":5,"size":6,"root":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","head_size":8,"proof":[]}"#,
    ),
    (
        "a root in upper case",
        "ledger-anchored",
        r#"{"chain_id":1,"contract":"0x0000000000000000000000000000000000000001","tx":"0xabababababababababababababababababababababababababababababababab","block":5,"size":6,"root":"CDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCD","head_size":8,"proof":[]}"#,
    ),
    (
        "a root too short",
        "ledger-anchored",
        r#"{"chain_id":1,"contract":"0x0000000000000000000000000000000000000001","tx":"0xabababababababababababababababababababababababababababababababab","block":5,"size":6,"root":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","head_size":8,"proof":[]}"#,
    ),
    (
        "a transaction hash without 0x",
        "ledger-anchored",
        r#"{"chain_id":1,"contract":"0x0000000000000000000000000000000000000001","tx":"abababababababababababababababababababababababababababababababab","block":5,"size":6,"root":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","head_size":8,"proof":[]}"#,
    ),
    (
        "a proof with a hash too short",
        "ledger-anchored",
        r#"{"chain_id":1,"contract":"0x0000000000000000000000000000000000000001","tx":"0xabababababababababababababababababababababababababababababababab","block":5,"size":6,"root":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","head_size":8,"proof":["00"]}"#,
    ),
    (
        "a proof of numbers",
        "ledger-anchored",
        r#"{"chain_id":1,"contract":"0x0000000000000000000000000000000000000001","tx":"0xabababababababababababababababababababababababababababababababab","block":5,"size":6,"root":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","head_size":8,"proof":[1]}"#,
    ),
    (
        "a claimed phase of an anchor",
        "ledger-anchored",
        r#"{"chain_id":1,"contract":"0x0000000000000000000000000000000000000001","tx":"0xabababababababababababababababababababababababababababababababab","block":5,"size":6,"root":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","head_size":8,"proof":[],"phase":"outcome"}"#,
    ),
    (
        "a resource with a newline",
        "ledger-append",
        r#"{"category":"chain","action":"x","resource":"a\nb","data":{}}"#,
    ),
    (
        "a plain file",
        "ledger-blob",
        r#"{"category":"network","action":"x","ciphertext":"cGFzc3dvcmQ6IGh1bnRlcjI="}"#,
    ),
    (
        "a plain file behind the first line of an encrypted one",
        "ledger-blob",
        r#"{"category":"network","action":"x","ciphertext":"YWdlLWVuY3J5cHRpb24ub3JnL3YxCnBhc3N3b3JkOiBodW50ZXIyCmFuZCBlbm91Z2ggbW9yZSBmb3IgYSBwYXlsb2FkIG9mIHRoYXQgZm9ybQo="}"#,
    ),
    (
        "an encrypted file with a line break in its base64",
        "ledger-blob",
        r#"{"category":"network","action":"x","ciphertext":"YWdlLWVuY3J5cHRpb24u\nb3JnL3YxCg=="}"#,
    ),
    (
        "no file",
        "ledger-blob",
        r#"{"category":"network","action":"x","ciphertext":""}"#,
    ),
    (
        "the name of an action of the agent",
        "ledger-blob",
        r#"{"category":"storage","action":"ledger-shred","ciphertext":"YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSA4ZjdOb3lRbWtMNUJPU0lyQmF1cFBoVlFudm1OVDBreG9lTnR1L29sVWlzClJ1bGRqcGJtRmtMb2phOFAvVVVqYlYxNEtGNXlnVE9VOGtuUTJrQVR0RzQKLS0tIFNSaEl4NUF2MTRhdzB3TTc4OGp2ejRNSmlPWnFXNHdXN0FlY0Q3eEhWTEkK9Xy2Aekvv3hH1TGjFdE3ngEaORKQ1ekH6qclBGiXfWvI4ccYVYoKC1kUUKV4sGTa6PHe"}"#,
    ),
    (
        "a claimed hash",
        "ledger-blob",
        r#"{"category":"network","action":"x","ciphertext":"YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSA4ZjdOb3lRbWtMNUJPU0lyQmF1cFBoVlFudm1OVDBreG9lTnR1L29sVWlzClJ1bGRqcGJtRmtMb2phOFAvVVVqYlYxNEtGNXlnVE9VOGtuUTJrQVR0RzQKLS0tIFNSaEl4NUF2MTRhdzB3TTc4OGp2ejRNSmlPWnFXNHdXN0FlY0Q3eEhWTEkK9Xy2Aekvv3hH1TGjFdE3ngEaORKQ1ekH6qclBGiXfWvI4ccYVYoKC1kUUKV4sGTa6PHe","sha256":"00"}"#,
    ),
    (
        "a path as hash",
        "ledger-shred",
        r#"{"sha256":"../../checkpoint","reason":"x"}"#,
    ),
    (
        "a hash in capitals",
        "ledger-shred",
        r#"{"sha256":"ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789","reason":"x"}"#,
    ),
    (
        "a hash that is a digit short",
        "ledger-shred",
        r#"{"sha256":"abcdef0123456789abcdef0123456789abcdef0123456789abcdef012345678","reason":"x"}"#,
    ),
    (
        "no reason",
        "ledger-shred",
        r#"{"sha256":"abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789"}"#,
    ),
    (
        "a reason with a newline",
        "ledger-shred",
        r#"{"sha256":"abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789","reason":"a\nb"}"#,
    ),
    (
        "a pruning below height 0",
        "ledger-prune",
        r#"{"before":0,"reason":"x"}"#,
    ),
    (
        "a pruning below nothing",
        "ledger-prune",
        r#"{"reason":"x"}"#,
    ),
    (
        "a pruning for no reason",
        "ledger-prune",
        r#"{"before":65537}"#,
    ),
    (
        "a pruning below a text",
        "ledger-prune",
        r#"{"before":"65537","reason":"x"}"#,
    ),
    (
        "a pruning below more than a ledger can have",
        "ledger-prune",
        r#"{"before":9007199254740993,"reason":"x"}"#,
    ),
    (
        "a pruning that says how old",
        "ledger-prune",
        r#"{"before":65537,"reason":"x","older_than_days":0}"#,
    ),
    (
        "a checkpoint without signatures",
        "ledger-cosign",
        r#"{"checkpoint":"h/l\n8\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"}"#,
    ),
    (
        "a checkpoint that does not end its line",
        "ledger-cosign",
        r#"{"checkpoint":"h/l\n8\nCsU=\n\n\u2014 w AAAA"}"#,
    ),
    (
        "a checkpoint with a terminal's command",
        "ledger-cosign",
        r#"{"checkpoint":"h/l\n8\n\u001b[2J\n\n\u2014 w AAAA\n"}"#,
    ),
    (
        "a checkpoint with a carriage return",
        "ledger-cosign",
        r#"{"checkpoint":"h/l\r\n8\n\n\u2014 w AAAA\n"}"#,
    ),
    ("no prefix", "broker-renew", "{}"),
    (
        "a prefix as a list",
        "broker-renew",
        r#"{"prefix":["fd77::/64"]}"#,
    ),
    (
        "a prefix with host bits",
        "broker-renew",
        r#"{"prefix":"fd77::1/64"}"#,
    ),
    (
        "a third of the internet",
        "broker-renew",
        r#"{"prefix":"2000::/3"}"#,
    ),
    (
        "a link-local prefix",
        "broker-renew",
        r#"{"prefix":"fe80::/64"}"#,
    ),
    (
        "a prefix with a newline",
        "broker-renew",
        r#"{"prefix":"fd77::/64\n"}"#,
    ),
    (
        "a gateway outside the prefix",
        "broker-renew",
        r#"{"prefix":"fd77::/64","gateway":"fd78::1"}"#,
    ),
    (
        "a gateway of the other family",
        "broker-renew",
        r#"{"prefix":"fd77::/64","gateway":"10.0.0.1"}"#,
    ),
    (
        "a key that is no key",
        "broker-renew",
        r#"{"prefix":"fd77::/64","broker_pubkey":"AAAA"}"#,
    ),
    (
        "an address to fetch from",
        "broker-renew",
        r#"{"prefix":"fd77::/64","broker_endpoint":"https://broker.example:443"}"#,
    ),
    (
        "an endpoint with a second value behind it",
        "broker-renew",
        r#"{"prefix":"fd77::/64","broker_endpoint":"broker.example:51820\nPrivateKey=x"}"#,
    ),
    (
        "an endpoint of the host itself",
        "broker-renew",
        r#"{"prefix":"fd77::/64","broker_endpoint":"127.0.0.1:51820"}"#,
    ),
    (
        "a flag as a text",
        "broker-renew",
        r#"{"prefix":"fd77::/64","replace":"true"}"#,
    ),
    (
        "a key of another program",
        "broker-renew",
        r#"{"prefix":"fd77::/64","lease":{"until":7}}"#,
    ),
    (
        "a lease that ended with the epoch",
        "broker-renew",
        r#"{"prefix":"fd77::/64","lease_until":7}"#,
    ),
    (
        "a lease in milliseconds",
        "broker-renew",
        r#"{"prefix":"fd77::/64","lease_until":1800000000000}"#,
    ),
    (
        "a lease that ends before time began",
        "broker-renew",
        r#"{"prefix":"fd77::/64","lease_until":-1}"#,
    ),
    (
        "a lease as a text",
        "broker-renew",
        r#"{"prefix":"fd77::/64","lease_until":"1800000000"}"#,
    ),
    (
        "a lease with a fraction",
        "broker-renew",
        r#"{"prefix":"fd77::/64","lease_until":1800000000.5}"#,
    ),
    (
        "a file of its own",
        "broker-renew",
        r#"{"prefix":"fd77::/64","file":"../../root/x"}"#,
    ),
    (
        "a key of the client's own",
        "ledger-rotate-key",
        r#"{"vkey":"h/l+0a1b2c3d+AQ=="}"#,
    ),
];
