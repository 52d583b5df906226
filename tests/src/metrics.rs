//! What programs count themselves, as `/metrics` shows it.

use std::{fmt::Debug, str::FromStr};

/// The values of all series of one name.
///
/// # Panics
/// When one is no number.
#[track_caller]
#[must_use]
pub fn values<T: FromStr<Err: Debug>>(page: &str, name: &str) -> Vec<T> {
    let series =
        page.lines().filter_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{'])));
    series
        .map(|rest| rest.rsplit(' ').next().unwrap_or_default().parse().expect("metrics are numbers"))
        .collect()
}
