//! What an authority says of a certificate (RFC 6960), sent to clients with the certificate (RFC 6066 §8), so that they need not
//! ask.
//!
//! Another program fetches it: the edge reads a file. Promises: nothing is sent that speaks of another certificate, speaks ill of
//! it, or is not of now. The authority's signature is for the clients to check, who know whom to trust.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustls_pki_types::CertificateDer;
use x509_parser::{
    asn1_rs::{Any, Class, Tag},
    certificate::X509Certificate,
    prelude::FromDer as _,
    time::ASN1Time,
};

use super::seconds;

/// A response that may be sent.
#[derive(Debug)]
pub(super) struct Staple {
    /// As it stands in the file.
    pub der: Vec<u8>,
    /// Until when it may be sent, in seconds since 1970.
    pub until: i64,
}

/// Why a response is not sent. The message names the file and ends with what to do about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum StapleError {
    /// It cannot be read.
    #[error("cannot read {}: {source}; correct the path, or have the file made", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no OCSP response, or one that tells of an error.
    #[error("{} is no OCSP response in DER that says how a certificate stands; `openssl ocsp -respin {0} -text` tells more", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// It is about another certificate.
    #[error("{} is about another certificate; fetch the response for the one that is served", path.display())]
    OtherCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The authority has revoked the certificate, or does not know it.
    #[error("{} says that the certificate is {status}; get another certificate", path.display())]
    NotGood {
        /// The file.
        path: PathBuf,
        /// In the authority's words.
        status: &'static str,
    },
    /// It is not valid now.
    #[error("{} is {when}; fetch it anew, before each one ends", path.display())]
    NotNow {
        /// The file.
        path: PathBuf,
        /// What of its time.
        when: &'static str,
    },
}

/// Reads the response of a file about this certificate.
///
/// # Errors
/// [`StapleError`]: it is not to be sent.
pub(super) fn read(
    path: &Path,
    certificate: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<Staple, StapleError> {
    let der = fs::read(path).map_err(|source| StapleError::Read { path: path.to_owned(), source })?;
    let said = said_of(&der, certificate).ok_or_else(|| StapleError::Unreadable { path: path.to_owned() })?;
    let said = said.ok_or_else(|| StapleError::OtherCertificate { path: path.to_owned() })?;
    let until = said.until_now(path, seconds(now))?;
    Ok(Staple { der, until })
}

/// What a response says of one certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CertificateStatus {
    status: Option<&'static str>,
    from: i64,
    /// `None` where newer ones may be there at any time, which nobody here would look for.
    until: Option<i64>,
}

impl CertificateStatus {
    /// Until when it may be sent, if it may now.
    fn until_now(self, path: &Path, now: i64) -> Result<i64, StapleError> {
        let path = || path.to_owned();
        let not_now = |when| Err(StapleError::NotNow { path: path(), when });
        if let Some(status) = self.status {
            return Err(StapleError::NotGood { path: path(), status });
        }
        match self.until {
            _ if self.from > now + CLOCKS_DIFFER => not_now("not valid yet"),
            None => not_now("without an end"),
            Some(until) if until - CLOCKS_DIFFER <= now => not_now("over"),
            Some(until) => Ok(until - CLOCKS_DIFFER),
        }
    }
}

/// What a response says of a certificate: `None` where it cannot be read, `Some(None)` where it says nothing of it.
fn said_of(der: &[u8], certificate: &CertificateDer<'_>) -> Option<Option<CertificateStatus>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    // OCSPResponse (RFC 6960 §4.2.1): successful, and of the basic type.
    let [response] = &elements(der)?[..] else { return None };
    let [status, explicit] = &response.children()?[..] else { return None };
    if (status.value.tag(), status.value.data) != (Tag::Enumerated, &[0]) || !explicit.is_field(0) {
        return None;
    }
    let [bytes] = &explicit.children()?[..] else { return None };
    let [kind, octets] = &bytes.children()?[..] else { return None };
    if (kind.value.tag(), kind.value.data) != (Tag::Oid, BASIC) || octets.value.tag() != Tag::OctetString {
        return None;
    }
    let [basic] = &elements(octets.value.data)?[..] else { return None };
    let data = basic.children()?.first()?.children()?;
    // ResponseData: a version and who answers, both tagged; when; and of what.
    let responses = data.iter().find(|element| element.value.tag() == Tag::Sequence)?.children()?;
    for single in responses {
        let [id, status, from, rest @ ..] = &single.children()?[..] else { return None };
        let [_, _, _, serial] = &id.children()?[..] else { return None };
        if serial.value.tag() != Tag::Integer || serial.value.data != certificate.raw_serial() {
            continue;
        }
        let status = match status.value.tag().0 {
            _ if status.value.class() != Class::ContextSpecific => return None,
            0 => None,
            1 => Some("revoked"),
            _ => Some("unknown to its authority"),
        };
        let until = match rest.first().filter(|next| next.is_field(0)) {
            Some(next) => Some(next.children()?.first()?.time()?),
            None => None,
        };
        return Some(Some(CertificateStatus { status, from: from.time()?, until }));
    }
    Some(None)
}

/// An element of DER, with the octets that it stands in.
#[derive(Debug)]
struct Element<'a> {
    whole: &'a [u8],
    value: Any<'a>,
}

