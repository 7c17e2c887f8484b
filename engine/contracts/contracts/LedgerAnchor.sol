// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// Heads of tamper-evident ledgers (RFC 6962 trees over SHA-256), kept where the host that writes the ledger cannot take
/// them back. A head is accepted only with the proof that it adds to the one before: a history that was shortened or
/// rewritten can never be anchored again, and everyone can see up to where it was known.
///
/// Every account has its own names: nobody can anchor for, block, or change what another account anchored. There is no
/// owner, no administrator, no upgrade, and nothing is ever paid in.
contract LedgerAnchor {
    /// What is kept of a log: its newest head, and where in the chain's history the event of it is.
    struct Head {
        uint64 size;
        // Seconds since 1970, of the block.
        uint64 time;
        uint64 blockNumber;
        // Anchors of this log so far, this one included.
        uint64 count;
        bytes32 root;
    }

    /// Records are numbered in JSON, whose integers are exact up to here.
    uint64 public constant MAX_SIZE = 2 ** 53 - 1;

    mapping(address owner => mapping(bytes32 origin => Head)) private heads;

    /// `origin` is the SHA-256 of the log's origin line (the name in its checkpoints). `previousBlock` is where the event
    /// before this one is (0 for the first), so that the whole history is read block by block, without searching.
    event Anchored(
        address indexed owner,
        bytes32 indexed origin,
        uint64 indexed count,
        uint64 size,
        bytes32 root,
        uint64 time,
        uint64 previousBlock
    );

    error EmptyLedger();
    error SizeTooLarge(uint64 size);
    error Rollback(uint64 anchoredSize, uint64 offeredSize);
    error AlreadyAnchored(uint64 size);
    error Fork(uint64 size, bytes32 anchoredRoot, bytes32 offeredRoot);
    error WrongProofLength(uint256 given);
    error OldRootMismatch(bytes32 anchoredRoot, bytes32 provedRoot);
    error NewRootMismatch(bytes32 offeredRoot, bytes32 provedRoot);

    /// Anchors a head of the caller's log. The first one of a log needs no proof; every later one needs the RFC 6962
    /// consistency proof from the newest anchored size, in the order of RFC 9162 section 2.1.4.
    function anchor(bytes32 origin, uint64 newSize, bytes32 newRoot, bytes32[] calldata proof) external {
        Head storage head = heads[msg.sender][origin];
        (uint64 size, uint64 previousBlock, uint64 count) = (head.size, head.blockNumber, head.count + 1);
        if (newSize == 0) revert EmptyLedger();
        if (newSize > MAX_SIZE) revert SizeTooLarge(newSize);
        if (newSize < size) revert Rollback(size, newSize);
        if (size == 0) {
            if (proof.length != 0) revert WrongProofLength(proof.length);
        } else {
            bytes32 root = head.root;
            if (newSize == size) {
                if (newRoot == root) revert AlreadyAnchored(size);
                revert Fork(size, root, newRoot);
            }
            checkExtension(size, root, newSize, newRoot, proof);
        }
        (head.size, head.time, head.blockNumber, head.count) =
            (newSize, uint64(block.timestamp), uint64(block.number), count);
        head.root = newRoot;
        emit Anchored(msg.sender, origin, count, newSize, newRoot, uint64(block.timestamp), previousBlock);
    }

    /// The newest head of a log; all zero when nothing was anchored.
    function latest(address owner, bytes32 origin) external view returns (Head memory) {
        return heads[owner][origin];
    }

    /// Reverts unless `proof` shows that the tree of `newSize` with `newRoot` only added to that of `oldSize` with
    /// `oldRoot`, where 0 < oldSize < newSize. For everyone who has two heads and a proof; `anchor` uses it itself.
    function checkExtension(
        uint64 oldSize,
        bytes32 oldRoot,
        uint64 newSize,
        bytes32 newRoot,
        bytes32[] calldata proof
    ) public pure {
        if (oldSize == 0) revert EmptyLedger();
        if (newSize > MAX_SIZE) revert SizeTooLarge(newSize);
        if (newSize <= oldSize) revert Rollback(oldSize, newSize);
        (uint64 node, uint64 last) = (oldSize - 1, newSize - 1);
        // Up to where the old tree's right edge leaves complete subtrees, the two trees share their nodes.
        while (node & 1 == 1) (node, last) = (node >> 1, last >> 1);
        uint256 next = 0;
        bytes32 older = oldRoot;
        // An old tree that is complete is itself a node of the new one, and the proof begins behind it.
        if (node != 0) {
            if (proof.length == 0) revert WrongProofLength(0);
            older = proof[next++];
        }
        bytes32 newer = older;
        for (; next < proof.length; next++) {
            // The newer root is reached: every hash more has no meaning.
            if (last == 0) revert WrongProofLength(proof.length);
            bytes32 sibling = proof[next];
            if (node & 1 == 1 || node == last) {
                older = hashNode(sibling, older);
                newer = hashNode(sibling, newer);
                while (node & 1 == 0 && node != 0) (node, last) = (node >> 1, last >> 1);
            } else {
                newer = hashNode(newer, sibling);
            }
            (node, last) = (node >> 1, last >> 1);
        }
        if (last != 0) revert WrongProofLength(proof.length);
        if (older != oldRoot) revert OldRootMismatch(oldRoot, older);
        if (newer != newRoot) revert NewRootMismatch(newRoot, newer);
    }

    /// RFC 6962: the hash of an inner node, by the SHA-256 precompile.
    function hashNode(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x01), left, right));
    }
}
