//! A purchase: decrypt, create, seal the access details, mint, tell the guest, record. Nothing is created before it is
//! known that the buyer will be able to read the result.

use super::{Context, StepError, mint};
use crate::chain::{Address, Bytes};
use crate::crypto::buyer::BuyerKey;
use crate::crypto::{CryptoError, SIGNATURE_LEN, decode_hex, ecies, keys::PrivateKey};
use crate::machines::{self, machine_name};
use crate::outbox::{CREATED, FORMER_SIZE, Job, SIZE, now_ms};
use blockhost_provisioner::config::{Size, Sizes};
use blockhost_provisioner::record::VmRecord;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

const SECONDS_PER_DAY: i64 = 86_400;
/// The most that `create` takes; the exact time is set afterwards.
const MOST_DAYS: i64 = 36_500;

pub(super) struct Purchase<'a> {
    pub id: u64,
    pub plan: &'a str,
    pub subscriber: Address,
    pub expires_at: i64,
    pub user_encrypted: &'a Bytes,
}

impl Purchase<'_> {
    /// A number where JSON can hold it.
    fn plan_json(&self) -> Value {
        let number = self.plan.parse::<u32>();
        number.map_or_else(|_| self.plan.into(), Value::from)
    }
}

/// What the provisioner says about a machine it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    vm_name: String,
    vmid: u64,
    #[serde(default)]
    ip: Option<String>,
    #[serde(default)]
    ipv6: Option<String>,
    #[serde(default)]
    username: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(flatten)]
    made: Made,
}

/// What the buyer reads from the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Access {
    pub hostname: String,
    pub port: u16,
    pub username: String,
}

pub(super) async fn run(
    context: &Context,
    job: &Job,
    purchase: &Purchase<'_>,
) -> Result<(), StepError> {
    let name = machine_name(purchase.id);
    let key = buyer_key(&context.server_key, purchase.user_encrypted).map_err(|e| {
        StepError::Park(format!(
            "userEncrypted of subscription {} cannot be used: {e}; nothing was created. Ask the buyer to sign up again or refund",
            purchase.id
        ))
    })?;
    let made = create(context, job, purchase, &name).await?;
    set_expiry(context, job, purchase, &name).await?;
    let access = Access {
        // The address that is reachable from everywhere first.
        hostname: made
            .ipv6
            .clone()
            .or_else(|| made.ip.clone())
            .unwrap_or_else(|| name.clone()),
        port: context.settings.ssh_port,
        username: made
            .username
            .clone()
            .unwrap_or_else(|| context.settings.username.clone()),
    };
    let token = mint_credential(context, job, purchase, &name, &key, &access).await?;
    tell_guest(context, job, purchase, &name, token).await?;
    let size: Option<Size> = context.outbox.step(job.id, SIZE)?;
    let data = json!({
        "subscription": purchase.id,
        "plan": purchase.plan_json(),
        "size": size,
        "subscriber": purchase.subscriber.to_string(),
        "vm_name": name,
        "vmid": made.vmid,
        "nft_token_id": token,
        "expires_at": purchase.expires_at,
    });
    context.record(job, "subscription-created", data).await
}

/// The key that only this buyer can make again. What was encrypted to us is the wallet's signature, as hexadecimal text
/// or as its 65 bytes; a page without a server key sends the bytes as they are.
fn buyer_key(server: &PrivateKey, user_encrypted: &[u8]) -> Result<BuyerKey, CryptoError> {
    if user_encrypted.len() == SIGNATURE_LEN {
        return BuyerKey::from_signature(user_encrypted);
    }
    let plain = ecies::decrypt(server, user_encrypted)?;
    if plain.len() == SIGNATURE_LEN {
        return BuyerKey::from_signature(&plain);
    }
    let text = std::str::from_utf8(&plain).map_err(|_| CryptoError::NotText)?;
    let signature: Zeroizing<Vec<u8>> = decode_hex("the signature", text)?;
    // Another length derives a key too, but no wallet would ever make it again.
    if signature.len() != SIGNATURE_LEN {
        return Err(CryptoError::NotHex {
            what: "the signature",
            reason: format!(
                "it has {} bytes instead of {SIGNATURE_LEN}",
                signature.len()
            ),
        });
    }
    BuyerKey::from_signature(&signature)
}

