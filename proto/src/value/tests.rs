//! Every value type: what it refuses, that it comes back as it went out, and that no text makes it panic.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Parses, prints canonically, parses the same again from text and from JSON.
fn round_trip<T>(text: &str) -> Result<(), TestCaseError>
where
    T: FromStr<Err = ValueError>
        + Display
        + Debug
        + PartialEq
        + Param
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let value: T = text
        .parse()
        .map_err(|e: ValueError| TestCaseError::fail(e.to_string()))?;
    let canonical = value.to_string();
    prop_assert_eq!(&canonical.parse::<T>().unwrap(), &value);
    prop_assert_eq!(canonical.parse::<T>().unwrap().to_string(), canonical);
    let json = value.to_json().unwrap();
    prop_assert_eq!(&T::from_json(&json).unwrap(), &value);
    prop_assert_eq!(serde_json::to_value(&value).unwrap(), json.clone());
    prop_assert_eq!(serde_json::from_value::<T>(json).unwrap(), value);
    Ok(())
}

/// Whatever is accepted is ASCII without control characters, and canonical output is accepted.
fn safe<T: FromStr<Err = ValueError> + Display + Debug + PartialEq>(
    text: &str,
) -> Result<(), TestCaseError> {
    match text.parse::<T>() {
        Ok(value) => {
            let canonical = value.to_string();
            prop_assert!(
                canonical.bytes().all(|b| b.is_ascii_graphic()),
                "{canonical:?}"
            );
            prop_assert!(!canonical.starts_with('-'));
            prop_assert_eq!(canonical.parse::<T>().unwrap(), value);
        }
        Err(error) => {
            prop_assert!(
                error
                    .to_string()
                    .bytes()
                    .all(|b| (b' '..=b'~').contains(&b))
            );
        }
    }
    Ok(())
}

/// Texts close to the rules: separators, dashes, dots, digits, look-alikes, and anything at all.
fn nasty() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z0-9A-Z:/.,=_+\\-\n\u{0}\u{430}]{0,24}",
        "(/etc/blockhost/)?[a-z.-]{0,6}(/[a-z.-]{0,6}){0,3}",
        "[0-9a-f:]{0,20}(/[0-9]{1,3})?",
        "[a-z]{1,6}:(iso|snippets|100)?/?[a-z0-9.-]{0,20}",
        "\\+?[0-9]{1,21}[MGTP]?",
    ]
}

proptest! {
    #[test]
    fn no_text_makes_a_type_panic_or_accept_what_it_could_not_print(text in nasty()) {
        safe::<Vmid>(&text)?;
        safe::<Port>(&text)?;
        safe::<Seconds>(&text)?;
        safe::<VmName>(&text)?;
        safe::<IfName>(&text)?;
        safe::<StorageName>(&text)?;
        safe::<Comment>(&text)?;
        safe::<EventName>(&text)?;
        safe::<HostIpv6>(&text)?;
        safe::<L4Proto>(&text)?;
        safe::<SourceNet>(&text)?;
        safe::<ImagePath>(&text)?;
        safe::<SnippetRef>(&text)?;
        safe::<KeyFile>(&text)?;
        safe::<VolumeRef>(&text)?;
        safe::<DiskSize>(&text)?;
        safe::<WalletName>(&text)?;
        safe::<NewWalletName>(&text)?;
        safe::<EthAddress>(&text)?;
    }

    #[test]
    fn numbers_come_back(vmid in 100u32..=999_999, port in 1u16.., seconds in 1u16..=600) {
        round_trip::<Vmid>(&vmid.to_string())?;
        round_trip::<Port>(&port.to_string())?;
        round_trip::<Seconds>(&seconds.to_string())?;
        prop_assert_eq!(Vmid::try_from(vmid).unwrap().get(), vmid);
    }

    #[test]
    fn names_come_back(
        vm in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        dev in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}",
        storage in "[a-z][a-z0-9-]{0,31}",
        comment in "[A-Za-z0-9][A-Za-z0-9-]{0,63}",
        wallet in "[a-z0-9][a-z0-9-]{0,31}",
    ) {
        round_trip::<VmName>(&vm)?;
        round_trip::<IfName>(&dev)?;
        round_trip::<StorageName>(&storage)?;
        round_trip::<Comment>(&comment)?;
        round_trip::<WalletName>(&wallet)?;
    }

    #[test]
    fn addresses_come_back(low in any::<u128>(), v4 in any::<u32>(), prefix in 8u8..=32) {
        let ula = std::net::Ipv6Addr::from(low >> 8 | 0xfd << 120);
        round_trip::<HostIpv6>(&format!("{ula}/128"))?;
        let network = (v4 | 0x0100_0000) & 0x7eff_ffff & (u32::MAX << (32 - prefix));
        prop_assume!(network >> 24 != 127 && network >> 24 != 0);
        round_trip::<SourceNet>(&format!("{}/{prefix}", std::net::Ipv4Addr::from(network)))?;
        round_trip::<SourceNet>(&ula.to_string())?;
    }

    #[test]
    fn files_come_back(name in "[A-Za-z0-9_][A-Za-z0-9_.+-]{0,40}", deep in "/?([a-z0-9_][a-z.]{0,8}/){0,4}[a-z0-9]{1,9}") {
        round_trip::<ImagePath>(&name)?;
        round_trip::<ImagePath>(&deep)?;
        round_trip::<KeyFile>(&name)?;
        round_trip::<KeyFile>(&format!("/etc/blockhost/{name}"))?;
        round_trip::<SnippetRef>(&format!("local:snippets/{name}"))?;
    }

    #[test]
    fn sizes_and_eth_addresses_come_back(n in 1u64..60, unit in "[MGT]", sign in "\\+?", digits in "[0-9a-fA-F]{40}") {
        round_trip::<DiskSize>(&format!("{sign}{n}{unit}"))?;
        round_trip::<EthAddress>(&format!("0x{digits}"))?;
    }
}

