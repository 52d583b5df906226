//! HTTP-date in its three forms (RFC 9110 §5.6.7).
//!
//! Reads what the grammar allows and nothing near it: `UTC`, two-digit years in the fixdate form, doubled
//! spaces, dashes or one-digit hours are no dates. Letters are compared without case, as §4.2 of RFC 9111 asks
//! of recipients. Never panics; instants before 1970 or after 9999 are clamped to those bounds.

use http::HeaderValue;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads an HTTP-date. `now` decides the century of RFC 850's two-digit years.
pub fn parse(value: &[u8], now: SystemTime) -> Option<SystemTime> {
    let comma = value.iter().position(|&byte| byte == b',');
    let civil = match comma {
        Some(3) => imf_fixdate(value)?,
        Some(_) => rfc850(value, now)?,
        None => asctime(value)?,
    };
    civil.to_system_time()
}

/// Reads a field value as an HTTP-date; see [`parse`].
pub(crate) fn of_field(value: Option<&HeaderValue>, now: SystemTime) -> Option<SystemTime> {
    parse(value?.as_bytes(), now)
}

/// Writes an instant as IMF-fixdate.
pub fn format(instant: SystemTime) -> HeaderValue {
    let text = httpdate::fmt_http_date(clamp(instant));
    HeaderValue::try_from(text).expect("an IMF-fixdate is visible ASCII")
}

/// Brings an instant into 1970..=9999, the span IMF-fixdate and `httpdate` can write.
pub(crate) fn clamp(instant: SystemTime) -> SystemTime {
    let latest = UNIX_EPOCH + Duration::from_secs(LAST_SECOND);
    instant.clamp(UNIX_EPOCH, latest)
}

/// 9999-12-31T23:59:59Z in seconds since 1970.
const LAST_SECOND: u64 = 253_402_300_799;

const WEEKDAYS: [(&[u8], &[u8]); 7] = [
    (b"mon", b"monday"),
    (b"tue", b"tuesday"),
    (b"wed", b"wednesday"),
    (b"thu", b"thursday"),
    (b"fri", b"friday"),
    (b"sat", b"saturday"),
    (b"sun", b"sunday"),
];

const MONTHS: [&[u8]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];

struct Civil {
    year: u32,
    month: u32,
    day: u32,
    second_of_day: u32,
}

