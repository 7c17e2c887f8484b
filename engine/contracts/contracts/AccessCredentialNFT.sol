// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";
import {ERC721Enumerable} from "@openzeppelin/contracts/token/ERC721/extensions/ERC721Enumerable.sol";

/// One token per machine: who holds it may log in. `userEncrypted` are the access details, readable only with
/// the buyer's signature of the public secret. Token ids start at 0.
contract AccessCredentialNFT is ERC721Enumerable, Ownable {
    uint256 private nextTokenId;
    mapping(uint256 tokenId => bytes) private details;

    event CredentialMinted(uint256 indexed tokenId, address indexed recipient);
    event CredentialUpdated(uint256 indexed tokenId);

    constructor(string memory name, string memory symbol) ERC721(name, symbol) Ownable(msg.sender) {}

    function mint(address to, bytes calldata userEncrypted) external onlyOwner returns (uint256 tokenId) {
        tokenId = nextTokenId++;
        details[tokenId] = userEncrypted;
        // Not _safeMint: a wallet contract's callback must not be able to refuse or re-enter a mint.
        _mint(to, tokenId);
        emit CredentialMinted(tokenId, to);
    }

    function updateUserEncrypted(uint256 tokenId, bytes calldata userEncrypted) external onlyOwner {
        _requireOwned(tokenId);
        details[tokenId] = userEncrypted;
        emit CredentialUpdated(tokenId);
    }

    function getUserEncrypted(uint256 tokenId) external view returns (bytes memory) {
        _requireOwned(tokenId);
        return details[tokenId];
    }
}
