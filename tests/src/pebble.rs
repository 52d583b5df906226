//! Pebble, the authority that Let's Encrypt tests ACME clients with, and its DNS server, which leads every name to one address.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use crate::{address, authority::Authority, process::Process, tool, wait};

/// An authority to be.
pub struct PebbleSetup {
    site: Authority,
    address: SocketAddr,
    management: SocketAddr,
    /// Where it looks for proofs.
    http: SocketAddr,
    tls: SocketAddr,
    /// In seconds.
    validity: u32,
    /// Of a hundred nonces.
    refused_nonces: u8,
}

/// A running authority.
pub struct Pebble {
    setup: PebbleSetup,
    process: Process,
    _names: Process,
}

impl PebbleSetup {
    /// Looks for proofs at these two, whatever the name.
    #[must_use]
    pub fn looking_at(http: SocketAddr, tls: SocketAddr) -> Self {
        assert_eq!(http.ip(), tls.ip(), "a name leads to one address");
        let (address, management) = (address::own(), address::own());
        let site = Authority::new("pebble's site");
        site.certify(&[&address.ip().to_string()], "site.pem", "site.key");
        Self { site, address, management, http, tls, validity: 90 * 86_400, refused_nonces: 0 }
    }

    /// Its certificates are valid for so many seconds.
    #[must_use]
    pub fn validity(self, seconds: u32) -> Self {
        Self { validity: seconds, ..self }
    }

    /// So many of a hundred nonces are refused although they are good.
    #[must_use]
    pub fn refused_nonces(self, percent: u8) -> Self {
        Self { refused_nonces: percent, ..self }
    }

    /// The `[acme]` of an edge that asks it, keeping what it gets in the edge's folder.
    #[must_use]
    pub fn table(&self) -> String {
        let ca = self.site.file();
        format!(
            "[acme]\ndirectory = \"https://{}/dir\"\nca = {ca:?}\nemail = \"admin@shop.test\"\n",
            self.address
        )
    }

    /// Starts it and waits until it can be asked.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    #[track_caller]
    #[must_use]
    pub fn start(self) -> Pebble {
        let dns = address::own();
        let mut names = Command::new(tool::find(&["pebble-challtestsrv"], "pebble"));
        let manager = address::own().to_string();
        names.args(["-dns01", &dns.to_string(), "-management", &manager]);
        names.args(["-defaultIPv4", &self.http.ip().to_string(), "-defaultIPv6", ""]);
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        let names = Process::start("pebble-challtestsrv", &mut names);
        let path = |file: &str| self.site.path(file).display().to_string();
        let settings = serde_json::json!({ "pebble": {
            "listenAddress": self.address.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": path("site.pem"),
            "privateKey": path("site.key"),
            "httpPort": self.http.port(),
            "tlsPort": self.tls.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": self.validity,
        } });
        self.site.folder().write("pebble.json", &settings.to_string());
        let mut pebble = Command::new(tool::find(&["pebble"], "pebble"));
        pebble.args(["-config", &path("pebble.json"), "-dnsserver", &dns.to_string()]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        pebble.env("PEBBLE_WFE_NONCEREJECT", self.refused_nonces.to_string());
        let process = Process::start("pebble", &mut pebble);
        let pebble = Pebble { setup: self, process, _names: names };
        wait::until("pebble can be asked", || pebble.curl("/dir", pebble.setup.address));
        pebble
    }
}

impl Pebble {
    /// The certificate that its own are certified by, in a file.
    ///
    /// # Panics
    /// When it does not tell.
    #[track_caller]
    #[must_use]
    pub fn root(&self) -> PathBuf {
        let pem = self.curl("/roots/0", self.setup.management).expect("pebble tells its root");
        self.setup.site.folder().write("root.pem", &pem);
        self.setup.site.path("root.pem")
    }

    /// What it has printed.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.process.lines()
    }

    fn curl(&self, path: &str, at: SocketAddr) -> Option<String> {
        let mut curl = Command::new(tool::find(&["curl"], "curl"));
        curl.args(["-sSf", "--max-time", "30", "--cacert"]).arg(self.setup.site.file());
        let output = curl.arg(format!("https://{at}{path}")).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
