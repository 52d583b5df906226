//! What is known of a stored response, and purges, as octets that outlive the process and that other edges read.
//!
//! ```text
//! version (1 octet) | fields, in the order of the functions below | CRC-32 of all before it (4 octets)
//! ```
//!
//! Numbers are little-endian; texts, values and lists have their length before them. Another version, a damaged record, or
//! one of another kind yields an error, never a panic, and costs no more memory than the record itself has octets: whoever
//! reads it takes it for nothing stored.

use std::time::{Duration, SystemTime};

use cache_policy::{LifetimeSource, Meta, Moment, StaleBan, Tag, Validators};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{
    rule::{Force, Rule},
    tier::{Hearing, Kept, Purge},
};

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableRecord {
    #[error("a record of another version")]
    Version,
    #[error("a damaged record")]
    Checksum,
    /// Its checksum is right: whoever wrote it means something else.
    #[error("a record of another kind")]
    Shape,
}

/// A stored response's key and facts.
pub fn encode_kept(key: &str, kept: &Kept) -> Vec<u8> {
    // Without a rest pattern: what is added must be written too.
    let Kept { meta, received, fresh_until, vary, variant, tags, codable, head } = kept;
    let mut record = RecordWriter::begin(KEPT);
    record.text(key);
    record.meta(meta);
    record.time(*received);
    record.time(*fresh_until);
    record.list(vary.len());
    vary.iter().for_each(|name| record.text(name.as_str()));
    record.text(variant);
    record.list(tags.len());
    tags.iter().for_each(|tag| record.tag(tag));
    record.flag(*codable);
    record.list(head.len());
    for (name, value) in head {
        record.text(name.as_str());
        record.bytes(value.as_bytes());
    }
    record.seal()
}

/// The key and the facts of a record.
///
/// # Errors
/// [`UnreadableRecord`].
pub fn decode_kept(record: &[u8]) -> Result<(Box<str>, Kept), UnreadableRecord> {
    let mut record = RecordReader::open(record, KEPT)?;
    let key = record.text()?.into();
    let kept = Kept {
        meta: record.meta()?,
        received: record.time()?,
        fresh_until: record.time()?,
        vary: record.list(RecordReader::name)?,
        variant: record.text()?.into(),
        tags: record.list(RecordReader::tag)?,
        codable: record.flag()?,
        head: record.head()?,
    };
    record.end()?;
    Ok((key, kept))
}

/// A purge. How long whoever made it waits is not told to others.
pub fn encode_purge(purge: &Purge) -> Vec<u8> {
    let Purge { rules, force, at, hearing: _ } = purge;
    let mut record = RecordWriter::begin(PURGE);
    record.flag(*force == Force::Soft);
    record.time(*at);
    record.list(rules.len());
    for rule in rules {
        match rule {
            Rule::Everything => record.octet(0),
            Rule::Host(host) => record.named(1, host),
            Rule::Prefix(prefix) => record.named(2, prefix),
            Rule::Key(key) => record.named(3, key),
            Rule::Tag(tag) => {
                record.octet(4);
                record.tag(tag);
            }
            Rule::Group { origin, group } => {
                record.named(5, origin);
                record.tag(group);
            }
        }
    }
    record.seal()
}

/// The purge of a record.
///
/// # Errors
/// [`UnreadableRecord`].
pub fn decode_purge(record: &[u8]) -> Result<Purge, UnreadableRecord> {
    let mut record = RecordReader::open(record, PURGE)?;
    let force = if record.flag()? { Force::Soft } else { Force::Hard };
    let at = record.time()?;
    let rules = record.list(|record| {
        Ok(match record.octet()? {
            0 => Rule::Everything,
            1 => Rule::Host(record.text()?.into()),
            2 => Rule::Prefix(record.text()?.into()),
            3 => Rule::Key(record.text()?.into()),
            4 => Rule::Tag(record.tag()?),
            5 => Rule::Group { origin: record.text()?.into(), group: record.tag()? },
            _ => return Err(UnreadableRecord::Shape),
        })
    })?;
    record.end()?;
    Ok(Purge { rules: rules.into_vec(), force, at, hearing: Hearing::Briefly })
}

