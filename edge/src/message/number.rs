//! Numbers in digits: as a field's value, and as a part of one.

use http::HeaderValue;

/// Its digits, in one allocation of their size.
pub fn number(number: u64) -> HeaderValue {
    HeaderValue::from_str(decimal(number, &mut [0; LONGEST])).expect("digits are visible ASCII")
}

/// Its digits, written to the end of these octets, without allocating.
pub fn decimal(mut number: u64, digits: &mut [u8; LONGEST]) -> &str {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[start..]).expect("digits are ASCII")
}

/// Digits of the largest number.
pub const LONGEST: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_digits() {
        for value in [0, 7, 10, 1024, u64::MAX] {
            assert_eq!(number(value), value.to_string().as_str());
        }
    }
}
