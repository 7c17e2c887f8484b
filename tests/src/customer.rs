//! The other side of the chain: the operator who deploys and prices, and the customer who buys. Written from the ABI and
//! the byte formats alone; shares no code with the engine, so that what the engine writes is checked by a stranger.

mod sealed;

use std::time::{Duration, Instant};

use alloy::network::{EthereumWallet, TransactionBuilder as _};
use alloy::primitives::{Address, TxHash, U256};
use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use alloy::rpc::types::TransactionRequest;
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use alloy::sol;
use tokio::runtime::Runtime;

pub use sealed::{decrypt_access, encrypt_to_server};

sol! {
    #[sol(rpc)]
    interface Subscriptions {
        function createPlan(string name, uint256 pricePerDayUsdCents) external returns (uint256);
        function calculatePayment(uint256 planId, uint256 numDays, uint256 paymentMethodId) external view returns (uint256);
        function buySubscription(uint256 planId, uint256 numDays, uint256 paymentMethodId, bytes userEncrypted) external returns (uint256);
        function extendSubscription(uint256 subscriptionId, uint256 numDays, uint256 paymentMethodId) external;
        function cancelSubscription(uint256 subscriptionId) external;
        function getSubscription(uint256 subscriptionId) external view returns (uint256 planId, address subscriber, uint256 expiresAt, bool isActive, bool cancelled);
        function nextPlanId() external view returns (uint256);
        event SubscriptionCreated(uint256 indexed subscriptionId, uint256 indexed planId, address indexed subscriber, uint256 expiresAt, uint256 paidAmount, address paymentToken, bytes userEncrypted);
    }

    #[sol(rpc)]
    interface Credentials {
        function totalSupply() external view returns (uint256);
        function ownerOf(uint256 tokenId) external view returns (address);
        function balanceOf(address owner) external view returns (uint256);
        function tokenOfOwnerByIndex(address owner, uint256 index) external view returns (uint256);
        function getUserEncrypted(uint256 tokenId) external view returns (bytes);
    }

    #[sol(rpc)]
    interface Token {
        function mint(address to, uint256 amount) external;
        function approve(address spender, uint256 amount) external returns (bool);
    }
}

/// Why something on the chain did not work.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The node or the contract refused.
    #[error("{what}: {reason}")]
    Refused {
        /// What was tried.
        what: String,
        /// The node's words.
        reason: String,
    },
    /// It was mined but reverted.
    #[error("{what}: the transaction {hash} was reverted")]
    Reverted {
        /// What was tried.
        what: String,
        /// Its hash.
        hash: TxHash,
    },
    /// Something on the chain has another shape than agreed.
    #[error("{0}")]
    Unexpected(String),
}

/// A wallet on the local chain: the operator's or the customer's.
pub struct Wallet {
    signer: PrivateKeySigner,
    provider: DynProvider,
    runtime: Runtime,
}

/// What buying gave.
#[derive(Debug, Clone)]
pub struct Purchase {
    /// Id of the subscription.
    pub subscription: u64,
    /// Unix time it ends.
    pub expires_at: u64,
}

/// What the NFT says once decrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Where to connect to.
    pub hostname: String,
    /// SSH port.
    pub port: u16,
    /// User in the machine.
    pub username: String,
}

impl Wallet {
    /// A wallet with this key, on the chain at `url`.
    ///
    /// # Errors
    /// [`ChainError`] for a key that is none.
    pub fn new(key: &[u8], url: &str) -> Result<Self, ChainError> {
        let signer = PrivateKeySigner::from_slice(key)
            .map_err(|error| refused("reading the wallet key", error))?;
        let url = url
            .parse()
            .map_err(|error| refused("reading the node's address", error))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| refused("starting the runtime", error))?;
        let wallet = EthereumWallet::from(signer.clone());
        // Another wallet of this process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // The transport spawns nothing before its first request, but wants the runtime it will live in.
        let provider = {
            let _entered = runtime.enter();
            ProviderBuilder::new()
                .wallet(wallet)
                .connect_http(url)
                .erased()
        };
        Ok(Self {
            signer,
            provider,
            runtime,
        })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// The address as people write it.
    #[must_use]
    pub fn address_text(&self) -> String {
        self.signer.address().to_checksum(None)
    }

