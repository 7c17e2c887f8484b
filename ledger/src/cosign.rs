//! C2SP `cosignature/v1`: the keys of witnesses, making a timestamped cosignature of a checkpoint, finding those in a
//! note. Text formats only; what a witness remembers is `witness`, how many are enough is `policy`.

use crate::keys::random;
use crate::merkle::sha256;
use crate::note::{NoteError, check_id, is_key_name, key_parts, signature_lines};
use base64ct::{Base64, Encoding as _};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

/// Signature type byte of an Ed25519 cosignature.
const TYPE_COSIGNATURE: u8 = 4;
const PREFIX: &str = "PRIVATE+KEY+";
/// A key id, a time and a signature.
const LINE_BYTES: usize = 8 + 64;
/// Most lines in one note that a witness's name stands before and that are tried: whoever sends more of them wants the
/// signatures to cost time. What a ledger publishes has one of each witness.
const MAX_TRIED: usize = 8;

/// The public key of a witness, bound to its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    id: u32,
    key: VerifyingKey,
}

/// A witness's statement, checked: at this time, this was the largest head it had seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    /// Seconds since 1970 UTC, by the witness's clock.
    pub time_s: u64,
    /// The line of the note, without its newline.
    pub line: String,
}

impl WitnessKey {
    /// Reads a verifier key of type 4, `name+8 hex digits+base64(0x04 || key)`.
    ///
    /// # Errors
    /// Any other text, another signature type, or an id that is not of this name and key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let other = "it is not the key of a witness (type 4, cosignature/v1)";
        let (name, id, key) = key_parts(text, TYPE_COSIGNATURE, other)?;
        let this = Self::new(name, key)?;
        check_id(id, this.id)?;
        Ok(this)
    }

    fn new(name: &str, key: VerifyingKey) -> Result<Self, NoteError> {
        if !is_key_name(name) {
            return Err(NoteError::Name(name.escape_default().take(80).collect()));
        }
        let mut data = format!("{name}\n").into_bytes();
        data.push(TYPE_COSIGNATURE);
        data.extend_from_slice(key.as_bytes());
        let [a, b, c, d, ..] = sha256(&data);
        Ok(Self {
            name: name.to_owned(),
            id: u32::from_be_bytes([a, b, c, d]),
            key,
        })
    }

    /// The witness's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Are these the same key, whatever they are called? Such two would count one witness twice.
    #[must_use]
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// The newest valid cosignature of this witness among signature lines over `body`. Lines of others, and lines that
    /// are no cosignature or do not verify, are passed over; of its own no more than eight are looked at.
    #[must_use]
    pub fn find(&self, body: &str, lines: &str) -> Option<Cosignature> {
        let lines = signature_lines(lines).ok()?;
        let own = lines
            .into_iter()
            .filter(|line| line.name == self.name && line.id == self.id);
        let found = own.take(MAX_TRIED).filter_map(|line| {
            let bytes: &[u8; LINE_BYTES] = line.signature.as_slice().try_into().ok()?;
            let (time, signature) = bytes.split_first_chunk::<8>()?;
            let time_s = u64::from_be_bytes(*time);
            let signature: &[u8; 64] = signature.try_into().ok()?;
            let good = time_s <= i64::MAX.unsigned_abs()
                && self
                    .key
                    .verify_strict(
                        message(time_s, body).as_bytes(),
                        &Signature::from_bytes(signature),
                    )
                    .is_ok();
            good.then(|| Cosignature {
                time_s,
                line: line.text.to_owned(),
            })
        });
        found.max_by_key(|cosignature| cosignature.time_s)
    }
}

impl std::fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = vec![TYPE_COSIGNATURE];
        bytes.extend_from_slice(self.key.as_bytes());
        write!(
            f,
            "{}+{:08x}+{}",
            self.name,
            self.id,
            Base64::encode_string(&bytes)
        )
    }
}

/// The private key of a witness. `Debug` shows only the public part.
pub struct Cosigner {
    secret: SigningKey,
    public: WitnessKey,
}

impl std::fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cosigner({})", self.public)
    }
}

impl Cosigner {
    /// From the 32 bytes of an Ed25519 seed.
    ///
    /// # Errors
    /// A name that may not be a key name.
    pub fn from_bytes(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let secret = SigningKey::from_bytes(seed);
        let public = WitnessKey::new(name, secret.verifying_key())?;
        Ok(Self { secret, public })
    }

    /// A new random key.
    ///
    /// # Errors
    /// A name that may not be a key name; no random bytes (as a `Vkey` error would be wrong, it is a system error).
    pub fn generate(name: &str) -> std::io::Result<Self> {
        let mut seed = [0; 32];
        random(&mut seed)?;
        let made = Self::from_bytes(name, &seed).map_err(std::io::Error::other);
        seed.fill(0);
        made
    }

