//! The entity tags of content codings: one is made of the origin's own tag, and can be taken back to it.
//!
//! A body that the edge decodes has one as well, which ends in `;gatehouse-identity`.
//!
//! They end in `;gatehouse-` and the coding, which no origin writes by chance: Apache's and others' own tags of coded bodies
//! end in `-gzip` or `;gzip`, and must go back to them as they came.

use cache_policy::Coding;
use http::HeaderValue;

/// Whether an entity tag made for a coded body stands for equal bytes or only for equal meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// The coding is stored: every client gets the same bytes.
    Strong,
    /// Coded on the fly: flush points depend on timing, so bytes differ between clients (RFC 9110 §8.8.1).
    Weak,
}

/// The entity tag of a coding: `"v1"` becomes `"v1;gatehouse-br"` (RFC 9110 §8.8.3.3 wants codings told apart).
pub fn coded_tag(etag: &HeaderValue, coding: Coding, strength: Strength) -> Option<HeaderValue> {
    let etag = etag.as_bytes();
    let (weak, opaque) = match etag.strip_prefix(b"W/") {
        Some(opaque) => (true, opaque),
        None => (strength == Strength::Weak, etag),
    };
    let inner = opaque.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let parts: [&[u8]; 5] =
        [if weak { b"W/\"" } else { b"\"" }, inner, MARK, coding.token().as_bytes(), b"\""];
    HeaderValue::from_bytes(&parts.concat()).ok()
}

/// A form of a response, told from the others by its entity tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As the upstream sent it.
    Sent,
    /// In a coding that the edge gave it; identity where it took the upstream's away.
    Made(Coding),
}

/// The form of a response that an entity tag stands for, where `etag` is the upstream's own; compared weakly
/// (RFC 9110 §8.8.3.2).
pub fn form_of(tag: &[u8], etag: &HeaderValue) -> Option<Form> {
    let (tag, etag) = (opaque(tag), opaque(etag.as_bytes()));
    if tag == etag {
        return Some(Form::Sent);
    }
    let coding = tag.strip_prefix(etag.strip_suffix(b"\"")?)?.strip_prefix(MARK)?.strip_suffix(b"\"")?;
    made(coding).map(Form::Made)
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// What the upstream calls an entity tag that one of our codings made, as a strong tag; `None` when it is not one of
/// ours. The client holds the exact identity bytes once it has decoded, so a strong comparison upstream is sound; if
/// the upstream's own tag is weak, that comparison fails there, which is safe.
pub fn uncoded_tag(tag: &[u8]) -> Option<Vec<u8>> {
    let inner = opaque(tag).strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let at = inner.iter().rposition(|octet| *octet == b';')?;
    let (base, coding) = (&inner[..at], inner[at..].strip_prefix(MARK)?);
    made(coding).map(|_| [&b"\""[..], base, b"\""].concat())
}

/// Between the origin's own tag and the coding.
const MARK: &[u8] = b";gatehouse-";

/// The coding that a tag of ours names.
fn made(token: &[u8]) -> Option<Coding> {
    Coding::ALL.into_iter().find(|known| known.token().as_bytes() == token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coded_tag_names_its_coding_and_can_be_taken_back() {
        let strong = HeaderValue::from_static("\"v1\"");
        let coded = coded_tag(&strong, Coding::Brotli, Strength::Strong).unwrap();
        assert_eq!(coded, "\"v1;gatehouse-br\"");
        assert_eq!(uncoded_tag(coded.as_bytes()).unwrap(), b"\"v1\"");
        let weak = coded_tag(&strong, Coding::Gzip, Strength::Weak).unwrap();
        assert_eq!(weak, "W/\"v1;gatehouse-gzip\"");
        assert_eq!(uncoded_tag(weak.as_bytes()).unwrap(), b"\"v1\"");
        assert_eq!(uncoded_tag(b"W/\"v1;gatehouse-identity\"").unwrap(), b"\"v1\"");
    }

    #[test]
    fn a_tag_tells_which_form_it_stands_for() {
        let etag = HeaderValue::from_static("W/\"v1\"");
        for (tag, form) in [
            ("\"v1\"", Some(Form::Sent)),
            ("W/\"v1;gatehouse-br\"", Some(Form::Made(Coding::Brotli))),
            ("\"v1;gatehouse-gzip\"", Some(Form::Made(Coding::Gzip))),
            ("W/\"v1;gatehouse-identity\"", Some(Form::Made(Coding::Identity))),
            ("\"v1;identity\"", None),
            ("\"v1;gzip\"", None),
            ("\"v1;x\"", None),
            ("\"v1;gatehouse-br", None),
            ("\"v11\"", None),
            ("\"v\"", None),
            ("*", None),
        ] {
            assert_eq!(form_of(tag.as_bytes(), &etag), form, "{tag}");
            if let Some(Form::Made(coding)) = form {
                let made = coded_tag(&etag, coding, Strength::Strong).unwrap();
                assert_eq!(form_of(made.as_bytes(), &etag), form, "{tag}");
            }
        }
    }

    #[test]
    fn foreign_tags_are_left_alone() {
        for tag in [
            "\"v1\"",
            "W/\"v1\"",
            "\"a;b\"",
            "\"v1;gzip\"",
            "\"v1-gzip\"",
            "\"v1;gatehouse-x\"",
            "junk",
            "\"",
            "*",
        ] {
            assert_eq!(uncoded_tag(tag.as_bytes()), None, "{tag}");
        }
    }
}
