//! Writes the seeds of every target: the hostile requests, and good ones, so that the fuzzer starts behind the envelope.

use std::path::Path;
use std::{fs, io};

use blockhost_proto::corpus::hostile_requests;

const GOOD: &[&str] = &[
    r#"{"action":"qm-create","params":{"vmid":100,"name":"web-1","args":["--memory","2048","--net0","virtio,bridge=vmbr0","--scsi0","local:4"]},"id":"1"}"#,
    r#"{"action":"qm-set","params":{"vmid":100,"options":{"ipconfig0":"ip=10.0.0.2/24,gw=10.0.0.1,ip6=fd00::2/128","cicustom":"user=local:snippets/a.yaml"}},"dry_run":true}"#,
    r#"{"action":"ip6-route-add","params":{"address":"fd00::1/128","dev":"vmbr0"}}"#,
    r#"{"action":"iptables-open","params":{"port":443,"proto":"tcp","comment":"web","source":"10.0.0.0/8"}}"#,
    r#"{"action":"addressbook-save","params":{"entries":{"hot":{"address":"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed","keyfile":"hot.key"}}}}"#,
    r#"{"action":"ledger-append","params":{"category":"chain","action":"minted","data":{"id":1,"tx":["a",null,true]}}}"#,
    r#"{"action":"pct-create","params":{"vmid":100,"template":"local:vztmpl/a.tar.zst","hostname":"a","options":{"rootfs":"local:4","net0":"name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=10.0.0.2/24,gw=10.0.0.1,ip6=auto,tag=7,rate=1.5","features":"nesting=1","unprivileged":1}}}"#,
    r#"{"action":"vm-throttle","params":{"vmid":100,"cpulimit":"0.5","cpuunits":50,"iops_rd":100,"rate_in_kbps":1000,"reset":true}}"#,
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

fn main() -> io::Result<()> {
    let root = Path::new("corpus");
    let put = |target: &str, name: String, bytes: &[u8]| {
        let directory = root.join(target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(name), bytes)
    };
    for (i, hostile) in hostile_requests()
        .iter()
        .enumerate()
        .filter(|(_, h)| h.bytes.len() < 2000)
    {
        put(
            "frame",
            format!("hostile-{i}"),
            &[&[7], hostile.bytes.as_slice()].concat(),
        )?;
        if let Some(payload) = hostile.bytes.get(4..) {
            put("json", format!("hostile-{i}"), payload)?;
            put("request", format!("hostile-{i}"), payload)?;
        }
    }
    for (i, text) in GOOD.iter().enumerate() {
        put("json", format!("good-{i}"), text.as_bytes())?;
        put("request", format!("good-{i}"), text.as_bytes())?;
    }
    for (i, text) in OPTIONS.iter().enumerate() {
        put("qm_option", format!("good-{i}"), text.as_bytes())?;
    }
    put(
        "response",
        "good".to_owned(),
        br#"{"ok":true,"output":"x","id":"1","receipt":{"index":1,"leaf":"0000000000000000000000000000000000000000000000000000000000000000"},"address":"0x"}"#,
    )?;
    put(
        "response",
        "refusal".to_owned(),
        br#"{"ok":false,"error":"no","code":"busy"}"#,
    )
}
