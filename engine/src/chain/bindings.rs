//! Rust types of the contracts, made by the compiler from the committed artifacts: if the ABI changes and the code
//! doesn't, the build fails. What is others' (tokens, Uniswap V2) is written out, as far as it is used.
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

sol! {
    #[sol(rpc)]
    #[derive(Debug, PartialEq, Eq)]
    interface IERC20 {
        event Transfer(address indexed from, address indexed to, uint256 value);
        function decimals() external view returns (uint8);
        function totalSupply() external view returns (uint256);
        function balanceOf(address owner) external view returns (uint256);
        function allowance(address owner, address spender) external view returns (uint256);
        function transfer(address to, uint256 value) external returns (bool);
        function approve(address spender, uint256 value) external returns (bool);
    }

    #[sol(rpc)]
    #[derive(Debug, PartialEq, Eq)]
    interface IUniswapV2Pair {
        function token0() external view returns (address);
        function token1() external view returns (address);
        function getReserves() external view returns (uint112 reserve0, uint112 reserve1, uint32 blockTimestampLast);
    }

    #[sol(rpc)]
    #[derive(Debug, PartialEq, Eq)]
    interface IUniswapV2Router02 {
        function factory() external view returns (address);
        function WETH() external view returns (address);
        function getAmountsOut(uint256 amountIn, address[] calldata path) external view returns (uint256[] memory amounts);
        function swapExactTokensForETH(uint256 amountIn, uint256 amountOutMin, address[] calldata path, address to, uint256 deadline)
            external returns (uint256[] memory amounts);
    }
}
