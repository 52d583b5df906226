//! Pages of a list: how long they are, and where one ends and the next begins.
//!
//! A page is found by its keyset (the sort key and id of the last row before it) and never by OFFSET. Which column a sort
//! means is the resource's own affair.

mod cursor;
pub(crate) mod newest_first;

pub(crate) use cursor::{Cursor, Key, Sort};

use crate::problem::Problem;

pub(crate) const LARGEST_LIMIT: u32 = 100;

/// The length of a page.
pub(crate) fn limit(sent: Option<u32>, default: u32) -> Result<u32, Problem> {
    let within = Some(sent.unwrap_or(default)).filter(|limit| (1..=LARGEST_LIMIT).contains(limit));
    within.ok_or_else(|| Problem::invalid("`limit` is a number from 1 to 100"))
}

/// Cuts the rows, of which one more than the page was asked for; the last that stays, if there is another page.
pub(crate) fn cut<T>(rows: &mut Vec<T>, limit: u32) -> Option<&T> {
    let page = limit as usize;
    let more = rows.len() > page;
    rows.truncate(page);
    rows.last().filter(|_| more)
}
