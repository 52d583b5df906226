//! When certificates are had anew, and when a failure is tried again: functions of what is known and the time.

use std::time::{Duration, SystemTime};

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CertificateLife {
    pub(super) from: SystemTime,
    pub(super) to: SystemTime,
    /// Where in a window this certificate's turn is, from 0 to 1: the same after each start, and another for each certificate, so
    /// that not all come at once.
    pub(super) turn: f64,
}

/// When the authority would have a certificate renewed (RFC 9773 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RenewalWindow {
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
}

impl CertificateLife {
    /// When the certificate is to be renewed: in the authority's window, else when a third of its life is left, and of a short
    /// life the half. Never after its end.
    pub(super) fn renewal(&self, window: Option<RenewalWindow>) -> SystemTime {
        let length = self.to.duration_since(self.from).unwrap_or_default();
        let own = {
            let left = if length < SHORT { length / 2 } else { length / 3 };
            // Up to a tenth of what is left, earlier.
            self.to - left - left.mul_f64(self.turn / 10.0)
        };
        match window {
            None => own,
            Some(RenewalWindow { start, end }) => {
                let length = end.duration_since(start).unwrap_or_default();
                (start + length.mul_f64(self.turn)).min(self.to)
            }
        }
    }
}

/// How long to wait after so many failures in a row; `chance` from 0 to 1.
pub(super) fn back_off(failures: u32, at_least: Duration, chance: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(4_u32.saturating_pow(failures.saturating_sub(1)));
    doubled.clamp(at_least, LONGEST_RETRY.max(at_least)).mul_f64(0.75 + chance / 2.0)
}

/// Certificates of fewer days are renewed in the middle of their life.
const SHORT: Duration = Duration::from_secs(10 * 86_400);
const FIRST_RETRY: Duration = Duration::from_secs(60);
const LONGEST_RETRY: Duration = Duration::from_secs(6 * 3600);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn life(days: u32, turn: f64) -> CertificateLife {
        let from = UNIX_EPOCH + 20_000 * DAY;
        CertificateLife { from, to: from + days * DAY, turn }
    }

    #[test]
    fn a_certificate_is_renewed_with_a_third_of_its_life_left_and_a_short_one_with_a_half() {
        for (days, turn, after) in
            [(90, 0.0, 60 * DAY), (90, 1.0, 57 * DAY), (6, 0.0, 3 * DAY), (9, 0.0, 9 * DAY / 2)]
        {
            let life = life(days, turn);
            assert_eq!(life.renewal(None), life.from + after, "{days} {turn}");
        }
    }

    #[test]
    fn the_authoritys_window_counts_but_never_beyond_the_end() {
        let life = |turn| life(90, turn);
        let from = life(0.0).from;
        let window =
            |start: u32, end: u32| Some(RenewalWindow { start: from + start * DAY, end: from + end * DAY });
        assert_eq!(life(0.5).renewal(window(10, 20)), from + 15 * DAY);
        assert_eq!(life(1.0).renewal(window(80, 200)), life(1.0).to);
        // A certificate that is to be replaced now, since it will be revoked.
        assert!(life(0.9).renewal(Some(RenewalWindow { start: UNIX_EPOCH, end: UNIX_EPOCH + DAY })) < from);
        assert_eq!(life(0.5).renewal(window(20, 10)), from + 20 * DAY, "a window that ends before it begins");
    }

    #[test]
    fn failures_are_tried_again_later_and_later() {
        let minutes = |failures, chance| back_off(failures, Duration::ZERO, chance).as_secs() / 60;
        assert_eq!([1, 2, 3, 4, 5, 40].map(|failures| minutes(failures, 0.5)), [1, 4, 16, 64, 256, 360]);
        assert_eq!((minutes(5, 0.0), minutes(5, 1.0)), (192, 320));
        assert_eq!(back_off(1, Duration::from_secs(7200), 0.5), Duration::from_secs(7200));
    }
}
