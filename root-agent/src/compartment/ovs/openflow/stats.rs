//! The switch's answers read: flow entries, counters of ports and meters, and matches as sets of fields that compare equal
//! when they mean the same. Pure; nothing here trusts a length.

use std::collections::BTreeMap;

use super::message::Entry;

/// Bytes that are not what the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("torn statistics of {0}")]
pub struct Torn(pub &'static str);

/// A reader that never goes past the end.
#[derive(Debug, Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
    /// A record that begins with its own length, of at least `least` bytes with that.
    fn record(&mut self, least: usize) -> Option<Cursor<'a>> {
        let length = usize::from(u16::from_be_bytes(self.0.get(..2)?.try_into().ok()?));
        if length < least.max(2) {
            return None;
        }
        let mut record = Cursor(self.take(length)?);
        record.take(2)?;
        Some(record)
    }
}

fn records<'a>(
    body: &'a [u8],
    what: &'static str,
    least: usize,
    mut each: impl FnMut(Cursor<'a>) -> Option<()>,
) -> Result<(), Torn> {
    let mut rest = Cursor(body);
    while !rest.0.is_empty() {
        let record = rest.record(least).ok_or(Torn(what))?;
        each(record).ok_or(Torn(what))?;
    }
    Ok(())
}

/// A flow entry with its counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowStats {
    /// The entry.
    pub entry: Entry,
    /// Packets that it handled.
    pub packets: u64,
    /// Bytes that it handled.
    pub bytes: u64,
}

/// Reads one part of an answer about flows.
///
/// # Errors
/// [`Torn`].
pub fn flows(body: &[u8], mut each: impl FnMut(FlowStats)) -> Result<(), Torn> {
    records(body, "flows", 56, |mut record| {
        let table = record.u8()?;
        record.take(9)?; // Padding and age.
        let priority = record.u16()?;
        let idle_timeout = record.u16()?;
        let hard_timeout = record.u16()?;
        record.take(6)?; // Flags, importance, padding.
        let cookie = record.u64()?;
        let packets = record.u64()?;
        let bytes = record.u64()?;
        if record.u16()? != 1 {
            return None;
        }
        let length = usize::from(record.u16()?).checked_sub(4)?;
        let oxm = record.take(length)?.to_vec();
        record.take((length + 4).next_multiple_of(8) - (length + 4))?;
        each(FlowStats {
            entry: Entry {
                table,
                priority,
                cookie,
                idle_timeout,
                hard_timeout,
                oxm,
                instructions: record.0.to_vec(),
            },
            packets,
            bytes,
        });
        Some(())
    })
}

/// Counters of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortStats {
    /// Its OpenFlow number.
    pub port: u32,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Received packets dropped.
    pub rx_dropped: u64,
    /// Packets not sent.
    pub tx_dropped: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Transmit errors.
    pub tx_errors: u64,
}

/// Reads one part of an answer about ports.
///
/// # Errors
/// [`Torn`].
pub fn ports(body: &[u8], mut each: impl FnMut(PortStats)) -> Result<(), Torn> {
    records(body, "ports", 80, |mut record| {
        record.take(2)?;
        let port = record.u32()?;
        record.take(8)?; // Age.
        each(PortStats {
            port,
            rx_packets: record.u64()?,
            tx_packets: record.u64()?,
            rx_bytes: record.u64()?,
            tx_bytes: record.u64()?,
            rx_dropped: record.u64()?,
            tx_dropped: record.u64()?,
            rx_errors: record.u64()?,
            tx_errors: record.u64()?,
        });
        Some(())
    })
}

/// A meter as it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterConfig {
    /// Its number.
    pub id: u32,
    /// Packets instead of kilobits.
    pub packets: bool,
    /// Rate of its first band.
    pub rate: u32,
    /// Burst of its first band.
    pub burst: u32,
}

/// Reads one part of an answer about meters' settings.
///
/// # Errors
/// [`Torn`].
pub fn meters(body: &[u8], mut each: impl FnMut(MeterConfig)) -> Result<(), Torn> {
    records(body, "meters", 8, |mut record| {
        let flags = record.u16()?;
        let id = record.u32()?;
        let (rate, burst) = match record.0 {
            [] => (0, 0),
            _ => {
                record.take(4)?;
                (record.u32()?, record.u32()?)
            }
        };
        each(MeterConfig {
            id,
            packets: flags & 2 != 0,
            rate,
            burst,
        });
        Some(())
    })
}

/// Counters of a meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterStats {
    /// Its number.
    pub id: u32,
    /// Packets that came to it.
    pub packets: u64,
    /// Bytes that came to it.
    pub bytes: u64,
    /// Packets that its bands dropped.
    pub dropped: u64,
}

