//! Sees when the settings' file has changed, or a file that it includes, or a certificate, key or token that it names.
//!
//! Files are looked at each second, and not watched by the kernel's notices: those are about inodes and folders, and miss what
//! happens behind a symbolic link (as Kubernetes swaps whole folders) and on network file systems. A change counts when two
//! looks agree, so that a file that is being written is not read half; and once, however it turns out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::settings::{GivenSettings, Settings, folders_within};

/// What has been read, and what it looks like now.
pub(super) struct FileWatch {
    given: GivenSettings,
    /// As the files looked just before they were last read.
    read: FileLooks,
    /// As they looked a moment ago.
    last: FileLooks,
}

/// How each file looks; `None` where there is none.
type FileLooks = BTreeMap<PathBuf, Option<FileStamp>>;

/// What changes when a file is written, or another takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileWatch {
    /// Looks at the settings' file, where there is one, which is about to be read for the first time.
    pub(super) fn new(given: &GivenSettings) -> Self {
        let mut watch = Self { given: given.clone(), read: FileLooks::new(), last: FileLooks::new() };
        watch.reads_file();
        watch
    }

    /// Where the settings come from.
    pub(super) fn given(&self) -> &GivenSettings {
        &self.given
    }

    /// Looks at all files again, which are about to be read.
    pub(super) fn reads_file(&mut self) {
        let own = self.given.file().map(Path::to_owned);
        self.read = self.read.keys().chain(&own).map(|path| (path.clone(), stamp(path))).collect();
    }

    /// Takes what the files that settings are read from, beside their own, looked like just before.
    pub(super) fn reads_sources(&mut self, looks: SourceLooks) {
        self.read.extend(looks.0);
    }

    /// Looks at those that these settings name as well, which are about to be read.
    pub(super) fn reads_named(&mut self, settings: &Settings) {
        for path in named(settings) {
            self.read.entry(path).or_insert_with_key(|path| stamp(path));
        }
    }

    /// Forgets what settings that are in force now do not name. Of those that were refused all files count: any of them may
    /// have been why.
    pub(super) fn in_force(&mut self, settings: &Settings) {
        let Self { given, read, .. } = self;
        let named: BTreeSet<PathBuf> = named(settings).collect();
        read.retain(|path, _| given.file() == Some(path) || named.contains(path));
    }

    /// Whether a file is other than it was read, and the same as at the last call.
    pub(super) fn has_changed(&mut self) -> bool {
        let look: FileLooks = self.read.keys().map(|path| (path.clone(), stamp(path))).collect();
        let settled = look == self.last;
        self.last = look;
        settled && self.last != self.read
    }
}

/// How the files look that settings are read from, beside their own: those that they include, and the folders where more may come.
pub(super) struct SourceLooks(FileLooks);

impl SourceLooks {
    /// Reads the settings' file.
    pub(super) fn of(given: &GivenSettings) -> Self {
        let looks = given.source_files().into_iter().map(|path| {
            let looks = stamp(&path);
            (path, looks)
        });
        Self(looks.collect())
    }
}

fn named(settings: &Settings) -> impl Iterator<Item = PathBuf> {
    let tls = settings.listeners.iter().filter_map(|listen| listen.tls.as_ref());
    let upstreams = settings.upstreams.values().map(|upstream| &upstream.tls);
    let upstreams = upstreams.flat_map(|tls| {
        let identity = tls.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        tls.ca.iter().chain(identity).map(|path| &**path)
    });
    let token = settings.admin.as_ref().and_then(|admin| admin.token_file.as_deref());
    let of_purges = settings.purge.as_ref().and_then(|purge| purge.token_file.as_deref());
    let token = token.into_iter().chain(of_purges);
    let clients = tls.clone().filter_map(|tls| Some(&*tls.client_certificates.as_ref()?.ca));
    let folders = tls.clone().filter_map(|tls| tls.folder.as_deref()).flat_map(folders_within);
    // Of folders that cannot be read, or hold half of a pair, what they are to hold is not known yet.
    let pairs = tls.flat_map(|tls| tls.all().unwrap_or_else(|_| tls.written().cloned().collect()));
    let pairs = pairs.flat_map(|pair| [pair.certificate, pair.key].into_iter().chain(pair.ocsp));
    let files = upstreams.chain(token).chain(clients);
    let users = settings.routes.iter().filter_map(|route| Some(&*route.basic_auth.as_ref()?.file));
    let files = files.chain(users).map(Path::to_owned).chain(settings.error_pages.files());
    let sources = settings.sources.files.iter().chain(&settings.sources.folders).cloned();
    files.chain(folders).chain(pairs).chain(sources)
}

