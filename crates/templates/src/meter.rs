//! Bounds what a rendering handles and what it writes: the engine counts its steps, but one step can be of any size.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    value::{Object, ObjectRepr, ValueKind},
};

/// Passes a value that something will be made of: bounded in size and depth, and no longer lazy.
pub(crate) const BOUNDED: &str = "_bounded";
/// Passes a number only: `*` repeats texts and lists.
pub(crate) const NUMBER: &str = "_number";
/// Keeps the value itself instead of its text.
pub(crate) const KEEP: &str = "_keep";

/// Where templates find the meter; no template can write this name.
pub(crate) const NAME: &str = "the meter";

/// What a value costs besides the bytes of its text: about what it takes in memory.
const VALUE: u64 = 16;

/// What a text costs that something is made of; any other value costs as much as an empty one.
pub(crate) const fn cost(text: &str) -> u64 {
    VALUE + text.len() as u64
}

/// How deep values may be nested: deeper ones would overflow the stack when they are written, compared or dropped.
const MAX_DEPTH: usize = 64;

/// The budget of one rendering.
#[derive(Debug)]
pub(crate) struct Meter {
    left: AtomicU64,
    kept: Mutex<Option<Value>>,
}

impl Object for Meter {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

impl Meter {
    pub(crate) fn new(work: u64) -> Self {
        Self { left: AtomicU64::new(work), kept: Mutex::default() }
    }

    /// The value that [`KEEP`] got.
    pub(crate) fn take_kept(&self) -> Option<Value> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes from the budget.
    pub(crate) fn spend(&self, units: u64) -> Result<(), Error> {
        let spent = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(units));
        spent.map(drop).map_err(|_| Error::new(ErrorKind::OutOfFuel, "it handles more than a rendering may"))
    }

    fn weigh(&self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, format!("values are nested deeper than {MAX_DEPTH}")));
        }
        self.spend(cost(value.as_str().unwrap_or_default()))?;
        let kind = value.kind();
        if matches!(kind, ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) {
            for item in value.try_iter()? {
                self.weigh(&item, depth + 1)?;
                if kind == ValueKind::Map {
                    self.weigh(&value.get_item(&item)?, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn add_filters(env: &mut Environment<'_>) {
    env.add_filter(BOUNDED, bounded);
    env.add_filter(NUMBER, number);
    env.add_filter(KEEP, keep);
}

fn meter(state: &State) -> Result<Arc<Meter>, Error> {
    let meter = state.lookup(NAME).and_then(|m| m.downcast_object::<Meter>());
    meter.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "there is no meter"))
}

/// Takes from the budget.
pub(crate) fn charge(state: &State, units: u64) -> Result<(), Error> {
    meter(state)?.spend(units)
}

fn bounded(state: &State, value: &Value) -> Result<Value, Error> {
    meter(state)?.weigh(value, 0)?;
    // a lazy value of a lazy value of … would be run as deep as it is nested
    Ok(if value.kind() == ValueKind::Iterable { Value::from_iter(value.try_iter()?) } else { value.clone() })
}

fn number(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Number | ValueKind::Undefined => Ok(value.clone()),
        other => {
            let detail = format!("`*` takes numbers, not a {other}; convert a text with `|int` or `|float`");
            Err(Error::new(ErrorKind::InvalidOperation, detail))
        }
    }
}

fn keep(state: &State, value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        // writing it is the error that names it
        return Ok(value.clone());
    }
    *meter(state)?.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(value.clone());
    Ok(Value::from(""))
}

/// A buffer that refuses to grow beyond its limit.
pub(crate) struct Limited {
    pub(crate) bytes: Vec<u8>,
    pub(crate) limit: usize,
    /// Something did not fit.
    pub(crate) full: bool,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            self.full = true;
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
