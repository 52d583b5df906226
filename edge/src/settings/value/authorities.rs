//! What is written of certificate authorities, and of names that they certify.

use std::net::IpAddr;

use http::Uri;

use super::{ServedName, Unreadable, Value, choices::OneOfWords};
use crate::settings::{
    ClearText, HostPattern, KeyType, LETS_ENCRYPT, LETS_ENCRYPT_STAGING,
    notation::{Notation, any_case},
};

/// One name, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct ServedNames(pub(in crate::settings) Vec<Box<str>>);

impl Value for ServedNames {
    const EXPECTED: &'static str = "a host name such as \"shop.example\", or several in a list";

    fn notation() -> Notation {
        ServedName::notation().one_or_several()
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        Self::from_list(vec![text.to_owned()])
    }

    fn from_list(list: Vec<String>) -> Result<Self, Unreadable> {
        if list.is_empty() {
            return Err(Unreadable::new(
                "an empty list has no name",
                "write the names of this host, as in \"shop.example\"",
            ));
        }
        if list.len() > MOST_NAMES {
            let help = format!("write at most {MOST_NAMES}: each has a certificate of its own");
            return Err(Unreadable::new(format!("{} names are too many", list.len()), help));
        }
        let mut names = Vec::with_capacity(list.len());
        for text in &list {
            let name = ServedName::from_text(text)?.0;
            if !name.contains('.') {
                let help = "authorities certify public names, such as \"shop.example\"; for development write tls = { .., local_ca = true }";
                return Err(Unreadable::new(format!("{text:?} is no public name"), help));
            }
            if names.contains(&name) {
                return Err(Unreadable::new(format!("{text:?} is listed twice"), "keep one of them"));
            }
            names.push(name);
        }
        Ok(Self(names))
    }
}

/// Of one listener.
const MOST_NAMES: usize = 100;

/// A name that certificates may be for, or all names of one label more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct CertifiedPattern(pub(in crate::settings) HostPattern);

impl Value for CertifiedPattern {
    const EXPECTED: &'static str = "a host name such as \"shop.example\" or \"*.shop.example\"";

    fn notation() -> Notation {
        Notation::pattern(r"(\*\.)?[0-9A-Za-z.-]+")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_public = ServedName::from_text(name).is_ok() && name.contains('.');
        if !is_public || name.contains('_') || name.parse::<IpAddr>().is_ok() {
            return Err(Unreadable::new(
                format!("{text:?} is no name that authorities certify"),
                "write a public name, \"shop.example\", or \"*.shop.example\" for those of one label more",
            ));
        }
        HostPattern::from_text(text).map(Self)
    }
}

/// Who is asked whether a name may have a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct AskUrl(pub(in crate::settings) Uri);

impl Value for AskUrl {
    const EXPECTED: &'static str = "a URL such as \"http://127.0.0.1:9000/may-have\"";

    fn notation() -> Notation {
        Notation::pattern(format!("({}|{})://.+", any_case("http"), any_case("https")))
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let bad = |help: &str| Unreadable::new(format!("{text:?} is nobody who can be asked"), help);
        const HELP: &str = "write a URL as in \"http://127.0.0.1:9000/may-have\"; the name is told as its parameter `domain`";
        let url: Uri = text.parse().map_err(|_| bad(HELP))?;
        let authority = url.authority().ok_or_else(|| bad(HELP))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
            return Err(bad(HELP));
        }
        if authority.as_str().contains('@') || text.contains('#') {
            return Err(bad("leave user, password and fragment out: the edge sends none"));
        }
        if url.query().is_some_and(|query| query.split('&').any(|part| part.starts_with("domain="))) {
            return Err(bad("leave `domain` out of its query: the edge writes the name there"));
        }
        Ok(Self(url))
    }
}

/// The URL of an authority's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct Directory(pub(in crate::settings) Box<str>);

impl Value for Directory {
    const EXPECTED: &'static str =
        "\"letsencrypt\", \"letsencrypt-staging\", or the URL of an authority's directory";

    fn notation() -> Notation {
        Notation::Either(vec![
            Notation::Words(vec!["letsencrypt", "letsencrypt-staging"]),
            Notation::pattern(format!("{}://.+", any_case("https"))),
        ])
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let url = match text {
            "letsencrypt" => LETS_ENCRYPT,
            "letsencrypt-staging" => LETS_ENCRYPT_STAGING,
            url => url,
        };
        let read = url.parse::<http::Uri>().ok();
        match read.filter(|url| url.scheme_str() == Some("https") && url.host().is_some()) {
            Some(_) => Ok(Self(url.into())),
            None => Err(Unreadable::new(
                format!("{text:?} is no directory of an authority"),
                "write \"letsencrypt\", \"letsencrypt-staging\", or a URL that begins with https://",
            )),
        }
    }
}

/// An address that mail is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::settings) struct Email(pub(in crate::settings) Box<str>);

impl Value for Email {
    const EXPECTED: &'static str = "an address such as \"admin@shop.example\"";

    fn notation() -> Notation {
        Notation::pattern(r"[^@\s]+@\S*\.\S*")
    }

    fn from_text(text: &str) -> Result<Self, Unreadable> {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b'?' | b'"'));
        match text.split_once('@') {
            Some((who, host)) if plain && !who.is_empty() && host.contains('.') => Ok(Self(text.into())),
            _ => Err(Unreadable::new(
                format!("{text:?} is no mail address"),
                "write one, as in \"admin@shop.example\"",
            )),
        }
    }
}

impl OneOfWords for KeyType {
    const WHAT: &'static str = "\"p256\" or \"p384\"";
    const WORDS: &'static [(&'static str, Self)] = &[("p256", Self::P256), ("p384", Self::P384)];
}

impl OneOfWords for ClearText {
    const WHAT: &'static str = "\"redirect\" or \"serve\"";
    const WORDS: &'static [(&'static str, Self)] = &[("redirect", Self::Redirect), ("serve", Self::Serve)];
}