struct RecordWriter(Vec<u8>);

impl RecordWriter {
    fn begin(kind: u8) -> Self {
        Self(vec![VERSION, kind])
    }

    fn octet(&mut self, octet: u8) {
        self.0.push(octet);
    }

    fn flag(&mut self, flag: bool) {
        self.octet(flag.into());
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn list(&mut self, length: usize) {
        // No text or list of a head comes near four gigabytes.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.list(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn named(&mut self, kind: u8, text: &str) {
        self.octet(kind);
        self.text(text);
    }

    fn tag(&mut self, tag: &Tag) {
        match tag {
            Tag::Key(text) => self.named(0, text),
            Tag::Group(text) => self.named(1, text),
        }
    }

    fn duration(&mut self, span: Duration) {
        self.number(span.as_secs());
        self.0.extend_from_slice(&span.subsec_nanos().to_le_bytes());
    }

    fn time(&mut self, time: SystemTime) {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => {
                self.flag(false);
                self.duration(since);
            }
            Err(before) => {
                self.flag(true);
                self.duration(before.duration());
            }
        }
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn meta(&mut self, meta: &Meta) {
        // The two moments of this process's clock are not written: see `Kept`.
        let Meta {
            status,
            validators,
            received_at: _,
            age_at_arrival,
            lifetime,
            lifetime_source,
            fresh_until: _,
            no_cache,
            immutable,
            shareable,
            for_everyone,
            stale_ban,
            stale_while_revalidate,
            stale_if_error,
        } = meta;
        let Validators { etag, last_modified, last_modified_field, last_modified_is_strong } = validators;
        self.number(status.as_u16().into());
        self.option(etag.as_ref(), |record, value| record.bytes(value.as_bytes()));
        self.option(*last_modified, Self::time);
        self.option(last_modified_field.as_ref(), |record, value| record.bytes(value.as_bytes()));
        self.flag(*last_modified_is_strong);
        self.duration(*age_at_arrival);
        self.duration(*lifetime);
        self.octet(match lifetime_source {
            LifetimeSource::SharedMaxAge => 0,
            LifetimeSource::MaxAge => 1,
            LifetimeSource::Expires => 2,
            LifetimeSource::Ttl => 3,
            LifetimeSource::Route => 4,
            LifetimeSource::Heuristic => 5,
            LifetimeSource::None => 6,
            LifetimeSource::SoftPurge => 7,
        });
        for flag in [no_cache, immutable, shareable, for_everyone] {
            self.flag(*flag);
        }
        self.octet(match stale_ban {
            StaleBan::None => 0,
            StaleBan::Implied => 1,
            StaleBan::Stated => 2,
        });
        self.option(*stale_while_revalidate, Self::duration);
        self.option(*stale_if_error, Self::duration);
    }

    fn seal(mut self) -> Vec<u8> {
        let checksum = crc32fast::hash(&self.0);
        self.0.extend_from_slice(&checksum.to_le_bytes());
        self.0
    }
}

struct RecordReader<'a> {
    rest: &'a [u8],
}

impl<'a> RecordReader<'a> {
    fn open(record: &'a [u8], kind: u8) -> Result<Self, UnreadableRecord> {
        let (fields, checksum) = record.split_last_chunk::<4>().ok_or(UnreadableRecord::Checksum)?;
        if crc32fast::hash(fields) != u32::from_le_bytes(*checksum) {
            return Err(UnreadableRecord::Checksum);
        }
        match *fields {
            [VERSION, written, ref rest @ ..] if written == kind => Ok(Self { rest }),
            [VERSION, ..] => Err(UnreadableRecord::Shape),
            _ => Err(UnreadableRecord::Version),
        }
    }

    /// What follows the last field was written by whoever knows more.
    fn end(self) -> Result<(), UnreadableRecord> {
        if self.rest.is_empty() { Ok(()) } else { Err(UnreadableRecord::Shape) }
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], UnreadableRecord> {
        let (array, rest) = self.rest.split_first_chunk::<LENGTH>().ok_or(UnreadableRecord::Shape)?;
        self.rest = rest;
        Ok(*array)
    }

