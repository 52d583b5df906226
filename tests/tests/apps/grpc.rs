//! gRPC (grpcio from PyPI) over TLS and HTTP/2 to the edge, and over HTTP/2 in clear text behind it.

use std::process::Command;

use gatehouse_tests::{
    binaries::repository, edge::Edge, folder::Folder, process::Process, python, recipe, tool,
};
use rcgen::{CertificateParams, KeyPair};

#[test]
fn calls_and_streams_of_calls_go_through_with_their_trailers() {
    let source = repository().join("tests/apps/grpc");
    let python = python::environment("grpc", &source.join("requirements.txt")).join("bin/python");
    let calls = |arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.env("PYTHONDONTWRITEBYTECODE", "1").arg(source.join("calls.py")).args(arguments);
        command
    };
    let mut server = Process::start("grpc", &mut calls(&["serve"]));
    let port = server.wait_for_line("its port", |line| line.strip_prefix("port ").map(str::to_owned));
    let folder = Folder::new();
    // The local authority is bound to names and addresses; grpcio's TLS knows no bounds of addresses.
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    folder.write("own.pem", &certificate.pem());
    folder.write("own.key", &key.serialize_pem());
    // The recipe of the book, between addresses of this test.
    let listen = "[[listen]]\naddress = \"127.0.0.1:0\"";
    let settings = recipe::settings(
        "grpc",
        &[
            ("[[listen]]\naddress = \"[::]:443\"", &format!("{listen}\n\n{listen}")),
            ("127.0.0.1:9900", "127.0.0.1:0"),
            ("certs/shop.", "own."),
            ("127.0.0.1:50051", &format!("127.0.0.1:{port}")),
        ],
    );
    folder.write("edge.toml", &settings);
    let edge = Edge::start_in(folder);
    let address = format!("localhost:{}", edge.tls().port());
    let told = tool::run_command(&mut calls(&[
        "call",
        &address,
        &edge.folder().join("own.pem").display().to_string(),
    ]));
    assert_eq!(
        told.lines().collect::<Vec<_>>(),
        [
            "echo hello at the end OK",
            "NOT_FOUND there is none",
            "echo request 0",
            "echo request 1",
            "echo request 2",
            "0",
        ]
    );
}
