//! The credentials: who mints and changes them, how they count, whose they are.

use super::*;
use blockhost_engine::chain::bindings::AccessCredentialNFT::{
    self, AccessCredentialNFTErrors, AccessCredentialNFTInstance,
};

async fn nft(anvil: &Anvil) -> AccessCredentialNFTInstance<DynProvider> {
    AccessCredentialNFT::deploy(anvil.account(0), "Credential".into(), "C".into())
        .await
        .unwrap()
}

#[tokio::test]
async fn only_the_owner_mints_and_changes_credentials_and_unknown_ones_have_no_details() {
    let Some(anvil) = Anvil::start(&[]) else {
        return;
    };
    let nft = nft(&anvil).await;
    let stranger = AccessCredentialNFTInstance::new(*nft.address(), anvil.account(1));
    let failed = |error: alloy::contract::Error| {
        AccessCredentialNFTErrors::abi_decode(&error.as_revert_data().unwrap()).unwrap()
    };
    let error = failed(
        stranger
            .mint(common::address(1), Bytes::new())
            .call()
            .await
            .unwrap_err(),
    );
    assert!(matches!(
        error,
        AccessCredentialNFTErrors::OwnableUnauthorizedAccount(_)
    ));
    ok!(nft.mint(common::address(1), Bytes::new()));
    let error = failed(
        stranger
            .updateUserEncrypted(U256::ZERO, Bytes::new())
            .call()
            .await
            .unwrap_err(),
    );
    assert!(matches!(
        error,
        AccessCredentialNFTErrors::OwnableUnauthorizedAccount(_)
    ));
    let error = failed(
        nft.getUserEncrypted(U256::from(1))
            .call()
            .await
            .unwrap_err(),
    );
    assert!(matches!(
        error,
        AccessCredentialNFTErrors::ERC721NonexistentToken(_)
    ));
    let error = failed(
        nft.updateUserEncrypted(U256::from(1), Bytes::new())
            .call()
            .await
            .unwrap_err(),
    );
    assert!(matches!(
        error,
        AccessCredentialNFTErrors::ERC721NonexistentToken(_)
    ));
}

#[tokio::test]
async fn credentials_count_from_zero_and_follow_their_holder() {
    let Some(anvil) = Anvil::start(&[]) else {
        return;
    };
    let nft = nft(&anvil).await;
    for id in 0..2u64 {
        let receipt = ok!(nft.mint(
            common::address(1),
            Bytes::from(vec![u8::try_from(id).unwrap()])
        ));
        let log = receipt
            .logs()
            .iter()
            .find_map(|l| AccessCredentialNFT::CredentialMinted::decode_log(&l.inner).ok())
            .unwrap();
        assert_eq!(
            (log.tokenId, log.recipient),
            (U256::from(id), common::address(1))
        );
    }
    assert_eq!(nft.totalSupply().call().await.unwrap(), U256::from(2));
    assert_eq!(
        nft.tokenOfOwnerByIndex(common::address(1), U256::from(1))
            .call()
            .await
            .unwrap(),
        U256::from(1)
    );
    let receipt = ok!(nft.updateUserEncrypted(U256::from(1), Bytes::from_static(b"new")));
    assert_eq!(
        AccessCredentialNFT::CredentialUpdated::decode_log(&receipt.logs()[0].inner)
            .unwrap()
            .tokenId,
        U256::from(1)
    );
    assert_eq!(
        nft.getUserEncrypted(U256::from(1))
            .call()
            .await
            .unwrap()
            .as_ref(),
        b"new"
    );

    let holder = AccessCredentialNFTInstance::new(*nft.address(), anvil.account(1));
    ok!(holder.transferFrom(common::address(1), common::address(2), U256::from(1)));
    assert_eq!(
        nft.ownerOf(U256::from(1)).call().await.unwrap(),
        common::address(2)
    );
}
