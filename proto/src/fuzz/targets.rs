//! What this crate reads: frames, JSON, requests, answers, options and values.

use serde_json::Value;

use super::{Target, is_plain};
use crate::action::Action;
use crate::catalog::CATALOG;
use crate::corpus::hostile_requests;
use crate::json;
use crate::options::OneOption;
use crate::pct::PctOption;
use crate::qm::QmOption;
use crate::request::decode_request;
use crate::response::Response;
use crate::value::{
    BrokerEndpoint, Comment, CpuLimit, DiskSize, EthAddress, EventName, FileMode, GatewayIpv6,
    GuestPath, HostIpv6, HostSetting, IfName, ImagePath, KeyFile, L4Proto, MachinePrefix,
    NewWalletName, NextHop, PackageName, RouteNet, SnippetRef, SourceNet, StorageName, TemplateRef,
    Text, VmName, VolumeRef, WalletName,
};
use crate::wire::{FrameDecoder, HEADER, WireError};

/// All of this crate.
pub const TARGETS: &[Target] = &[
    Target {
        name: "frame",
        seeds: frame_seeds,
        run: frame,
    },
    Target {
        name: "json",
        seeds: payloads,
        run: strict_json,
    },
    Target {
        name: "request",
        seeds: payloads,
        run: request,
    },
    Target {
        name: "qm_option",
        seeds: || texts(OPTIONS),
        run: option::<QmOption>,
    },
    Target {
        name: "pct_option",
        seeds: || texts(CONTAINER_OPTIONS),
        run: option::<PctOption>,
    },
    Target {
        name: "response",
        seeds: || texts(RESPONSES),
        run: response,
    },
    Target {
        name: "value",
        seeds: || texts(VALUES),
        run: values,
    },
];

