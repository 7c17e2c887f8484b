//! Parameters that break their types' rules, for every family but the options of machines.

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

const NOT_A_VMID: &[(&str, &str)] = &[
    ("missing value null", "null"),
    ("true", "true"),
    ("false", "false"),
    ("a text", "\"100\""),
    ("a text with an option", "\"100 --purge\""),
    ("a float", "100.0"),
    ("a fraction", "100.5"),
    ("an exponent", "1e2"),
    ("an exponent in capitals", "1E2"),
    ("zero", "0"),
    ("minus zero", "-0"),
    ("99", "99"),
    ("a million", "1000000"),
    ("negative", "-100"),
    ("2^32", "4294967296"),
    ("2^32 + 100, which wraps to 100", "4294967396"),
    ("2^63", "9223372036854775808"),
    ("2^64 - 1", "18446744073709551615"),
    ("2^64 + 100, which wraps to 100", "18446744073709551716"),
    ("a bignum", "100000000000000000000000000000000000000000"),
    ("a list", "[100]"),
    ("an object", "{\"vmid\":100}"),
    ("Arabic digits", "\"\u{661}\u{660}\u{660}\""),
];

const NOT_A_PORT: &[(&str, &str)] = &[
    ("true, which Python takes for 1", "true"),
    ("zero", "0"),
    ("65536", "65536"),
    ("65616, which wraps to 80", "65616"),
    ("negative", "-80"),
    ("a text", "\"80\""),
    ("a text with a plus", "\"+80\""),
    ("a range", "\"1:65535\""),
    ("a list of ports", "[80,443]"),
    ("a float", "80.0"),
];

const NOT_A_HOST: &[(&str, &str)] = &[
    ("empty", ""),
    ("without a prefix", "fd00::1"),
    ("with /64", "fd00::/64"),
    ("with /0", "::/0"),
    ("with /0128", "fd00::1/0128"),
    ("with /128/128", "fd00::1/128/128"),
    ("unspecified", "::/128"),
    ("loopback", "::1/128"),
    ("link-local", "fe80::1/128"),
    ("site-local", "fec0::1/128"),
    ("multicast", "ff02::1/128"),
    ("v4-mapped", "::ffff:10.0.0.1/128"),
    ("v4-mapped in hexadecimal", "::ffff:a00:1/128"),
    ("v4-compatible", "::10.0.0.1/128"),
    ("NAT64", "64:ff9b::1/128"),
    ("IPv4", "10.0.0.1/32"),
    ("with a zone", "fe80::1%eth0/128"),
    ("with a zone on a global address", "2001:db8::1%1/128"),
    ("in brackets", "[fd00::1]/128"),
    ("with a space in front", " fd00::1/128"),
    ("with a newline behind", "fd00::1/128\\n"),
    ("with a NUL behind", "fd00::1/128\\u0000"),
    ("with an option behind", "fd00::1/128 dev lo"),
    ("a word", "default"),
    ("an option", "-6"),
    ("fullwidth digits", "fd00::\u{ff11}/128"),
];

const NOT_A_DEVICE: &[(&str, &str)] = &[
    ("empty", ""),
    ("a dot", "."),
    ("two dots", ".."),
    ("a path", "../net"),
    ("a slash", "eth/0"),
    ("an option", "-all"),
    ("a space", "eth0 table"),
    ("a newline", "eth0\\n"),
    ("a NUL", "eth0\\u0000"),
    ("a colon", "eth0:1"),
    ("an at sign", "eth0@if2"),
    ("sixteen bytes", "abcdefghijklmnop"),
    ("a look-alike letter", "vmbr\u{43e}"),
];

const NOT_A_COMMENT: &[(&str, &str)] = &[
    ("empty", ""),
    ("an option", "--jump"),
    ("one dash", "-"),
    ("a space", "a b"),
    ("a quote", "a\\\" -j ACCEPT"),
    ("a newline and a rule", "a\\n-A INPUT -j ACCEPT"),
    ("a newline behind", "a\\n"),
    ("a NUL", "a\\u0000b"),
    ("a comma", "a,b"),
    (
        "65 bytes",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ),
    ("a right-to-left mark", "a\u{202e}b"),
];

