//! Servers by names that change and by Unix sockets: a real name server's answers, real sockets.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::net::UnixListener,
    sync::{Arc, Mutex},
    thread,
};

use gatehouse_tests::{
    edge::{Edge, Setup},
    folder::Folder,
    wait,
};

/// A name server on loopback that knows one name, with a lifetime of a second. It answers until the test's process ends.
struct NameServer {
    address: SocketAddr,
    addresses: Arc<Mutex<Option<Vec<Ipv4Addr>>>>,
}

impl NameServer {
    fn start(addresses: &[Ipv4Addr]) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let addresses = Arc::new(Mutex::new(Some(addresses.to_vec())));
        let answers = Arc::clone(&addresses);
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                let answer = answer(&question[..length], answers.lock().unwrap().as_deref());
                let _ = socket.send_to(&answer, from);
            }
        });
        Self { address, addresses }
    }

    /// From now on the name stands for these; `None`: it fails.
    fn say(&self, addresses: Option<&[Ipv4Addr]>) {
        *self.addresses.lock().unwrap() = addresses.map(<[_]>::to_vec);
    }
}

/// RFC 1035 §4: the question again, with an A record for each address. For other types there is none.
fn answer(question: &[u8], addresses: Option<&[Ipv4Addr]>) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|octet| *octet == 0).unwrap() + 5;
    let asks_for_a = question[end - 4..end - 2] == [0, 1];
    let (code, addresses) = match addresses {
        None => (2, &[][..]),
        Some(addresses) => (0, if asks_for_a { addresses } else { &[] }),
    };
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    answer.extend(&question[12..end]);
    for address in addresses {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}

/// Answers every request with this text, one a connection.
fn serve(stream: io::Result<impl Read + Write>, text: &str) {
    let Ok(mut stream) = stream else { return };
    let (mut head, mut octet) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut octet) {
            Ok(1) => head.push(octet[0]),
            _ => return,
        }
    }
    let length = text.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{text}"
    );
}

/// Servers at the same port of several addresses; each answers with its address.
fn servers_at(addresses: &[Ipv4Addr]) -> u16 {
    // A port that is free on the first address may be taken on another.
    let (port, listeners) = wait::until("a port that is free everywhere", || {
        let first = TcpListener::bind((addresses[0], 0)).ok()?;
        let port = first.local_addr().ok()?.port();
        let others = addresses[1..].iter().map(|address| TcpListener::bind((*address, port)));
        let others = others.collect::<Result<Vec<_>, _>>().ok()?;
        Some((port, std::iter::once(first).chain(others).collect::<Vec<_>>()))
    });
    for listener in listeners {
        let text = listener.local_addr().unwrap().ip().to_string();
        thread::spawn(move || listener.incoming().for_each(|stream| serve(stream, &text)));
    }
    port
}

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const THREE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Whoever answers the next requests.
fn who_answers(edge: &Edge) -> Vec<String> {
    let mut all: Vec<String> = (0..30)
        .map(|_| edge.get("/"))
        .map(|answer| {
            assert_eq!(answer.status, 200);
            answer.text()
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn a_name_that_comes_to_stand_for_other_addresses_loses_no_request() {
    let port = servers_at(&[ONE, TWO, THREE]);
    let names = NameServer::start(&[ONE, TWO]);
    let asks = format!("name_servers = [\"{}\"]", names.address);
    let edge = Setup::over_server(&format!("dns+http://app.test:{port}")).top(&asks).start();
    assert_eq!(who_answers(&edge), ["127.0.0.1", "127.0.0.2"]);
    names.say(Some(&[THREE]));
    wait::until("the new address answers alone", || (who_answers(&edge) == ["127.0.0.3"]).then_some(()));
    names.say(None);
    for _ in 0..3 {
        assert_eq!(who_answers(&edge), ["127.0.0.3"], "what was found last stays");
    }
    names.say(Some(&[TWO]));
    wait::until("it is found again", || (who_answers(&edge) == ["127.0.0.2"]).then_some(()));
}

#[test]
fn a_plain_name_follows_its_addresses_too() {
    let port = servers_at(&[ONE, TWO]);
    let names = NameServer::start(&[ONE]);
    let asks = format!("name_servers = [\"{}\"]", names.address);
    let edge = Setup::over_server(&format!("http://app.test:{port}")).top(&asks).start();
    assert_eq!(who_answers(&edge), ["127.0.0.1"]);
    names.say(Some(&[TWO]));
    wait::until("the new address answers", || (who_answers(&edge) == ["127.0.0.2"]).then_some(()));
}

#[test]
fn a_server_may_listen_on_a_unix_socket() {
    let folder = Folder::new();
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || listener.incoming().for_each(|stream| serve(stream, "by file")));
    let mut edge = Setup::over_server(&format!("unix:{}", path.display())).start();
    assert_eq!(edge.get("/").text(), "by file");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(edge.get("/").status, 502);
    edge.stop();
}
