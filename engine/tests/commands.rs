//! The commands as scripts see them: exit codes, exact output, nothing secret in what goes wrong.

mod common;

use blockhost_engine::chain::bindings::{AccessCredentialNFT, BlockhostSubscriptions};
use common::{Anvil, KEYS, address, program};
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

const BHCRYPT: &str = env!("CARGO_BIN_EXE_bhcrypt");
const DEPLOY: &str = env!("CARGO_BIN_EXE_blockhost-deploy-contracts");
const MINT: &str = env!("CARGO_BIN_EXE_blockhost-mint-nft");
const SIGNUP: &str = env!("CARGO_BIN_EXE_blockhost-generate-signup");

fn run(path: impl AsRef<std::ffi::OsStr>, args: &[&str], stdin: &str) -> Output {
    let mut child = program(path)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that does not read its stdin has closed it perhaps.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn what_goes_wrong_is_said_on_stderr_with_exit_1_and_without_the_key() {
    let bad_key = "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab36"; // one byte short
    for args in [
        vec!["derive-pubkey", "--private-key", bad_key],
        vec!["key-to-address", "--key", "zz"],
        vec![
            "decrypt-symmetric",
            "--signature",
            "0x11",
            "--ciphertext",
            "0x00",
        ],
        vec!["encrypt", "--public-key", "0x04", "--plaintext", "x"],
        vec![
            "decrypt",
            "--private-key-file",
            "/nonexistent",
            "--ciphertext",
            "00",
        ],
        vec!["encrypt-symmetric", "--plaintext", "x"],
        vec![
            "encrypt-symmetric",
            "--signature",
            "11",
            "--signature-file",
            "f",
            "--plaintext",
            "x",
        ],
        vec!["no-such-verb"],
        vec![],
    ] {
        let output = run(BHCRYPT, &args, "");
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.is_empty() && !said.contains(bad_key), "{said}");
    }
}

#[test]
fn results_are_raw_and_without_a_newline() {
    let pair = text(&run(BHCRYPT, &["generate-keypair", "--show-pubkey"], ""));
    let (private, public) = pair.split_once('\n').unwrap();
    assert_eq!((private.len(), public.len(), &public[..2]), (64, 130, "04"));
    assert_eq!(
        text(&run(
            BHCRYPT,
            &["derive-pubkey", "--private-key", private],
            ""
        )),
        public
    );
    assert_eq!(
        text(&run(
            BHCRYPT,
            &["derive-pubkey", "--private-key-file", "-"],
            private
        )),
        public
    );
    assert_eq!(
        text(&run(BHCRYPT, &["key-to-address", "--key", KEYS[0]], "")),
        address(0).to_string()
    );
}

#[test]
fn what_is_encrypted_decrypts_by_files_stdin_and_arguments() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let signature = format!("0x{}", "7f".repeat(65));
    let sealed = text(&run(
        BHCRYPT,
        &[
            "encrypt-symmetric",
            "--signature",
            &signature,
            "--plaintext",
            "-secret-",
        ],
        "",
    ));
    assert!(sealed.starts_with("0x"));
    let signature_file = file("signature", &format!("{signature}\n"));
    assert_eq!(
        text(&run(
            BHCRYPT,
            &[
                "decrypt-symmetric",
                "--signature-file",
                &signature_file,
                "--ciphertext-file",
                "-"
            ],
            &sealed
        )),
        "-secret-"
    );

    let private = text(&run(BHCRYPT, &["generate-keypair"], ""));
    let public = text(&run(
        BHCRYPT,
        &["derive-pubkey", "--private-key", &private],
        "",
    ));
    let sealed = text(&run(
        BHCRYPT,
        &[
            "encrypt",
            "--public-key",
            &format!("0x{public}"),
            "--plaintext-file",
            "-",
        ],
        "to the server\n",
    ));
    let key_file = file("key", &private);
    // `0x` is optional on input.
    assert_eq!(
        text(&run(
            BHCRYPT,
            &[
                "decrypt",
                "--private-key-file",
                &key_file,
                "--ciphertext",
                &sealed[2..]
            ],
            ""
        )),
        "to the server\n"
    );
}

