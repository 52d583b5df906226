//! TLS, and what is spoken over it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use gatehouse_tests::{
    address, binaries,
    edge::{Edge, Setup},
    folder::Folder,
    python,
    raw::{self, Raw},
    tool,
    upstream::{RawUpstream, Reply, Upstream},
    wait,
};
use rustls::{ClientConnection, pki_types::ServerName};

use crate::http1::echo;

#[test]
fn the_edge_says_what_it_speaks_by_alpn() {
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    assert_eq!(edge.curl_h2("/").send().version, "HTTP/2");
    assert_eq!(edge.curl_tls("/").send().version, "HTTP/1.1");
    assert_eq!(edge.curl_tls("/").argument("--no-alpn").send().version, "HTTP/1.1");
    for version in ["--tlsv1.2", "--tlsv1.3"] {
        let exact = version.replace("--tlsv", "");
        assert_eq!(
            edge.curl_tls("/").argument(version).argument("--tls-max").argument(exact).send().status,
            200
        );
    }
    let old = edge.curl_tls("/").argument("--tlsv1.0").argument("--tls-max").argument("1.1").fail();
    assert!(old.contains("curl ended with"), "{old}");
}

/// RFC 6797 §7.2: over TLS alone, on every answer, whoever makes it.
#[test]
fn clients_over_tls_are_told_to_stay_there_by_every_answer() {
    let upstream = Upstream::start(|seen| match seen.target.as_str() {
        "/own" => Reply::ok("").header("strict-transport-security", "max-age=1").cache_control("no-store"),
        "/passed" => Reply::ok("").cache_control("no-store"),
        _ => Reply::ok("text").cache_control("max-age=60"),
    });
    let setup = |words: &str| Edge::over(&upstream).listen_tls(&format!("hsts = \"{words}\""));
    let mut edge = setup("365d includeSubDomains preload").start();
    const FIELD: &str = "max-age=31536000; includeSubDomains; preload";
    for path in ["/stored", "/stored", "/passed", "/own", "/a/../b"] {
        for answer in [edge.curl_tls(path).send(), edge.curl_h2(path).send()] {
            assert_eq!(answer.all("strict-transport-security"), [FIELD], "{path} {}", answer.status);
        }
        let clear = edge.curl(path).send();
        let said = clear.all("strict-transport-security");
        assert!(said.is_empty() || path == "/own", "{path}: {said:?}");
    }
    // What the parser refuses is answered by the edge as well.
    let mut raw = Raw::connect_tls(edge.tls(), &edge.authority(), "http/1.1");
    let refused = raw.send("GET / HTTP/1.1\r\nno colon\r\n\r\n").answer();
    assert_eq!((refused.status, refused.header("strict-transport-security")), (400, Some(FIELD)));
    let told = edge.reload(&setup("0s").text());
    assert!(told.contains("hsts") || told.contains("reloaded"), "{told}");
    wait::until("a new connection is told otherwise", || {
        let answer = edge.curl_tls("/stored").send();
        (answer.all("strict-transport-security") == ["max-age=0"]).then_some(())
    });
}

/// A client hello of the edge's own TLS library, as it goes out: one record.
fn hello(edge: &Edge) -> (ClientConnection, Vec<u8>) {
    let config = Arc::new(raw::client_config(&edge.authority(), "http/1.1"));
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(config, name).unwrap();
    let mut octets = Vec::new();
    client.write_tls(&mut octets).unwrap();
    (client, octets)
}