impl<'a> Element<'a> {
    fn children(&self) -> Option<Vec<Element<'a>>> {
        self.value.header.is_constructed().then(|| elements(self.value.data))?
    }

    /// Whether it is the field with this number of its own.
    fn is_field(&self, number: u32) -> bool {
        self.value.class() == Class::ContextSpecific && self.value.tag().0 == number
    }

    fn time(&self) -> Option<i64> {
        Some(ASN1Time::from_der(self.whole).ok()?.1.timestamp())
    }
}

/// The elements that octets consist of, and nothing beside.
fn elements(mut octets: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut found = Vec::new();
    while !octets.is_empty() {
        let (rest, value) = Any::from_der(octets).ok()?;
        found.push(Element { whole: &octets[..octets.len() - rest.len()], value });
        octets = rest;
    }
    Some(found)
}

/// id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
/// Seconds by which a client's clock may differ from ours.
const CLOCKS_DIFFER: i64 = 300;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SerialNumber};

    use super::*;

    const SERIAL: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8];
    /// 2026-11-28.
    const NOW: u64 = 1_795_824_000;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut octets = vec![tag];
        match u8::try_from(length) {
            Ok(short) if short < 0x80 => octets.push(short),
            _ => octets.extend([0x82, (length >> 8) as u8, (length & 0xff) as u8]),
        }
        octets.extend_from_slice(content);
        octets
    }

    fn certificate() -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from_slice(SERIAL));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    struct Says {
        serial: &'static [u8],
        status: &'static [u8],
        from: &'static str,
        until: Option<&'static str>,
    }

    const GOOD: Says =
        Says { serial: SERIAL, status: &[0x80, 0], from: "20261127000000Z", until: Some("20261204000000Z") };

    impl Says {
        fn response(&self) -> Vec<u8> {
            let time = |text: &str| der(0x18, text.as_bytes());
            let algorithm = der(0x30, &[0x06, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0]);
            let id = [algorithm.clone(), der(4, &[7; 20]), der(4, &[8; 20]), der(2, self.serial)].concat();
            let until = self.until.map(|until| der(0xa0, &time(until))).unwrap_or_default();
            let single = der(0x30, &[der(0x30, &id), self.status.to_vec(), time(self.from), until].concat());
            let by_key = der(0xa2, &der(4, &[9; 20]));
            let data = der(0x30, &[by_key, time("20261127000000Z"), der(0x30, &single)].concat());
            let basic = der(0x30, &[data, algorithm, der(3, &[0, 1, 2])].concat());
            let bytes = der(0x30, &[der(6, BASIC), der(4, &basic)].concat());
            der(0x30, &[der(10, &[0]), der(0xa0, &bytes)].concat())
        }

        fn read(&self, now: u64) -> Result<i64, String> {
            let folder = tempfile::TempDir::new().unwrap();
            let path = folder.path().join("staple.der");
            fs::write(&path, self.response()).unwrap();
            let read = read(&path, &certificate(), UNIX_EPOCH + Duration::from_secs(now));
            read.map(|staple| staple.until).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn a_response_of_now_that_speaks_well_of_the_certificate_may_be_sent() {
        // 2026-12-04, and five minutes before.
        assert_eq!(GOOD.read(NOW), Ok(1_796_342_400 - 300));
        let faults = [
            (Says { serial: &[1], ..GOOD }, NOW, "about another certificate"),
            (Says { status: &[0x82, 0], ..GOOD }, NOW, "unknown to its authority; get another"),
            (Says { from: "20261130000000Z", ..GOOD }, NOW, "not valid yet; fetch"),
            (Says { until: None, ..GOOD }, NOW, "without an end"),
            (GOOD, NOW + 7 * 86_400, "is over; fetch"),
            (Says { status: &[0x04, 0], ..GOOD }, NOW, "no OCSP response"),
            (Says { until: Some("tomorrow"), ..GOOD }, NOW, "no OCSP response"),
        ];
        for (says, now, expected) in faults {
            let said = says.read(now).unwrap_err();
            assert!(said.contains("staple.der") && said.contains(expected), "{said}");
        }
        let revoked = [0xa1, 17, 0x18, 15];
        let revoked: Vec<u8> = [&revoked[..], b"20261126000000Z"].concat();
        let says = Says { status: revoked.leak(), ..GOOD };
        assert!(says.read(NOW).unwrap_err().contains("is revoked; get another certificate"));
    }

    #[test]
    fn what_is_no_response_is_called_so() {
        let missing = read(Path::new("none.der"), &certificate(), UNIX_EPOCH).unwrap_err().to_string();
        assert!(
            missing.contains("cannot read none.der") && missing.contains("correct the path"),
            "{missing}"
        );
        let certificate = certificate();
        let whole = GOOD.response();
        for octets in
            [&b""[..], b"-----BEGIN", &[0x30, 3, 10, 1, 6], certificate.as_ref(), &whole[..whole.len() - 1]]
        {
            assert!(said_of(octets, &certificate).is_none(), "{octets:?}");
        }
        assert!(said_of(&[whole, vec![0]].concat(), &certificate).is_none(), "nothing follows it");
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_file_is_no_panic(at in 0_usize..200, octet: u8, length in 0_usize..400) {
            let mut octets = GOOD.response();
            octets.truncate(length);
            if let Some(changed) = octets.get_mut(at) {
                *changed = octet;
            }
            let _ = said_of(&octets, &certificate());
        }
    }
}
