//! Who the client is, and how often one may ask.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use super::{Resolver, Span, inner};
use crate::settings::{
    ClientSettings, ForwardedBy, Limit, RequestIdInAnswers,
    file::{WrittenClients, WrittenLimit},
    value::{Positive, Table},
};

impl Resolver<'_> {
    pub(super) fn clients(&mut self, written: Option<Table<WrittenClients>>) -> ClientSettings {
        let written = inner(written);
        let trusted_proxies = written
            .trusted_proxies
            .into_iter()
            .filter_map(|network| Some(self.value(network)?.trunc()))
            .collect();
        let remembered = self.at_most(
            written.remembered,
            ClientSettings::default().remembered,
            MOST_REMEMBERED,
            "clients",
        );
        let forwarded_by = self.or(written.forwarded_by, ForwardedBy::default());
        let request_id_in_answers = self.or(written.request_id_in_answers, RequestIdInAnswers::default());
        ClientSettings { trusted_proxies, forwarded_by, request_id_in_answers, remembered }
    }

    pub(super) fn limit(&mut self, name: &Arc<str>, span: Span, written: WrittenLimit) -> Limit {
        let interval = self.need(written.rate, &span, "rate", "\"50/s\"").map(|rate| rate.0);
        let interval = interval.unwrap_or(Duration::from_secs(1));
        let place = written.burst.as_ref().map_or(span, |burst| burst.span.clone());
        let a_second = Duration::from_secs(1).as_nanos() / interval.as_nanos().max(1);
        let a_second = u32::try_from(a_second).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let burst = self.or(written.burst, Positive(a_second)).0;
        if interval.checked_mul(burst.get()).is_none_or(|recovery| recovery > LONGEST_RECOVERY) {
            let message = format!("a burst of {burst} takes more than a year to earn back");
            self.fault(place, message, "write a smaller burst or a higher rate");
        }
        Limit { name: Arc::clone(name), interval, burst }
    }
}

const MOST_REMEMBERED: usize = 10_000_000;
/// A burst that takes longer than this to earn back is a slip; and the limiter counts in 64 bits of nanoseconds.
const LONGEST_RECOVERY: Duration = Duration::from_secs(365 * 86_400);