#[test]
fn a_client_hello_in_many_pieces_is_one_or_is_refused() {
    // RFC 8446 §5.1: a message may be spread over records, and records over segments.
    let upstream = echo();
    let edge = Edge::over(&upstream).start();
    for (record, segment) in [(usize::MAX, 1), (16, usize::MAX), (100, 7), (1, usize::MAX)] {
        let (mut client, octets) = hello(&edge);
        let mut stream = TcpStream::connect(edge.tls()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        let message = &octets[5..];
        let mut wire = Vec::new();
        for piece in message.chunks(record.min(message.len())) {
            wire.extend_from_slice(&octets[..3]);
            wire.extend_from_slice(&u16::try_from(piece.len()).unwrap().to_be_bytes());
            wire.extend_from_slice(piece);
        }
        let sent = wire.chunks(segment.min(wire.len())).all(|piece| stream.write_all(piece).is_ok());
        // One record an octet is what no client sends: it may be refused.
        let mut ended = !sent;
        while !ended && client.is_handshaking() {
            ended = client.complete_io(&mut stream).is_err();
        }
        assert!(!ended || record == 1, "records of {record}, segments of {segment}");
    }
    assert_eq!(edge.curl_tls("/").send().status, 200);
}

#[test]
fn a_client_hello_beyond_bounds_is_cut_off_and_not_kept() {
    let upstream = echo();
    let edge = Edge::over(&upstream).tables("[timeouts]\nhandshake = \"1s\"").start();
    let (_, octets) = hello(&edge);
    for length in [0x00ff_ffff_u32, 0x0002_0000] {
        let mut stream = TcpStream::connect(edge.tls()).unwrap();
        stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        stream.set_write_timeout(Some(wait::PATIENCE)).unwrap();
        // A handshake message that says it is so long (RFC 8446 §4), and goes on for as long as it is taken.
        let mut record = octets[..3].to_vec();
        record.extend(16_384_u16.to_be_bytes());
        record.push(1);
        record.extend(&length.to_be_bytes()[1..]);
        record.resize(5 + 16_384, 0);
        let mut taken = 0;
        while taken < (8 << 20) && stream.write_all(&record).is_ok() {
            taken += record.len();
            record[5..9].fill(0);
        }
        assert!(taken < (8 << 20), "{length:#x}: the edge has taken {taken} octets of one hello");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    // And one that never ends.
    let mut stream = TcpStream::connect(edge.tls()).unwrap();
    stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    stream.write_all(&octets[..octets.len() / 2]).unwrap();
    let ended = stream.read_to_end(&mut Vec::new());
    let waited_in_vain = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!waited_in_vain, "timeouts.handshake holds");
    assert_eq!(edge.curl_tls("/").send().status, 200);
}

#[test]
fn refused_handshakes_cost_little() {
    let upstream = RawUpstream::start(b"");
    let edge = Edge::over_raw(&upstream).start();
    let ticks = |id: u32| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let refuse = |octets: &[u8]| {
        let before = ticks(edge.id());
        const COUNT: u32 = 500;
        for _ in 0..COUNT {
            let mut stream = TcpStream::connect(edge.tls()).unwrap();
            stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
            let _ = stream.write_all(octets);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        // Hundredths of a second, as Linux counts them.
        Duration::from_millis((ticks(edge.id()) - before) * 10) / COUNT
    };
    let (_, mut octets) = hello(&edge);
    let at = octets.windows(8).position(|window| window == b"http/1.1").unwrap();
    octets[at..at + 8].copy_from_slice(b"spdy/3.1");
    let by_alpn = refuse(&octets);
    let no_tls = refuse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    println!("CPU of the edge per refused handshake: {by_alpn:?} by ALPN, {no_tls:?} of what is no TLS");
    assert!(
        by_alpn < Duration::from_millis(20) && no_tls < Duration::from_millis(20),
        "{by_alpn:?} {no_tls:?}"
    );
    assert_eq!(upstream.count(), 0);
}

/// An authority of OpenSSL's, and a certificate of its for localhost: `ca.pem`, `leaf.pem`, `leaf.key`.
fn openssl_authority() -> Folder {
    let folder = Folder::new();
    folder.write("names", "subjectAltName = DNS:localhost\n");
    for arguments in [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=authority -addext keyUsage=critical,keyCertSign",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -out leaf.csr -subj /CN=localhost",
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -extfile names -set_serial 0x0102aabb -days 30 -out leaf.pem",
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -extfile names -set_serial 0x0102aabc -days 30 -out other.pem",
    ] {
        openssl(&folder, arguments);
    }
    let known = ["0102AABB", "0102AABC"]
        .map(|serial| format!("V\t300101000000Z\t\t{serial}\tunknown\t/CN={serial}\n"));
    folder.write("index.txt", &known.concat());
    folder
}

#[track_caller]
fn openssl(folder: &Folder, arguments: &str) -> String {
    let mut command = Command::new(tool::find(&["openssl"], "openssl"));
    tool::run_command(command.args(arguments.split(' ')).current_dir(folder.path()).stdin(Stdio::null()))
}

/// What the authority says of a certificate, for a day, becomes `staple.der`.
#[track_caller]
fn ask_authority(folder: &Folder, certificate: &str) {
    let arguments = format!(
        "ocsp -index index.txt -CA ca.pem -rsigner ca.pem -rkey ca.key -issuer ca.pem -cert {certificate} -noverify \
         -ndays 1 -respout staple.der"
    );
    openssl(folder, &arguments);
}

/// RFC 6066 §8: clients need not ask the authority themselves.
#[test]
fn what_its_authority_says_of_a_certificate_is_sent_along_as_long_as_it_may_be() {
    let authority = openssl_authority();
    ask_authority(&authority, "leaf.pem");
    let upstream = echo();
    let address = address::own();
    let file = |name: &str| authority.path().join(name).display().to_string();
    let [certificate, key, ocsp] = ["leaf.pem", "leaf.key", "staple.der"].map(file);
    let tls = format!("tls = {{ certificate = {certificate:?}, key = {key:?}, ocsp = {ocsp:?} }}");
    let setup: Setup = Edge::over(&upstream).listener(address, &tls);
    let mut edge = setup.start();
    let asked = |version: &str| {
        openssl(
            &authority,
            &format!("s_client -connect {address} -status -CAfile ca.pem -verify_return_error {version}"),
        )
    };
    // What it warns of is on standard error.
    let check = |folder: &Path| {
        let mut command = Command::new(binaries::edge());
        let output = command.args(["check", "--config", "edge.toml"]).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    for version in ["-tls1_3", "-tls1_2"] {
        let said = asked(version);
        assert!(
            said.contains("OCSP Response Status: successful") && said.contains("Cert Status: good"),
            "{said}"
        );
    }
    assert!(!check(edge.folder()).contains("staple.der"));
    for (spoil, why) in [("other.pem", "is about another certificate"), ("none", "is no OCSP response")] {
        match spoil {
            "none" => authority.write("staple.der", "-----BEGIN"),
            other => ask_authority(&authority, other),
        }
        let told = edge.reload(&setup.text());
        assert!(told.contains("reloaded"), "{told}");
        let said = asked("-tls1_3");
        assert!(said.contains("OCSP response: no response sent"), "{said}");
        let warnings = edge.process().lines();
        assert!(
            warnings.iter().any(|line| line.contains(why) && line.contains("staple.der")),
            "{warnings:#?}"
        );
        let checked = check(edge.folder());
        assert!(checked.contains(why) && checked.contains("warning"), "{checked}");
    }
    ask_authority(&authority, "leaf.pem");
    edge.reload(&setup.text());
    assert!(asked("-tls1_3").contains("Cert Status: good"));
}

/// Mozilla's recommendation for servers of all the world: versions, suites, curves, kinds of certificates, known weaknesses.
#[test]
fn an_outside_judge_finds_mozillas_intermediate_profile() {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tls/requirements.txt");
    let python = python::environment("sslyze", &requirements).join("bin/python");
    let authority = openssl_authority();
    let upstream = echo();
    let address = address::own();
    let [certificate, key] =
        ["leaf.pem", "leaf.key"].map(|name| authority.path().join(name).display().to_string());
    let tls = format!("tls = {{ certificate = {certificate:?}, key = {key:?} }}");
    let edge = Edge::over(&upstream).listener(address, &tls).start();
    let authority = authority.path().join("ca.pem").display().to_string();
    let target = format!("localhost:{}{{{}}}", address.port(), address.ip());
    let arguments = [
        "-m",
        "sslyze",
        "--mozilla_config",
        "intermediate",
        "--certinfo",
        "--certinfo_ca_file",
        &authority,
        &target,
    ];
    let judged = tool::run(&python, arguments);
    let verdict = judged.lines().filter(|line| line.contains("compliant")).collect::<Vec<_>>().join("\n");
    println!("{verdict}");
    assert!(judged.contains("OK - Compliant"), "{judged}");
    assert_eq!(edge.get("/").status, 200);
}