    /// Reads the text form, `PRIVATE+KEY+name+id+base64(0x04 || seed)`.
    ///
    /// # Errors
    /// Any other text. The text itself is in no error.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let bad = NoteError::Vkey;
        let rest = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(bad("it does not begin with PRIVATE+KEY+"))?;
        let mut parts = rest.splitn(3, '+');
        let (Some(name), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("it does not have the parts name, id and key"));
        };
        let bytes = Base64::decode_vec(encoded).map_err(|_| bad("the key is not base64"))?;
        let seed: [u8; 32] = match bytes.split_first() {
            Some((&TYPE_COSIGNATURE, seed)) => seed
                .try_into()
                .map_err(|_| bad("the key is not 32 bytes long"))?,
            _ => return Err(bad("it is not the key of a witness (type 4)")),
        };
        let this = Self::from_bytes(name, &seed)?;
        if format!("{:08x}", this.public.id) != id {
            return Err(bad("its id does not belong to its name and key"));
        }
        Ok(this)
    }

    /// The text form, with a newline. A secret.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut bytes = vec![TYPE_COSIGNATURE];
        bytes.extend_from_slice(self.secret.as_bytes());
        format!(
            "{PREFIX}{}+{:08x}+{}\n",
            self.public.name,
            self.public.id,
            Base64::encode_string(&bytes)
        )
    }

    /// The public key.
    #[must_use]
    pub fn key(&self) -> &WitnessKey {
        &self.public
    }

    /// The signature line over a checkpoint's body, with its newline.
    #[must_use]
    pub fn cosign(&self, body: &str, time_s: u64) -> String {
        let signature = self.secret.sign(message(time_s, body).as_bytes());
        let mut bytes = self.public.id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&time_s.to_be_bytes());
        bytes.extend_from_slice(&signature.to_bytes());
        format!(
            "\u{2014} {} {}\n",
            self.public.name,
            Base64::encode_string(&bytes)
        )
    }
}

fn message(time_s: u64, body: &str) -> String {
    format!("cosignature/v1\ntime {time_s}\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn a_cosignature_is_found_and_one_of_another_time_body_or_key_is_not() {
        let witness = Cosigner::from_bytes("witness.example/w1", &[5; 32]).expect("valid");
        let line = witness.cosign(BODY, 1_679_315_147);
        let found = witness.key().find(BODY, &line).expect("valid");
        assert_eq!(found.time_s, 1_679_315_147);
        assert_eq!(format!("{}\n", found.line), line);
        assert_eq!(
            witness.key().find(&BODY.replace("2085", "2086"), &line),
            None
        );
        let namesake = Cosigner::from_bytes("witness.example/w1", &[6; 32]).expect("valid");
        assert_eq!(namesake.key().find(BODY, &line), None);
        let text = line.trim_end().rsplit(' ').next().expect("base64");
        let mut bytes = Base64::decode_vec(text).expect("base64");
        bytes[11] ^= 1;
        let later = line.replace(text, &Base64::encode_string(&bytes));
        assert_eq!(witness.key().find(BODY, &later), None, "the time is signed");
    }

    #[test]
    fn a_note_full_of_forgeries_costs_no_more_than_a_few_signatures() {
        let witness = Cosigner::from_bytes("w", &[5; 32]).expect("valid");
        let junk = Cosigner::from_bytes("w", &[5; 32])
            .expect("valid")
            .cosign(&BODY.replace("2085", "2086"), 20);
        let good = witness.cosign(BODY, 10);
        let found = |junk_lines: usize| {
            let lines = format!("{}{good}", junk.repeat(junk_lines));
            witness.key().find(BODY, &lines).is_some()
        };
        assert!(found(0) && found(MAX_TRIED - 1));
        assert!(!found(MAX_TRIED), "the ninth is not tried any more");
    }

    #[test]
    fn of_several_the_newest_counts_and_strangers_do_not_disturb() {
        let witness = Cosigner::from_bytes("w", &[5; 32]).expect("valid");
        let stranger = Cosigner::from_bytes("s", &[7; 32]).expect("valid");
        let lines = [
            witness.cosign(BODY, 10),
            stranger.cosign(BODY, 99),
            witness.cosign(BODY, 30),
            witness.cosign(BODY, 20),
        ]
        .concat();
        assert_eq!(
            witness.key().find(BODY, &lines).map(|found| found.time_s),
            Some(30)
        );
    }

    #[test]
    fn keys_round_trip_and_a_mistyped_one_or_one_of_a_log_is_refused() {
        let made = Cosigner::generate("w.example").expect("random");
        let again = Cosigner::parse(&made.to_text()).expect("parses");
        assert_eq!(again.key(), made.key());
        let text = made.key().to_string();
        assert_eq!(&WitnessKey::parse(&text).expect("parses"), made.key());
        assert!(WitnessKey::parse(&text.replace("w.e", "v.e")).is_err());
        let log = crate::keys::Signer::from_bytes("w.example", 1, &[5; 32]).expect("valid");
        assert!(WitnessKey::parse(&log.vkey().to_string()).is_err());
        assert!(crate::note::Vkey::parse(&text).is_err());
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }
}