#[test]
fn addresses_are_printed_with_their_eip55_checksum() {
    // The examples of EIP-55.
    for text in [
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0xde709f2102306220921060314715629080e2fb77",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ] {
        let address: EthAddress = text.to_lowercase().parse().unwrap();
        assert_eq!(address.to_string(), text);
        assert_eq!(address.to_lowercase(), text.to_lowercase());
    }
}

#[test]
fn the_address_of_a_public_key_is_the_well_known_one() {
    // Private key 1: the generator of secp256k1, and its address.
    let hex = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
    let mut key = [0; 64];
    for (i, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
    }
    assert_eq!(
        EthAddress::of_public_key(&key).to_string(),
        "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
    );
}

#[test]
fn addresses_are_canonical_however_they_were_written() {
    let address: HostIpv6 = "FD00:0:0:0::00A:1/128".parse().unwrap();
    assert_eq!(address.to_string(), "fd00::a:1/128");
    let source: SourceNet = "10.0.0.0/8".parse().unwrap();
    assert_eq!(
        (source.to_string().as_str(), source.is_ipv6()),
        ("10.0.0.0/8", false)
    );
    assert_eq!(
        "192.0.2.7".parse::<SourceNet>().unwrap().to_string(),
        "192.0.2.7/32"
    );
    assert_eq!("::/0".parse::<SourceNet>().unwrap().to_string(), "::/0");
}

