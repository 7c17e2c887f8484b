//! `bw`, `ab` and `is` as scripts see them, on a real chain: exit codes, exact amounts, nothing sent that should not be.

mod common;

use alloy::primitives::{Address, U256};
use blockhost_engine::chain::bindings::{AccessCredentialNFT, BlockhostSubscriptions};
use common::bank::{ADMIN, BROKER, Bank, DEV, ETH, answer, complaint, usd};
use common::{address, wallet};
use std::process::Output;

const BW: &str = env!("CARGO_BIN_EXE_bw");
const AB: &str = env!("CARGO_BIN_EXE_ab");
const IS: &str = env!("CARGO_BIN_EXE_is");

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap().trim_end()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_arrives_exactly_and_its_receipt_names_the_transaction() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.mint(bank.world.usd, address(0), usd(100)).await;
    let sent = bank.sent(address(0)).await;
    let dry = answer(&bank.run(
        BW,
        &[
            "send",
            "12.345678",
            "stable",
            "server",
            "admin",
            "--dry-run",
            "--json",
        ],
    ));
    assert_eq!(dry["steps"][0]["units"], "12345678");
    assert_eq!(bank.sent(address(0)).await, sent, "a dry run sends nothing");

    let done = answer(&bank.run(
        BW,
        &["send", "12.345678", "stable", "server", "admin", "--json"],
    ));
    let step = &done["steps"][0];
    assert_eq!(
        (step["state"].as_str(), step["moved"].as_str()),
        (Some("done"), Some("12345678"))
    );
    assert!(step["tx"].as_str().unwrap().starts_with("0x") && step["fee_wei"].is_string());
    assert_eq!(
        bank.has(bank.world.usd, ADMIN).await,
        U256::from(12_345_678)
    );
    let event = bank.world.recorded_events().pop().unwrap();
    assert_eq!(
        (event["action"].as_str(), event["data"]["tx"].as_str()),
        (Some("funds-paid"), step["tx"].as_str())
    );

    let done = bank.run(
        BW,
        &[
            "send",
            "0.000000000000000001",
            "eth",
            "server",
            "0x00000000000000000000000000000000000000A1",
        ],
    );
    assert_eq!(code(&done), 0, "{}", complaint(&done));
    assert!(said(&done).contains("transaction 0x"), "{}", said(&done));
    assert_eq!(
        bank.eth(
            "0x00000000000000000000000000000000000000A1"
                .parse()
                .unwrap()
        )
        .await,
        U256::from(1)
    );
    // By its address, a token is the same token.
    let token = bank.world.usd.to_string();
    assert_eq!(
        code(&bank.run(BW, &["send", "1", &token, "server", "dev"])),
        0
    );
    assert_eq!(bank.has(bank.world.usd, DEV).await, usd(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_meant_or_paid_is_refused_before_anything_is_sent() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.mint(bank.world.usd, address(0), usd(10)).await;
    let sent = bank.sent(address(0)).await;
    for (args, expected, part) in [
        (vec!["send", "1e3", "stable", "server", "admin"], 2, "1e3"),
        (
            vec!["send", "0.0000001", "stable", "server", "admin"],
            1,
            "finer than the token",
        ),
        (vec!["send", "0", "stable", "server", "admin"], 1, "nothing"),
        (
            vec!["send", "10.000001", "stable", "server", "admin"],
            1,
            "server has 10",
        ),
        (vec!["send", "1", "usdc", "server", "admin"], 2, "usdc"),
        (
            vec!["send", "1", "stable", "admin", "dev"],
            1,
            "no key file",
        ),
        (
            vec!["send", "1", "stable", "somebody", "dev"],
            1,
            "has no somebody",
        ),
        (
            vec![
                "send",
                "1",
                "stable",
                "0x00000000000000000000000000000000000000A1",
                "dev",
            ],
            1,
            "cannot pay from here",
        ),
        (
            vec![
                "send",
                "1",
                "stable",
                "server",
                "0x0000000000000000000000000000000000000000",
            ],
            2,
            "lost",
        ),
        (
            vec![
                "send",
                "1",
                "stable",
                "server",
                "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92265",
            ],
            2,
            "checksum",
        ),
        (
            vec![
                "send",
                "1",
                "0x00000000000000000000000000000000000000A1",
                "server",
                "dev",
            ],
            1,
            "no usable answer",
        ),
        (
            vec!["split", "10", "stable", "1/2", "server", "admin"],
            2,
            "2 ratios and 1 recipients",
        ),
        (
            vec![
                "split", "0.000001", "stable", "1/1", "server", "admin", "dev",
            ],
            2,
            "too little to split",
        ),
        (
            vec!["split", "10", "stable", "1/0", "server", "admin", "dev"],
            2,
            "1/0",
        ),
        (vec!["withdraw", "eth", "admin"], 2, "no eth"),
        (vec!["withdraw", "admin"], 1, "nothing to withdraw"),
        (vec!["swap", "1", "eth", "eth", "server"], 2, "eth already"),
        (vec!["swap", "1", "stable", "stable", "server"], 2, "stable"),
        (
            vec![
                "swap",
                "1",
                "stable",
                "eth",
                "server",
                "--slippage-bps",
                "1001",
            ],
            2,
            "1001",
        ),
        (
            vec![
                "config",
                "stable",
                "0x00000000000000000000000000000000000000A1",
            ],
            1,
            "no usable answer",
        ),
        (vec!["plan", "create", "free", "0"], 2, "0"),
        (vec!["set", "encrypt", "0", "zz"], 1, "hex"),
        (
            vec!["set", "encrypt", "99", "0x00"],
            1,
            "ERC721NonexistentToken",
        ),
        (vec!["who", "99"], 1, "ERC721NonexistentToken"),
        (vec!["who", "some text"], 2, "some text"),
        (vec!["who", "some text", "0x00"], 1, "65"),
    ] {
        let done = bank.run(BW, &args);
        assert_eq!(code(&done), expected, "{args:?}: {}", complaint(&done));
        assert!(
            complaint(&done).contains(part),
            "{args:?}: {}",
            complaint(&done)
        );
    }
    assert_eq!(bank.sent(address(0)).await, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_comes_exactly_to_the_amount() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    bank.mint(bank.world.usd, address(0), usd(100)).await;
    let done = bank.run(
        BW,
        &[
            "split", "100", "stable", "1/1/1", "server", "admin", "dev", "broker",
        ],
    );
    assert_eq!(code(&done), 0, "{}", complaint(&done));
    assert_eq!(
        bank.has(bank.world.usd, ADMIN).await,
        U256::from(33_333_334)
    );
    assert_eq!(bank.has(bank.world.usd, DEV).await, U256::from(33_333_333));
    assert_eq!(
        bank.has(bank.world.usd, BROKER).await,
        U256::from(33_333_333)
    );
    assert_eq!(bank.has(bank.world.usd, address(0)).await, U256::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn withdrawals_and_swaps_and_settings_do_what_they_say() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    let token = bank.second_token(18, 30).await;
    bank.mint(bank.world.usd, bank.world.pos, usd(70)).await;
    bank.mint(token, bank.world.pos, ETH).await;
    assert_eq!(code(&bank.run(BW, &["withdraw", "stable", "server"])), 0);
    assert_eq!(bank.has(bank.world.usd, address(0)).await, usd(70));
    assert_eq!(bank.has(token, bank.world.pos).await, ETH);
    assert_eq!(code(&bank.run(BW, &["withdraw", "admin"])), 0);
    assert_eq!(bank.has(token, ADMIN).await, ETH);

    let balances = answer(&bank.run(BW, &["balance", "admin", "--json"]));
    let amounts: Vec<&str> = balances["balances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["amount"].as_str().unwrap())
        .collect();
    assert_eq!(amounts, ["0", "0", "1"]);
    assert_eq!(
        said(&bank.run(BW, &["balance", "server", "stable"])),
        "70\tstable"
    );

    let before = bank.eth(address(0)).await;
    let done = answer(&bank.run(BW, &["swap", "20", "stable", "eth", "server", "--json"]));
    assert_eq!(done["steps"].as_array().unwrap().len(), 2);
    assert!(bank.eth(address(0)).await > before);
    assert_eq!(bank.has(bank.world.usd, address(0)).await, usd(50));

    let pos = BlockhostSubscriptions::new(bank.world.pos, bank.maker());
    assert_eq!(
        said(&bank.run(BW, &["config", "stable"])),
        bank.world.usd.to_string()
    );
    assert_eq!(
        code(&bank.run(BW, &["config", "stable", &token.to_string(), "--dry-run"])),
        0
    );
    assert_eq!(
        pos.getPrimaryStablecoin().call().await.unwrap(),
        bank.world.usd
    );
    assert_eq!(
        code(&bank.run(BW, &["config", "stable", &token.to_string()])),
        0
    );
    assert_eq!(pos.getPrimaryStablecoin().call().await.unwrap(), token);
    assert_eq!(code(&bank.run(BW, &["plan", "create", "large", "250"])), 0);
    let plan = pos.getPlan(U256::from(2)).call().await.unwrap();
    assert_eq!(
        (plan.name.as_str(), plan.pricePerDayUsdCents),
        ("large", U256::from(250))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_and_is_know_credentials_signatures_and_contracts() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    let nft = AccessCredentialNFT::new(bank.world.nft, bank.world.anvil.account(0));
    let sent = nft
        .mint(address(1), vec![1_u8].into())
        .send()
        .await
        .unwrap();
    assert!(sent.get_receipt().await.unwrap().status());
    assert_eq!(said(&bank.run(BW, &["who", "0"])), address(1).to_string());
    assert_eq!(
        said(&bank.run(BW, &["who", "admin"])),
        format!("{ADMIN}\tadmin")
    );
    let signature = format!(
        "0x{}",
        hex::encode(wallet(0).sign_message(b"some text").unwrap())
    );
    let who = answer(&bank.run(BW, &["who", "some text", &signature, "--json"]));
    assert_eq!(
        (who["address"].as_str(), who["name"].as_str()),
        (Some(address(0).to_string().as_str()), Some("server"))
    );
    let other = answer(&bank.run(BW, &["who", "other text", &signature, "--json"]));
    assert_ne!(other["address"], address(0).to_string());
    assert_eq!(code(&bank.run(BW, &["set", "encrypt", "0", "0x0708"])), 0);
    assert_eq!(
        nft.getUserEncrypted(U256::ZERO)
            .call()
            .await
            .unwrap()
            .to_vec(),
        [7_u8, 8]
    );

    let owner = address(1).to_string();
    for (args, expected) in [
        (vec![owner.as_str(), "0"], 0),
        (vec!["admin", "0"], 1),
        (vec![owner.as_str(), "1"], 1),
        (vec!["contract", &bank.world.nft.to_string()], 0),
        (vec!["contract", &owner], 1),
        (vec!["contract", "0x00"], 2),
        (vec![owner.as_str(), "-1"], 2),
        (vec![owner.as_str(), "x"], 2),
        (vec!["somebody", "0"], 3),
    ] {
        let answer = bank.run(IS, &args);
        assert_eq!(code(&answer), expected, "{args:?}: {}", complaint(&answer));
        match expected {
            0 => assert_eq!(said(&answer), "yes"),
            1 => assert_eq!(said(&answer), "no"),
            _ => assert_eq!(said(&answer), ""),
        }
    }
    assert_eq!(
        answer(&bank.run(IS, &["contract", &bank.world.nft.to_string(), "--json"]))["answer"],
        true
    );
    assert_eq!(said(&bank.run(IS, &[&owner, "0", "--quiet"])), "");
    // A chain that does not answer is no "no".
    let path = bank.world.layout.etc().join("web3-defaults.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines = text.lines().map(|line| {
        if line.trim_start().starts_with("rpc_url:") {
            "  rpc_url: 'http://127.0.0.1:1'".to_owned()
        } else {
            line.to_owned()
        }
    });
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    assert_eq!(code(&bank.run(IS, &[&owner, "0"])), 3);
    assert_eq!(code(&bank.run(IS, &["contract", &owner])), 3);
    let failed = bank.run(BW, &["send", "1", "eth", "server", "admin"]);
    assert_eq!(code(&failed), 1, "{}", complaint(&failed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_book_changes_by_name_and_roles_are_entered_once() {
    let Some(bank) = Bank::new().await else {
        return;
    };
    let one = Address::repeat_byte(0x11).to_string();
    let two = Address::repeat_byte(0x22).to_string();
    let before = bank.book();
    for (args, expected, part) in [
        (vec!["add", "admin", &one], 1, "is a role"),
        (vec!["up", "dev", &one], 1, "is a role"),
        (vec!["del", "server"], 1, "is a role"),
        (vec!["new", "hot"], 1, "is a role"),
        (vec!["add", "Partner", &one], 2, "Partner"),
        (vec!["add", "partner", "0x11"], 1, "not an address"),
        (
            vec![
                "add",
                "partner",
                "0x0000000000000000000000000000000000000000",
            ],
            1,
            "nobody",
        ),
        (vec!["del", "partner"], 1, "has no partner"),
        (vec!["up", "partner", &one], 1, "has no partner"),
        (vec!["--init", &one, &two], 1, "already"),
        (vec!["--init", &one], 2, "--init"),
        (vec![], 2, "ab"),
    ] {
        let done = bank.run(AB, &args);
        assert_eq!(code(&done), expected, "{args:?}: {}", complaint(&done));
        assert!(
            complaint(&done).contains(part),
            "{args:?}: {}",
            complaint(&done)
        );
    }
    assert_eq!(bank.book(), before);

    assert_eq!(
        said(&bank.run(AB, &["add", "partner", &one])),
        format!("partner\t{one}")
    );
    assert_eq!(
        code(&bank.run(AB, &["add", "partner", &two])),
        1,
        "there is one already"
    );
    assert_eq!(code(&bank.run(AB, &["up", "partner", &two])), 0);
    assert_eq!(bank.book()["partner"]["address"], two);
    let made = answer(&bank.run(AB, &["new", "savings", "--json"]));
    assert_eq!(made["entry"]["keyfile"], "savings.key");
    let up = bank.run(AB, &["up", "savings", &one]);
    assert_eq!(
        code(&up),
        1,
        "its key would be another's: {}",
        complaint(&up)
    );
    // What was made here can pay from here.
    assert_eq!(
        code(&bank.run(BW, &["send", "1", "eth", "server", "savings"])),
        0
    );
    assert_eq!(
        code(&bank.run(BW, &["send", "0.5", "eth", "savings", "partner"])),
        0
    );
    assert_eq!(
        bank.eth(Address::repeat_byte(0x22)).await,
        ETH / U256::from(2)
    );
    assert_eq!(code(&bank.run(AB, &["del", "savings"])), 0);
    assert!(
        bank.world.layout.etc().join("savings.key").exists(),
        "keys are never deleted"
    );
    assert_eq!(code(&bank.run(AB, &["del", "partner"])), 0);
    assert_eq!(bank.book(), before);

    std::fs::remove_file(bank.world.layout.addressbook()).unwrap();
    let server = address(0).to_string();
    let done = bank.run(AB, &["--init", &one, &server, &two]);
    assert_eq!(code(&done), 0, "{}", complaint(&done));
    assert_eq!(
        bank.book()["server"]["keyfile"],
        "/etc/blockhost/deployer.key"
    );
    assert!(bank.book()["broker"].is_null());
    assert_eq!(
        code(&bank.run(AB, &["--init", &one, &server, &two])),
        0,
        "the same again is no change"
    );
    assert_eq!(code(&bank.run(AB, &["--init", &two, &server])), 1);
    let listed = answer(&bank.run(AB, &["list", "--json"]));
    assert_eq!(listed["entries"]["admin"]["address"], one);
    std::fs::write(bank.world.layout.addressbook(), "{\"admin\": 1}").unwrap();
    assert_eq!(
        code(&bank.run(AB, &["list"])),
        1,
        "a damaged book is not an empty one"
    );
}
