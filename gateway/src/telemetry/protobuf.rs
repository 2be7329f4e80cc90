//! Protobuf's wire format, as far as spans need it: messages are written front to back into one buffer.

use prost::encoding::{WireType, encode_key, encode_varint};

/// A message while it is written.
#[derive(Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// An empty one, with room for `bytes`.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    /// What was written.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// An integer, an enumerator or a flag.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        encode_key(field, WireType::Varint, &mut self.bytes);
        encode_varint(value, &mut self.bytes);
    }

    /// A `fixed32`.
    pub(super) fn fixed32(&mut self, field: u32, value: u32) {
        encode_key(field, WireType::ThirtyTwoBit, &mut self.bytes);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A `fixed64` or, by its bits, a `double`.
    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        encode_key(field, WireType::SixtyFourBit, &mut self.bytes);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes or text.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.head(field, value.len());
        self.bytes.extend_from_slice(value);
    }

    /// Text, unless it is empty: where there is no difference between that and none.
    pub(super) fn text(&mut self, field: u32, value: &str) {
        if !value.is_empty() {
            self.bytes(field, value.as_bytes());
        }
    }

    /// Two words with a space between them, as one text.
    pub(super) fn words(&mut self, field: u32, [first, second]: [&str; 2]) {
        self.head(field, first.len() + 1 + second.len());
        self.bytes.extend_from_slice(first.as_bytes());
        self.bytes.push(b' ');
        self.bytes.extend_from_slice(second.as_bytes());
    }

    /// What comes before `length` bytes that are written elsewhere.
    pub(super) fn head(&mut self, field: u32, length: usize) {
        encode_key(field, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(length as u64, &mut self.bytes);
    }

    /// A message within this one.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        encode_key(field, WireType::LengthDelimited, &mut self.bytes);
        // Its length is known afterwards, and takes one byte more often than not.
        let place = self.bytes.len();
        self.bytes.push(0);
        write(self);
        let length = self.bytes.len() - place - 1;
        if length < 0x80 {
            self.bytes[place] = length as u8;
            return;
        }
        let end = self.bytes.len();
        encode_varint(length as u64, &mut self.bytes);
        let wider = self.bytes.len() - end;
        self.bytes[place + 1..].rotate_right(wider);
        self.bytes.remove(place);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, any_value::Value};
    use prost::Message as _;

    use super::*;

    #[test]
    fn lengths_of_any_width_are_read_back() {
        for length in [0, 1, 127, 128, 200, 16_383, 16_384, 3_000_000] {
            let text = "x".repeat(length);
            let mut message = Message::default();
            message.message(5, |array| array.message(1, |any| any.bytes(1, text.as_bytes())));
            let read = AnyValue::decode(message.into_bytes().as_slice()).unwrap();
            let values = vec![AnyValue { value: Some(Value::StringValue(text)) }];
            assert_eq!(read.value, Some(Value::ArrayValue(ArrayValue { values })));
        }
    }

    #[test]
    fn numbers_of_any_width_are_read_back() {
        for number in [0, 1, -1, 127, 128, i64::MIN, i64::MAX] {
            let mut message = Message::default();
            message.number(3, number.cast_unsigned());
            let read = AnyValue::decode(message.into_bytes().as_slice()).unwrap();
            assert_eq!(read.value, Some(Value::IntValue(number)));
        }
    }
}