    /// Gives an account ether; only a development chain allows this.
    ///
    /// # Errors
    /// [`ChainError::Refused`].
    pub fn give_ether(&self, to: Address, ether: u64) -> Result<(), ChainError> {
        let wei = U256::from(ether) * U256::from(10_u64).pow(U256::from(18));
        self.runtime
            .block_on(async {
                self.provider
                    .raw_request::<_, ()>("anvil_setBalance".into(), (to, wei))
                    .await
            })
            .map_err(|error| refused("giving ether", error))
    }

    /// Moves the chain's clock and mines a block.
    ///
    /// # Errors
    /// [`ChainError::Refused`].
    pub fn pass_time(&self, time: Duration) -> Result<(), ChainError> {
        self.runtime
            .block_on(async {
                let _: serde_json::Value = self
                    .provider
                    .raw_request("evm_increaseTime".into(), (time.as_secs(),))
                    .await?;
                let _: serde_json::Value = self.provider.raw_request("evm_mine".into(), ()).await?;
                Ok::<_, alloy::transports::TransportError>(())
            })
            .map_err(|error| refused("moving the chain's clock", error))
    }

    /// Operator: makes a plan; answers its id.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn make_plan(
        &self,
        contract: Address,
        name: &str,
        cents_per_day: u64,
    ) -> Result<u64, ChainError> {
        let contract = Subscriptions::new(contract, self.provider.clone());
        self.runtime.block_on(async {
            let id = contract
                .nextPlanId()
                .call()
                .await
                .map_err(|error| refused("reading the next plan", error))?;
            settle(
                "creating the plan",
                contract
                    .createPlan(name.to_owned(), U256::from(cents_per_day))
                    .send()
                    .await,
            )
            .await?;
            small(id)
        })
    }

    /// Gives an account test stablecoins.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn mint_tokens(&self, token: Address, to: Address, amount: u64) -> Result<(), ChainError> {
        let token = Token::new(token, self.provider.clone());
        self.runtime.block_on(async {
            settle(
                "minting test stablecoins",
                token.mint(to, U256::from(amount)).send().await,
            )
            .await
        })?;
        Ok(())
    }

    /// Customer: approves the exact price and buys with the primary stablecoin.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn buy(
        &self,
        contract: Address,
        token: Address,
        plan: u64,
        days: u64,
        encrypted: Vec<u8>,
    ) -> Result<Purchase, ChainError> {
        let address = contract;
        let contract = Subscriptions::new(contract, self.provider.clone());
        self.runtime.block_on(async {
            self.approve(&contract, address, token, plan, days).await?;
            let call = contract.buySubscription(
                U256::from(plan),
                U256::from(days),
                U256::from(1),
                encrypted.into(),
            );
            let receipt = settle("buying the subscription", call.send().await).await?;
            let event = receipt
                .decoded_log::<Subscriptions::SubscriptionCreated>()
                .ok_or_else(|| {
                    ChainError::Unexpected("buying emitted no SubscriptionCreated".to_owned())
                })?;
            Ok(Purchase {
                subscription: small(event.subscriptionId)?,
                expires_at: small(event.expiresAt)?,
            })
        })
    }

    /// Customer: pays for more days; answers the new end as a Unix time.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn extend(
        &self,
        contract: Address,
        token: Address,
        plan: u64,
        subscription: u64,
        days: u64,
    ) -> Result<u64, ChainError> {
        let address = contract;
        let contract = Subscriptions::new(contract, self.provider.clone());
        self.runtime.block_on(async {
            self.approve(&contract, address, token, plan, days).await?;
            let call = contract.extendSubscription(
                U256::from(subscription),
                U256::from(days),
                U256::from(1),
            );
            settle("extending the subscription", call.send().await).await?;
            let now = contract
                .getSubscription(U256::from(subscription))
                .call()
                .await;
            small(
                now.map_err(|error| refused("reading the subscription", error))?
                    .expiresAt,
            )
        })
    }

    /// Owner of the contract: ends a subscription.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn cancel(&self, contract: Address, subscription: u64) -> Result<(), ChainError> {
        let contract = Subscriptions::new(contract, self.provider.clone());
        self.runtime.block_on(async {
            settle(
                "cancelling",
                contract
                    .cancelSubscription(U256::from(subscription))
                    .send()
                    .await,
            )
            .await
        })?;
        Ok(())
    }

    /// Administrator: a transaction that carries nothing but data.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn send_data(&self, to: Address, data: Vec<u8>) -> Result<(), ChainError> {
        let request = TransactionRequest::default().with_to(to).with_input(data);
        self.runtime.block_on(async {
            let sent = self.provider.send_transaction(request).await;
            settle("sending data", sent.map_err(Into::into)).await
        })?;
        Ok(())
    }

    async fn approve(
        &self,
        contract: &Subscriptions::SubscriptionsInstance<DynProvider>,
        spender: Address,
        token: Address,
        plan: u64,
        days: u64,
    ) -> Result<(), ChainError> {
        let price = contract
            .calculatePayment(U256::from(plan), U256::from(days), U256::from(1))
            .call()
            .await
            .map_err(|error| refused("asking for the price", error))?;
        let token = Token::new(token, self.provider.clone());
        settle(
            "approving the payment",
            token.approve(spender, price).send().await,
        )
        .await?;
        Ok(())
    }

    /// The access credential of this wallet, as soon as it has one: token id and ciphertext.
    ///
    /// # Errors
    /// [`ChainError`] from the node.
    pub fn credential(&self, nft: Address) -> Result<Option<(u64, Vec<u8>)>, ChainError> {
        let nft = Credentials::new(nft, self.provider.clone());
        self.runtime.block_on(async {
            let what = "reading the credential";
            let count = nft
                .balanceOf(self.address())
                .call()
                .await
                .map_err(|error| refused(what, error))?;
            if count.is_zero() {
                return Ok(None);
            }
            let last = count - U256::from(1);
            let id = nft
                .tokenOfOwnerByIndex(self.address(), last)
                .call()
                .await
                .map_err(|error| refused(what, error))?;
            let data = nft
                .getUserEncrypted(id)
                .call()
                .await
                .map_err(|error| refused(what, error))?;
            Ok(Some((small(id)?, data.to_vec())))
        })
    }

    /// How many credentials exist in all; a second one for the same subscription would be a bug.
    ///
    /// # Errors
    /// [`ChainError`] from the node.
    pub fn credentials_in_all(&self, nft: Address) -> Result<u64, ChainError> {
        let nft = Credentials::new(nft, self.provider.clone());
        let supply = self
            .runtime
            .block_on(async { nft.totalSupply().call().await });
        small(supply.map_err(|error| refused("counting credentials", error))?)
    }

    /// `personal_sign` (EIP-191) of a text: 65 bytes.
    ///
    /// # Errors
    /// [`ChainError`] when signing fails, which no valid key does.
    pub fn sign(&self, text: &str) -> Result<[u8; 65], ChainError> {
        let signature = self
            .signer
            .sign_message_sync(text.as_bytes())
            .map_err(|error| refused("signing", error))?;
        Ok(signature.as_bytes())
    }
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// The first error of `ask`, or `late` after `limit`.
pub fn poll<T, E>(
    limit: Duration,
    late: impl FnOnce() -> E,
    mut ask: impl FnMut() -> Result<Option<T>, E>,
) -> Result<T, E> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() >= end {
            return Err(late());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn refused(what: &str, error: impl std::fmt::Display) -> ChainError {
    ChainError::Refused {
        what: what.to_owned(),
        reason: error.to_string(),
    }
}

fn small(number: U256) -> Result<u64, ChainError> {
    u64::try_from(number)
        .map_err(|_| ChainError::Unexpected(format!("{number} is too large to be an id or a time")))
}

type Sent = Result<
    alloy::providers::PendingTransactionBuilder<alloy::network::Ethereum>,
    alloy::contract::Error,
>;

async fn settle(
    what: &str,
    sent: Sent,
) -> Result<alloy::rpc::types::TransactionReceipt, ChainError> {
    let pending = sent.map_err(|error| refused(what, error))?;
    let receipt = pending
        .get_receipt()
        .await
        .map_err(|error| refused(what, error))?;
    if receipt.status() {
        Ok(receipt)
    } else {
        Err(ChainError::Reverted {
            what: what.to_owned(),
            hash: receipt.transaction_hash,
        })
    }
}
