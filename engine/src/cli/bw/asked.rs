//! What `bw` was asked for, as steps. Nothing here sends anything.

use super::plans::PlanVerb;
use super::spend::Ground;
use super::{ConfigKey, Failure, Ratios, SetKey, Verb};
use crate::chain::bindings::{AccessCredentialNFT, BlockhostSubscriptions};
use crate::chain::{Bytes, U256};
use crate::crypto::decode_hex;
use crate::funds::look;
use crate::funds::plan;
use crate::funds::step::{Deed, Step};
use crate::wallets::{Decimal, Party, Token, TokenName, amount};
use alloy::sol_types::SolCall;

/// The steps that a verb means.
pub(super) async fn steps(ground: &Ground, verb: &Verb) -> Result<Vec<Step>, Failure> {
    match verb {
        Verb::Send {
            amount,
            token,
            from,
            to,
            ..
        } => {
            let token = ground.token(*token).await?;
            let step = Step {
                from: ground.account(from)?,
                deed: Deed::Transfer {
                    token,
                    amount: token.units(amount)?,
                    to: ground.payee(to)?,
                },
                why: "bw send".into(),
            };
            Ok(vec![step])
        }
        Verb::Split {
            amount,
            token,
            ratios,
            from,
            to,
            ..
        } => {
            let token = ground.token(*token).await?;
            split(ground, token, amount, ratios, from, to)
        }
        Verb::Withdraw { what, .. } => withdraw(ground, what).await,
        Verb::Swap {
            amount,
            token,
            wallet,
            slippage_bps,
            ..
        } => {
            let token = ground.token(*token).await?;
            let Some(contract) = token.address else {
                return Err(Failure::Usage(
                    "eth is eth already; name another token".into(),
                ));
            };
            let router = look::router(&ground.config).ok_or_else(|| {
                Failure::Refused(
                    "no router is known for this chain; set uniswap.router in web3-defaults.yaml"
                        .into(),
                )
            })?;
            let from = ground.account(wallet)?;
            let allowance = look::allowance(&ground.chain, contract, from.address, router).await?;
            let amount = token.units(amount)?;
            Ok(plan::swap(
                &from,
                token,
                amount,
                allowance,
                router,
                *slippage_bps,
                "bw swap",
            ))
        }
        Verb::Config {
            key:
                ConfigKey::Stable {
                    address: Some(address),
                    ..
                },
        } => {
            // Something that has no decimals is no token, and would take customers' purchases down.
            Token::of(&ground.chain, *address).await?;
            let call = BlockhostSubscriptions::setPrimaryStablecoinCall {
                stablecoin: *address,
            };
            let contract = ground.config.subscription_contract()?;
            ground.invoke(contract, call.abi_encode(), "bw config stable")
        }
        Verb::Plan {
            verb: PlanVerb::Create { name, cents, .. },
        } => {
            let call = BlockhostSubscriptions::createPlanCall {
                name: name.as_str().to_owned(),
                pricePerDayUsdCents: U256::from(*cents),
            };
            let contract = ground.config.subscription_contract()?;
            ground.invoke(contract, call.abi_encode(), "bw plan create")
        }
        Verb::Set {
            key: SetKey::Encrypt { nft_id, hex, .. },
        } => {
            let bytes = decode_hex("the access details", hex)?;
            let call = AccessCredentialNFT::updateUserEncryptedCall {
                tokenId: U256::from(*nft_id),
                userEncrypted: Bytes::from(bytes.to_vec()),
            };
            let contract = ground.config.nft_contract()?;
            ground.invoke(contract, call.abi_encode(), "bw set encrypt")
        }
        Verb::Balance { .. } | Verb::Who { .. } | Verb::Config { .. } | Verb::Plan { .. } => {
            Ok(Vec::new())
        }
    }
}

fn split(
    ground: &Ground,
    token: Token,
    amount: &Decimal,
    ratios: &Ratios,
    from: &Party,
    to: &[Party],
) -> Result<Vec<Step>, Failure> {
    if ratios.0.len() != to.len() {
        return Err(Failure::Usage(format!(
            "there are {} ratios and {} recipients",
            ratios.0.len(),
            to.len()
        )));
    }
    let from = ground.account(from)?;
    let units = token.units(amount)?;
    let parts = amount::divide(units, &ratios.0)
        .ok_or_else(|| Failure::Usage("the ratios come to nothing".into()))?;
    let mut steps = Vec::with_capacity(to.len());
    for (part, to) in parts.into_iter().zip(to) {
        if part.is_zero() {
            return Err(Failure::Usage(format!(
                "{amount} is too little to split: {to} would get nothing"
            )));
        }
        steps.push(Step {
            from: from.clone(),
            deed: Deed::Transfer {
                token,
                amount: part,
                to: ground.payee(to)?,
            },
            why: "bw split".into(),
        });
    }
    Ok(steps)
}

async fn withdraw(ground: &Ground, what: &[String]) -> Result<Vec<Step>, Failure> {
    let (token, to) = match what {
        [to] => (None, to),
        [token, to] => (Some(token.parse::<TokenName>()?), to),
        _ => return Err(Failure::Usage("name a token and who gets it".into())),
    };
    let to = ground.payee(&to.parse()?)?;
    let contract = ground.config.subscription_contract()?;
    let chain = &ground.chain;
    let tokens = match token {
        Some(TokenName::Eth) => {
            return Err(Failure::Usage(
                "the contract takes tokens only, no eth".into(),
            ));
        }
        Some(token) => vec![ground.token(token).await?],
        None => {
            let accepted = look::accepted(chain, contract).await?;
            accepted.into_iter().map(|one| one.token).collect()
        }
    };
    let server = ground.server()?;
    let mut steps = Vec::new();
    for token in tokens {
        let amount = token.balance(chain, contract).await?;
        if amount.is_zero() {
            continue;
        }
        steps.push(Step {
            from: server.clone(),
            deed: Deed::Withdraw {
                contract,
                token,
                amount,
                to,
            },
            why: "bw withdraw".into(),
        });
    }
    if steps.is_empty() {
        return Err(Failure::Refused("there is nothing to withdraw".into()));
    }
    Ok(steps)
}
