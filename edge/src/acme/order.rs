//! One certificate, from the account to the file: each step finds what the one before has left, be it in this run of the edge or
//! in an earlier one.

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error,
    ExternalAccountKey, Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::sync::Semaphore;

use super::{
    authority::AuthorityClient,
    store::{OpenOrder, Store},
};
use crate::{
    message::{
        challenges::{Challenges, Proof, SharedProof, proving_certificate},
        shared_orders::SharedOrders,
    },
    settings::{Acme, KeyType, credentials::provider},
};

/// Who is asked, and what is shown to it.
#[derive(Clone)]
pub(super) struct Applicant {
    pub(super) acme: Arc<Acme>,
    pub(super) store: Store,
    pub(super) client: AuthorityClient,
    pub(super) challenges: Arc<Challenges>,
    /// Other edges, who may have an account and certificates already.
    pub(super) shared: Option<Arc<dyn SharedOrders>>,
    pub(super) account_turn: AccountTurn,
}

/// One account is made at a time, of however many orders that find none.
#[derive(Clone, Debug)]
pub struct AccountTurn(Arc<Semaphore>);

impl Default for AccountTurn {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// How the authority is shown that a name is served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By a text in clear text on port 80 (RFC 8555 §8.3).
    Http,
    /// By a handshake on port 443 (RFC 8737).
    Tls,
}

/// Why there is no certificate.
#[derive(Debug)]
pub(super) enum OrderFailure {
    /// The authority's word.
    Refused(Problem),
    /// The name is not shown to be served here: the authority's word, and how it was asked to look.
    Unproven(Option<Problem>, Way),
    /// The authority cannot be asked, or answers what is none.
    Unasked(String),
    /// Nothing can be kept.
    Unkept(io::Error),
    /// Other than the authority.
    Own(String),
}

impl From<Error> for OrderFailure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::Refused(problem),
            error => Self::Unasked(error.to_string()),
        }
    }
}

impl From<io::Error> for OrderFailure {
    fn from(error: io::Error) -> Self {
        Self::Unkept(error)
    }
}

impl From<rcgen::Error> for OrderFailure {
    fn from(error: rcgen::Error) -> Self {
        Self::Own(error.to_string())
    }
}

impl OrderFailure {
    /// Whether the authority has said that it is asked too often.
    pub(super) fn asks_for_patience(&self) -> bool {
        matches!(self, Self::Refused(problem) if kind(problem) == "rateLimited")
    }
}

/// What is wrong, and what to do about it.
impl fmt::Display for OrderFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |problem: &Problem| problem.detail.clone().unwrap_or_else(|| kind(problem).to_owned());
        match self {
            Self::Refused(problem) => {
                let remedy = match kind(problem) {
                    "rateLimited" => {
                        "the authority's limits are reached: they ease by themselves; use its staging directory to try things"
                    }
                    "rejectedIdentifier" => {
                        "the authority makes no certificates for this name: correct `domain`"
                    }
                    "externalAccountRequired" => {
                        "get a key id and a key from the authority, and write `eab` in [acme]"
                    }
                    "userActionRequired" => "the authority's terms have changed: read them",
                    "invalidProfile" => {
                        "choose one of the profiles that its directory lists, or take `profile` out"
                    }
                    "caa" => "a CAA record of the name's zone forbids this authority: add it there",
                    _ => "the authority's word says what to change",
                };
                write!(formatter, "the authority refuses: {}; {remedy}", said(problem))
            }
            Self::Unproven(problem, way) => {
                let said = problem.as_ref().map_or_else(|| "it does not say why".to_owned(), said);
                let kind = problem.as_ref().map_or("", kind);
                let port = if *way == Way::Http { 80 } else { 443 };
                let remedy = match kind {
                    "dns" => "let the name's A and AAAA records lead to this machine".to_owned(),
                    "connection" => format!(
                        "let the name's addresses (AAAA, too) lead to this machine, and port {port} be reachable from everywhere"
                    ),
                    "tls" => "let connections to port 443 reach the edge as they are: no proxy may terminate TLS before it".to_owned(),
                    _ => format!("something else than this edge answers for the name on port {port}: look at its addresses and at proxies"),
                };
                write!(formatter, "the authority does not find the name here: {said}; {remedy}")
            }
            Self::Unasked(error) => write!(
                formatter,
                "the authority cannot be asked: {error}; look at this machine's way out, and at `directory` and `ca` in [acme]"
            ),
            Self::Unkept(error) => write!(formatter, "{error}"),
            Self::Own(error) => write!(formatter, "{error}"),
        }
    }
}

