//! cloud-init user data: a template (or a file of the caller's) is rendered, parsed, completed with what every machine of
//! ours has, and printed from data. Nothing that comes from outside is ever pasted into text, so nothing can inject.

mod emit;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use blockhost_proto::value::{EthAddress, VmName};
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value, json};

/// Templates that come with the program.
pub const BUILT_IN: [(&str, &str); 3] = [
    (
        "nft-auth",
        include_str!("../../assets/cloud-init/nft-auth.yaml"),
    ),
    (
        "devbox",
        include_str!("../../assets/cloud-init/devbox.yaml"),
    ),
    (
        "webserver",
        include_str!("../../assets/cloud-init/webserver.yaml"),
    ),
];

/// Where the guest puts the nonce when cloud-init has done everything.
pub const READY_FILE: &str = "/run/blockhost/ready";

/// User data that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CloudInitError {
    /// No template of that name.
    #[error("there is no cloud-init template \"{name}\"; known: {known}, and files in {}", directory.display())]
    Unknown {
        /// The name.
        name: String,
        /// Built-in names.
        known: String,
        /// Where one's own lie.
        directory: PathBuf,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The template cannot be rendered; the message has its line.
    #[error("cloud-init template {name}: {problem}")]
    Render {
        /// The template.
        name: String,
        /// Message of the template engine, with the line.
        problem: String,
    },
    /// What came out is not a cloud-config.
    #[error("cloud-init {name}: {problem}")]
    Invalid {
        /// The template or file.
        name: String,
        /// What is wrong, with line and column where the parser knows them.
        problem: String,
    },
}

/// Names that a template may have: they become file names.
#[must_use]
pub fn is_template_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Where user data comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A template by name: the operator's in `/etc/blockhost/cloud-init/<name>.yaml`, else the built-in one.
    Template(String),
    /// A finished cloud-config in a file.
    File(PathBuf),
}

/// What every machine is told about itself.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Name and host name.
    pub vm_name: VmName,
    /// The user to make.
    pub username: String,
    /// The wallet that may enter.
    pub wallet: EthAddress,
    /// Its token, where it is known already.
    pub nft_token_id: Option<u64>,
    /// OpenSSH public keys that may enter.
    pub ssh_keys: Vec<String>,
    /// What it is for.
    pub purpose: String,
    /// Comes back from [`READY_FILE`] when the guest is ready.
    pub nonce: Nonce,
}

/// 128 random bits in hexadecimal: safe in every syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// A fresh one from the kernel.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn fresh() -> std::io::Result<Self> {
        use std::io::Read as _;
        let mut bytes = [0; 16];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(blockhost_proto::escape::hex(&bytes)))
    }

    /// A placeholder, for plans.
    #[must_use]
    pub fn placeholder() -> Self {
        Self("0".repeat(32))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The GECOS field of a machine's user: built from typed values, so it holds neither `:` nor a quote nor a newline.
#[must_use]
pub fn gecos(wallet: EthAddress, nft: Option<u64>) -> String {
    match nft {
        Some(nft) => format!("wallet={wallet},nft={nft}"),
        None => format!("wallet={wallet}"),
    }
}

/// The user data of a machine, `#cloud-config` and all.
///
/// # Errors
/// [`CloudInitError`].
pub fn user_data(etc: &Path, source: &Source, facts: &Facts) -> Result<String, CloudInitError> {
    let (name, text) = match source {
        Source::File(path) => (path.display().to_string(), read(path)?),
        Source::Template(name) => (name.clone(), render(name, &template(etc, name)?, facts)?),
    };
    let mut config = parse(&name, &text)?;
    complete(&name, &mut config, facts)?;
    Ok(emit::cloud_config(&Value::Object(config)))
}

fn read(path: &Path) -> Result<String, CloudInitError> {
    std::fs::read_to_string(path).map_err(|source| CloudInitError::Read {
        path: path.to_owned(),
        source,
    })
}

fn template(etc: &Path, name: &str) -> Result<String, CloudInitError> {
    let directory = etc.join("cloud-init");
    if is_template_name(name) {
        let own = directory.join(format!("{name}.yaml"));
        if own.exists() {
            return read(&own);
        }
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Ok((*text).to_owned());
        }
    }
    let known: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    Err(CloudInitError::Unknown {
        name: blockhost_proto::escape::shown(name),
        known: known.join(", "),
        directory,
    })
}

