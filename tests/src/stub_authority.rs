//! An authority of a script's own, for what Pebble does not do: accounts that must be bound to one that the operator has already,
//! profiles, and renewals when the authority would have them (RFC 8555 §7.3.4, RFC 9773). It believes every name.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair, SerialNumber,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    address,
    authority::Authority,
    edge::Edge,
    upstream::{Reply, Seen, Upstream},
};

/// A running authority, behind an edge that speaks TLS for it.
pub struct StubAuthority {
    site: Authority,
    address: SocketAddr,
    asked: Arc<Mutex<AskedOfAuthority>>,
    _front: Edge,
    _upstream: Upstream,
}

/// What clients have asked for.
#[derive(Clone, Debug, Default)]
pub struct AskedOfAuthority {
    /// The key id of each account that was made.
    pub accounts: Vec<String>,
    /// Each order: its profile, and the certificate that it replaces.
    pub orders: Vec<(Option<String>, Option<String>)>,
    /// Whose renewal was asked about.
    pub renewals: Vec<String>,
    chains: Vec<String>,
}

impl StubAuthority {
    /// The key id and the key of the account that its clients have to name.
    pub const ACCOUNT: (&'static str, &'static [u8]) = ("key-1", b"0123456789abcdef0123456789abcdef");

    /// Starts it. It has certificates of this profile alone, would have the first of them renewed at once, and others never.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    #[must_use]
    pub fn start(profile: &'static str) -> Self {
        let (site, address) = (Authority::new("a stub's site"), address::own());
        site.certify(&[&address.ip().to_string()], "site.pem", "site.key");
        let asked = Arc::<Mutex<AskedOfAuthority>>::default();
        let (issuer, of_script) = (issuer(), Arc::clone(&asked));
        let upstream = Upstream::start(move |seen| {
            let mut asked = of_script.lock().unwrap_or_else(PoisonError::into_inner);
            let reply = answer(seen, &format!("https://{address}"), (&mut asked, &issuer), profile);
            reply.header("replay-nonce", "bm9uY2U").cache_control("no-store")
        });
        let tls = format!(
            "tls = {{ certificate = {:?}, key = {:?} }}",
            site.path("site.pem"),
            site.path("site.key")
        );
        let front = Edge::over(&upstream).listener(address, &tls).start();
        Self { site, address, asked, _front: front, _upstream: upstream }
    }

    /// The `[acme]` of an edge that asks it, with further lines.
    #[must_use]
    pub fn table(&self, lines: &str) -> String {
        let ca = self.site.file();
        format!("[acme]\ndirectory = \"https://{}/dir\"\nca = {ca:?}\n{lines}\n", self.address)
    }