/// The last part of the problem's name.
fn kind(problem: &Problem) -> &str {
    problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next()).unwrap_or_default()
}

impl Applicant {
    /// Reads or writes files, on a thread that may wait for them.
    pub(super) async fn with_store<T: Send + 'static>(
        &self,
        does: impl FnOnce(&Store) -> io::Result<T> + Send + 'static,
    ) -> Result<T, OrderFailure> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || does(&store)).await;
        Ok(done.map_err(io::Error::other)??)
    }

    async fn forget_order(&self, name: &str) -> Result<(), OrderFailure> {
        let of = name.to_owned();
        self.with_store(move |store| store.forget_order(&of)).await
    }

    /// The account with the authority, if there is one already.
    pub(super) async fn known_account(&self) -> Result<Option<Account>, OrderFailure> {
        let credentials = match self.with_store(Store::account).await? {
            Some(credentials) => Some(credentials),
            None => self.account_of_others().await?,
        };
        let Some(credentials) = credentials else { return Ok(None) };
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        Ok(Some(builder.from_credentials(credentials).await?))
    }

    async fn account(&self) -> Result<Account, OrderFailure> {
        if let Some(account) = self.known_account().await? {
            return Ok(account);
        }
        // It is never closed.
        let _turn = self.account_turn.0.acquire().await;
        if let Some(account) = self.known_account().await? {
            return Ok(account);
        }
        let external = match &self.acme.eab {
            Some(eab) => Some(external_key(&eab.key_id, &eab.key_file)?),
            None => None,
        };
        let contact = self.acme.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.as_deref().into_iter().collect();
        let wanted =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        let directory = self.acme.directory.to_string();
        let (account, credentials) = builder.create(&wanted, directory, external.as_ref()).await?;
        let left = serde_json::to_vec(&credentials).unwrap_or_default();
        self.with_store(move |store| store.keep_account(&credentials)).await?;
        self.leave(ACCOUNT, &left).await;
        tracing::info!(directory = %self.acme.directory, "an account was made; its authority's terms of service are agreed to");
        Ok(account)
    }

    /// Has a certificate for a name made, and keeps it in place of `before`. Where the authority does not know the account any more,
    /// by a new one.
    pub(super) async fn have_made(
        &self,
        name: &str,
        before: Option<&CertificateDer<'_>>,
        way: Way,
    ) -> Result<(), OrderFailure> {
        match self.have_made_by_account(name, before, way).await {
            Err(OrderFailure::Refused(problem)) if kind(&problem) == "accountDoesNotExist" => {
                self.with_store(Store::forget_account).await?;
                self.leave(ACCOUNT, b"").await;
                self.have_made_by_account(name, before, way).await
            }
            made => made,
        }
    }

    async fn have_made_by_account(
        &self,
        name: &str,
        before: Option<&CertificateDer<'_>>,
        way: Way,
    ) -> Result<(), OrderFailure> {
        let account = self.account().await?;
        let (mut order, key) = match self.resumed(&account, name).await? {
            Some(resumed) => resumed,
            None => self.placed(&account, name, before).await?,
        };
        let made = self.carry_through(&mut order, &key, name, way).await;
        // One that has failed is over; one that could not be asked about goes on next time.
        if matches!(
            made,
            Ok(()) | Err(OrderFailure::Unproven(..) | OrderFailure::Refused(_) | OrderFailure::Own(_))
        ) {
            self.forget_order(name).await?;
        }
        made
    }

    /// The order that an earlier attempt has left, if it may still come to something.
    async fn resumed(&self, account: &Account, name: &str) -> Result<Option<(Order, KeyPair)>, OrderFailure> {
        let of = name.to_owned();
        let open = self.with_store(move |store| store.order(&of)).await?;
        let Some(OpenOrder { url, key }) = open else { return Ok(None) };
        let found = match account.order(url).await {
            Ok(order) => Some(order),
            Err(Error::Api(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let found = found.and_then(|mut order| {
            let alive = order.state().status != OrderStatus::Invalid;
            alive.then(|| Some((order, KeyPair::from_pem(&key).ok()?))).flatten()
        });
        match found {
            Some(found) => {
                tracing::info!(domain = name, "an order goes on that an earlier attempt has left");
                Ok(Some(found))
            }
            None => {
                self.forget_order(name).await?;
                Ok(None)
            }
        }
    }

    async fn placed(
        &self,
        account: &Account,
        name: &str,
        before: Option<&CertificateDer<'_>>,
    ) -> Result<(Order, KeyPair), OrderFailure> {
        let key = KeyPair::generate_for(match self.acme.key_type {
            KeyType::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyType::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        })?;
        let identifiers = [Identifier::Dns(name.to_owned())];
        let wanted = || {
            let order = NewOrder::new(&identifiers);
            match &self.acme.profile {
                Some(profile) => order.profile(profile),
                None => order,
            }
        };
        // An authority that knows of renewals lets those through that its limits would stop (RFC 9773 §5).
        let before = before.and_then(|before| CertificateIdentifier::try_from(before).ok());
        let order = match before {
            Some(before) => match account.new_order(&wanted().replaces(before)).await {
                Err(Error::Unsupported(_) | Error::Other(_)) => account.new_order(&wanted()).await?,
                Err(Error::Api(problem)) if kind(&problem) == "alreadyReplaced" => {
                    account.new_order(&wanted()).await?
                }
                order => order?,
            },
            None => account.new_order(&wanted()).await?,
        };
        let kept = OpenOrder { url: order.url().to_owned(), key: key.serialize_pem() };
        let of = name.to_owned();
        self.with_store(move |store| store.keep_order(&of, &kept)).await?;
        Ok((order, key))
    }

    async fn carry_through(
        &self,
        order: &mut Order,
        key: &KeyPair,
        name: &str,
        way: Way,
    ) -> Result<(), OrderFailure> {
        if order.state().status == OrderStatus::Pending {
            let _proof = self.prove(order, name, way).await?;
            let ready = order.poll_ready(&PATIENCE).await;
            if let Some(shared) = &self.shared {
                shared.show(name, None).await;
            }
            match ready {
                Ok(OrderStatus::Ready) => {}
                Ok(_) | Err(Error::Api(_)) => return Err(OrderFailure::Unproven(why(order).await, way)),
                Err(error) => return Err(error.into()),
            }
        }
        if order.state().status == OrderStatus::Ready {
            let mut params = CertificateParams::new([name.to_owned()])?;
            params.distinguished_name = DistinguishedName::new();
            order.finalize_csr(params.serialize_request(key)?.der()).await?;
        }
        let chain = order.poll_certificate(&PATIENCE).await?;
        let key = key.serialize_pem();
        usable(&chain, &key)?;
        let pem = format!("{key}{chain}");
        self.leave(name, pem.as_bytes()).await;
        self.keep(name, pem).await
    }

    /// Keeps a certificate with its key.
    pub(super) async fn keep(&self, name: &str, pem: String) -> Result<(), OrderFailure> {
        let of = name.to_owned();
        self.with_store(move |store| store.keep_certificate(&of, &pem)).await
    }

    /// The certificate of a name with its key that another edge has left.
    pub(super) async fn left_by_others(&self, name: &str) -> Option<String> {
        let pem = String::from_utf8(self.found(name).await?).ok()?;
        usable(&pem, &pem).is_ok().then_some(pem)
    }

    /// The account that another edge has made; it is kept here from now on.
    async fn account_of_others(&self) -> Result<Option<AccountCredentials>, OrderFailure> {
        let Some(left) = self.found(ACCOUNT).await else { return Ok(None) };
        let read = || serde_json::from_slice::<AccountCredentials>(&left).ok();
        if let Some(credentials) = read() {
            self.with_store(move |store| store.keep_account(&credentials)).await?;
        }
        Ok(read())
    }

    async fn found(&self, what: &str) -> Option<Vec<u8>> {
        self.shared.as_ref()?.find(&self.of_authority(what)).await
    }

    async fn leave(&self, what: &str, content: &[u8]) {
        if let Some(shared) = &self.shared {
            shared.leave(&self.of_authority(what), content).await;
        }
    }

    /// What one authority has made is not another's.
    fn of_authority(&self, what: &str) -> String {
        let home = self.acme.home();
        format!("{}:{what}", home.file_name().unwrap_or_default().display())
    }

    /// Puts what is asked for where the authority looks, and lets it look.
    async fn prove(&self, order: &mut Order, name: &str, way: Way) -> Result<Option<Proof>, OrderFailure> {
        let mut proof = None;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let kind = match way {
                Way::Http => ChallengeType::Http01,
                Way::Tls => ChallengeType::TlsAlpn01,
            };
            let Some(mut challenge) = authorization.challenge(kind) else {
                return Err(OrderFailure::Unproven(None, way));
            };
            let wanted = challenge.key_authorization();
            let (own, shared) = match way {
                Way::Http => {
                    let text = Bytes::copy_from_slice(wanted.as_str().as_bytes());
                    let (token, text_of_all) = (challenge.token.clone(), wanted.as_str().to_owned());
                    let own = self.challenges.answer_at(&token, text);
                    (own, SharedProof::Token { token, text: text_of_all })
                }
                Way::Tls => {
                    let digest = wanted.digest();
                    let shown = proving_certificate(name, digest.as_ref()).map_err(OrderFailure::Own)?;
                    let digest = digest.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
                    let own = self.challenges.show(name, Arc::new(shown));
                    (own, SharedProof::Name { name: name.to_owned(), digest })
                }
            };
            proof = Some(own);
            if let Some(others) = &self.shared {
                others.show(name, Some(&shared)).await;
            }
            challenge.set_ready().await?;
        }
        Ok(proof)
    }
}

/// What the authority has found in place of a proof.
async fn why(order: &mut Order) -> Option<Problem> {
    let stated = order.state().error.clone();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.clone()) {
            return Some(problem);
        }
    }
    stated
}

/// Refuses what is no chain of certificates for the key.
fn usable(chain: &str, key: &str) -> Result<(), OrderFailure> {
    let unusable =
        |error: &dyn fmt::Display| OrderFailure::Unasked(format!("what it sent is no certificate: {error}"));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unusable(&error))?;
    let key = provider().key_provider.load_private_key(key).map_err(|error| unusable(&error))?;
    CertifiedKey::new(chain, key).keys_match().map_err(|error| unusable(&error))
}

/// The key of an account that the operator has with the authority.
fn external_key(id: &str, file: &std::path::Path) -> Result<ExternalAccountKey, OrderFailure> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    let unreadable = |error: &dyn fmt::Display| {
        let what = format!(
            "the key of `eab` in {} cannot be used: {error}; write it there as the authority gives it, in base64url",
            file.display()
        );
        OrderFailure::Own(what)
    };
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(&error))?;
    let key =
        URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')).map_err(|error| unreadable(&error))?;
    Ok(ExternalAccountKey::new(id.to_owned(), &key))
}

/// What other edges find an account by.
const ACCOUNT: &str = "account";
/// How long an authority is asked again what has become of an order.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).timeout(Duration::from_secs(90));