#[test]
fn under_its_other_name_it_is_the_same_program() {
    let dir = tempfile::tempdir().unwrap();
    let alias = dir.path().join("pam_web3_tool");
    std::os::unix::fs::symlink(BHCRYPT, &alias).unwrap();
    assert_eq!(text(&run(&alias, &["generate-keypair"], "")).len(), 64);
    let output = run(&alias, &["key-to-address", "--key", "zz"], "");
    assert!(output.stderr.starts_with(b"pam_web3_tool: "), "{output:?}");
}

/// A directory with the configuration of a chain.
fn configured(chain_id: u64, url: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().join("etc/blockhost");
    std::fs::create_dir_all(&etc).unwrap();
    std::fs::create_dir_all(dir.path().join("var/lib/blockhost")).unwrap();
    std::fs::write(etc.join("deployer.key"), KEYS[0]).unwrap();
    let text = format!(
        "# ours\nblockchain:\n  chain_id: {chain_id}\n  rpc_url: '{url}' # local\n  nft_contract: ''\nserver: {{public_key: ''}}\n"
    );
    std::fs::write(etc.join("web3-defaults.yaml"), text).unwrap();
    dir
}

fn in_world(root: &Path, path: &str, args: &[&str]) -> Output {
    program(path)
        .args(args)
        .env("BLOCKHOST_ROOT", root)
        .output()
        .unwrap()
}