    /// What it was asked so far.
    #[must_use]
    pub fn asked(&self) -> AskedOfAuthority {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn issuer() -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a stub");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    Issuer::new(params, KeyPair::generate().expect("a key can be made"))
}

fn answer(
    seen: &Seen,
    base: &str,
    (asked, issuer): (&mut AskedOfAuthority, &Issuer<'static, KeyPair>),
    profile: &str,
) -> Reply {
    let posted = Posted::read(&seen.body);
    let (what, of) = seen.target.trim_start_matches('/').split_once('/').unwrap_or((&seen.target[1..], ""));
    let number: usize = of.parse().unwrap_or_default();
    let order = |number: usize, asked: &AskedOfAuthority| {
        let mut order = json!({
            "status": "ready", "identifiers": [], "authorizations": [],
            "finalize": format!("{base}/finalize/{number}"),
        });
        // RFC 9773 §5: what an order replaces is in it.
        if let Some(replaced) = asked.orders.get(number).and_then(|(_, replaced)| replaced.clone()) {
            order["replaces"] = replaced.into();
        }
        if asked.chains.get(number).is_some_and(|chain| !chain.is_empty()) {
            order["status"] = "valid".into();
            order["certificate"] = format!("{base}/certificate/{number}").into();
        }
        json_reply(200, &order).header("location", &format!("{base}/order/{number}"))
    };
    match what {
        "dir" => json_reply(
            200,
            &json!({
                "newNonce": format!("{base}/nonce"), "newAccount": format!("{base}/account"),
                "newOrder": format!("{base}/new-order"), "renewalInfo": format!("{base}/renewal"),
                "meta": { "externalAccountRequired": true, "profiles": { profile: "the only one" } },
            }),
        ),
        "nonce" => Reply::status(200),
        "account" => match posted.external_account() {
            Some(id) => {
                asked.accounts.push(id);
                json_reply(201, &json!({ "status": "valid" }))
                    .header("location", &format!("{base}/accounts/1"))
            }
            None => problem("externalAccountRequired"),
        },
        "new-order" => {
            let text = |name: &str| posted.payload[name].as_str().map(ToOwned::to_owned);
            asked.orders.push((text("profile"), text("replaces")));
            asked.chains.push(String::new());
            order(asked.orders.len() - 1, asked).with_status(201)
        }
        "finalize" => {
            asked.chains[number] = certified(&posted.payload, issuer, number);
            order(number, asked)
        }
        "order" => order(number, asked),
        "certificate" => Reply::ok(asked.chains[number].clone())
            .header("content-type", "application/pem-certificate-chain"),
        "renewal" => {
            let years = if asked.renewals.is_empty() { ("2001", "2002") } else { ("2998", "2999") };
            asked.renewals.push(of.to_owned());
            let at = |year: &str| format!("{year}-01-01T00:00:00Z");
            let window = json!({ "suggestedWindow": { "start": at(years.0), "end": at(years.1) } });
            json_reply(200, &window).header("retry-after", "21600")
        }
        _ => Reply::status(404),
    }
}

/// A request's content: a signature, which nobody checks here, and what it is of.
struct Posted {
    payload: Value,
}

impl Posted {
    fn read(content: &[u8]) -> Self {
        let message: Value = serde_json::from_slice(content).unwrap_or_default();
        Self { payload: member(&message, "payload") }
    }

    /// The account that a new one is bound to, where that is shown to be its owner's.
    fn external_account(&self) -> Option<String> {
        let bound = &self.payload["externalAccountBinding"];
        let (id, key) = StubAuthority::ACCOUNT;
        let signed = format!("{}.{}", bound["protected"].as_str()?, bound["payload"].as_str()?);
        let is_signed = bound["signature"].as_str()? == BASE64.encode(hmac(key, signed.as_bytes()));
        let stated = member(bound, "protected")["kid"].as_str()?.to_owned();
        (is_signed && stated == id).then_some(stated)
    }
}

/// A member that is JSON in base64url.
fn member(message: &Value, name: &str) -> Value {
    let octets = message[name].as_str().and_then(|text| BASE64.decode(text).ok()).unwrap_or_default();
    serde_json::from_slice(&octets).unwrap_or_default()
}

/// HMAC-SHA256 (RFC 2104) with a key of one block at most.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let pad = |with: u8| -> Vec<u8> {
        let padded = key.iter().copied().chain(std::iter::repeat(0)).take(64);
        padded.map(|octet| octet ^ with).collect()
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

fn certified(payload: &Value, issuer: &Issuer<'static, KeyPair>, number: usize) -> String {
    let request = BASE64.decode(payload["csr"].as_str().unwrap_or_default()).unwrap_or_default();
    let mut request =
        CertificateSigningRequestParams::from_der(&request.into()).expect("the edge asks for a certificate");
    request.params.use_authority_key_identifier_extension = true;
    request.params.serial_number = Some(SerialNumber::from(100 + number as u64));
    request.signed_by(issuer).expect("it can be certified").pem()
}

fn json_reply(status: u16, value: &Value) -> Reply {
    Reply::ok(value.to_string()).with_status(status).header("content-type", "application/json")
}

fn problem(kind: &str) -> Reply {
    let told = json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "no" });
    json_reply(400, &told).header("content-type", "application/problem+json")
}
