//! What is written of certificate authorities, and of names that they certify.

use super::{ServedName, Unreadable, Value, choices::OneOfWords};
use crate::settings::{
    ClearText, KeyType, LETS_ENCRYPT, LETS_ENCRYPT_STAGING,
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