fn stamp(path: &Path) -> Option<FileStamp> {
    let file = fs::metadata(path).ok()?;
    Some(FileStamp {
        device: file.dev(),
        inode: file.ino(),
        size: file.size(),
        modified: (file.mtime(), file.mtime_nsec()),
        changed: (file.ctime(), file.ctime_nsec()),
    })
}

/// How often files are looked at.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const REST: &str = "[upstreams.o]\nservers = [\"http://o\"]\n\
                        [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"o\"\n";

    fn settings(certificate: &Path) -> Settings {
        let path = certificate.display();
        let listen = format!(
            "[[listen]]\naddress = \"[::]:1\"\ntls = {{ certificate = \"{path}\", key = \"{path}\" }}\n"
        );
        crate::settings::parse(&format!("{listen}{REST}"), "test").unwrap()
    }

    #[test]
    fn a_change_counts_when_two_looks_agree_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.toml");
        fs::write(&file, "one").unwrap();
        let mut watch = FileWatch::new(&GivenSettings::File(file.clone()));
        assert!(!watch.has_changed() && !watch.has_changed());
        fs::write(&file, "begun").unwrap();
        assert!(!watch.has_changed(), "it may still be being written");
        fs::write(&file, "and done").unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
        watch.reads_file();
        assert!(!watch.has_changed() && !watch.has_changed(), "however that turned out");
        fs::remove_file(&file).unwrap();
        assert!(!watch.has_changed() && watch.has_changed());
    }

    #[test]
    fn a_folder_that_is_swapped_behind_a_symbolic_link_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two, link] = ["one", "two", "current"].map(|name| folder.path().join(name));
        for version in [&one, &two] {
            fs::create_dir(version).unwrap();
            fs::write(version.join("tls.pem"), "same length").unwrap();
        }
        symlink(&one, &link).unwrap();
        let certificate = link.join("tls.pem");
        let mut watch = FileWatch::new(&GivenSettings::File(folder.path().join("edge.toml")));
        watch.reads_named(&settings(&certificate));
        assert!(!watch.has_changed() && !watch.has_changed());
        symlink(&two, folder.path().join("next")).unwrap();
        fs::rename(folder.path().join("next"), &link).unwrap();
        assert!(!watch.has_changed() && watch.has_changed());
    }

    /// A fault in an included file kept the files that are included from being known, and nothing saw how it was mended.
    #[test]
    fn included_files_are_watched_those_that_come_too_and_those_that_are_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let [file, conf] = ["edge.toml", "conf.d"].map(|name| folder.path().join(name));
        fs::create_dir(&conf).unwrap();
        fs::write(&file, "include = [\"conf.d/*.toml\"]").unwrap();
        let mut watch = FileWatch::new(&GivenSettings::File(file.clone()));
        let reads = |watch: &mut FileWatch| {
            watch.reads_file();
            watch.reads_sources(SourceLooks::of(&GivenSettings::File(file.clone())));
            assert!(!watch.has_changed() && !watch.has_changed());
        };
        reads(&mut watch);
        fs::write(conf.join("a.toml"), "this is wrong").unwrap();
        assert!(!watch.has_changed() && watch.has_changed());
        reads(&mut watch);
        fs::write(conf.join("a.toml"), "[cache]").unwrap();
        assert!(!watch.has_changed() && watch.has_changed());
        reads(&mut watch);
    }

    #[test]
    fn a_file_because_of_which_a_reload_was_refused_is_watched_until_other_settings_are_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let [file, old, new] = ["edge.toml", "old.pem", "new.pem"].map(|name| folder.path().join(name));
        let mut watch = FileWatch::new(&GivenSettings::File(file.clone()));
        watch.reads_named(&settings(&old));
        watch.in_force(&settings(&old));
        watch.reads_file();
        watch.reads_named(&settings(&new));
        fs::write(&new, "now it is there").unwrap();
        assert!(!watch.has_changed() && watch.has_changed());
        watch.reads_file();
        watch.reads_named(&settings(&new));
        watch.in_force(&settings(&new));
        fs::write(&old, "nobody cares").unwrap();
        assert!(!watch.has_changed() && !watch.has_changed());
    }
}