/// Reads one part of an answer about meters' counters.
///
/// # Errors
/// [`Torn`].
pub fn meter_counters(body: &[u8], mut each: impl FnMut(MeterStats)) -> Result<(), Torn> {
    // Here the number stands before the length.
    let mut rest = Cursor(body);
    let mut one = || -> Option<()> {
        let id = rest.u32()?;
        let length = usize::from(rest.u16()?).checked_sub(6)?;
        let mut record = Cursor(rest.take(length)?);
        record.take(10)?; // Padding, number of flows.
        let (packets, bytes) = (record.u64()?, record.u64()?);
        record.take(8)?; // Age.
        let mut dropped = 0u64;
        while !record.0.is_empty() {
            dropped = dropped.saturating_add(record.u64()?);
            record.u64()?;
        }
        each(MeterStats {
            id,
            packets,
            bytes,
            dropped,
        });
        Some(())
    };
    let mut records = 0;
    // The shortest record has 40 bytes.
    while records < body.len().div_ceil(40) {
        if one().is_none() {
            return if rest.0.is_empty() {
                Ok(())
            } else {
                Err(Torn("meters"))
            };
        }
        records += 1;
    }
    Ok(())
}

/// The meter that instructions begin with.
#[must_use]
pub fn meter_of(instructions: &[u8]) -> Option<u32> {
    let mut rest = Cursor(instructions);
    while !rest.0.is_empty() {
        let kind = rest.u16()?;
        let length = usize::from(rest.u16()?).checked_sub(4)?;
        let mut body = Cursor(rest.take(length)?);
        if kind == 6 {
            return body.u32();
        }
    }
    None
}

/// What a match says, whatever the order and the form of its fields: class and number, value, mask where not all bits
/// count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meaning(BTreeMap<u32, (Vec<u8>, Option<Vec<u8>>)>);

impl Meaning {
    /// Reads OXM fields.
    ///
    /// # Errors
    /// [`Torn`].
    pub fn read(oxm: &[u8]) -> Result<Self, Torn> {
        let mut rest = Cursor(oxm);
        let mut fields = BTreeMap::new();
        while !rest.0.is_empty() {
            let mut one = || {
                let header = rest.u32()?;
                let value = rest.take((header & 0xff) as usize)?;
                Some((header, value))
            };
            let (header, value) = one().ok_or(Torn("a match"))?;
            let (value, mask) = if header & 0x100 == 0 {
                (value, None)
            } else {
                let (value, mask) = value.split_at(value.len() / 2);
                (value, Some(mask))
            };
            let exact = mask.is_none_or(|mask| mask.iter().all(|&byte| byte == 0xff));
            let nothing = mask.is_some_and(|mask| mask.iter().all(|&byte| byte == 0));
            if !nothing {
                let mask = mask.filter(|_| !exact).map(<[u8]>::to_vec);
                fields.insert(header >> 9, (value.to_vec(), mask));
            }
        }
        Ok(Self(fields))
    }

    /// Class, number, value and mask of each field.
    pub fn fields(&self) -> impl Iterator<Item = (u16, u8, &[u8], Option<&[u8]>)> {
        self.0.iter().map(|(header, (value, mask))| {
            // Seven bits of number below sixteen of class: the header without mask flag and length.
            let class = u16::try_from(header >> 7).unwrap_or(u16::MAX);
            let number = u8::try_from(header & 0x7f).unwrap_or(u8::MAX);
            (class, number, value.as_slice(), mask.as_deref())
        })
    }

    /// Whether it says nothing: every packet.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_order_of_fields_and_a_full_mask_change_nothing() {
        let one = [0x80, 0, 0x14, 1, 6];
        let two = [0x80, 0, 0x0a, 2, 8, 0];
        let masked = [0x80, 0, 0x15, 2, 6, 0xff];
        let read = |parts: &[&[u8]]| Meaning::read(&parts.concat()).expect("a match");
        assert_eq!(read(&[&one, &two]), read(&[&two, &masked]));
        assert_ne!(read(&[&one]), read(&[&two]));
        assert!(read(&[&[0x80, 0, 0x15, 2, 0, 0]]).is_everything());
    }

    #[test]
    fn a_length_that_leads_outside_is_an_error_and_no_loop() {
        for body in [&[0, 0][..], &[0, 1, 0], &[0xff, 0xff, 0, 0], &[0, 56]] {
            assert_eq!(flows(body, |_| ()), Err(Torn("flows")));
            assert_eq!(ports(body, |_| ()), Err(Torn("ports")));
            assert_eq!(meters(body, |_| ()), Err(Torn("meters")));
        }
        assert!(meter_counters(&[0, 0, 0, 1, 0, 0, 0, 0], |_| ()).is_err());
        assert!(Meaning::read(&[0x80, 0, 0x0a, 2, 8]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_at_all_can_break_a_reader(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = flows(&bytes, |_| ());
            let _ = ports(&bytes, |_| ());
            let _ = meters(&bytes, |_| ());
            let _ = meter_counters(&bytes, |_| ());
            let _ = Meaning::read(&bytes);
        }
    }
}
