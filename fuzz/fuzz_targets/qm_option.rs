//! Options of machines, `key=value`: never a panic, and a canonical value means the same again.
#![no_main]

use blockhost_proto::qm::QmOption;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some((key, value)) = text.split_once('=') else {
        return;
    };
    match QmOption::parse(key, value) {
        Ok(option) => {
            let canonical = option.value();
            assert!(!canonical.starts_with('-') && !canonical.contains('\0'));
            assert!(key == "sshkeys" || canonical.bytes().all(|b| (b' '..=b'~').contains(&b)));
            assert_eq!(option.key().to_string(), key);
            assert_eq!(QmOption::parse(key, &canonical), Ok(option));
        }
        Err(error) => assert!(
            error
                .to_string()
                .bytes()
                .all(|b| (b' '..=b'~').contains(&b))
        ),
    }
});
