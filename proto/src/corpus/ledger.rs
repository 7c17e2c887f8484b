//! Parameters that break their types' rules, of the actions for the ledger and for what a broker gives.

pub(super) const PARAMS: &[(&str, &str, &str)] = &[
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
