// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// Calls back into whoever takes its tokens, to test the guard against re-entry.
contract ReentrantToken is ERC20 {
    bytes private callback;

    constructor() ERC20("Reentrant", "RE") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setCallback(bytes calldata data) external {
        callback = data;
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        if (callback.length > 0) {
            (bool ok, bytes memory answer) = msg.sender.call(callback);
            if (!ok) {
                assembly {
                    revert(add(answer, 32), mload(answer))
                }
            }
        }
        return super.transferFrom(from, to, value);
    }
}