fn render(name: &str, text: &str, facts: &Facts) -> Result<String, CloudInitError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Every value that a template prints without a filter is printed as JSON, which is YAML.
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::Json);
    let guest = json!({
        "vm_name": facts.vm_name, "wallet": facts.wallet, "nft_token_id": facts.nft_token_id,
        "username": facts.username, "purpose": facts.purpose,
    });
    let text_value = |value: &dyn ToString| minijinja::Value::from(value.to_string());
    let context = minijinja::Value::from_pairs([
        ("vm_name", text_value(&facts.vm_name)),
        ("hostname", text_value(&facts.vm_name)),
        ("username", text_value(&facts.username)),
        ("wallet", text_value(&facts.wallet)),
        ("nft_token_id", facts.nft_token_id.into()),
        ("gecos", gecos(facts.wallet, facts.nft_token_id).into()),
        ("ssh_keys", facts.ssh_keys.clone().into()),
        ("purpose", text_value(&facts.purpose)),
        ("guest_json", format!("{guest}\n").into()),
    ]);
    let problem = |e: minijinja::Error| CloudInitError::Render {
        name: name.to_owned(),
        problem: e.to_string(),
    };
    environment
        .render_named_str(name, text, context)
        .map_err(problem)
}

fn parse(name: &str, text: &str) -> Result<Map<String, Value>, CloudInitError> {
    let invalid = |problem: String| CloudInitError::Invalid {
        name: name.to_owned(),
        problem,
    };
    if text.lines().next().map(str::trim_end) != Some("#cloud-config") {
        return Err(invalid("the first line has to be #cloud-config".into()));
    }
    match serde_saphyr::from_str::<Value>(text).map_err(|e| invalid(e.to_string()))? {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        other => Err(invalid(format!(
            "keys and values are expected at the top, not {}",
            blockhost_proto::json::kind(&other)
        ))),
    }
}

/// Adds what every machine has. Lists of the template are kept and ours are put behind; of keys that name the machine or
/// its user, ours win.
fn complete(
    name: &str,
    config: &mut Map<String, Value>,
    facts: &Facts,
) -> Result<(), CloudInitError> {
    let not_a_list = |key: &str| CloudInitError::Invalid {
        name: name.to_owned(),
        problem: format!("{key} has to be a list"),
    };
    config.insert("hostname".into(), json!(facts.vm_name));
    config.insert("preserve_hostname".into(), json!(false));

    let mut user = json!({
        "name": facts.username,
        "gecos": gecos(facts.wallet, facts.nft_token_id),
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "lock_passwd": true,
    });
    if !facts.ssh_keys.is_empty() {
        user["ssh_authorized_keys"] = json!(facts.ssh_keys);
    }
    let mut users = vec![user];
    match config.remove("users") {
        None => {}
        // A user of that name, or the distribution's default one, would be a second way in.
        Some(Value::Array(others)) => users.extend(others.into_iter().filter(|u| {
            u["name"].as_str() != Some(&facts.username) && u.as_str() != Some("default")
        })),
        Some(_) => return Err(not_a_list("users")),
    }
    config.insert("users".into(), users.into());

    let mut commands = match config.remove("runcmd") {
        None => Vec::new(),
        Some(Value::Array(commands)) => commands,
        Some(_) => return Err(not_a_list("runcmd")),
    };
    // The last thing of the last stage. Written under another name first: half a nonce must not be read.
    let script = format!(
        "mkdir -p /run/blockhost && printf %s {nonce} > {READY_FILE}.new && mv {READY_FILE}.new {READY_FILE}",
        nonce = facts.nonce.as_str()
    );
    commands.push(json!(["sh", "-c", script]));
    config.insert("runcmd".into(), commands.into());
    Ok(())
}
