//! Little-endian values read from a slice, each after a check that it is there.

use std::fmt;

/// Arrays within arrays; real files have none.
const MAX_NESTING: u32 = 4;
/// The longest key or tensor name; llama.cpp allows 64 bytes for the latter.
const MAX_NAME: u64 = 1 << 16;

/// A position in the file's bytes.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

/// A metadata value; text and arrays borrow from the file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(&'a [u8]),
    Array(Array<'a>),
}

/// An array whose elements were checked to be there; they are decoded when asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Array<'a> {
    kind: u32,
    pub(super) length: u64,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn bytes(&mut self, length: u64) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.position..];
        let inside = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let taken = inside.ok_or_else(|| format!("truncated: {length} bytes asked for, {} left", rest.len()))?;
        self.position += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut value = [0; N];
        value.copy_from_slice(self.bytes(N as u64)?);
        Ok(value)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<&'a [u8], String> {
        let length = self.u64()?;
        self.bytes(length)
    }

    /// A key or a tensor's name.
    pub(super) fn name(&mut self) -> Result<&'a str, String> {
        let length = self.u64()?;
        if length > MAX_NAME {
            return Err(format!("a name of {length} bytes"));
        }
        std::str::from_utf8(self.bytes(length)?).map_err(|_| "a name that is not UTF-8".to_owned())
    }

    /// A value behind its type.
    pub(super) fn value(&mut self) -> Result<Value<'a>, String> {
        let kind = self.u32()?;
        self.value_of(kind, 0)
    }

    fn value_of(&mut self, kind: u32, nesting: u32) -> Result<Value<'a>, String> {
        Ok(match kind {
            0 => Value::Unsigned(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Unsigned(self.u32()?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            9 => Value::Array(self.array_of(nesting + 1)?),
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("unknown value type {other}")),
        })
    }

    fn array_of(&mut self, nesting: u32) -> Result<Array<'a>, String> {
        if nesting > MAX_NESTING {
            return Err(format!("arrays are nested more than {MAX_NESTING} deep"));
        }
        let kind = self.u32()?;
        let length = self.u64()?;
        let start = self.position;
        if let Some(width) = fixed_width(kind) {
            self.bytes(length.checked_mul(width).ok_or_else(|| format!("an array of {length} elements"))?)?;
        } else {
            // Each element takes bytes, so that a false length ends with the file.
            for _ in 0..length {
                self.value_of(kind, nesting)?;
            }
        }
        Ok(Array { kind, length, bytes: &self.bytes[start..self.position] })
    }
}

fn fixed_width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

impl<'a> Value<'a> {
    /// A whole number that is not negative.
    pub(super) fn unsigned(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(value) => Some(value),
            Self::Signed(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// Any number.
    pub(super) fn number(&self) -> Option<f64> {
        match *self {
            Self::Unsigned(value) => Some(value as f64),
            Self::Signed(value) => Some(value as f64),
            Self::Float(value) => Some(value),
            _ => None,
        }
    }

    /// Text, where it is UTF-8.
    pub(super) fn text(&self) -> Option<&'a str> {
        match *self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

impl<'a> Array<'a> {
    /// The elements, decoded one by one.
    pub(super) fn values(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        let kind = self.kind;
        // They were read once, so none fails now.
        (0..self.length).map_while(move |_| reader.value_of(kind, 0).ok())
    }
}

impl fmt::Display for Value<'_> {
    /// Short, for messages.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(value) => write!(formatter, "{value}"),
            Self::Signed(value) => write!(formatter, "{value}"),
            Self::Float(value) => write!(formatter, "{value}"),
            Self::Bool(value) => write!(formatter, "{value}"),
            Self::Text(bytes) => {
                let shown = &bytes[..bytes.len().min(100)];
                write!(formatter, "{:?}", String::from_utf8_lossy(shown))
            }
            Self::Array(array) => write!(formatter, "an array of {}", array.length),
        }
    }
}
