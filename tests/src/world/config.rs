//! The configuration files of a world, with the names and keys an operator would write.

use std::time::Duration;

use k256::elliptic_curve::sec1::ToEncodedPoint;

use super::{World, WorldError, at, write_file};
use crate::command::{run, with_args};

/// Id of the local chain; the engine waits for no confirmations there.
pub const CHAIN_ID: u64 = 31_337;
/// Where the local chain listens inside the world.
pub const RPC_URL: &str = "http://127.0.0.1:8545";
/// Vmid of the base template.
pub const TEMPLATE_VMID: u32 = 9000;
/// What customers sign; public, and the same for all of them.
pub const PUBLIC_SECRET: &str = "blockhost-access";

/// Everything that is known before there are contracts.
pub(super) fn write_static(world: &World) -> Result<(), WorldError> {
    let etc = world.layout.etc();
    let group = world.blockhost.gid;
    let public = |name: &str, content: &str| write_file(&etc.join(name), content, 0, group, 0o644);
    let secret = |name: &str, content: &str| write_file(&etc.join(name), content, 0, group, 0o640);

    public(
        "db.yaml",
        "db_file: /var/lib/blockhost/vms.json\n\
         terraform_dir: /var/lib/blockhost/terraform\n\
         vmid_range: {start: 100, end: 999}\n\
         ip_pool: {network: '10.77.0.0/24', start: 100, end: 200, gateway: '10.77.0.1'}\n\
         ipv6_pool: {start: 2, end: 254}\n\
         gc_grace_days: 7\n\
         default_expiry_days: 30\n",
    )?;
    public(
        "broker-allocation.json",
        "{\"prefix\": \"fd77:b10c::/64\", \"gateway\": \"fd77:b10c::1\"}\n",
    )?;

    public(
        "admin-commands.json",
        r#"{"commands": {"let-me-in": {"action": "knock", "params": {"allowed_ports": [22], "default_duration": 5}}}}"#,
    )?;

    let server = random_key();
    secret("server.key", &hex::encode(server.to_bytes()))?;
    let point = server.public_key().to_encoded_point(false);
    public(
        "server.pubkey",
        &format!("0x{}", hex::encode(point.as_bytes())),
    )?;
    secret("deployer.key", &hex::encode(random_key().to_bytes()))?;

    // The agent's policy: the built programs instead of the packaged ones, everything else as shipped. One that this world
    // does without is not named: the agent does not start with a program that is not there.
    let mut policy = "backend: embedded\nprograms:\n".to_owned();
    for (key, program) in [("qm", "blockhost-qm"), ("pct", "blockhost-pct")] {
        let path = world.bin.join(program);
        if path.exists() {
            policy += &format!("  {key}: {}\n", path.display());
        }
    }
    // As its owner writes it, and in no group of the agent's own processes.
    write_file(&etc.join("root-agent.yaml"), &policy, 0, 0, 0o644)?;
    make_ssh_key(world)?;
    write_manifest(world)
}

/// The operator's key that every machine accepts; the demo logs in with it.
fn make_ssh_key(world: &World) -> Result<(), WorldError> {
    let key = world.layout.etc().join("terraform_ssh_key");
    let path = key.display().to_string();
    run(
        with_args(
            "ssh-keygen",
            &[
                "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", &path,
            ],
        ),
        Duration::from_secs(60),
    )?;
    let group = world.blockhost.gid;
    for (path, mode) in [(key.clone(), 0o640), (key.with_extension("pub"), 0o644)] {
        let content = at("reading", &path, std::fs::read_to_string(&path))?;
        write_file(&path, &content, 0, group, mode)?;
    }
    Ok(())
}

fn write_manifest(world: &World) -> Result<(), WorldError> {
    let command = |program: &str| world.bin.join(program).display().to_string();
    let manifest = serde_json::json!({
        "name": "embedded",
        "version": env!("CARGO_PKG_VERSION"),
        "display_name": "BlockHost embedded (QEMU)",
        "commands": {
            "create": command("blockhost-vm-create"),
            "resume": command("blockhost-vm-resume"),
            "destroy": command("blockhost-vm-destroy"),
            "start": command("blockhost-vm-start"),
            "stop": command("blockhost-vm-stop"),
            "kill": command("blockhost-vm-kill"),
            "status": command("blockhost-vm-status"),
            "list": command("blockhost-vm-list"),
            "metrics": command("blockhost-vm-metrics"),
            "throttle": command("blockhost-vm-throttle"),
            "update-gecos": command("blockhost-vm-update-gecos"),
            "guest-exec": command("blockhost-vm-guest-exec"),
            "gc": command("blockhost-vm-gc"),
            "build-template": command("blockhost-build-template"),
        },
        "setup": {},
        "root_agent_actions": ["qm-*", "ip6-route-*"],
        "config_keys": [],
    });
    let path = world.layout.provisioner_manifest();
    write_file(&path, &format!("{manifest:#}\n"), 0, 0, 0o644)
}

/// Where the contracts are, as the configuration names them.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// `AccessCredentialNFT`.
    pub nft: String,
    /// `BlockhostSubscriptions`.
    pub subscriptions: String,
    /// The primary stablecoin.
    pub stablecoin: String,
    /// First block that can hold an event of ours.
    pub block: u64,
}

/// The two files about the chain; without `deployed` as they are before there are contracts.
///
/// # Errors
/// [`WorldError::File`].
pub fn write_chain(
    world: &World,
    deployed: Option<&Deployed>,
    admin: &str,
) -> Result<(), WorldError> {
    let etc = world.layout.etc();
    let group = world.blockhost.gid;
    let path = etc.join("server.pubkey");
    let public_key = at("reading", &path, std::fs::read_to_string(&path))?;
    let contracts = deployed.map_or_else(String::new, |deployed| {
        format!(
            "  nft_contract: '{}'\n  subscription_contract: '{}'\n  usdc_address: '{}'\n  start_block: {}\n",
            deployed.nft, deployed.subscriptions, deployed.stablecoin, deployed.block
        )
    });
    let web3 = format!(
        "blockchain:\n  chain_id: {CHAIN_ID}\n  rpc_url: '{RPC_URL}'\n  poll_interval_s: 1\n{contracts}\
         deployer:\n  private_key_file: '/etc/blockhost/deployer.key'\n\
         server:\n  public_key: '{public_key}'\n"
    );
    write_file(&etc.join("web3-defaults.yaml"), &web3, 0, group, 0o644)?;
    let host = format!(
        "server:\n  key_file: '/etc/blockhost/server.key'\n\
         deployer:\n  key_file: '/etc/blockhost/deployer.key'\n\
         public_secret: '{PUBLIC_SECRET}'\n\
         admin:\n  wallet_address: '{admin}'\n  destination_mode: 'self'\n"
    );
    write_file(&etc.join("blockhost.yaml"), &host, 0, group, 0o644)
}

/// A fresh secp256k1 key from the kernel's randomness.
#[must_use]
pub fn random_key() -> k256::SecretKey {
    loop {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes)
            .unwrap_or_else(|error| panic!("the kernel gives no randomness: {error}"));
        // All but about 2^-128 of all strings are keys.
        if let Ok(key) = k256::SecretKey::from_slice(&bytes) {
            return key;
        }
    }
}