async fn create(
    context: &Context,
    job: &Job,
    purchase: &Purchase<'_>,
    name: &str,
) -> Result<Made, StepError> {
    if let Some(made) = context.outbox.step(job.id, CREATED)? {
        // While this waited, for gas say, somebody may have destroyed it.
        if context.outbox.step::<u64>(job.id, "minted")?.is_none()
            && !machines::exists(context.machines.get(name).await?.as_ref())
        {
            return Err(StepError::Park(format!(
                "the machine {name} was made and is gone; nobody gets a credential of it. Make a new one or refund"
            )));
        }
        return Ok(made);
    }
    // The machine may stand already: this engine died between the end of `create` and writing that down.
    let found = context.machines.find(name).await?;
    let made = if let Some((record, here)) =
        found.filter(|(found, _)| machines::exists(Some(found)))
    {
        if !here {
            return Err(StepError::Park(format!(
                "a machine named {name} exists already on the host {}; it is not touched: several hosts that share a database have one engine",
                record.node.as_deref().unwrap_or("?")
            )));
        }
        let made = take_over(&record, purchase.subscriber)?;
        // What is settled now is what it was made with; if nothing is, it was made before somebody had the job run again.
        if context.outbox.step::<Size>(job.id, SIZE)?.is_none()
            && let Some(size) = context.outbox.step::<Size>(job.id, FORMER_SIZE)?
        {
            context.outbox.record_step(job.id, SIZE, &size)?;
        }
        made
    } else {
        let size = size(context, job, purchase)?;
        let days = days_left(purchase.expires_at, now_ms() / 1000).to_string();
        let owner = purchase.subscriber.to_string();
        let done = context
            .command(
                "create",
                &[
                    name,
                    "--owner-wallet",
                    &owner,
                    "--expiry-days",
                    &days,
                    "--cpu",
                    &size.cores.to_string(),
                    "--memory",
                    &size.memory_mb.to_string(),
                    "--disk",
                    &size.disk_gb.to_string(),
                    "--skip-mint",
                    "--apply",
                ],
            )
            .await?;
        read_answer(&done.stdout, name)?
    };
    context.outbox.record_step(job.id, CREATED, &made)?;
    Ok(made)
}

/// What was bought, by the settings of the first try: they may change before the next one. Kept until there is a machine, or
/// until somebody has the job run again after it was given up.
fn size(context: &Context, job: &Job, purchase: &Purchase<'_>) -> Result<Size, StepError> {
    if let Some(size) = context.outbox.step(job.id, SIZE)? {
        return Ok(size);
    }
    // What cannot be read will be mended; the defaults in its place would be another machine than was paid for.
    let sizes = Sizes::load(&context.layout).map_err(|e| StepError::NotNow(e.to_string()))?;
    // A number beyond all bounds has no entry.
    let size = (purchase.plan.parse()).map_or(sizes.otherwise(), |plan| sizes.of(plan));
    context.outbox.record_step(job.id, SIZE, &size)?;
    Ok(size)
}

fn take_over(record: &VmRecord, subscriber: Address) -> Result<Made, StepError> {
    let owner = record.wallet_address.as_ref().map(ToString::to_string);
    if owner.as_deref() != Some(subscriber.to_string().as_str()) {
        return Err(StepError::Park(format!(
            "a machine named {} exists already and belongs to {}; it is not touched",
            record.vm_name,
            owner.as_deref().unwrap_or("nobody")
        )));
    }
    Ok(Made {
        vm_name: record.vm_name.to_string(),
        vmid: u64::from(u32::from(record.vmid)),
        ip: record.ip_address.map(|ip| ip.to_string()),
        ipv6: record.ipv6_address.map(|ip| ip.to_string()),
        username: record.username.clone(),
    })
}

fn read_answer(stdout: &str, name: &str) -> Result<Made, StepError> {
    let line = stdout
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("");
    let bad = |reason: String| {
        StepError::Retry(format!(
            "create of {name} succeeded, but its last line is not the agreed JSON: {reason}"
        ))
    };
    let value = blockhost_proto::json::parse(line.as_bytes()).map_err(|e| bad(e.to_string()))?;
    let answer: Answer = serde_json::from_value(value).map_err(|e| bad(e.to_string()))?;
    if answer.status != "ok" {
        return Err(bad(format!("its status is {:?}", answer.status)));
    }
    if answer.made.vm_name != name {
        return Err(bad(format!("it made {:?}", answer.made.vm_name)));
    }
    Ok(answer.made)
}

/// Whole days until then, at least one: the exact time is set afterwards.
fn days_left(expires_at: i64, now: i64) -> i64 {
    let seconds = expires_at.saturating_sub(now).max(1);
    (seconds.saturating_add(SECONDS_PER_DAY - 1) / SECONDS_PER_DAY).min(MOST_DAYS)
}

async fn set_expiry(
    context: &Context,
    job: &Job,
    purchase: &Purchase<'_>,
    name: &str,
) -> Result<(), StepError> {
    if context.outbox.step::<i64>(job.id, "expiry")?.is_none() {
        context
            .machines
            .set_expiry(name, purchase.expires_at)
            .await?;
        context
            .outbox
            .record_step(job.id, "expiry", &purchase.expires_at)?;
    }
    Ok(())
}

