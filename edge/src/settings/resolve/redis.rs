//! The Redis that several edges share.

use std::time::Duration;

use toml::Spanned;

use super::{Resolver, bytes, duration};
use crate::settings::{
    ByteSize, RedisSettings, RedisUrl,
    file::WrittenRedis,
    value::{Deadline, Table, Written},
};

impl Resolver<'_> {
    pub(super) fn redis(
        &mut self,
        written: Option<Table<WrittenRedis>>,
        largest_object: u64,
    ) -> Option<RedisSettings> {
        let Table { span, value: written } = written?;
        let url = self.need(written.url, &span, "url", "\"redis://127.0.0.1:6379\"");
        let place = written.password_file.as_ref().map(|file| file.span.clone());
        let password_file = written.password_file.and_then(|file| self.value(file));
        let ca_place = written.ca.as_ref().map(|file| file.span.clone());
        let ca = written.ca.and_then(|file| self.value(file));
        let secret_file = written.secret_file.and_then(|file| self.value(file));
        let place_of_sentinels = written.sentinels.as_ref().map(Spanned::span);
        let sentinels: Vec<_> = written.sentinels.map(Spanned::into_inner).unwrap_or_default();
        let sentinels: Vec<RedisUrl> = sentinels.into_iter().filter_map(|url| self.value(url)).collect();
        let namespace = written.namespace.and_then(|name| {
            let span = name.span.clone();
            let name = self.value(name)?.0;
            self.check_name(span, &name);
            Some(name)
        });
        let look_up_timeout = self.no_longer(written.look_up_timeout, LONGEST_LOOK_UP);
        let collapse_timeout = self.no_longer(written.collapse_timeout, LONGEST_COLLAPSE);
        let max_ttl = self.no_longer(written.max_ttl, LONGEST_TTL);
        let place_of_largest = written.largest_object.as_ref().map(|size| size.span.clone());
        let largest = written.largest_object.map(bytes).and_then(|size| self.value(size));
        let unheard = written.unheard.and_then(|unheard| self.value(unheard));
        let defaults = RedisSettings::new(url?);
        if let Some(place) = place.filter(|_| defaults.url.has_password()) {
            self.fault(
                place,
                "the URL has a password already",
                "write it in one place: leave it out of `url`",
            );
        }
        if let Some(place) = place_of_sentinels
            && defaults.url.to_secret().starts_with("unix:")
        {
            self.fault(
                place,
                "a Sentinel tells an address, and no path",
                "write redis://NAME in `url`, the name by which the Sentinels know the server",
            );
        }
        if let Some(place) = ca_place.filter(|_| !defaults.url.to_secret().starts_with("rediss://")) {
            self.fault(
                place,
                "without TLS there is no certificate",
                "write rediss:// in `url`, or leave `ca` out",
            );
        }
        let largest = largest.unwrap_or(defaults.largest_object.min(largest_object));
        if let Some(place) = place_of_largest.filter(|_| largest > largest_object) {
            let message = format!("{} is more than the cache keeps of one object", ByteSize(largest));
            let help = format!("write at most `largest_object` of [cache]: \"{}\"", ByteSize(largest_object));
            self.fault(place, message, help);
        }
        Some(RedisSettings {
            password_file,
            ca,
            sentinels,
            secret_file,
            compress: written.compress.unwrap_or(defaults.compress),
            namespace: namespace.unwrap_or(defaults.namespace),
            look_up_timeout: look_up_timeout.unwrap_or(defaults.look_up_timeout),
            collapse_timeout: collapse_timeout.unwrap_or(defaults.collapse_timeout),
            largest_object: largest,
            max_ttl: max_ttl.unwrap_or(defaults.max_ttl),
            unheard: unheard.unwrap_or(defaults.unheard),
            url: defaults.url,
        })
    }

    fn no_longer(&mut self, written: Option<Written<Deadline>>, most: Duration) -> Option<Duration> {
        let written = written.map(duration)?;
        let place = written.span.clone();
        let time = self.value(written)?;
        if time > most {
            self.fault(
                place,
                format!("{time:?} is too long"),
                format!("write at most \"{}s\"", most.as_secs()),
            );
        }
        Some(time)
    }
}

/// The upstream would hardly take longer.
const LONGEST_LOOK_UP: Duration = Duration::from_secs(1);
/// Who waits for another edge waits for its own upstream as well.
const LONGEST_COLLAPSE: Duration = Duration::from_secs(10);
const LONGEST_TTL: Duration = Duration::from_secs(90 * 86_400);