impl Civil {
    fn to_system_time(&self) -> Option<SystemTime> {
        let leap =
            self.year.is_multiple_of(4) && !self.year.is_multiple_of(100) || self.year.is_multiple_of(400);
        let days_in_month = match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if self.day == 0 || self.day > days_in_month {
            return None;
        }
        let days = days_since_1970(i64::from(self.year), i64::from(self.month), i64::from(self.day));
        let seconds = days * 86_400 + i64::from(self.second_of_day);
        Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(LAST_SECOND)))
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar; years are counted from March so that a leap day is last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(value: &[u8]) -> Option<Civil> {
    if value.len() != 29 || !is_short_weekday(&value[..3]) || !ends_in_gmt(&value[25..]) {
        return None;
    }
    let separated = &value[3..5] == b", " && value[7] == b' ' && value[11] == b' ' && value[16] == b' ';
    separated.then_some(Civil {
        year: digits(&value[12..16])?,
        month: month(&value[8..11])?,
        day: digits(&value[5..7])?,
        second_of_day: time_of_day(&value[17..25])?,
    })
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(value: &[u8], now: SystemTime) -> Option<Civil> {
    let comma = value.iter().position(|&byte| byte == b',')?;
    let (weekday, rest) = value.split_at(comma);
    let known = WEEKDAYS.iter().any(|(_, long)| long.eq_ignore_ascii_case(weekday));
    if !known || rest.len() != 24 || !ends_in_gmt(&rest[20..]) {
        return None;
    }
    let separated = &rest[..2] == b", " && rest[4] == b'-' && rest[8] == b'-' && rest[11] == b' ';
    separated.then_some(Civil {
        year: century(digits(&rest[9..11])?, now),
        month: month(&rest[5..8])?,
        day: digits(&rest[2..4])?,
        second_of_day: time_of_day(&rest[12..20])?,
    })
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(value: &[u8]) -> Option<Civil> {
    if value.len() != 24 || !is_short_weekday(&value[..3]) {
        return None;
    }
    let separated = value[3] == b' ' && value[7] == b' ' && value[10] == b' ' && value[19] == b' ';
    let day = if value[8] == b' ' { &value[9..10] } else { &value[8..10] };
    separated.then_some(Civil {
        year: digits(&value[20..24])?,
        month: month(&value[4..7])?,
        day: digits(day)?,
        second_of_day: time_of_day(&value[11..19])?,
    })
}

/// RFC 9110 §5.6.7: a two-digit year more than 50 years ahead lies in the past century.
fn century(two_digits: u32, now: SystemTime) -> u32 {
    let days = now.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() / 86_400);
    // The mean Gregorian year is exact enough to find the current one to within a day, where 50 years decide.
    let this_year = 1970 + u32::try_from(days * 400 / 146_097).unwrap_or(8029).min(8029);
    let candidate = this_year - this_year % 100 + two_digits;
    match candidate {
        ahead if ahead > this_year + 50 => ahead - 100,
        behind if behind + 50 < this_year => behind + 100,
        near => near,
    }
}

fn is_short_weekday(name: &[u8]) -> bool {
    WEEKDAYS.iter().any(|(short, _)| short.eq_ignore_ascii_case(name))
}

fn ends_in_gmt(tail: &[u8]) -> bool {
    tail.eq_ignore_ascii_case(b" GMT")
}

fn month(name: &[u8]) -> Option<u32> {
    let index = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
    u32::try_from(index + 1).ok()
}

/// Seconds of `hh:mm:ss`. A leap second counts as the second before it, which every platform clock does too.
fn time_of_day(value: &[u8]) -> Option<u32> {
    let (hour, minute, second) = (digits(&value[..2])?, digits(&value[3..5])?, digits(&value[6..8])?);
    let valid = value[2] == b':' && value[5] == b':' && hour < 24 && minute < 60 && second <= 60;
    valid.then_some(hour * 3600 + minute * 60 + second.min(59))
}

fn digits(value: &[u8]) -> Option<u32> {
    value.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_790_000_000; // September 2026

    fn seconds(text: &str) -> Option<u64> {
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        parse(text.as_bytes(), now)
            .map(|instant| instant.duration_since(UNIX_EPOCH).expect("clamped").as_secs())
    }

    #[test]
    fn the_three_forms_name_one_instant() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "SUN, 06 nOV 1994 08:49:37 gmt",
        ] {
            assert_eq!(seconds(text), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn near_misses_are_no_dates() {
        for text in [
            "",
            "0",
            "-1",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 31 Feb 2050 02:01:18 GMT",
            "Thu, 00 Feb 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn two_digit_years_lie_within_fifty_years() {
        assert_eq!(seconds("Thursday, 18-Aug-50 02:01:18 GMT"), seconds("Thu, 18 Aug 2050 02:01:18 GMT"));
        assert_eq!(seconds("Thursday, 18-Aug-77 02:01:18 GMT"), seconds("Thu, 18 Aug 1977 02:01:18 GMT"));
        assert_eq!(seconds("Thursday, 18-Aug-76 02:01:18 GMT"), seconds("Thu, 18 Aug 2076 02:01:18 GMT"));
    }

    #[test]
    fn dates_before_1970_are_the_epoch() {
        assert_eq!(seconds("Thu, 01 Jan 1600 00:00:00 GMT"), Some(0));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(second in 0..=LAST_SECOND) {
            let instant = UNIX_EPOCH + Duration::from_secs(second);
            prop_assert_eq!(parse(format(instant).as_bytes(), instant), Some(instant));
        }

        #[test]
        fn agrees_with_httpdate_on_what_both_accept(second in 0..=LAST_SECOND) {
            let instant = UNIX_EPOCH + Duration::from_secs(second);
            let text = httpdate::fmt_http_date(instant);
            prop_assert_eq!(parse(text.as_bytes(), instant), httpdate::parse_http_date(&text).ok());
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), now in 0..=LAST_SECOND) {
            let _ = parse(&bytes, UNIX_EPOCH + Duration::from_secs(now));
        }

        #[test]
        fn no_near_date_panics(text in "[A-Za-z]{3,9}[, ]{1,2}[0-9 ]{1,2}[ -][A-Za-z]{3}[ -][0-9]{2,4} [0-9:]{8}.{0,4}") {
            let _ = parse(text.as_bytes(), UNIX_EPOCH + Duration::from_secs(NOW));
        }
    }
}