fn texts(list: &[&str]) -> Vec<Vec<u8>> {
    list.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn frame_seeds() -> Vec<Vec<u8>> {
    hostile_requests()
        .iter()
        .filter(|hostile| hostile.bytes.len() < 2000)
        .map(|hostile| [&[7], hostile.bytes.as_slice()].concat())
        .collect()
}

/// Good requests, one of every action, and the hostile ones.
fn payloads() -> Vec<Vec<u8>> {
    let mut list = texts(GOOD);
    list.extend(CATALOG.iter().map(|spec| {
        let params = spec.example_params();
        serde_json::json!({"action": spec.name, "params": params})
            .to_string()
            .into_bytes()
    }));
    list.extend(
        hostile_requests()
            .iter()
            .filter(|hostile| hostile.bytes.len() < 2000)
            .filter_map(|hostile| hostile.bytes.get(HEADER..).map(<[u8]>::to_vec)),
    );
    list
}

const GOOD: &[&str] = &[
    r#"{"action":"qm-create","params":{"vmid":100,"name":"web-1","args":["--memory","2048","--net0","virtio,bridge=vmbr0","--scsi0","local:4"]},"id":"1"}"#,
    r#"{"action":"qm-set","params":{"vmid":100,"options":{"ipconfig0":"ip=10.0.0.2/24,gw=10.0.0.1,ip6=fd00::2/128","cicustom":"user=local:snippets/a.yaml"}},"dry_run":true}"#,
    r#"{"action":"ip6-route-add","params":{"address":"fd00::1/128","dev":"vmbr0"}}"#,
    r#"{"action":"iptables-open","params":{"port":443,"proto":"tcp","comment":"web","source":"10.0.0.0/8"}}"#,
    r#"{"action":"addressbook-save","params":{"entries":{"hot":{"address":"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed","keyfile":"hot.key"}}}}"#,
    r#"{"action":"ledger-append","params":{"category":"chain","action":"minted","data":{"id":1,"tx":["a",null,true]}}}"#,
    r#"{"action":"pct-create","params":{"vmid":100,"template":"local:vztmpl/a.tar.zst","hostname":"a","options":{"rootfs":"local:4","net0":"name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=10.0.0.2/24,gw=10.0.0.1,ip6=auto,tag=7,rate=1.5","features":"nesting=1","unprivileged":1}}}"#,
    r#"{"action":"virt-customize","params":{"image_path":"a.qcow2","commands":[["install","a,b"],["--write","/etc/x:y"],["copy-in","site:/srv"],["chmod","0644:/etc/x"]]}}"#,
    r#"{"action":"qm-guest-exec","params":{"vmid":100,"command":"id","secret":true,"timeout":5}}"#,
];

const OPTIONS: &[&str] = &[
    "net0=virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,tag=7,rate=12.5,mtu=1500",
    "scsi0=local:9000/base-9000-disk-0.qcow2/101/vm-101-disk-0.qcow2,size=4G,ssd=1",
    "ide2=local:cloudinit,media=cdrom",
    "cpu=x86-64-v2-AES,flags=+aes;-pcid",
    "boot=order=scsi0;net0",
    "ipconfig0=ip=10.0.0.2/24,gw=10.0.0.1,ip6=fd00::2/128,gw6=fd00::1",
    "sshkeys=ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f a@b",
    "cicustom=user=local:snippets/a.yaml,vendor=local:snippets/b.yaml",
    "agent=1,fstrim_cloned_disks=1",
    "tags=a;b",
];

const CONTAINER_OPTIONS: &[&str] = &[
    "net0=name=eth0,bridge=vmbr0,ip=dhcp,ip6=fd00::2/128,gw6=fd00::1,firewall=1,tag=7,mtu=1400",
    "rootfs=local:8",
    "features=nesting=1,keyctl=0",
    "cpulimit=0.5",
    "nameserver=10.0.0.1 fd00::1",
    "ssh-public-keys=ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f a@b",
    "timezone=host",
    "tags=a;b",
];

const RESPONSES: &[&str] = &[
    r#"{"ok":true,"output":"x","id":"1","receipt":{"index":1,"leaf":"0000000000000000000000000000000000000000000000000000000000000000"},"address":"0x"}"#,
    r#"{"ok":false,"error":"no","code":"busy"}"#,
    r#"{"ok":true,"output":"\u00e9\ud83d\ude00","truncated":true,"exitcode":3,"stdout":"a","stderr":""}"#,
];

const VALUES: &[&str] = &[
    "web-1",
    "veth100i0",
    "local-lvm",
    "blockhost-443",
    "fd00:b10c::100/128",
    "2001:db8::1/128",
    "192.0.2.0/24",
    "::/0",
    "tcp",
    "/var/lib/blockhost/images/a.qcow2",
    "local:snippets/user-100.yaml",
    "/etc/blockhost/hot.key",
    "9000/base-9000-disk-0.qcow2/101/vm-101-disk-0.qcow2",
    "+10G",
    "64T",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "subscription-created",
    "local:vztmpl/debian-12-standard_amd64.tar.zst",
    "0.5",
    "0644",
    "libstdc++6",
    "/etc/cloud/cloud.cfg.d/99_x.cfg",
    "2001:db8:b10c::/64",
    "fe80::1",
    "broker.example:51820",
    "[2001:db8::1]:51820",
];

/// Streams cut anywhere: frames come out the same however the bytes arrive, and memory follows what arrived.
fn frame(data: &[u8]) {
    const LIMIT: usize = 300;
    fn frames(stream: &[u8], step: usize) -> (Vec<Vec<u8>>, Option<WireError>) {
        let mut decoder = FrameDecoder::new(LIMIT);
        let mut out = Vec::new();
        for part in stream.chunks(step) {
            decoder.feed(part);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => out.push(frame),
                    Ok(None) => break,
                    Err(error) => return (out, Some(error)),
                }
            }
            assert!(decoder.buffered() <= LIMIT + HEADER);
        }
        (out, None)
    }
    let Some((step, stream)) = data.split_first() else {
        return;
    };
    let one = frames(stream, 1);
    assert!(one.0.iter().all(|frame| (1..=LIMIT).contains(&frame.len())));
    assert_eq!(frames(stream, usize::from(*step).max(1)), one);
}

/// Strict JSON: what is accepted is accepted again as it is printed, and means what a laxer parser reads.
fn strict_json(data: &[u8]) {
    match json::parse(data) {
        Ok(value) => {
            let lax = serde_json::from_slice::<Value>(data).ok();
            assert_eq!(lax.as_ref(), Some(&value));
            assert!(json::parse(value.to_string().as_bytes()).is_ok());
        }
        Err(error) => assert!(is_plain(&error.to_string())),
    }
}

