//! What may be held and how long anything may take: the cache, deadlines, bounds.

use std::num::NonZeroU32;

use super::{Resolver, at_most, bytes, count, duration, inner, map};
use crate::settings::{
    Bounds, CacheSettings, Timeouts,
    file::{WrittenBounds, WrittenCache, WrittenTimeouts},
    value::{ByteSize, Positive, Table},
};

impl Resolver<'_> {
    pub(super) fn cache(&mut self, written: Option<Table<WrittenCache>>) -> CacheSettings {
        let written = inner(written);
        let defaults = CacheSettings::default();
        let memory = self.or(written.memory.map(bytes), defaults.memory);
        let most = CacheSettings::largest_possible_object(memory);
        let place = written.largest_object.as_ref().map(|size| size.span.clone());
        let largest_object = self.or(written.largest_object.map(bytes), defaults.largest_object.min(most));
        if let Some(place) = place.filter(|_| largest_object > most) {
            let message = format!(
                "an object of {} does not fit a cache of {}",
                ByteSize(largest_object),
                ByteSize(memory)
            );
            let help = format!("write at most an eighth of `memory`: \"{}\"", ByteSize(most));
            self.fault(place, message, help);
        }
        let variants = self.or(written.variants.map(count), defaults.variants);
        CacheSettings { memory, largest_object, variants }
    }

    pub(super) fn timeouts(&mut self, written: Option<Table<WrittenTimeouts>>) -> Timeouts {
        let written = inner(written);
        let defaults = Timeouts::default();
        Timeouts {
            handshake: self.or(written.handshake.map(duration), defaults.handshake),
            header: self.or(written.header.map(duration), defaults.header),
            body: self.or(written.body.map(duration), defaults.body),
            idle: self.or(written.idle.map(duration), defaults.idle),
            total: self.or(written.total.map(duration), defaults.total),
            upload: self.or(written.upload.map(duration), defaults.upload),
            tunnel: self.or(written.tunnel.map(duration), defaults.tunnel),
            drain: self.or(written.drain.map(duration), defaults.drain),
        }
    }

    pub(super) fn bounds(&mut self, written: Option<Table<WrittenBounds>>) -> Bounds {
        let written = inner(written);
        let defaults = Bounds::default();
        let head_place = written.head.as_ref().map(|head| head.span.clone());
        let head = self.or(written.head.map(bytes), defaults.head as u64);
        if let Some(place) = head_place.filter(|_| !(SMALLEST_HEAD..=1 << 30).contains(&head)) {
            let message = format!("a head of {} is out of range", ByteSize(head));
            self.fault(place, message, format!("write \"{}\" to \"1 GiB\"", ByteSize(SMALLEST_HEAD)));
        }
        let connections = self.or(written.connections.map(count), defaults.connections);
        let share_place = written.connections_per_client.as_ref().map(|share| share.span.clone());
        let share = Bounds::share_of_a_client(connections);
        let connections_per_client = self.or(written.connections_per_client.map(count), share);
        if let Some(place) = share_place.filter(|_| connections_per_client > connections) {
            let message =
                format!("one client cannot have {connections_per_client} of {connections} connections");
            self.fault(place, message, format!("write at most {connections}, which is bounds.connections"));
        }
        let requests_per_client = written.requests_per_client.and_then(|bound| self.value(count(bound)));
        let positive = |number| Positive(NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN));
        Bounds {
            connections,
            connections_per_client,
            handshakes: self.or(written.handshakes.map(count), defaults.handshakes),
            requests_per_client,
            streams: self.or(written.streams, positive(defaults.streams)).0.get(),
            streams_per_second: self
                .or(written.streams_per_second, positive(defaults.streams_per_second))
                .0
                .get(),
            control_frames_per_second: self
                .or(written.control_frames_per_second, positive(defaults.control_frames_per_second))
                .0
                .get(),
            head: usize::try_from(head).unwrap_or(usize::MAX),
            fields: self.or(written.fields.map(at_most), defaults.fields),
            body: self.or(written.body.map(|body| map(body, |size| size.0)), defaults.body),
            body_rate: self.or(written.body_rate.map(|rate| map(rate, |size| size.0)), defaults.body_rate),
            held_content: self
                .or(written.held_content.map(|size| map(size, |size| size.0)), defaults.held_content),
            unsent: self.or(written.unsent.map(|size| map(size, |size| size.0)), defaults.unsent),
        }
    }
}

/// Bytes that hyper needs at least to read a head.
const SMALLEST_HEAD: u64 = 8 << 10;
