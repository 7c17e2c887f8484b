//! Fuzz target of the heads of disk images: what is accepted leads to no other file, by a second reading of its own.

use blockhost_proto::fuzz::Target;

use super::format::{Format, inspect};

pub(in crate::compartment) const TARGETS: &[Target] = &[Target {
    name: "image",
    seeds,
    run,
}];

fn seeds() -> Vec<Vec<u8>> {
    // Version 3, clusters of 512 bytes (so that all of the first is in the input), 1 GiB, an unknown extension.
    let mut qcow2 = vec![0; 600];
    qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    qcow2[23] = 9;
    qcow2[24..32].copy_from_slice(&(1_u64 << 30).to_be_bytes());
    qcow2[103] = 104;
    let mut extended = qcow2.clone();
    extended[104..112].copy_from_slice(&[0x68, 0x03, 0xf8, 0x57, 0, 0, 0, 5]);
    let mut backed = qcow2.clone();
    backed[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 11]);
    backed[256..267].copy_from_slice(b"/etc/shadow");
    let mut external = qcow2.clone();
    external[104..112].copy_from_slice(b"DATA\0\0\0\x08");
    let mut old = qcow2.clone();
    old[7] = 2;
    let mut raw = vec![0; 600];
    raw[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut vmdk = raw.clone();
    vmdk[..10].copy_from_slice(b"version=1\n");
    vec![qcow2, extended, backed, external, old, raw, vmdk]
}

fn run(data: &[u8]) {
    match inspect(data) {
        Ok(Format::Qcow2) => {
            assert!(data.starts_with(b"QFI\xfb\0\0\0"), "not qcow2 2 or 3");
            assert!(data[8..20].iter().all(|byte| *byte == 0), "a backing file");
            assert_eq!(&data[32..36], [0; 4], "encrypted");
            let cluster = 1_usize << data[23];
            let start = if data[7] == 2 {
                72
            } else {
                assert_eq!(data[79] & 0b110, 0, "corrupt, or data elsewhere");
                data[100..104]
                    .iter()
                    .fold(0, |number, byte| number << 8 | usize::from(*byte))
            };
            // Extensions, read the other way round: every one by its own length, none that names a file.
            let mut rest = data.get(start..cluster.min(data.len())).unwrap_or_default();
            while let Some((head, behind)) = rest.split_first_chunk::<8>() {
                let [a, b, c, d, l3, l2, l1, l0] = *head;
                if [a, b, c, d] == [0; 4] {
                    break;
                }
                assert_ne!([a, b, c, d], [0xe2, 0x79, 0x2a, 0xca], "a backing format");
                assert_ne!([a, b, c, d], *b"DATA", "an external data file");
                let length = u32::from_be_bytes([l3, l2, l1, l0]) as usize;
                rest = behind.get(length.next_multiple_of(8)..).unwrap_or_default();
            }
        }
        Ok(Format::Raw) => {
            assert_eq!(&data[510..512], [0x55, 0xaa]);
            assert!(!data.starts_with(b"QFI\xfb"));
            assert!(
                !data[0].is_ascii_whitespace() && data[0] != b'#',
                "a text could begin so"
            );
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
}
