//! A key made ready for many signatures: with multiples of it computed beforehand, checking one takes half as long. Says
//! yes to nothing that [`Vkey::verifies`] would refuse; where it does not say yes, that decides. Used by `verify`.

use crate::note::Vkey;
use crate::segment::Commit;
use curve25519_dalek::edwards::{EdwardsBasepointTable, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::BasepointTable as _;
use sha2::{Digest as _, Sha512};

/// Multiples of the negative of a key's point.
pub(crate) struct Prepared {
    key: [u8; 32],
    multiples: Box<EdwardsBasepointTable>,
}

impl Prepared {
    /// `None` for a key that no signature is good for.
    pub fn of(vkey: &Vkey) -> Option<Self> {
        let point = vkey.point();
        (!point.is_small_order()).then(|| Self {
            key: point.compress().to_bytes(),
            multiples: Box::new(EdwardsBasepointTable::create(&-point)),
        })
    }

    /// Is the signature of the commit, as the head of the log `name`, surely good? RFC 8032, section 5.1.7, without the
    /// cofactor: R = sB - kA, where s is below the order of the group and neither R nor A is of small order.
    pub fn surely_signed(&self, name: &str, commit: &Commit) -> bool {
        self.fits(commit.head(name).body().as_bytes(), &commit.signature)
    }

    fn fits(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let ([r, s], _) = signature.as_chunks::<32>() else {
            return false;
        };
        let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(*s)) else {
            return false;
        };
        let hash = Sha512::new()
            .chain_update(r)
            .chain_update(self.key)
            .chain_update(message);
        let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        let point = EdwardsPoint::mul_base(&s) + self.multiples.mul_base(&k);
        !point.is_small_order() && point.compress().as_bytes() == r
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Signer;
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
    use ed25519_dalek::{Signature, VerifyingKey};
    use proptest::prelude::*;

    const NAME: &str = "h/log";

    fn strict(vkey: &Vkey, message: &[u8], signature: &[u8; 64]) -> bool {
        let key = VerifyingKey::from_bytes(&vkey.point().compress().to_bytes()).expect("a point");
        let signature = Signature::from_bytes(signature);
        key.verify_strict(message, &signature).is_ok()
    }

    /// A signature with this R, by somebody who knows the key and need not keep to the rules.
    fn crooked(a: Scalar, r: Scalar, point: EdwardsPoint, message: &[u8]) -> [u8; 64] {
        let r_bytes = point.compress().to_bytes();
        let key = (a * ED25519_BASEPOINT_POINT).compress().to_bytes();
        let hash = Sha512::new()
            .chain_update(r_bytes)
            .chain_update(key)
            .chain_update(message);
        let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r_bytes);
        signature[32..].copy_from_slice((r + k * a).as_bytes());
        signature
    }

    #[test]
    fn points_of_small_order_and_torsion_are_judged_as_the_library_judges_them() {
        let a = Scalar::from(987_654_321_u64);
        let key = (a * ED25519_BASEPOINT_POINT).compress().to_bytes();
        let vkey =
            Vkey::new(NAME, VerifyingKey::from_bytes(&key).expect("a point")).expect("valid");
        let prepared = Prepared::of(&vkey).expect("a good key");
        let honest = crooked(
            a,
            Scalar::from(5_u64),
            Scalar::from(5_u64) * ED25519_BASEPOINT_POINT,
            b"m",
        );
        assert!(strict(&vkey, b"m", &honest) && prepared.fits(b"m", &honest));
        for torsion in EIGHT_TORSION {
            let small = crooked(a, Scalar::ZERO, torsion, b"m");
            assert!(!prepared.fits(b"m", &small) && !strict(&vkey, b"m", &small));
            let mixed = Scalar::from(5_u64) * ED25519_BASEPOINT_POINT + torsion;
            let mixed = crooked(a, Scalar::from(5_u64), mixed, b"m");
            assert_eq!(prepared.fits(b"m", &mixed), strict(&vkey, b"m", &mixed));
            let small = VerifyingKey::from_bytes(&torsion.compress().to_bytes()).expect("a point");
            assert!(Prepared::of(&Vkey::new(NAME, small).expect("valid")).is_none());
        }
        // The same number written in a second way: more than the order of the group.
        let mut again = honest;
        let order = [
            0xed_u8, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0_u16;
        for (byte, more) in again[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(more) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
        assert!(!prepared.fits(b"m", &again) && !strict(&vkey, b"m", &again));
    }

    proptest! {
        #[test]
        fn what_was_signed_is_and_what_was_changed_is_not(
            seed in any::<[u8; 32]>(), size in any::<u64>(), root in any::<[u8; 32]>(), bit in 0_usize..512,
        ) {
            let signer = Signer::from_bytes(NAME, 1, &seed).expect("valid");
            let prepared = Prepared::of(signer.vkey()).expect("a good key");
            let mut commit = Commit { size, root, ts_us: 0, epoch: 1, signature: signer.sign_head(size, root) };
            prop_assert!(prepared.surely_signed(NAME, &commit));
            prop_assert!(!prepared.surely_signed("h/other", &commit));
            commit.signature[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!prepared.surely_signed(NAME, &commit));
        }
    }
}
