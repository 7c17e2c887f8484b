//! Containers: options that reach the host, carry a second value, or are not what their key takes; templates that are
//! files of the host; and limits that are none.

use super::{Hostile, action};

pub(super) fn containers() -> Vec<Hostile> {
    let mut list = Vec::new();
    for (key, value) in OPTIONS {
        let set = format!(r#"{{"vmid":100,"options":{{"{key}":"{value}"}}}}"#);
        list.push(action(format!("pct-set {key}={value}"), "pct-set", &set));
        list.push(create(
            format!("pct-create {key}={value}"),
            &format!(r#""rootfs":"local:4","{key}":"{value}""#),
        ));
    }
    for (key, value) in AT_CREATION {
        list.push(create(
            format!("pct-create with {key}={value}"),
            &format!(r#""{key}":"{value}""#),
        ));
    }
    for (key, value) in NOT_LATER {
        let set = format!(r#"{{"vmid":100,"options":{{"{key}":"{value}"}}}}"#);
        list.push(action(format!("pct-set with {key}"), "pct-set", &set));
    }
    for (name, options) in SETS {
        let set = format!(r#"{{"vmid":100,"options":{options}}}"#);
        list.push(action(format!("pct-set options: {name}"), "pct-set", &set));
    }
    for template in TEMPLATES {
        let params = format!(
            r#"{{"vmid":100,"hostname":"a","template":"{template}","options":{{"rootfs":"local:4"}}}}"#
        );
        list.push(action(
            format!("pct-create template {template}"),
            "pct-create",
            &params,
        ));
    }
    for (name, verb, params) in PARAMS {
        list.push(action(format!("{verb}: {name}"), verb, params));
    }
    for verb in VERBS {
        for (name, vmid) in [
            ("true", "true"),
            ("a text", "\"100\""),
            ("99", "99"),
            ("1000000", "1000000"),
            ("2^32", "4294967396"),
            ("a float", "100.0"),
        ] {
            list.push(action(
                format!("{verb}: vmid {name}"),
                verb,
                &format!(r#"{{"vmid":{vmid}}}"#),
            ));
        }
    }
    list.extend([
        action(
            "container command of 16385 bytes",
            "pct-exec",
            &format!(r#"{{"vmid":100,"command":"{}"}}"#, "x".repeat(16_385)),
        ),
        action(
            "container template of 1025 bytes",
            "pct-create",
            &format!(
                r#"{{"vmid":100,"hostname":"a","template":"{}.tar","options":{{"rootfs":"local:4"}}}}"#,
                "x/".repeat(511)
            ),
        ),
    ]);
    list
}

fn create(name: String, options: &str) -> Hostile {
    let params = format!(
        r#"{{"vmid":100,"hostname":"a","template":"local:vztmpl/a.tar.zst","options":{{{options}}}}}"#
    );
    action(name, "pct-create", &params)
}

const VERBS: &[&str] = &[
    "pct-start",
    "pct-stop",
    "pct-shutdown",
    "pct-destroy",
    "pct-status",
    "pct-config",
];

const OPTIONS: &[(&str, &str)] = &[
    ("mp0", "/etc,mp=/mnt"),
    ("mp0", "local:4,mp=/mnt"),
    ("mp255", "/dev/sda,mp=/mnt"),
    ("dev0", "/dev/kvm"),
    ("dev0", "/dev/sda,mode=0666"),
    ("lxc.idmap", "u 0 0 65536"),
    ("lxc.mount.entry", "/ mnt none bind 0 0"),
    ("lxc.apparmor.profile", "unconfined"),
    ("lxc.hook.pre-start", "/tmp/x"),
    ("lxc.cap.drop", ""),
    ("lxc[0]", "x"),
    ("hookscript", "local:snippets/x.pl"),
    ("lock", "backup"),
    ("unused0", "local:100/vm-100-disk-0.raw"),
    ("startup", "order=1"),
    ("protection", "0"),
    ("template", "1"),
    ("force", "1"),
    ("restore", "1"),
    ("start", "1"),
    ("storage", "local"),
    ("password", "x"),
    ("pool", "x"),
    ("bwlimit", "1"),
    ("ignore-unpack-errors", "1"),
    ("unique", "1"),
    ("delete", "net0"),
    ("revert", "net0"),
    ("digest", "x"),
    ("skiplock", "1"),
    ("debug", "1"),
    ("console", "1"),
    ("cmode", "shell"),
    ("tty", "2"),
    ("entrypoint", "/bin/sh"),
    ("env", "A=b"),
    ("name", "a"),
    ("sshkeys", "x"),
    ("args", "-x"),
    ("", "x"),
    ("-memory", "512"),
    ("--memory", "512"),
    ("Memory", "512"),
    ("memory ", "512"),
    ("memory\\n", "512"),
    ("memory=512", "x"),
    ("arch", "host"),
    ("arch", "amd64\\nlxc.idmap: u 0 0 65536"),
    ("cores", "0"),
    ("cores", "257"),
    ("cores", "+1"),
    ("cpulimit", "129"),
    ("cpulimit", "128.01"),
    ("cpulimit", "-1"),
    ("cpulimit", "0.001"),
    ("cpulimit", ".5"),
    ("cpulimit", "1."),
    ("cpulimit", "1e1"),
    ("cpulimit", "nan"),
    ("cpuunits", "0"),
    ("cpuunits", "10001"),
    ("memory", ""),
    ("memory", "15"),
    ("memory", "4194305"),
    ("memory", "512 "),
    ("memory", "512,swap=1"),
    ("swap", "-1"),
    ("swap", "4194305"),
    ("onboot", "yes"),
    ("unprivileged", "0"),
    ("unprivileged", ""),
    ("unprivileged", "1,lxc.idmap=x"),
    ("features", ""),
    ("features", "mount=nfs"),
    ("features", "nesting=1,mount=cifs;nfs"),
    ("features", "mknod=1"),
    ("features", "force_rw_sys=1"),
    ("features", "nesting"),
    ("features", "nesting=2"),
    ("features", "nesting=1,nesting=0"),
    ("features", "nesting=1\\nmp0: /etc,mp=/mnt"),
    ("hostname", "-x"),
    ("hostname", "a.b"),
    ("hostname", "a\\nlxc.idmap: x"),
    ("ostype", "unmanaged"),
    ("ostype", "../../x"),
    ("timezone", "../../etc/shadow"),
    ("timezone", "/etc/shadow"),
    ("timezone", "Europe/../../x"),
    ("timezone", "Europe//Berlin"),
    ("timezone", "a/b/c/d"),
    ("timezone", "-x"),
    ("timezone", "a b"),
    ("tags", "a b"),
    ("tags", "a\\nhookscript: x"),
    ("description", "two\\nlines"),
    ("description", "-x"),
    ("description", "terminal \\u001b[2J"),
    ("nameserver", "127.0.0.53"),
    ("nameserver", "1.1.1.1,8.8.8.8"),
    ("nameserver", "host"),
    ("searchdomain", "a\\nb"),
    ("searchdomain", "-x"),
    ("net", "name=eth0,bridge=vmbr0"),
    ("net32", "name=eth0,bridge=vmbr0"),
    ("net00", "name=eth0,bridge=vmbr0"),
    ("net-1", "name=eth0,bridge=vmbr0"),
    ("net0", ""),
    ("net0", "name=eth0"),
    ("net0", "bridge=vmbr0"),
    ("net0", "name=lo,bridge=vmbr0"),
    ("net0", "name=../x,bridge=vmbr0"),
    ("net0", "name=-x,bridge=vmbr0"),
    ("net0", "name=eth0,name=eth1,bridge=vmbr0"),
    ("net0", "name=eth0,bridge=vmbr0,bridge=vmbr1"),
    ("net0", "name=eth0,bridge=-x"),
    ("net0", "name=eth0,bridge=vmbr0,script.up=/tmp/x"),
    ("net0", "name=eth0,bridge=vmbr0,type=phys"),
    ("net0", "name=eth0,bridge=vmbr0,link=eth0"),
    ("net0", "name=eth0,bridge=vmbr0,host-managed=1"),
    ("net0", "name=eth0,bridge=vmbr0,trunks=1-4094"),
    ("net0", "name=eth0,bridge=vmbr0,link_down=1"),
    ("net0", "name=eth0,bridge=vmbr0,hwaddr=01:00:5E:00:00:01"),
    ("net0", "name=eth0,bridge=vmbr0,hwaddr=00:00:00:00:00:00"),
    ("net0", "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00"),
    ("net0", "name=eth0,bridge=vmbr0,tag=0"),
    ("net0", "name=eth0,bridge=vmbr0,tag=4095"),
    ("net0", "name=eth0,bridge=vmbr0,rate=0"),
    ("net0", "name=eth0,bridge=vmbr0,rate=nan"),
    ("net0", "name=eth0,bridge=vmbr0,mtu=1"),
    ("net0", "name=eth0,bridge=vmbr0,mtu=99999"),
    ("net0", "name=eth0,bridge=vmbr0,firewall=2"),
    ("net0", "name=eth0,bridge=vmbr0,ip=10.0.0.2"),
    ("net0", "name=eth0,bridge=vmbr0,ip=10.0.0.2/33"),
    ("net0", "name=eth0,bridge=vmbr0,ip=127.0.0.1/8"),
    ("net0", "name=eth0,bridge=vmbr0,ip=manual"),
    ("net0", "name=eth0,bridge=vmbr0,ip=dhcp,gw=10.0.0.1"),
    ("net0", "name=eth0,bridge=vmbr0,gw=10.0.0.1"),
    (
        "net0",
        "name=eth0,bridge=vmbr0,ip=10.0.0.2/24,gw=10.0.0.1,gw=10.0.0.9",
    ),
    ("net0", "name=eth0,bridge=vmbr0,ip6=::1/128"),
    ("net0", "name=eth0,bridge=vmbr0,ip6=::ffff:10.0.0.1/128"),
    ("net0", "name=eth0,bridge=vmbr0,ip6=auto,gw6=fd00::1"),
    ("net0", "name=eth0,bridge=vmbr0,"),
    ("net0", "name=eth0,,bridge=vmbr0"),
    ("net0", "name=eth0,bridge=vmbr0\\nlxc.idmap: x"),
    ("net0", "name=eth0,bridge=vmbr0\\u0000"),
];

/// `rootfs`, keys, and what is missing beside them.
const AT_CREATION: &[(&str, &str)] = &[
    ("memory", "512"),
    ("rootfs", ""),
    ("rootfs", "local"),
    ("rootfs", "local:"),
    ("rootfs", "local:0"),
    ("rootfs", "local:65537"),
    ("rootfs", "local:1.5"),
    ("rootfs", "local:+1"),
    ("rootfs", "-local:1"),
    ("rootfs", "/dev/sda"),
    ("rootfs", "/"),
    ("rootfs", "volume=/"),
    ("rootfs", "local:/dev/sda"),
    ("rootfs", "local:100/vm-100-disk-0.raw"),
    ("rootfs", "local:vm-101-disk-0"),
    ("rootfs", "local:4,mountoptions=exec"),
    ("rootfs", "local:4,shared=1"),
    ("rootfs", "local:4,acl=1"),
    ("rootfs", "local:4\\nmp0: /etc,mp=/mnt"),
    ("ssh-public-keys", "/root/.ssh/id_rsa.pub"),
    ("ssh-public-keys", "ssh-ed25519 AAAA"),
    ("ssh-public-keys", ""),
];

const NOT_LATER: &[(&str, &str)] = &[
    ("rootfs", "local:8"),
    ("unprivileged", "1"),
    (
        "ssh-public-keys",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
    ),
];

const SETS: &[(&str, &str)] = &[
    ("a list", "[\"--memory\",\"512\"]"),
    ("a list of pairs", "[[\"memory\",\"512\"]]"),
    ("a text", "\"memory=512\""),
    ("null", "null"),
    ("empty", "{}"),
    ("a boolean as value", "{\"onboot\":true}"),
    ("null as value", "{\"net0\":null}"),
    ("a float as value", "{\"cpulimit\":0.5}"),
    ("a big number as value", "{\"memory\":18446744073709551617}"),
    ("an object as value", "{\"net0\":{\"bridge\":\"vmbr0\"}}"),
];

const TEMPLATES: &[&str] = &[
    "",
    "-",
    "--",
    "/etc/shadow",
    "/etc/passwd.tar/../shadow",
    "../x.tar",
    ".x.tar",
    ".tar",
    "x",
    "x.iso",
    "x.tar.lzo",
    "x.tar.gz\\n",
    "x.tar.gz ",
    "x.tar.gz,y",
    "a//b.tar",
    "-x.tar",
    "local:x.tar",
    "local:vztmpl/",
    "local:vztmpl/../x.tar",
    "local:vztmpl/a/b.tar",
    "local:vztmpl/.tar",
    "local:vztmpl/-x.tar",
    "local:iso/x.tar",
    "local:backup/vzdump-lxc-101.tar.zst",
    "-local:vztmpl/x.tar",
    "Local:vztmpl/x.tar",
    ":vztmpl/x.tar",
    "local:vztmpl/x.tar:y.tar",
    "http://example.org/x.tar",
    "local:vztmpl/x.tar\\u0000",
];

const PARAMS: &[(&str, &str, &str)] = &[
    (
        "no options",
        "pct-create",
        r#"{"vmid":100,"hostname":"a","template":"local:vztmpl/a.tar"}"#,
    ),
    (
        "no template",
        "pct-create",
        r#"{"vmid":100,"hostname":"a","options":{"rootfs":"local:4"}}"#,
    ),
    (
        "the host name a second time",
        "pct-create",
        r#"{"vmid":100,"hostname":"a","template":"local:vztmpl/a.tar","options":{"rootfs":"local:4","hostname":"b"}}"#,
    ),
    (
        "a template as a list",
        "pct-create",
        r#"{"vmid":100,"hostname":"a","template":["local:vztmpl/a.tar"],"options":{"rootfs":"local:4"}}"#,
    ),
    ("force", "pct-destroy", r#"{"vmid":100,"force":true}"#),
    (
        "a number as flag",
        "pct-destroy",
        r#"{"vmid":100,"template":1}"#,
    ),
    ("skiplock", "pct-start", r#"{"vmid":100,"skiplock":true}"#),
    ("a parameter", "pct-list", r#"{"vmid":100}"#),
    (
        "601 seconds",
        "pct-shutdown",
        r#"{"vmid":100,"timeout":601}"#,
    ),
    (
        "0 seconds",
        "pct-exec",
        r#"{"vmid":100,"command":"id","timeout":0}"#,
    ),
    (
        "an empty command",
        "pct-exec",
        r#"{"vmid":100,"command":""}"#,
    ),
    (
        "a command as a list",
        "pct-exec",
        r#"{"vmid":100,"command":["id"]}"#,
    ),
    (
        "NUL in a command",
        "pct-exec",
        r#"{"vmid":100,"command":"id\u0000"}"#,
    ),
    (
        "options and config at once",
        "pct-set",
        r#"{"vmid":100,"options":{"cores":"1"},"config":{"cores":"2"}}"#,
    ),
    ("nothing to change", "vm-throttle", r#"{"vmid":100}"#),
    (
        "reset false alone",
        "vm-throttle",
        r#"{"vmid":100,"reset":false}"#,
    ),
    (
        "reset as a number",
        "vm-throttle",
        r#"{"vmid":100,"reset":1}"#,
    ),
    ("cpuunits 0", "vm-throttle", r#"{"vmid":100,"cpuunits":0}"#),
    (
        "cpuunits 10001",
        "vm-throttle",
        r#"{"vmid":100,"cpuunits":10001}"#,
    ),
    (
        "cpuunits as a text",
        "vm-throttle",
        r#"{"vmid":100,"cpuunits":"100"}"#,
    ),
    (
        "cpulimit as a float",
        "vm-throttle",
        r#"{"vmid":100,"cpulimit":0.5}"#,
    ),
    (
        "cpulimit 129",
        "vm-throttle",
        r#"{"vmid":100,"cpulimit":129}"#,
    ),
    (
        "cpulimit -1",
        "vm-throttle",
        r#"{"vmid":100,"cpulimit":-1}"#,
    ),
    (
        "cpulimit with a sign",
        "vm-throttle",
        r#"{"vmid":100,"cpulimit":"+1"}"#,
    ),
    (
        "cpulimit with a comma",
        "vm-throttle",
        r#"{"vmid":100,"cpulimit":"0,5"}"#,
    ),
    (
        "cpulimit true",
        "vm-throttle",
        r#"{"vmid":100,"cpulimit":true}"#,
    ),
    ("iops 0", "vm-throttle", r#"{"vmid":100,"iops_rd":0}"#),
    (
        "iops 2^32",
        "vm-throttle",
        r#"{"vmid":100,"iops_wr":4294967297}"#,
    ),
    (
        "a rate as a text",
        "vm-throttle",
        r#"{"vmid":100,"rate_in_kbps":"1mbit"}"#,
    ),
    (
        "a rate of 0",
        "vm-throttle",
        r#"{"vmid":100,"rate_out_kbps":0}"#,
    ),
    (
        "a rate of 2^53",
        "vm-throttle",
        r#"{"vmid":100,"rate_in_kbps":9007199254740993}"#,
    ),
    (
        "a drive",
        "vm-throttle",
        r#"{"vmid":100,"scsi0":"local:1"}"#,
    ),
    (
        "a rate",
        "pve-set-throttle",
        r#"{"vmid":100,"rate_in_kbps":1000}"#,
    ),
    ("nothing to change", "pve-set-throttle", r#"{"vmid":100}"#),
    ("cpuunits", "tc-rate-limit", r#"{"vmid":100,"cpuunits":10}"#),
    ("nothing to change", "tc-rate-limit", r#"{"vmid":100}"#),
    (
        "a device",
        "tc-rate-limit",
        r#"{"vmid":100,"dev":"eth0","rate_in_kbps":1000}"#,
    ),
    (
        "a vmid of 2^32+100",
        "tc-rate-limit",
        r#"{"vmid":4294967396,"reset":true}"#,
    ),
    (
        "limits on the processor",
        "qm-set",
        r#"{"vmid":100,"options":{"cpulimit":"1"}}"#,
    ),
    (
        "a weight of the processor",
        "qm-set",
        r#"{"vmid":100,"options":{"cpuunits":"10000"}}"#,
    ),
    (
        "limits on the processor",
        "qm-create",
        r#"{"vmid":100,"name":"a","args":["--cpulimit","1"]}"#,
    ),
];
