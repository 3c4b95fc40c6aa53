//! Parameters of a call, taken one by one, each mistake with the name of the parameter.

use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::protocol::ControlRefusal;

type Taken<T> = Result<T, ControlRefusal>;

/// What of the parameters has not been taken yet. `null` is the same as absent, as the protocol has it.
#[derive(Debug, Default)]
pub(super) struct Parameters(Map<String, Value>);

impl From<Option<Map<String, Value>>> for Parameters {
    fn from(map: Option<Map<String, Value>>) -> Self {
        Self(map.unwrap_or_default())
    }
}

impl Parameters {
    /// A whole number that may be left out.
    pub(super) fn number(&mut self, name: &str, range: RangeInclusive<u64>) -> Taken<Option<u64>> {
        self.take(name).map(|value| whole(name, &value, &range)).transpose()
    }

    /// A whole number that has to be there.
    pub(super) fn needed(&mut self, name: &str, range: RangeInclusive<u64>) -> Taken<u64> {
        self.number(name, range)?.ok_or_else(|| wrong(name, "is missing"))
    }

    /// Whole numbers, at least one and at most so many.
    pub(super) fn numbers(
        &mut self,
        name: &str,
        most: usize,
        range: &RangeInclusive<u64>,
    ) -> Taken<Vec<u64>> {
        match self.take(name) {
            Some(Value::Array(items)) if (1..=most).contains(&items.len()) => {
                items.iter().map(|item| whole(name, item, range)).collect()
            }
            Some(_) => Err(wrong(name, &format!("has to be a list of 1 to {most} whole numbers"))),
            None => Err(wrong(name, "is missing")),
        }
    }

    /// Text that may be left out.
    pub(super) fn text(&mut self, name: &str) -> Taken<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "has to be a string")),
        }
    }

    /// Anything else that may be left out, in words of what it has to be.
    pub(super) fn any<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Taken<Option<T>> {
        let read = |value| serde_json::from_value(value).map_err(|_| wrong(name, expected));
        self.take(name).map(read).transpose()
    }

    /// Anything else that has to be there.
    pub(super) fn some<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Taken<T> {
        self.any(name, expected)?.ok_or_else(|| wrong(name, "is missing"))
    }

    /// `false` where it is left out.
    pub(super) fn flag(&mut self, name: &str) -> Taken<bool> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(value),
            Some(_) => Err(wrong(name, "has to be true or false")),
        }
    }

    /// Nothing may be left: what is misspelt must not be ignored.
    pub(super) fn end(self) -> Taken<()> {
        match self.0.keys().next() {
            Some(name) => Err(wrong(name, "is not known")),
            None => Ok(()),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }
}

fn whole(name: &str, value: &Value, range: &RangeInclusive<u64>) -> Taken<u64> {
    value.as_u64().filter(|number| range.contains(number)).ok_or_else(|| {
        wrong(name, &format!("has to be a whole number from {} to {}", range.start(), range.end()))
    })
}

pub(super) fn wrong(parameter: &str, message: &str) -> ControlRefusal {
    // Whoever calls a parameter by a page of text gets no page back.
    let parameter = parameter.chars().take(64).collect();
    ControlRefusal::BadParameter { parameter, message: message.into() }
}
