// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {MockUSD} from "./MockUSD.sol";

/// A token of the kind that changes a permission only by way of zero, as some of the largest stablecoins do.
contract CautiousToken is MockUSD {
    constructor(string memory name, string memory symbol, uint8 decimals_) MockUSD(name, symbol, decimals_) {}

    function approve(address spender, uint256 value) public override returns (bool) {
        require(value == 0 || allowance(msg.sender, spender) == 0, "not by way of zero");
        return super.approve(spender, value);
    }
}