    fn octet(&mut self) -> Result<u8, UnreadableRecord> {
        self.array::<1>().map(|[octet]| octet)
    }

    fn flag(&mut self) -> Result<bool, UnreadableRecord> {
        match self.octet()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(UnreadableRecord::Shape),
        }
    }

    fn number(&mut self) -> Result<u64, UnreadableRecord> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length, or how many there are: no more than there are octets left, since each has one.
    fn length(&mut self) -> Result<usize, UnreadableRecord> {
        let length =
            usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| UnreadableRecord::Shape)?;
        if length > self.rest.len() { Err(UnreadableRecord::Shape) } else { Ok(length) }
    }

    fn bytes(&mut self) -> Result<&'a [u8], UnreadableRecord> {
        let length = self.length()?;
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, UnreadableRecord> {
        std::str::from_utf8(self.bytes()?).map_err(|_| UnreadableRecord::Shape)
    }

    fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, UnreadableRecord>,
    ) -> Result<Box<[T]>, UnreadableRecord> {
        let length = self.length()?;
        // Collecting a result sizes nothing by what the record says of its length.
        (0..length).map(|_| read(self)).collect()
    }

    fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, UnreadableRecord>,
    ) -> Result<Option<T>, UnreadableRecord> {
        self.flag()?.then(|| read(self)).transpose()
    }

    fn tag(&mut self) -> Result<Tag, UnreadableRecord> {
        let kind = self.octet()?;
        let text = self.text()?.into();
        match kind {
            0 => Ok(Tag::Key(text)),
            1 => Ok(Tag::Group(text)),
            _ => Err(UnreadableRecord::Shape),
        }
    }

    fn duration(&mut self) -> Result<Duration, UnreadableRecord> {
        let seconds = self.number()?;
        let nanoseconds = u32::from_le_bytes(self.array()?);
        if nanoseconds < NANOSECONDS {
            Ok(Duration::new(seconds, nanoseconds))
        } else {
            Err(UnreadableRecord::Shape)
        }
    }

    fn time(&mut self) -> Result<SystemTime, UnreadableRecord> {
        let before = self.flag()?;
        let span = self.duration()?;
        let epoch = SystemTime::UNIX_EPOCH;
        let time = if before { epoch.checked_sub(span) } else { epoch.checked_add(span) };
        time.ok_or(UnreadableRecord::Shape)
    }

    fn name(&mut self) -> Result<HeaderName, UnreadableRecord> {
        HeaderName::from_bytes(self.bytes()?).map_err(|_| UnreadableRecord::Shape)
    }

    fn value(&mut self) -> Result<HeaderValue, UnreadableRecord> {
        HeaderValue::from_bytes(self.bytes()?).map_err(|_| UnreadableRecord::Shape)
    }

    fn head(&mut self) -> Result<HeaderMap, UnreadableRecord> {
        let lines = self.list(|record| Ok((record.name()?, record.value()?)))?;
        let mut head = HeaderMap::new();
        for (name, value) in lines {
            head.try_append(name, value).map_err(|_| UnreadableRecord::Shape)?;
        }
        Ok(head)
    }

    fn meta(&mut self) -> Result<Meta, UnreadableRecord> {
        let status = u16::try_from(self.number()?).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.ok_or(UnreadableRecord::Shape)?;
        let validators = Validators {
            etag: self.option(Self::value)?,
            last_modified: self.option(Self::time)?,
            last_modified_field: self.option(Self::value)?,
            last_modified_is_strong: self.flag()?,
        };
        let (age_at_arrival, lifetime) = (self.duration()?, self.duration()?);
        let lifetime_source = match self.octet()? {
            0 => LifetimeSource::SharedMaxAge,
            1 => LifetimeSource::MaxAge,
            2 => LifetimeSource::Expires,
            3 => LifetimeSource::Ttl,
            4 => LifetimeSource::Route,
            5 => LifetimeSource::Heuristic,
            6 => LifetimeSource::None,
            7 => LifetimeSource::SoftPurge,
            _ => return Err(UnreadableRecord::Shape),
        };
        let [no_cache, immutable, shareable, for_everyone] =
            [self.flag()?, self.flag()?, self.flag()?, self.flag()?];
        let stale_ban = match self.octet()? {
            0 => StaleBan::None,
            1 => StaleBan::Implied,
            2 => StaleBan::Stated,
            _ => return Err(UnreadableRecord::Shape),
        };
        Ok(Meta {
            status,
            validators,
            received_at: Moment::default(),
            age_at_arrival,
            lifetime,
            lifetime_source,
            fresh_until: Moment::default(),
            no_cache,
            immutable,
            shareable,
            for_everyone,
            stale_ban,
            stale_while_revalidate: self.option(Self::duration)?,
            stale_if_error: self.option(Self::duration)?,
        })
    }
}

