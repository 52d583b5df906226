//! The sixteen commonest jobs of a front door, in Gatehouse's words and in its peers': every file is one that its program accepts,
//! and the table counts their lines.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use gatehouse_tests::{binaries, tool};

/// The files of a kind, by their names.
fn files(name: &str) -> Vec<PathBuf> {
    let jobs = binaries::repository().join("docs/jobs");
    let folders = fs::read_dir(jobs).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        folders.map(|folder| folder.join(name)).filter(|file| file.is_file()).collect();
    files.sort();
    files
}

#[track_caller]
fn accepts(command: &mut Command, file: &Path) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}:\n{}", file.display(), String::from_utf8_lossy(&said));
}

#[test]
fn every_job_is_a_file_that_its_program_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let (nginx, haproxy) = (tool::find(&["nginx"], "nginx-light"), tool::find(&["haproxy"], "haproxy"));
    let caddy = tool::find(&["caddy"], "caddy");
    let own = files("edge.toml");
    assert_eq!(own.len(), 16);
    for file in &own {
        let mut check = Command::new(binaries::edge());
        // Paths of the settings are the repository's.
        accepts(check.current_dir(binaries::repository()).args(["check", "--config"]).arg(file), file);
    }
    for file in files("nginx.conf") {
        let mut check = Command::new(&nginx);
        check
            .args(["-t", "-g", "pid nginx.pid; error_log stderr;", "-p"])
            .arg(folder.path())
            .arg("-c")
            .arg(&file);
        accepts(&mut check, &file);
    }
    for file in files("haproxy.cfg") {
        accepts(Command::new(&haproxy).args(["-c", "-f"]).arg(&file), &file);
    }
    for file in files("Caddyfile") {
        let mut check = Command::new(&caddy);
        check.env("HOME", folder.path()).args(["adapt", "--adapter", "caddyfile", "--config"]).arg(&file);
        accepts(&mut check, &file);
    }
}

#[test]
fn the_table_of_jobs_counts_their_lines() {
    let table = fs::read_to_string(binaries::repository().join("docs/jobs/README.md")).unwrap();
    let mut told = 0;
    for name in ["edge.toml", "nginx.conf", "haproxy.cfg", "Caddyfile"] {
        for file in files(name) {
            let text = fs::read_to_string(&file).unwrap();
            let is_told = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with('#');
            let lines = text.lines().filter(is_told).count();
            let job = file.parent().unwrap().file_name().unwrap().to_str().unwrap();
            let cell = format!("[{lines}]({job}/{name})");
            assert!(table.contains(&cell), "the table has no {cell}");
            told += 1;
        }
    }
    assert_eq!(told, table.matches("](").count(), "the table links what there is");
}
