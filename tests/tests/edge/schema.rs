//! `edge schema`, judged by a validator that is not ours (jsonschema-rs, from PyPI): what editors mark of a file, and what not.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use gatehouse_tests::{binaries, binaries::repository, folder::Folder, python, tool};

/// Where each document is not as the schema has it, by the keys that lead there.
fn marked(documents: &[toml::Table]) -> Vec<Vec<String>> {
    const JUDGE: &str = "import json, sys, jsonschema_rs\n\
        schema, documents = [json.load(open(file)) for file in sys.argv[1:]]\n\
        jsonschema_rs.meta.validate(schema)\n\
        validator = jsonschema_rs.Draft202012Validator(schema)\n\
        where = lambda error: '.'.join(map(str, error.instance_path))\n\
        print(json.dumps([[where(error) for error in validator.iter_errors(one)] for one in documents]))";
    let folder = Folder::new();
    let Output { status, stdout, .. } = Command::new(binaries::edge()).arg("schema").output().unwrap();
    assert!(status.success());
    folder.write("schema.json", &String::from_utf8(stdout).unwrap());
    folder.write("documents.json", &serde_json::to_string(documents).unwrap());
    let requirements = repository().join("tests/contract/requirements.txt");
    let python = python::environment("contract", &requirements).join("bin/python");
    let mut judge = Command::new(python);
    judge.args(["-c", JUDGE, "schema.json", "documents.json"]).current_dir(folder.path());
    serde_json::from_str(&tool::run_command(&mut judge)).unwrap()
}

fn files() -> Vec<PathBuf> {
    let folders =
        ["docs/recipes", "docs/jobs"].map(|folder| fs::read_dir(repository().join(folder)).unwrap());
    let within = folders.into_iter().flatten().map(|entry| entry.unwrap().path().join("edge.toml"));
    let ours =
        ["edge.toml", "demo.toml", "three/edge.toml"].map(|name| repository().join("config").join(name));
    within.filter(|file| file.exists()).chain(ours).collect()
}

#[test]
fn no_file_of_ours_is_marked() {
    let files = files();
    assert!(files.len() > 30, "{files:?}");
    let documents: Vec<_> =
        files.iter().map(|file| fs::read_to_string(file).unwrap().parse::<toml::Table>().unwrap()).collect();
    for (file, marked) in files.iter().zip(marked(&documents)) {
        assert_eq!(marked, [""; 0], "{}", file.display());
    }
}

#[test]
fn a_wrong_value_is_marked_where_it_stands_and_a_right_one_is_not() {
    let table = [
        ("threads = 4", None),
        ("threads = \"4\"", Some("threads")),
        ("threads = 1025", Some("threads")),
        ("watch = \"true\"", Some("watch")),
        ("colour = 1", Some("")),
        ("listen = {}", Some("listen")),
        ("[[listen]]\naddress = \"[::]:80\"", None),
        ("[[listen]]\naddress = \"80\"", Some("listen.0.address")),
        ("[[listen]]\nhsts = \"365d includeSubDomains\"", None),
        ("[[listen]]\nhsts = \"on\"", Some("listen.0.hsts")),
        ("[[listen]]\nproxy_protocol = []", Some("listen.0.proxy_protocol")),
        ("[cache]\nmemory = \"1 GiB\"", None),
        ("[cache]\nmemory = \"${MEMORY:-1 GiB}\"", None),
        ("[cache]\nmemory = \"1 Gib\"", Some("cache.memory")),
        ("[cache]\nmemory = 256", Some("cache.memory")),
        ("[timeouts]\nidle = \"75s\"", None),
        ("[timeouts]\nidle = \"75\"", Some("timeouts.idle")),
        ("[timeouts]\nidle = \"0s\"", Some("timeouts.idle")),
        ("[bounds]\nfields = 10001", Some("bounds.fields")),
        ("[limits.a]\nrate = \"50/s\"", None),
        ("[limits.a]\nrate = \"50\"", Some("limits.a.rate")),
        ("[limits.a]\nburst = 0", Some("limits.a.burst")),
        ("[log]\nformat = \"pretty\"", None),
        ("[log]\nformat = \"${FORMAT}\"", None),
        ("[log]\nformat = \"xml\"", Some("log.format")),
        ("[commands.a]\nrun = \"node\"", Some("commands.a.run")),
        ("[commands.a]\ninstances = \"cores\"", None),
        ("[commands.a]\ninstances = \"all\"", Some("commands.a.instances")),
        ("[upstreams.a]\nservers = [{ url = \"http://a\", weight = 2 }, \"unix:/run/a\"]", None),
        ("[upstreams.a]\nservers = [\"a:80\"]", Some("upstreams.a.servers.0")),
        ("[upstreams.a]\nserver = []", Some("upstreams.a")),
        ("[upstreams.a]\nfailing_statuses = [404]", Some("upstreams.a.failing_statuses.0")),
        ("[[routes]]\nredirect = { to = \"/\", status = 301 }", None),
        ("[[routes]]\nredirect = { to = \"/\", status = 300 }", Some("routes.0.redirect")),
        ("[[routes]]\nmethods = \"GET\"", Some("routes.0.methods")),
        ("[[routes]]\npath = [\"/a/*\", \"/b\"]", None),
        ("[[routes]]\npath = \"a/*\"", Some("routes.0.path")),
        ("[[routes]]\n[routes.cache]\nttl = { 200 = \"5m\" }", None),
        ("[[routes]]\n[routes.cache]\nttl = { 200 = 5 }", Some("routes.0.cache.ttl")),
        ("[[routes]]\ncache = { tll = \"5m\" }", Some("routes.0.cache")),
    ];
    let documents: Vec<toml::Table> = table.iter().map(|(text, _)| text.parse().unwrap()).collect();
    for ((text, wrong), marked) in table.iter().zip(marked(&documents)) {
        assert_eq!(marked, wrong.map(str::to_owned).into_iter().collect::<Vec<_>>(), "{text}");
    }
}
