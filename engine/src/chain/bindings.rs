//! Rust types of the contracts, made by the compiler from the committed artifacts: if the ABI changes and the code
//! doesn't, the build fails.
#![allow(
    missing_docs,
    clippy::too_many_arguments,
    reason = "generated from the ABI, documented in the contracts"
)]

use alloy::sol;

sol!(
    #[sol(rpc)]
    #[derive(Debug)]
    BlockhostSubscriptions,
    "contracts/artifacts/BlockhostSubscriptions.json"
);

sol!(
    #[sol(rpc)]
    #[derive(Debug)]
    AccessCredentialNFT,
    "contracts/artifacts/AccessCredentialNFT.json"
);

sol!(
    #[sol(rpc)]
    #[derive(Debug)]
    MockUSD,
    "contracts/artifacts/MockUSD.json"
);

sol!(
    #[sol(rpc)]
    #[derive(Debug, PartialEq, Eq)]
    LedgerAnchor,
    "contracts/artifacts/LedgerAnchor.json"
);
