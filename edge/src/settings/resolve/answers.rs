//! What a route changes of paths on their way upstream, and of answers on their way to clients.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Method, Uri};
use toml::Spanned;

use super::{Known, Resolver, duration};
use crate::settings::{
    AllowedFields, AllowedOrigins, CrossOrigin, ForwardAuth, MaintenanceSettings, PathSubstitution,
    PurgeAccess,
    file::{WrittenCrossOrigin, WrittenForwardAuth, WrittenPurgeAccess, WrittenSubstitution},
    read_token,
    value::{PlainOrTable, Table, Written, WrittenMaintenance},
};

impl Resolver<'_> {
    pub(super) fn substitution(&mut self, written: Table<WrittenSubstitution>) -> Option<PathSubstitution> {
        let Table { span, value: written } = written;
        let (place_of_from, place_of_to) =
            (written.from.as_ref().map(|it| it.span.clone()), written.to.as_ref().map(|it| it.span.clone()));
        let from = self.need(written.from, &span, "from", "\"/p/([0-9]+)\"");
        let to = self.need(written.to, &span, "to", "\"/products/$1\"");
        let (from, to) = (from?.0, to?.0);
        let is_plain =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'#');
        if !to.starts_with('/') || !to.bytes().all(is_plain) {
            let message = format!("{to:?} is no path");
            let help = "write a path such as \"/products/$1\", other characters percent-encoded";
            self.fault(place_of_to.unwrap_or(span), message, help);
            return None;
        }
        match PathSubstitution::new(&from, &to) {
            Ok(substitution) => {
                if let Some(name) = substitution.unknown_groups().first() {
                    let message = format!("the expression has no group {name:?}");
                    let help = "number the groups of `from` from 1, as in $1, or name them, as in (?<id>..) and ${id}; \
                                ${1}x where a letter follows";
                    self.fault(place_of_to.unwrap_or(span), message, help);
                }
                Some(substitution)
            }
            Err(error) => {
                let told = error.to_string();
                let told = told.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                self.fault(
                    place_of_from.unwrap_or(span),
                    format!("{from:?} is no regular expression: {told}"),
                    "write one such as \"/p/([0-9]+)\"; there are no back-references and no look-around",
                );
                None
            }
        }
    }

    pub(super) fn forward_auth(
        &mut self,
        written: Table<WrittenForwardAuth>,
        known: &Known<'_>,
    ) -> Option<ForwardAuth> {
        let Table { span, value: written } = written;
        let place = written.upstream.as_ref().map_or(span.clone(), |name| name.span.clone());
        let upstream = self
            .need(written.upstream, &span, "upstream", "\"auth\"")
            .and_then(|name| self.upstream_of_route(place, &name.0, known));
        let copy = match written.copy {
            None => Vec::new(),
            copy => self.list(copy, &span, "copy", "[\"X-User\"], or leave it out"),
        };
        let mut names = Vec::new();
        for (place, name) in copy {
            if !is_of_who_asks(name.as_str()) {
                let message = format!("{name} says nothing of who asks");
                self.fault(place, message, "copy fields of the upstream's own, such as \"X-User\"");
                continue;
            }
            names.push(name);
        }
        let place = written.path.as_ref().map_or(span.clone(), |path| path.span.clone());
        let path = self.need(written.path, &span, "path", "\"/verify\"")?.0;
        let Ok(path) = path.parse::<Uri>() else {
            self.fault(place, format!("{path:?} is no path"), "write one such as \"/verify\"");
            return None;
        };
        Some(ForwardAuth { upstream: upstream?, path, copy: names })
    }

    pub(super) fn purge_access(&mut self, written: Table<WrittenPurgeAccess>) -> Option<PurgeAccess> {
        let Table { span, value: written } = written;
        let allow = self.networks(written.allow, &span, "allow");
        let place = written.token_file.as_ref().map(|file| file.span.clone());
        let token_file = written.token_file.and_then(|file| self.value(file));
        let token = token_file.as_deref().map(|file| read_token("purge.token_file", file)).transpose();
        let token = token.unwrap_or_else(|error| {
            let help = "write a word of 16 printable characters or more into it, readable for the edge";
            self.fault(place.unwrap_or(span.clone()), error.to_string(), help);
            None
        });
        if allow.is_empty() && token_file.is_none() {
            let help = "write allow = [\"127.0.0.1\"], the addresses of the app's servers, or token_file = \"purge.token\"";
            self.fault(span, "[purge] lets nobody in", help);
        }
        let soft = self.or(written.soft, false);
        Some(PurgeAccess { allow, token_file, token, soft })
    }

    pub(super) fn maintenance(
        &mut self,
        written: Spanned<WrittenMaintenance>,
    ) -> Option<Arc<MaintenanceSettings>> {
        let span = written.span();
        let (file, except, retry_after) = match written.into_inner() {
            PlainOrTable::Plain(value) => (Some(Written { span: span.clone(), value }), None, None),
            PlainOrTable::Table(table) => (table.file, table.except, table.retry_after),
        };
        let file = self.need(file, &span, "file", "\"maintenance.html\"");
        let except = self.networks(except, &span, "except");
        let retry_after = self.or(retry_after.map(duration), Duration::from_secs(60));
        Some(Arc::new(MaintenanceSettings { file: file?, except, retry_after }))
    }

    pub(super) fn cross_origin(&mut self, written: Table<WrittenCrossOrigin>) -> Option<CrossOrigin> {
        let Table { span, value: written } = written;
        let origins = self.need(written.origins, &span, "origins", "[\"https://app.example\"]");
        let place = written.credentials.as_ref().map(|written| written.span.clone());
        let credentials = self.or(written.credentials, false);
        let methods = match written.methods {
            None => METHODS.to_vec(),
            methods => {
                let methods = self.list(methods, &span, "methods", "[\"GET\", \"POST\"], or leave it out");
                methods.into_iter().map(|(_, method)| method).collect()
            }
        };
        let fields = match written.headers {
            None => AllowedFields::Asked,
            fields => {
                let fields = self.list(fields, &span, "headers", "[\"Content-Type\"], or leave it out");
                AllowedFields::These(listed(fields.iter().map(|(_, name)| name.as_str())))
            }
        };
        let exposed = written.expose.map(|exposed| {
            let exposed = self.list(Some(exposed), &span, "expose", "[\"X-Total-Count\"], or leave it out");
            listed(exposed.iter().map(|(_, name)| name.as_str()))
        });
        let max_age = self.or(written.max_age, Duration::from_secs(600));
        if let Some(place) = place.filter(|_| credentials && origins == Some(AllowedOrigins::Any)) {
            let message = "any site's scripts could read what is for one client, and browsers refuse it";
            self.fault(place, message, "name the origins, or leave `credentials` out");
        }
        let methods = listed(methods.iter().map(Method::as_str));
        Some(CrossOrigin { origins: origins?, methods, fields, exposed, credentials, max_age })
    }
}

/// A list as a field's value.
fn listed<'n>(names: impl Iterator<Item = &'n str>) -> HeaderValue {
    let names = names.collect::<Vec<_>>().join(", ");
    HeaderValue::try_from(names).expect("names and commas are visible ASCII")
}

/// Whether an upstream that admits requests may say it of who asks. Not what frames or routes a request, and not what the edge
/// states itself or, as it does names with `_`, drops.
fn is_of_who_asks(name: &str) -> bool {
    const OTHERS: [&str; 13] = [
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-real-ip",
    ];
    !OTHERS.contains(&name)
        && !name.contains('_')
        && !name.starts_with("x-forwarded-")
        && name != "forwarded"
        && name != "x-request-id"
}

/// Methods that scripts may use where the file names none.
const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