#[test]
fn a_source_contains_its_own_addresses_and_no_others() {
    for (net, inside, outside) in [
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
        ("0.0.0.0/0", "203.0.113.9", "::1"),
        ("fd00::/8", "fdff::1", "fe00::1"),
        ("::/0", "2001:db8::1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
        ("192.0.2.0/24", "192.0.2.1", "::ffff:192.0.2.1"),
    ] {
        let source: SourceNet = net.parse().unwrap();
        assert!(source.contains(inside.parse().unwrap()), "{net} {inside}");
        assert!(
            !source.contains(outside.parse().unwrap()),
            "{net} {outside}"
        );
    }
}

#[test]
fn json_of_the_wrong_kind_is_refused_by_every_type() {
    for wrong in [
        json!(null),
        json!(true),
        json!([100]),
        json!({"vmid": 100}),
        json!(100.0),
        json!(-1),
    ] {
        assert!(
            Vmid::from_json(&wrong).is_err()
                && Port::from_json(&wrong).is_err()
                && Seconds::from_json(&wrong).is_err()
        );
        assert!(VmName::from_json(&wrong).is_err() && HostIpv6::from_json(&wrong).is_err());
        assert!(
            serde_json::from_value::<Vmid>(wrong.clone()).is_err(),
            "{wrong}"
        );
        assert!(
            serde_json::from_value::<VmName>(wrong.clone()).is_err(),
            "{wrong}"
        );
    }
    for text in ["+80", "080", " 80", "80\n", "", "0x50"] {
        assert!(text.parse::<Port>().is_err(), "{text:?}");
    }
}

#[test]
fn an_image_path_gives_its_place_below_an_allowed_directory_only() {
    let directory = std::path::Path::new("/var/lib/blockhost/images");
    let below = |text: &str| {
        text.parse::<ImagePath>()
            .unwrap()
            .below(directory)
            .map(std::path::Path::to_path_buf)
    };
    assert_eq!(below("a/x.qcow2"), Some("a/x.qcow2".into()));
    assert_eq!(
        below("/var/lib/blockhost/images/x.qcow2"),
        Some("x.qcow2".into())
    );
    assert_eq!(below("/var/lib/blockhost/images-evil/x.qcow2"), None);
    assert_eq!(below("/var/lib/blockhost/images"), None);
}

#[test]
fn a_volume_knows_whose_disk_it_is() {
    let owner = |text: &str| text.parse::<VolumeRef>().unwrap().owner();
    assert_eq!(owner("vm-100-disk-0"), Some(100));
    assert_eq!(owner("100/vm-100-disk-0.qcow2"), Some(100));
    assert_eq!(owner("base-9000-disk-0/vm-101-disk-1"), Some(101));
    assert_eq!(
        owner("9000/base-9000-disk-0.qcow2/101/vm-101-disk-0.qcow2"),
        Some(101)
    );
    assert_eq!(owner("vm-100-cloudinit"), Some(100));
    assert_eq!(owner("iso/debian-12.iso"), None);
    let base = |text: &str| text.parse::<VolumeRef>().unwrap().base_owner();
    assert_eq!(base("base-9000-disk-0/vm-101-disk-1"), Some(9000));
    assert_eq!(
        base("9000/base-9000-disk-0.qcow2/101/vm-101-disk-0.qcow2"),
        Some(9000)
    );
    for alone in [
        "vm-100-disk-0",
        "100/vm-100-disk-0.qcow2",
        "base-9000-disk-0",
        "9000/base-9000-disk-0.qcow2",
        "iso/vm-100-disk-0.iso",
    ] {
        assert_eq!(base(alone), None, "{alone}");
    }
    for text in [
        "x",
        "100/x.qcow2",
        "vm-100",
        "101/vm-100-disk-0.qcow2",
        "iso/a/b.iso",
        "vm-100-disk-0/vm-101-disk-0",
    ] {
        assert!(text.parse::<VolumeRef>().is_err(), "{text}");
    }
}

#[test]
fn the_address_book_is_saved_with_whole_paths_and_sent_with_names() {
    let book = AddressBook::from_json(&json!({
        "hot": {"address": "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed", "keyfile": "/etc/blockhost/hot.key"},
        "admin": {"address": "0x52908400098527886e0f7030069857d2e4169ee7"},
    }))
    .unwrap();
    assert_eq!(book.to_json().unwrap()["hot"]["keyfile"], "hot.key");
    assert_eq!(
        book.to_file_json()["hot"],
        json!({"address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "keyfile": "/etc/blockhost/hot.key"})
    );
    assert_eq!(AddressBook::from_json(&book.to_file_json()).unwrap(), book);
    assert!(book.entries().keys().any(WalletName::is_reserved));
}

#[test]
fn resizes_know_growth_from_target() {
    let size: DiskSize = "+1T".parse().unwrap();
    assert!(size.is_relative());
    assert_eq!((size.mib(), size.to_string().as_str()), (1 << 20, "+1024G"));
    let size: DiskSize = "1500M".parse().unwrap();
    assert_eq!(
        (size.is_relative(), size.to_string().as_str()),
        (false, "1500M")
    );
}

/// Refusals are recorded for ever: somebody who mistakes a private key for an address must not lose it by that.
#[test]
fn a_private_key_in_the_place_of_an_address_is_not_quoted_back() {
    let key = format!("0x{}", "4c0883a69102937d".repeat(4));
    for book in [
        json!({"hot": {"address": key}}),
        json!({"hot": {"address": key[2..]}}),
        json!({"hot": key}),
        json!(key),
    ] {
        let message = AddressBook::from_json(&book).unwrap_err().to_string();
        assert!(!message.contains("4c0883a6"), "{message}");
    }
}
