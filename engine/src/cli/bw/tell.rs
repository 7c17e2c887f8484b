//! What `bw` says without spending anything.

use super::Failure;
use super::spend::Ground;
use crate::chain::bindings::AccessCredentialNFT;
use crate::chain::{Address, U256};
use crate::cli::mint_nft::contract_error;
use crate::crypto::decode_hex;
use crate::funds::look;
use crate::wallets::token::primary_stablecoin;
use crate::wallets::{Party, Token, TokenName};
use alloy::primitives::Signature;
use serde_json::{Value, json};

pub(super) async fn balance(
    ground: &Ground,
    who: &Party,
    token: Option<TokenName>,
    as_json: bool,
) -> Result<(), Failure> {
    let owner = ground.book.address(&ground.config, who)?;
    let tokens = match token {
        Some(token) => vec![ground.token(token).await?],
        None => {
            let mut all = vec![Token::ETH];
            if let Some(contract) = ground.config.web3.blockchain.subscription_contract {
                let accepted = look::accepted(&ground.chain, contract).await?;
                all.extend(accepted.into_iter().map(|one| one.token));
            }
            all
        }
    };
    let stable = match token {
        Some(TokenName::Eth) => None,
        _ => primary_stablecoin(&ground.chain, &ground.config).await?,
    };
    let mut found: Vec<Value> = Vec::new();
    for token in tokens {
        let units = token.balance(&ground.chain, owner).await?;
        let name = if token.address.is_some() && token.address == stable {
            "stable".to_owned()
        } else {
            token.to_string()
        };
        if as_json {
            found.push(json!({
                "name": name, "token": token.to_string(), "amount": token.show(&units), "units": units.to_string(),
            }));
        } else {
            say!("{}\t{name}", token.show(&units));
        }
    }
    if as_json {
        say!(
            "{}",
            json!({"who": who.to_string(), "address": owner.to_string(), "balances": found})
        );
    }
    Ok(())
}

pub(super) async fn who(
    ground: &Ground,
    what: &str,
    signature: Option<&str>,
    as_json: bool,
) -> Result<(), Failure> {
    let address = match signature {
        Some(signature) => signer(what, signature)?,
        None if what == "admin" => ground.book.address(&ground.config, &what.parse()?)?,
        None => owner_of(ground, what).await?,
    };
    let name = ground.book.name_of(address).map(ToString::to_string);
    if as_json {
        say!("{}", json!({"address": address.to_string(), "name": name}));
    } else {
        match name {
            Some(name) => say!("{address}\t{name}"),
            None => say!("{address}"),
        }
    }
    Ok(())
}

/// Who signed a text, as wallets sign (`personal_sign`).
fn signer(text: &str, signature: &str) -> Result<Address, Failure> {
    let bytes = decode_hex("the signature", signature)?;
    let wrong =
        |reason: String| Failure::Refused(format!("this is no signature of a wallet: {reason}"));
    if bytes.len() != 65 {
        return Err(wrong(format!("it has {} bytes, not 65", bytes.len())));
    }
    Signature::from_raw(&bytes)
        .and_then(|signature| signature.recover_address_from_msg(text))
        .map_err(|e| wrong(e.to_string()))
}

async fn owner_of(ground: &Ground, id: &str) -> Result<Address, Failure> {
    let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    let id = plain
        .then(|| U256::from_str_radix(id, 10).ok())
        .flatten()
        .ok_or_else(|| {
            Failure::Usage(format!(
                "{id:?} is neither the id of a credential nor admin; for a text, give its signature too"
            ))
        })?;
    let contract = ground.config.nft_contract()?;
    Ok(ground
        .chain
        .call("asking whose a credential is", |node| async move {
            AccessCredentialNFT::new(contract, node)
                .ownerOf(id)
                .call()
                .await
                .map_err(contract_error)
        })
        .await?)
}

pub(super) async fn stable(ground: &Ground, as_json: bool) -> Result<(), Failure> {
    let found = primary_stablecoin(&ground.chain, &ground.config).await?;
    if as_json {
        say!(
            "{}",
            json!({"stable": found.map(|address| address.to_string())})
        );
        return Ok(());
    }
    match found {
        Some(address) => {
            say!("{address}");
            Ok(())
        }
        None => Err(crate::wallets::TokenError::NoStable.into()),
    }
}
