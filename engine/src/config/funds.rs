//! Section `fund_manager` of `blockhost.yaml`: when money is moved, and how much of it stays where.

use super::host::positive;
use crate::chain::U256;
use crate::wallets::Decimal;
use serde::{Deserialize, Deserializer};

/// Decimals of an amount in dollars here, as in the planner.
const USD_DECIMALS: u8 = 6;
const ETH_DECIMALS: u8 = 18;
/// More than this is no slippage but a gift.
const MAX_SLIPPAGE_BPS: u16 = 1000;

/// The section. Amounts are decimal numbers and kept exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FundManagerSection {
    /// Whether money is moved at all.
    pub enabled: bool,
    /// Hours between two rounds: withdrawal, shares, the rest to the admin.
    #[serde(deserialize_with = "positive")]
    pub fund_cycle_interval_hours: u64,
    /// Minutes between two looks at the server's gas.
    #[serde(deserialize_with = "positive")]
    pub gas_check_interval_minutes: u64,
    /// Worth less than this, a token stays in the contract; in millionths of a dollar.
    #[serde(deserialize_with = "usd")]
    pub min_withdrawal_usd: U256,
    /// What the hot wallet should have for gas, in wei.
    #[serde(deserialize_with = "eth")]
    pub hot_wallet_gas_eth: U256,
    /// What the server should have of the stablecoin, in millionths of a dollar.
    #[serde(deserialize_with = "usd")]
    pub server_stablecoin_buffer_usd: U256,
    /// Worth less than this, the server's coin is too little gas; in millionths of a dollar.
    #[serde(deserialize_with = "usd")]
    pub gas_low_threshold_usd: U256,
    /// For how much gas is bought then, in millionths of a dollar.
    #[serde(deserialize_with = "usd")]
    pub gas_swap_amount_usd: U256,
    /// How much less than quoted a swap may bring, in hundredths of a percent.
    #[serde(deserialize_with = "slippage")]
    pub slippage_bps: u16,
    /// The most that a unit of gas may cost for all this, in gwei.
    #[serde(deserialize_with = "positive")]
    pub max_fee_gwei: u64,
    /// Seconds between two looks at what is due.
    #[serde(deserialize_with = "positive")]
    pub look_every_s: u64,
}

impl Default for FundManagerSection {
    fn default() -> Self {
        let usd = |dollars: u64| U256::from(dollars * 1_000_000);
        Self {
            enabled: true,
            fund_cycle_interval_hours: 24,
            gas_check_interval_minutes: 30,
            min_withdrawal_usd: usd(50),
            hot_wallet_gas_eth: U256::from(10_000_000_000_000_000_u64),
            server_stablecoin_buffer_usd: usd(50),
            gas_low_threshold_usd: usd(5),
            gas_swap_amount_usd: usd(20),
            slippage_bps: 100,
            max_fee_gwei: 1000,
            look_every_s: 60,
        }
    }
}

fn usd<'de, D: Deserializer<'de>>(from: D) -> Result<U256, D::Error> {
    amount(from, USD_DECIMALS)
}

fn eth<'de, D: Deserializer<'de>>(from: D) -> Result<U256, D::Error> {
    amount(from, ETH_DECIMALS)
}

fn amount<'de, D: Deserializer<'de>>(from: D, decimals: u8) -> Result<U256, D::Error> {
    let text = String::deserialize(from)?;
    text.trim()
        .parse::<Decimal>()
        .and_then(|amount| amount.units(decimals))
        .map_err(serde::de::Error::custom)
}

fn slippage<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    match u16::deserialize(from)? {
        bps if bps <= MAX_SLIPPAGE_BPS => Ok(bps),
        bps => Err(serde::de::Error::custom(format_args!(
            "{bps} is more than {MAX_SLIPPAGE_BPS}, which is ten percent"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[derive(Debug, Deserialize)]
    struct Host {
        #[serde(default)]
        fund_manager: FundManagerSection,
    }

    fn read(text: &str) -> Result<FundManagerSection, String> {
        super::super::file::parse::<Host>(Path::new("blockhost.yaml"), text, &["fund_manager"])
            .map(|(host, _)| host.fund_manager)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn amounts_are_kept_exactly_however_they_are_written() {
        let text = "fund_manager:\n  min_withdrawal_usd: 0.1\n  hot_wallet_gas_eth: 0.010000000000000001\n  gas_low_threshold_usd: '7.25'\n  gas_swap_amount_usd: 20\n";
        let section = read(text).unwrap();
        assert_eq!(section.min_withdrawal_usd, U256::from(100_000));
        assert_eq!(
            section.hot_wallet_gas_eth,
            U256::from(10_000_000_000_000_001_u64)
        );
        assert_eq!(section.gas_low_threshold_usd, U256::from(7_250_000));
        assert_eq!(section.gas_swap_amount_usd, U256::from(20_000_000));
        assert_eq!(read("{}").unwrap(), FundManagerSection::default());
    }

    #[test]
    fn what_cannot_be_is_named_with_its_key() {
        for bad in [
            "min_withdrawal_usd: -1",
            "min_withdrawal_usd: 0.0000001",
            "hot_wallet_gas_eth: 1e-2",
            "hot_wallet_gas_eth: .inf",
            "gas_swap_amount_usd: all",
            "slippage_bps: 1001",
            "slippage_bps: -1",
            "fund_cycle_interval_hours: 0",
            "gas_check_interval_minutes: 0",
            "max_fee_gwei: 0",
            "look_every_s: 0",
            "min_withdrawal: 1",
        ] {
            let key = bad.split(':').next().unwrap();
            let error = read(&format!("fund_manager:\n  {bad}\n")).unwrap_err();
            assert!(error.contains(key), "{bad}: {error}");
        }
    }
}
