//! A record of the file database as it is read to be written again: what is not touched keeps its text. [`super::JsonStore`]
//! changes files by it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::record::VmRecord;

/// A record and the text that it was read from, which is written again as it stands as long as the record is not touched:
/// making all texts anew for a change of one record would be most of the work.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    record: VmRecord,
    text: Option<&'a RawValue>,
}

impl Kept<'_> {
    /// The record, to be changed: its text is made anew.
    pub(super) fn touched(&mut self) -> &mut VmRecord {
        self.text = None;
        &mut self.record
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Kept<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(input)?;
        let record = serde_json::from_str(text.get()).map_err(serde::de::Error::custom)?;
        Ok(Self {
            record,
            text: Some(text),
        })
    }
}

impl Serialize for Kept<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self.text {
            Some(text) => text.serialize(out),
            None => self.record.serialize(out),
        }
    }
}

impl From<VmRecord> for Kept<'_> {
    fn from(record: VmRecord) -> Self {
        Self { record, text: None }
    }
}

impl AsRef<VmRecord> for Kept<'_> {
    fn as_ref(&self) -> &VmRecord {
        &self.record
    }
}

impl AsRef<Self> for VmRecord {
    fn as_ref(&self) -> &Self {
        self
    }
}
