//! Where clients and the operator come in.

use std::{path::PathBuf, sync::Arc};

use http::{HeaderName, header};

use super::{Resolver, Span, at_most, upstreams::not_settable};
use crate::settings::{
    Acme, Admin, AdminAddress, Certificate, ClearText, ClientCertificates, Domain, ExternalAccount,
    IdentityPart, Listen, ListenTls, ON_DEMAND_CERTIFICATES, ON_DEMAND_ORDERS, OnDemandSettings,
    RequestField, clash,
    file::{
        WrittenAcme, WrittenAdmin, WrittenCertificate, WrittenClientCertificates, WrittenListen,
        WrittenOnDemand, WrittenTls,
    },
    value::{ProxyPeers, Table, Written},
};

impl Resolver<'_> {
    pub(super) fn listeners(
        &mut self,
        written: Vec<Table<WrittenListen>>,
        acme: &Acme,
    ) -> Vec<(Span, Listen)> {
        if written.is_empty() {
            self.fault(
                0..0,
                "no [[listen]]: no client could connect",
                "add [[listen]] with address = \"[::]:8080\"",
            );
        }
        let mut listeners: Vec<(Span, Listen)> = Vec::new();
        for table in written {
            let Table { span, value: table } = table;
            let domains =
                table.domain.and_then(|names| self.value(names)).map(|names| names.0).unwrap_or_default();
            let domain = |name: Box<str>| Domain { file: acme.file_of(&name), name };
            let domains: Vec<Domain> = domains.into_iter().map(domain).collect();
            let clear_text = self.or(table.clear_text, ClearText::default());
            let on_demand = self.on_demand_home(table.on_demand, acme);
            let tls = self.listen_tls(&span, table.tls, (table.certificates, domains, on_demand));
            let tls = tls.map(|tls| ListenTls { clear_text, ..tls });
            let place = table.address.as_ref().map(|address| address.span.clone());
            let Some(address) = self.need(table.address, &span, "address", "\"[::]:8080\"") else { continue };
            let place = place.unwrap_or(span);
            if let Some((earlier, other)) = listeners.iter().find(|(_, other)| clash(other.address, address))
            {
                let line = self.line(earlier);
                let message = format!("{address} is taken by the listener {} on {line}", other.address);
                self.fault(place.clone(), message, "give each listener a port of its own");
            }
            let proxy_protocol = self.or(table.proxy_protocol, ProxyPeers::default()).0;
            if let Some(hsts) = &table.hsts
                && tls.is_none()
                && proxy_protocol.is_empty()
            {
                self.fault(
                    hsts.span.clone(),
                    "what is said over clear text about TLS counts for nothing (RFC 6797 §7.2)",
                    "write it in the table of the listener that has `tls`",
                );
            }
            let hsts = table.hsts.and_then(|hsts| self.value(hsts));
            listeners.push((place, Listen { address, tls, proxy_protocol, hsts }));
        }
        listeners
    }

    /// `None` for clear text.
    fn listen_tls(
        &mut self,
        listener: &Span,
        written: Option<Table<WrittenTls>>,
        (certificates, domains, on_demand): (Vec<Table<WrittenCertificate>>, Vec<Domain>, Option<PathBuf>),
    ) -> Option<ListenTls> {
        if written.is_none() && certificates.is_empty() && domains.is_empty() && on_demand.is_none() {
            return None;
        }
        let (span, tls) = match written {
            Some(Table { span, value }) => (span, value),
            None => (listener.clone(), WrittenTls::default()),
        };
        let folder = tls.folder.and_then(|folder| self.value(folder));
        let others =
            !certificates.is_empty() || folder.is_some() || !domains.is_empty() || on_demand.is_some();
        let local_ca = tls.local_ca.and_then(|local_ca| self.value(local_ca));
        let mut certificate = None;
        let own = local_ca.is_some() || tls.certificate.is_some() || tls.key.is_some() || tls.ocsp.is_some();
        if !others || own {
            let (certificate_file, key) = self.pair(&span, tls.certificate, tls.key)?;
            let ocsp = tls.ocsp.and_then(|ocsp| self.value(ocsp));
            let local_ca = local_ca.unwrap_or(false);
            certificate = Some(Certificate { certificate: certificate_file, key, local_ca, ocsp });
        }
        let pair = |it: &mut Self, Table { span, value }: Table<WrittenCertificate>| {
            let (certificate, key) = it.pair(&span, value.certificate, value.key)?;
            let ocsp = value.ocsp.and_then(|ocsp| it.value(ocsp));
            Some(Certificate { ocsp, ..Certificate::of_files(certificate, key) })
        };
        let certificates: Vec<_> = certificates.into_iter().filter_map(|table| pair(self, table)).collect();
        Some(ListenTls {
            certificate,
            certificates,
            folder,
            domains,
            on_demand,
            clear_text: ClearText::default(),
            default: tls.default.and_then(|name| self.value(name)).map(|name| name.0),
            unknown_names: self.or(tls.unknown_names, Default::default()),
            minimum_version: self.or(tls.minimum_version, Default::default()),
            client_certificates: tls
                .client_certificates
                .and_then(|clients| self.client_certificates(clients)),
        })
    }

    /// Where the certificates lie that a listener's clients ask for.
    fn on_demand_home(&mut self, written: Option<Written<bool>>, acme: &Acme) -> Option<PathBuf> {
        let place = written.as_ref().map(|written| written.span.clone())?;
        let wanted = self.or(written, false);
        if wanted && acme.on_demand.is_none() {
            self.fault(
                place,
                "nobody says for which names certificates are made on demand",
                "add [acme.on_demand] with names = [\"*.shop.example\"], or with ask = \"http://..\"",
            );
        }
        wanted.then(|| acme.on_demand_home())
    }

    fn on_demand(&mut self, Table { span, value }: Table<WrittenOnDemand>) -> Option<Arc<OnDemandSettings>> {
        let WrittenOnDemand { names, ask, certificates, orders_per_hour } = value;
        if names.is_empty() && ask.is_none() {
            self.fault(
                span,
                "neither `names` nor `ask`: anyone could have certificates made here for any name",
                "write names = [\"*.shop.example\"], or ask = \"http://127.0.0.1:9000/may-have\"",
            );
        }
        let names = names.into_iter().filter_map(|name| self.value(name)).map(|name| name.0).collect();
        let ask = ask.and_then(|ask| self.value(ask)).map(|ask| ask.0);
        let certificates = self.or(certificates.map(at_most), ON_DEMAND_CERTIFICATES);
        let orders_per_hour = self.or(orders_per_hour.map(at_most), ON_DEMAND_ORDERS);
        Some(Arc::new(OnDemandSettings { names, ask, certificates, orders_per_hour }))
    }

    fn client_certificates(
        &mut self,
        Table { span, value }: Table<WrittenClientCertificates>,
    ) -> Option<ClientCertificates> {
        let WrittenClientCertificates { ca, required, fields } = value;
        let ca = self.need(ca, &span, "ca", "\"certs/clients-ca.pem\"");
        let required = self.or(required, true);
        let fields = self.fields(fields, not_told);
        Some(ClientCertificates { ca: ca?, required, fields })
    }

    fn pair(
        &mut self,
        table: &Span,
        certificate: Option<Written<PathBuf>>,
        key: Option<Written<PathBuf>>,
    ) -> Option<(PathBuf, PathBuf)> {
        let certificate = self.need(certificate, table, "certificate", "\"certs/localhost.pem\"");
        let key = self.need(key, table, "key", "\"certs/localhost.key\"");
        Some((certificate?, key?))
    }

    /// `wanted`: whether any certificate is to be had.
    pub(super) fn acme(&mut self, written: Option<Table<WrittenAcme>>, wanted: bool) -> Acme {
        let mut acme = Acme::default();
        let Some(Table { value: written, .. }) = written else { return acme };
        if let Some(agreed) = written.terms_agreed {
            let place = agreed.span.clone();
            acme.terms_agreed = self.or(Some(agreed), true);
            if !acme.terms_agreed && wanted {
                self.fault(
                    place,
                    "authorities certify for those alone who agree to their terms",
                    "read them and write true, or take `domain` and `on_demand` out of the listeners",
                );
            }
        }
        if let Some(directory) = written.directory.and_then(|directory| self.value(directory)) {
            acme.directory = directory.0;
        }
        acme.email = written.email.and_then(|email| self.value(email)).map(|email| email.0);
        acme.profile =
            written.profile.and_then(|profile| self.value(profile)).map(|profile| profile.0.into());
        acme.key_type = self.or(written.key_type, acme.key_type);
        acme.eab = written.eab.and_then(|Table { span, value }| {
            let key_id = self.need(value.key_id, &span, "key_id", "\"..\"");
            let key_file = self.need(value.key_file, &span, "key_file", "\"/etc/gatehouse/eab.key\"");
            Some(ExternalAccount { key_id: key_id?.0.into(), key_file: key_file? })
        });
        acme.folder = self.or(written.folder, acme.folder);
        acme.ca = written.ca.and_then(|ca| self.value(ca));
        acme.on_demand = written.on_demand.and_then(|table| self.on_demand(table));
        acme
    }

    pub(super) fn admin(
        &mut self,
        written: Option<Table<WrittenAdmin>>,
        public: &[(Span, Listen)],
    ) -> Option<Admin> {
        let Table { span, value: WrittenAdmin { address: written, token_file, hosts } } = written?;
        let hosts = hosts.into_iter().filter_map(|host| self.value(host)).map(|host| host.0).collect();
        let token_file = token_file.and_then(|file| self.value(file));
        let place = written.as_ref().map_or(span.clone(), |address| address.span.clone());
        let address = self.need(written, &span, "address", "\"127.0.0.1:9900\"")?;
        let clashes = |listen: &Listen| matches!(address, AdminAddress::Network(address) if clash(listen.address, address));
        if let Some((listener, listen)) = public.iter().find(|(_, listen)| clashes(listen)) {
            let message = format!(
                "the admin address {address} is on the public listener {} of {}",
                listen.address,
                self.line(listener)
            );
            self.fault(place, message, "give it a port that no client can reach, such as \"127.0.0.1:9900\"");
        }
        Some(Admin { address, token_file, hosts })
    }
}

/// What to do in place of telling of a client's certificate by a field.
fn not_told(name: &HeaderName, _: &IdentityPart) -> Option<&'static str> {
    let taken = not_settable(name, &RequestField::Kept).is_some() || *name == header::AUTHORIZATION;
    taken.then_some("choose a field of its own, such as Client-Cert or X-Client-Subject")
}
