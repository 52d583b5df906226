//! Certificates of clients: whom a listener believes, and what upstreams are told of them.
//!
//! Promises: what is told is of a certificate that an authority of the listener's own file has certified, and of one client each;
//! whatever stands in a certificate, a text of it is one value that no part of it can pass for another part of.

use std::{fmt::Write as _, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue};
use rustls::{
    RootCertStore,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::{
    certificate::X509Certificate,
    der_parser::asn1_rs::Tag,
    oid_registry::Oid,
    prelude::FromDer as _,
    x509::{AttributeTypeAndValue, X509Name},
};

use super::error::TlsError;
use crate::settings::{
    ClientCertificates, IdentityPart,
    credentials::{self, provider},
};

/// Who certifies a listener's clients. Two are equal when they are made of the same settings and certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientAuthority {
    settings: ClientCertificates,
    roots: Vec<CertificateDer<'static>>,
}

impl ClientAuthority {
    /// Reads the authorities' file.
    pub(super) fn read(settings: &ClientCertificates) -> Result<Self, TlsError> {
        let read = Self { settings: settings.clone(), roots: credentials::certificates(&settings.ca)? };
        // What is wrong with them is found before anything changes.
        read.verifier()?;
        Ok(read)
    }

    /// Who looks at clients' certificates in handshakes.
    pub(super) fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            let unusable = |source| TlsError::Authority { path: self.settings.ca.clone(), source };
            store.add(root.clone()).map_err(unusable)?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider());
        if !self.settings.required {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|error| TlsError::Setup(rustls::Error::General(error.to_string())))
    }

    /// What upstreams are told of a client that has shown this chain, its own certificate first.
    pub(super) fn told(&self, chain: &[CertificateDer<'_>]) -> Vec<(HeaderName, HeaderValue)> {
        let Some((own, rest)) = chain.split_first() else { return Vec::new() };
        let parsed = X509Certificate::from_der(own).ok().map(|(_, parsed)| parsed);
        let text = |part: IdentityPart| match part {
            IdentityPart::Certificate => Some(byte_sequence(own)),
            // An empty list is no field (RFC 9651 §4.1).
            IdentityPart::Chain if rest.is_empty() => None,
            IdentityPart::Chain => {
                Some(rest.iter().map(|one| byte_sequence(one)).collect::<Vec<_>>().join(", "))
            }
            IdentityPart::Fingerprint => Some(hexadecimal(&Sha256::digest(own))),
            IdentityPart::Subject => parsed.as_ref().map(|parsed| distinguished(parsed.subject())),
            IdentityPart::Issuer => parsed.as_ref().map(|parsed| distinguished(parsed.issuer())),
            IdentityPart::Serial => parsed.as_ref().map(|parsed| hexadecimal(parsed.raw_serial())),
        };
        let fields = self.settings.fields.iter();
        fields
            .filter_map(|(name, part)| Some((name.clone(), HeaderValue::try_from(text(*part)?).ok()?)))
            .collect()
    }
}

/// RFC 9651 §3.3.5.
fn byte_sequence(octets: &[u8]) -> String {
    format!(":{}:", STANDARD.encode(octets))
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut text, octet| {
        // A String takes whatever is written.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// A name as RFC 4514 writes it, in ASCII: the last part first, everything escaped that would begin another part.
fn distinguished(name: &X509Name<'_>) -> String {
    let parts: Vec<String> =
        name.iter_rdn().map(|rdn| rdn.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let known = known_attribute(attribute.attr_type());
    let text = match attribute.attr_value().tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => attribute.as_str().ok(),
        _ => None,
    };
    match (known, text) {
        (Some(kind), Some(text)) => format!("{kind}={}", escaped(text)),
        (kind, _) => {
            let kind = kind.map_or_else(|| attribute.attr_type().to_id_string(), str::to_owned);
            // §2.4: the octets of the value, which no text stands for.
            format!("{kind}=#{}", hexadecimal(attribute.attr_value().data))
        }
    }
}

/// RFC 4514 §3, and the one for mail addresses as OpenSSL writes it.
fn known_attribute(kind: &Oid<'_>) -> Option<&'static str> {
    Some(match kind.to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// RFC 4514 §2.4, and every octet beyond visible ASCII as two digits.
fn escaped(text: &str) -> String {
    let last = text.len().saturating_sub(1);
    text.bytes().enumerate().fold(String::with_capacity(text.len()), |mut written, (place, octet)| {
        match octet {
            b' ' if place == 0 || place == last => written.push_str("\\ "),
            b'#' if place == 0 => written.push_str("\\#"),
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'=' | b'\\' => {
                written.push('\\');
                written.push(char::from(octet));
            }
            b' '..=b'~' => written.push(char::from(octet)),
            _ => {
                let _ = write!(written, "\\{octet:02x}");
            }
        }
        written
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn certificate(subject: &[(DnType, &str)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x0a, 0xbc]));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn told(part: IdentityPart, chain: &[CertificateDer<'static>]) -> Option<String> {
        let name = HeaderName::from_static("x-told");
        let settings = ClientCertificates { ca: "ca.pem".into(), required: true, fields: vec![(name, part)] };
        let told = ClientAuthority { settings, roots: Vec::new() }.told(chain);
        told.first().map(|(_, value)| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_subject_is_one_text_whose_parts_nobody_can_feign() {
        for (subject, text) in [
            (&[(DnType::OrganizationName, "Shop"), (DnType::CommonName, "till 7")][..], "CN=till 7,O=Shop"),
            (&[(DnType::CommonName, "a,O=Admin")], "CN=a\\,O\\=Admin"),
            (&[(DnType::CommonName, " #x\\\"+;<> ")], "CN=\\ #x\\\\\\\"\\+\\;\\<\\>\\ "),
            (&[(DnType::CommonName, "#1")], "CN=\\#1"),
            (&[(DnType::CommonName, "Z\u{fc}rich\r\nX: 1")], "CN=Z\\c3\\bcrich\\0d\\0aX: 1"),
        ] {
            assert_eq!(told(IdentityPart::Subject, &[certificate(subject)]).unwrap(), text);
        }
    }

    #[test]
    fn each_part_is_told_in_its_form() {
        let [own, other] = ["own", "other"].map(|name| certificate(&[(DnType::CommonName, name)]));
        let chain = [own.clone(), other.clone()];
        assert_eq!(told(IdentityPart::Certificate, &chain).unwrap(), format!(":{}:", STANDARD.encode(&own)));
        assert_eq!(told(IdentityPart::Chain, &chain).unwrap(), format!(":{}:", STANDARD.encode(&other)));
        assert_eq!(told(IdentityPart::Chain, &chain[..1]), None);
        assert_eq!(told(IdentityPart::Issuer, &chain).unwrap(), "CN=own");
        assert_eq!(told(IdentityPart::Serial, &chain).unwrap(), "0abc");
        assert_eq!(told(IdentityPart::Fingerprint, &chain).unwrap(), hexadecimal(&Sha256::digest(&own)));
        assert_eq!(told(IdentityPart::Subject, &[]), None, "who shows nothing is nobody");
    }
}
