// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// The reserves of a Uniswap V2 pair, set by hand, to test pricing.
contract MockPair {
    address public immutable token0;
    address public immutable token1;
    uint112 private reserve0;
    uint112 private reserve1;
    uint32 private changedAt;

    constructor(address first, address second) {
        token0 = first;
        token1 = second;
    }

    function setReserves(uint112 first, uint112 second) external {
        reserve0 = first;
        reserve1 = second;
        changedAt = uint32(block.timestamp);
    }

    function getReserves() external view returns (uint112, uint112, uint32) {
        return (reserve0, reserve1, changedAt);
    }
}