#[test]
fn the_test_stablecoin_is_refused_anywhere_but_on_a_local_chain() {
    let dir = configured(1, "http://127.0.0.1:1");
    let output = in_world(dir.path(), DEPLOY, &["--dev-stablecoin"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("chain id 1")
    );
}

#[test]
fn a_chain_of_another_id_is_refused_before_anything_is_sent() {
    let Some(anvil) = Anvil::start(&["--chain-id", "5"]) else {
        return;
    };
    let dir = configured(31337, &anvil.url);
    let output = in_world(dir.path(), DEPLOY, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("is on chain id 5")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployment_enters_the_addresses_and_leaves_the_rest_of_the_file_alone() {
    let Some(anvil) = Anvil::start(&[]) else {
        return;
    };
    let dir = configured(31337, &anvil.url);
    let printed = text(&in_world(
        dir.path(),
        DEPLOY,
        &["--write-config", "--dev-stablecoin", "--json"],
    ));
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let file =
        std::fs::read_to_string(dir.path().join("etc/blockhost/web3-defaults.yaml")).unwrap();
    assert!(
        file.starts_with("# ours\nblockchain:\n")
            && file.contains("' # local\n")
            && file.ends_with("server: {public_key: ''}\n"),
        "{file}"
    );
    for key in ["nft_contract", "subscription_contract", "usdc_address"] {
        assert!(
            file.contains(&format!("  {key}: '{}'\n", printed[key].as_str().unwrap())),
            "{file}"
        );
    }
    let pos = BlockhostSubscriptions::new(
        printed["subscription_contract"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap(),
        anvil.account(0),
    );
    assert_eq!(pos.owner().call().await.unwrap(), address(0));
    assert_eq!(
        pos.getPrimaryStablecoin().call().await.unwrap().to_string(),
        printed["usdc_address"].as_str().unwrap()
    );

    let owner = address(1).to_string();
    let nft = AccessCredentialNFT::new(
        printed["nft_contract"].as_str().unwrap().parse().unwrap(),
        anvil.account(0),
    );
    assert_eq!(
        text(&in_world(
            dir.path(),
            MINT,
            &["--owner-wallet", &owner, "--dry-run"]
        )),
        "0\n"
    );
    assert_eq!(
        nft.totalSupply().call().await.unwrap().to::<u64>(),
        0,
        "a dry run sends nothing"
    );
    for token in ["0\n", "1\n"] {
        assert_eq!(
            text(&in_world(
                dir.path(),
                MINT,
                &["--owner-wallet", &owner, "--user-encrypted", "0xabcd"]
            )),
            token
        );
    }
    assert_eq!(
        nft.ownerOf(alloy::primitives::U256::from(1))
            .call()
            .await
            .unwrap(),
        address(1)
    );
    assert_eq!(
        nft.getUserEncrypted(alloy::primitives::U256::from(1))
            .call()
            .await
            .unwrap()
            .as_ref(),
        [0xab, 0xcd]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_contract_can_be_deployed_alone_and_its_address_printed() {
    let Some(anvil) = Anvil::start(&[]) else {
        return;
    };
    let dir = configured(31337, &anvil.url);
    let printed = text(&in_world(dir.path(), DEPLOY, &["nft"]));
    assert_eq!(printed.lines().count(), 1);
    assert!(printed.starts_with("nft_contract 0x"), "{printed}");
    // Minting with a key that does not own the contract names the reason.
    let etc = dir.path().join("etc/blockhost");
    let address = printed.split_whitespace().nth(1).unwrap();
    let config = std::fs::read_to_string(etc.join("web3-defaults.yaml")).unwrap();
    std::fs::write(
        etc.join("web3-defaults.yaml"),
        config.replace("nft_contract: ''", &format!("nft_contract: '{address}'")),
    )
    .unwrap();
    std::fs::write(etc.join("deployer.key"), KEYS[1]).unwrap();
    let output = in_world(dir.path(), MINT, &["--owner-wallet", address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("OwnableUnauthorizedAccount")
    );
}

#[test]
fn a_signup_page_that_would_take_money_for_nothing_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().join("etc/blockhost");
    std::fs::create_dir_all(&etc).unwrap();
    let page = dir.path().join("signup.html").display().to_string();
    let public = |key: &str| text(&run(BHCRYPT, &["derive-pubkey", "--private-key", key], ""));
    let contract = "0x5FbDB2315678afecb367f032d93F642f64180aa3";
    let web3 = |public_key: &str, url: &str| {
        format!(
            "blockchain:\n  chain_id: 31337\n  rpc_url: '{url}'\n  nft_contract: '{contract}'\n  subscription_contract: '{contract}'\nserver: {{public_key: '{public_key}'}}\n"
        )
    };
    let write = |name: &str, content: &str| std::fs::write(etc.join(name), content).unwrap();
    let node = "http://127.0.0.1:8545";
    write("server.key", KEYS[0]);
    let secret = "public_secret: s\n";
    for (web3, host, said) in [
        (web3(&public(KEYS[1]), node), secret, "nobody could decrypt"),
        (web3("04", node), secret, "web3-defaults.yaml"),
        (web3("", node), secret, "server.pubkey"),
        (web3(&public(KEYS[0]), node), "", "public_secret"),
        (
            web3(&public(KEYS[0]), "https://me:pass@n.example"),
            secret,
            "signup.rpc_urls",
        ),
        (
            web3(&public(KEYS[0]), "wss://n.example"),
            secret,
            "signup.rpc_urls",
        ),
        (
            web3(&public(KEYS[0]), node).replace("subscription_contract", "other"),
            secret,
            "subscription_contract",
        ),
        (
            web3(&public(KEYS[0]), node),
            "public_secret: s\nsignup: {contact: 'javascript:alert(1)'}\n",
            "blockhost.yaml:2:",
        ),
    ] {
        write("web3-defaults.yaml", &web3);
        write("blockhost.yaml", host);
        let output = in_world(dir.path(), SIGNUP, &["--output", &page]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}: {error}");
        assert!(
            error.contains(said) && !error.contains("pass@"),
            "{said}: {error}"
        );
        assert!(!Path::new(&page).exists(), "{said}");
    }
    // Without the private key at hand it is made all the same, and said.
    write("web3-defaults.yaml", &web3("", node));
    write("blockhost.yaml", secret);
    write("server.pubkey", &format!("0x{}\n", public(KEYS[1])));
    std::fs::remove_file(etc.join("server.key")).unwrap();
    let output = in_world(dir.path(), SIGNUP, &["--output", &page]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && error.contains("was not compared"),
        "{error}"
    );
    assert!(
        std::fs::read_to_string(&page)
            .unwrap()
            .contains(&public(KEYS[1]))
    );
}
