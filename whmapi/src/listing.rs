//! What `api.filter`, `api.sort`, `api.columns` and `api.chunk` make of the rows of a listing. Pure.

use crate::Arguments;
use crate::answer::{Object, Refused};

/// The rows that are wanted, and what goes into `metadata` besides.
///
/// # Errors
///
/// An argument is not what it should be; the words name it.
pub fn select(rows: Vec<Object>, _arguments: &Arguments) -> Result<(Vec<Object>, Object), Refused> {
    Ok((rows, Object::new()))
}