/// Raised when a record's fields change: what an edge of another version wrote is nothing stored to this one.
const VERSION: u8 = 1;
const KEPT: u8 = 1;
const PURGE: u8 = 2;
const NANOSECONDS: u32 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = HeaderValue> {
        "[ -~\u{80}-\u{ff}]{0,20}".prop_map(|text| HeaderValue::from_bytes(text.as_bytes()).unwrap())
    }

    fn duration() -> impl Strategy<Value = Duration> {
        (any::<u64>(), 0..NANOSECONDS).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
    }

    fn time() -> impl Strategy<Value = SystemTime> {
        (any::<bool>(), 0..1u64 << 40, 0..NANOSECONDS).prop_map(|(before, seconds, nanos)| {
            let span = Duration::new(seconds, nanos);
            if before { SystemTime::UNIX_EPOCH - span } else { SystemTime::UNIX_EPOCH + span }
        })
    }

    fn tag() -> impl Strategy<Value = Tag> {
        (any::<bool>(), "\\PC{1,9}").prop_map(|(group, text)| match group {
            true => Tag::Group(text.into()),
            false => Tag::Key(text.into()),
        })
    }

    fn meta() -> impl Strategy<Value = Meta> {
        let source = prop_oneof![
            Just(LifetimeSource::SharedMaxAge),
            Just(LifetimeSource::MaxAge),
            Just(LifetimeSource::Expires),
            Just(LifetimeSource::Ttl),
            Just(LifetimeSource::Route),
            Just(LifetimeSource::Heuristic),
            Just(LifetimeSource::None),
            Just(LifetimeSource::SoftPurge),
        ];
        let ban = prop_oneof![Just(StaleBan::None), Just(StaleBan::Implied), Just(StaleBan::Stated)];
        let some = |strategy| proptest::option::of(strategy);
        let validators = (
            proptest::option::of(value()),
            proptest::option::of(time()),
            proptest::option::of(value()),
            any::<bool>(),
        );
        let spans = (duration(), duration(), some(duration()), some(duration()));
        (100..1000u16, validators, spans, source, any::<[bool; 4]>(), ban).prop_map(
            |(
                status,
                (etag, last_modified, field, strong),
                (age, lifetime, swr, sie),
                source,
                flags,
                ban,
            )| {
                Meta {
                    status: StatusCode::from_u16(status).unwrap(),
                    validators: Validators {
                        etag,
                        last_modified,
                        last_modified_field: field,
                        last_modified_is_strong: strong,
                    },
                    received_at: Moment::default(),
                    age_at_arrival: age,
                    lifetime,
                    lifetime_source: source,
                    fresh_until: Moment::default(),
                    no_cache: flags[0],
                    immutable: flags[1],
                    shareable: flags[2],
                    for_everyone: flags[3],
                    stale_ban: ban,
                    stale_while_revalidate: swr,
                    stale_if_error: sie,
                }
            },
        )
    }

    fn kept() -> impl Strategy<Value = Kept> {
        let name = || "[a-z][a-z-]{0,9}".prop_map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap());
        let lists = (
            proptest::collection::vec(name(), 0..3),
            proptest::collection::vec(tag(), 0..5),
            proptest::collection::vec((name(), value()), 0..6),
        );
        (meta(), time(), time(), "\\PC{0,12}", any::<bool>(), lists).prop_map(
            |(meta, received, fresh_until, variant, codable, (vary, tags, lines))| {
                let mut head = HeaderMap::new();
                for (name, value) in lines {
                    head.append(name, value);
                }
                let (vary, tags, variant) = (vary.into(), tags.into(), variant.into());
                Kept { meta, received, fresh_until, vary, variant, tags, codable, head }
            },
        )
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let text = || "\\PC{0,12}".prop_map(String::into_boxed_str);
        prop_oneof![
            Just(Rule::Everything),
            text().prop_map(Rule::Host),
            text().prop_map(Rule::Prefix),
            text().prop_map(Rule::Key),
            tag().prop_map(Rule::Tag),
            (text(), tag()).prop_map(|(origin, group)| Rule::Group { origin, group }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(key in "\\PC{0,20}", kept in kept()) {
            let (read_key, read) = decode_kept(&encode_kept(&key, &kept)).unwrap();
            prop_assert_eq!(&*read_key, &*key);
            prop_assert_eq!(format!("{read:?}"), format!("{kept:?}"));
        }

        #[test]
        fn a_purge_is_read_as_it_was_made(
            rules in proptest::collection::vec(rule(), 0..6), soft in any::<bool>(), at in time(),
        ) {
            let force = if soft { Force::Soft } else { Force::Hard };
            let purge = Purge { rules, force, at, hearing: Hearing::Everyone };
            let read = decode_purge(&encode_purge(&purge)).unwrap();
            prop_assert_eq!((&read.rules, read.force, read.at), (&purge.rules, force, at));
        }

        #[test]
        fn a_damaged_record_is_an_error(kept in kept(), at in any::<proptest::sample::Index>(), bit in 0..8u8) {
            let mut record = encode_kept("http://a:80/", &kept);
            let at = at.index(record.len());
            record[at] ^= 1 << bit;
            prop_assert_eq!(decode_kept(&record).unwrap_err(), UnreadableRecord::Checksum);
        }

        #[test]
        fn a_shortened_record_is_an_error(kept in kept(), at in any::<proptest::sample::Index>()) {
            let record = encode_kept("http://a:80/", &kept);
            prop_assert!(decode_kept(&record[..at.index(record.len())]).is_err());
        }

        /// The checksum is no defence against whoever can write: what has a right one and means nothing is an error too.
        #[test]
        fn nonsense_with_a_right_checksum_does_not_panic(
            fields in proptest::collection::vec(any::<u8>(), 0..120), kept in kept(), cut in any::<proptest::sample::Index>(),
            noise in proptest::collection::vec(any::<u8>(), 0..40), kind in KEPT..=PURGE,
        ) {
            let sealed = |fields: &[u8]| RecordWriter([&[VERSION, kind], fields].concat()).seal();
            let _ = decode_kept(&sealed(&fields));
            let _ = decode_purge(&sealed(&fields));
            // Mostly right, so that it comes far.
            let record = encode_kept("http://a:80/", &kept);
            let fields = &record[2..record.len() - 4];
            let _ = decode_kept(&sealed(&[&fields[..cut.index(fields.len())], &noise].concat()));
        }
    }

    #[test]
    fn another_version_or_kind_is_told_apart() {
        let purge = Purge {
            rules: Vec::new(),
            force: Force::Hard,
            at: SystemTime::UNIX_EPOCH,
            hearing: Hearing::Briefly,
        };
        let record = encode_purge(&purge);
        assert_eq!(decode_kept(&record).unwrap_err(), UnreadableRecord::Shape);
        let mut newer = RecordWriter(record[..record.len() - 4].to_vec());
        newer.0[0] = VERSION + 1;
        assert_eq!(decode_purge(&newer.seal()).unwrap_err(), UnreadableRecord::Version);
        assert_eq!(decode_purge(&[]).unwrap_err(), UnreadableRecord::Checksum);
    }
}