const NOT_A_SOURCE: &[(&str, &str)] = &[
    ("empty", ""),
    ("a name", "example.org"),
    ("a negation", "!10.0.0.0/8"),
    ("two addresses", "10.0.0.1,10.0.0.2"),
    ("a range", "10.0.0.1-10.0.0.9"),
    ("host bits", "10.0.0.1/8"),
    ("host bits in IPv6", "fd00::1/64"),
    ("prefix 33", "10.0.0.0/33"),
    ("prefix 129", "fd00::/129"),
    ("prefix with a plus", "10.0.0.0/+8"),
    ("prefix with a zero in front", "10.0.0.0/08"),
    ("a netmask", "10.0.0.0/255.0.0.0"),
    ("octal", "010.0.0.1"),
    ("three parts", "10.0.1"),
    ("one number", "167772161"),
    ("v4-mapped", "::ffff:10.0.0.1"),
    ("loopback", "127.0.0.1"),
    ("IPv6 loopback", "::1"),
    ("multicast", "224.0.0.1"),
    ("an option behind", "10.0.0.1 -j ACCEPT"),
    ("a newline and a rule", "10.0.0.1\\n-A INPUT -j ACCEPT"),
    ("a NUL behind", "10.0.0.1\\u0000"),
];

const NOT_AN_IMAGE: &[(&str, &str)] = &[
    ("empty", ""),
    ("the parent", ".."),
    ("a climb", "../../../etc/shadow"),
    ("a climb in the middle", "a/../../b"),
    (
        "a climb behind the allowed directory",
        "/var/lib/blockhost/images/../../../../etc/shadow",
    ),
    (
        "a sibling by prefix and climb",
        "/var/lib/blockhost/images/../images-evil/x",
    ),
    ("a dot", "./x.qcow2"),
    ("a double slash", "a//b"),
    ("a slash behind", "a/"),
    ("the root", "/"),
    ("two slashes in front", "//etc/shadow"),
    ("an option", "--format=raw"),
    ("an option in a directory", "a/-o"),
    ("a hidden file", ".ssh"),
    ("a NUL", "a.qcow2\\u0000.png"),
    ("a newline", "a.qcow2\\n"),
    ("a protocol of QEMU", "nbd:localhost:10809"),
    (
        "a JSON file name of QEMU",
        "json:{\\\"driver\\\":\\\"file\\\"}",
    ),
    ("a URL", "https://example.org/x.qcow2"),
    ("a comma", "a.qcow2,backing=/etc/shadow"),
    ("a backslash", "a\\\\b"),
    ("percent encoding", "%2e%2e/x"),
    ("a look-alike dot", "\u{2024}\u{2024}/x"),
    ("a look-alike slash", "a\u{2215}b"),
    ("a tilde", "~root/x"),
    ("a variable", "$HOME/x"),
];

const NOT_A_WALLET: &[(&str, &str)] = &[
    ("reserved admin", "admin"),
    ("reserved server", "server"),
    ("reserved dev", "dev"),
    ("reserved broker", "broker"),
    ("reserved with a capital", "Admin"),
    ("reserved with a space", "admin "),
    ("reserved with a newline", "admin\\n"),
    ("reserved with a NUL", "admin\\u0000"),
    ("reserved with a Cyrillic letter", "\u{430}dmin"),
    ("empty", ""),
    ("an option", "-hot"),
    ("a climb", "../hot"),
    ("a path", "wireguard/hot"),
    ("a dot", "hot.key"),
    ("33 bytes", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
];

const NOT_A_KEYFILE: &[(&str, &str)] = &[
    ("a climb", "\"../shadow\""),
    ("a climb from the directory", "\"/etc/blockhost/../shadow\""),
    ("another directory", "\"/etc/shadow\""),
    ("a directory below", "\"/etc/blockhost/wireguard/wg0.key\""),
    ("a directory by prefix", "\"/etc/blockhost-evil/hot.key\""),
    ("the directory itself", "\"/etc/blockhost/\""),
    ("empty", "\"\""),
    ("hidden", "\".key\""),
    ("an option", "\"-key\""),
    ("a newline", "\"hot.key\\n\""),
    ("a NUL", "\"hot.key\\u0000\""),
    ("null", "null"),
    ("a list", "[\"hot.key\"]"),
];

const NOT_AN_ADDRESS: &[(&str, &str)] = &[
    (
        "missing prefix",
        "\"0000000000000000000000000000000000000001\"",
    ),
    ("39 digits", "\"0x000000000000000000000000000000000000001\""),
    (
        "41 digits",
        "\"0x00000000000000000000000000000000000000001\"",
    ),
    (
        "a capital X",
        "\"0X0000000000000000000000000000000000000001\"",
    ),
    (
        "not hexadecimal",
        "\"0x000000000000000000000000000000000000000g\"",
    ),
    (
        "fullwidth digits",
        "\"0x000000000000000000000000000000000000000\u{ff11}\"",
    ),
    (
        "a newline",
        "\"0x0000000000000000000000000000000000000001\\n\"",
    ),
    (
        "a sign among the digits",
        "\"0x+000000000000000000000000000000000000001\"",
    ),
    ("a number", "1"),
    ("null", "null"),
];

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
        "a resource with a newline",
        "ledger-append",
        r#"{"category":"chain","action":"x","resource":"a\nb","data":{}}"#,
    ),
];