async fn mint_credential(
    context: &Context,
    job: &Job,
    purchase: &Purchase<'_>,
    name: &str,
    key: &BuyerKey,
    access: &Access,
) -> Result<u64, StepError> {
    let token = match context.outbox.step(job.id, "minted")? {
        Some(token) => token,
        None => {
            let sealed = seal(context, job, key, access)?;
            let wanted = mint::Wanted {
                name,
                to: purchase.subscriber,
                key,
                access,
                sealed,
            };
            let token = mint::mint(context, job, &wanted).await?;
            context.outbox.record_step(job.id, "minted", &token)?;
            token
        }
    };
    if context.outbox.step::<u64>(job.id, "registered")?.is_none() {
        context.machines.set_token(name, token).await?;
        context.outbox.record_step(job.id, "registered", &token)?;
    }
    Ok(token)
}

/// The access details for the buyer; sealed once, so that a second attempt mints the same bytes.
fn seal(context: &Context, job: &Job, key: &BuyerKey, access: &Access) -> Result<Bytes, StepError> {
    if let Some(hex) = context.outbox.step::<String>(job.id, "sealed")? {
        let bytes =
            decode_hex("the sealed details", &hex).map_err(|e| StepError::Park(e.to_string()))?;
        return Ok(Bytes::from(bytes.to_vec()));
    }
    let text = json!(access).to_string();
    let sealed = key
        .encrypt(text.as_bytes())
        .map_err(|e| StepError::Retry(e.to_string()))?;
    context
        .outbox
        .record_step(job.id, "sealed", &hex::encode(&sealed))?;
    Ok(sealed.into())
}

async fn tell_guest(
    context: &Context,
    job: &Job,
    purchase: &Purchase<'_>,
    name: &str,
    token: u64,
) -> Result<(), StepError> {
    if context.outbox.step::<bool>(job.id, "gecos")?.is_some() {
        return Ok(());
    }
    let (wallet, id) = (purchase.subscriber.to_string(), token.to_string());
    context
        .command("update-gecos", &[name, &wallet, "--nft-id", &id])
        .await?;
    context
        .machines
        .set_access(name, purchase.subscriber, token, true)
        .await?;
    context.outbox.record_step(job.id, "gecos", &true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_without_status_ok_or_about_another_machine_is_not_believed() {
        for bad in [
            "",
            "done",
            r#"{"status":"failed","vm_name":"a","vmid":1}"#,
            r#"{"status":"ok","vm_name":"b","vmid":1}"#,
            r#"{"status":"ok","vm_name":"a"}"#,
        ] {
            assert!(
                matches!(read_answer(bad, "a"), Err(StepError::Retry(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_last_line_counts_and_unknown_fields_are_left_alone() {
        let text = "cloning\n{\"status\":\"ok\",\"vm_name\":\"a\",\"ip\":\"10.0.0.2\",\"ipv6\":null,\"vmid\":100,\"nft_token_id\":null,\"username\":\"user\"}\n\n";
        let made = read_answer(text, "a").unwrap();
        assert_eq!(
            (
                made.vmid,
                made.ip.as_deref(),
                made.ipv6,
                made.username.as_deref()
            ),
            (100, Some("10.0.0.2"), None, Some("user"))
        );
    }

    #[test]
    fn a_signature_of_another_length_is_refused_before_a_machine_is_made_with_it() {
        let server = PrivateKey::generate().unwrap();
        for text in [
            "0x1234",
            "",
            "not hex",
            &format!("0x{}", "00".repeat(64)),
            &format!("0x{}", "00".repeat(66)),
        ] {
            let sealed = ecies::encrypt(&server.public_key(), text.as_bytes()).unwrap();
            assert!(buyer_key(&server, &sealed).is_err(), "{text}");
        }
    }

    #[test]
    fn a_signature_counts_as_raw_bytes_as_encrypted_bytes_and_as_encrypted_text() {
        let server = PrivateKey::generate().unwrap();
        let signature = [7_u8; 65];
        let sealed = BuyerKey::from_signature(&signature)
            .unwrap()
            .encrypt(b"x")
            .unwrap();
        let hex = hex::encode(signature);
        let forms = [
            signature.to_vec(),
            ecies::encrypt(&server.public_key(), &signature).unwrap(),
            ecies::encrypt(&server.public_key(), hex.as_bytes()).unwrap(),
            ecies::encrypt(&server.public_key(), format!("0x{hex}").as_bytes()).unwrap(),
        ];
        for form in forms {
            assert!(buyer_key(&server, &form).unwrap().decrypt(&sealed).is_ok());
        }
    }

    proptest! {
        #[test]
        fn days_cover_the_paid_time_and_less_than_a_day_more(now in 0i64..4_000_000_000, left in 1i64..1_000_000_000) {
            let days = days_left(now + left, now);
            prop_assert!(days * SECONDS_PER_DAY >= left && (days - 1) * SECONDS_PER_DAY < left);
        }

        #[test]
        fn a_time_that_is_over_still_gives_a_day(now in 0i64..4_000_000_000, past in 0i64..4_000_000_000) {
            prop_assert_eq!(days_left(past.min(now), now), 1);
        }
    }
}
