//! Who the client is, and how often one may ask.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use toml::Spanned;

use super::{Resolver, Span, at_most, inner};
use crate::settings::{
    ClientSettings, CountedBy, ForwardedBy, Limit, RequestCosts, RequestIdInAnswers,
    file::{WrittenClients, WrittenLimit},
    value::{Positive, Table, Written},
};

impl Resolver<'_> {
    pub(super) fn clients(&mut self, written: Option<Table<WrittenClients>>) -> ClientSettings {
        let written = inner(written);
        let trusted_proxies = written
            .trusted_proxies
            .into_iter()
            .filter_map(|network| Some(self.value(network)?.trunc()))
            .collect();
        let remembered = self.or(written.remembered.map(at_most), ClientSettings::default().remembered);
        let forwarded_by = self.or(written.forwarded_by, ForwardedBy::default());
        let request_id_in_answers = self.or(written.request_id_in_answers, RequestIdInAnswers::default());
        ClientSettings { trusted_proxies, forwarded_by, request_id_in_answers, remembered }
    }

    pub(super) fn limit(&mut self, name: &Arc<str>, span: Span, written: WrittenLimit) -> Limit {
        let except = self.networks(written.except, &span, "except");
        let (key, dry_run) = (self.or(written.key, CountedBy::default()), self.or(written.dry_run, false));
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
        let cost = self.cost(written.cost, (interval, burst));
        Limit { name: Arc::clone(name), interval, burst, key, cost, except, dry_run }
    }

    fn cost(
        &mut self,
        written: BTreeMap<Spanned<String>, Written<Positive>>,
        (interval, burst): (Duration, NonZeroU32),
    ) -> RequestCosts {
        let mut costs = RequestCosts::default();
        for (name, cost) in written {
            let (place, place_of_cost) = (name.span(), cost.span.clone());
            let Some(Positive(cost)) = self.value(cost) else { continue };
            let name = name.into_inner();
            let is_status = name.starts_with(|first: char| first.is_ascii_digit());
            match (name.parse::<StatusCode>(), name.parse::<Method>()) {
                (Ok(status), _) if (200..600).contains(&status.as_u16()) => {
                    if status == StatusCode::TOO_MANY_REQUESTS {
                        let help = "leave it out: what a limit refuses counts for nothing";
                        self.fault(place, "429 would cost even those who are told to wait", help);
                    }
                    if interval.checked_mul(cost.get()).is_none_or(|recovery| recovery > LONGEST_RECOVERY) {
                        let message = format!("a cost of {cost} takes more than a year to earn back");
                        self.fault(place_of_cost, message, "write a lower cost or a higher rate");
                    }
                    costs.by_status.push((status, cost));
                }
                (_, Ok(method)) if !is_status && name.bytes().all(|octet| octet.is_ascii_uppercase()) => {
                    if cost > burst {
                        let message = format!("{method} is never admitted at {cost}: the burst is {burst}");
                        self.fault(place_of_cost, message, "write a lower cost or a larger burst");
                    }
                    costs.by_method.push((method, cost));
                }
                _ => {
                    let help = "write a method in capitals, or a status of an answer: { POST = 5, 401 = 10 }";
                    self.fault(place, format!("{name:?} is neither a method nor a status"), help);
                }
            }
        }
        costs
    }
}

/// A burst that takes longer than this to earn back is a slip; and the limiter counts in 64 bits of nanoseconds.
const LONGEST_RECOVERY: Duration = Duration::from_secs(365 * 86_400);