/// Payload to action: what is accepted comes back from its canonical form; messages are safe to log.
fn request(data: &[u8]) {
    match decode_request(data) {
        Ok(request) => {
            assert_eq!(decode_request(&request.encode()).as_ref(), Ok(&request));
            let action = &request.action;
            assert_eq!(
                Action::from_parts(action.name(), &action.params()).as_ref(),
                Ok(action)
            );
            let resource = action.ledger_resource();
            assert!(resource.bytes().all(|byte| byte.is_ascii_graphic()));
            let metadata = Value::Object(action.ledger_metadata()).to_string();
            assert!(metadata.len() < 60_000);
            let _ = (
                action.resources(),
                action.time_limit(),
                action.ledger_category(),
            );
        }
        Err(refusal) => {
            assert!(refusal.message.len() <= 512);
            for text in [Some(&refusal.message), refusal.action_name.as_ref()]
                .into_iter()
                .flatten()
            {
                assert!(is_plain(text));
            }
            assert!(!refusal.to_response().encode(1 << 20).is_empty());
        }
    }
}

/// Options of machines or containers, `key=value`: a canonical value means the same again.
fn option<O: OneOption>(data: &[u8]) {
    let text = std::str::from_utf8(data).ok();
    let Some((key, value)) = text.and_then(|text| text.split_once('=')) else {
        return;
    };
    match O::parse(key, value) {
        Ok(option) => {
            let canonical = option.value();
            check_canonical(key.starts_with("ssh"), &canonical);
            assert_eq!(option.key().to_string(), key);
            assert_eq!(O::parse(key, &canonical), Ok(option));
        }
        Err(error) => assert!(is_plain(&error.to_string())),
    }
}

fn check_canonical(lines: bool, canonical: &str) {
    assert!(!canonical.starts_with('-'), "{canonical:?} is an option");
    assert!(!canonical.contains('\0'));
    assert!(lines || is_plain(canonical), "{canonical:?}");
}

/// What a client makes of an answer, and that an answer fits its limit whatever it holds.
fn response(data: &[u8]) {
    if let Ok(response) = Response::decode(data) {
        let payload = response.encode(1024);
        assert!(payload.len() <= 1024);
        assert!(Response::decode(&payload).is_ok());
    }
}

/// Every type of text: what is accepted is printed canonically, is no option, and means the same again.
fn values(data: &[u8]) {
    fn one<T: Text + std::fmt::Display + PartialEq + std::fmt::Debug>(text: &str) {
        if let Some(value) = T::read(text) {
            let canonical = value.to_string();
            assert!(
                canonical.bytes().all(|byte| byte.is_ascii_graphic())
                    && !canonical.starts_with('-'),
                "{} {canonical:?}",
                T::KIND
            );
            let again = T::read(&canonical);
            assert_eq!(again.as_ref(), Some(&value), "{}", T::KIND);
            let twice = again.map(|value| value.to_string());
            assert_eq!(twice.as_deref(), Some(canonical.as_str()), "{}", T::KIND);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    one::<VmName>(text);
    one::<IfName>(text);
    one::<StorageName>(text);
    one::<Comment>(text);
    one::<EventName>(text);
    one::<HostIpv6>(text);
    one::<L4Proto>(text);
    one::<SourceNet>(text);
    one::<ImagePath>(text);
    one::<SnippetRef>(text);
    one::<KeyFile>(text);
    one::<VolumeRef>(text);
    one::<DiskSize>(text);
    one::<WalletName>(text);
    one::<EthAddress>(text);
    one::<NewWalletName>(text);
    one::<TemplateRef>(text);
    one::<CpuLimit>(text);
    one::<FileMode>(text);
    one::<GuestPath>(text);
    one::<PackageName>(text);
    one::<MachinePrefix>(text);
    one::<GatewayIpv6>(text);
    one::<BrokerEndpoint>(text);
    one::<RouteNet>(text);
    one::<NextHop>(text);
    one::<HostSetting>(text);
}
