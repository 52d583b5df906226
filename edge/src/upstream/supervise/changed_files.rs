//! Whether the files of a command have changed.
//!
//! They are looked at again and again: that sees every change on every file system, those that containers share included, and
//! needs no watch of the kernel's for each folder. What it may cost is bounded: in files, and in its share of a core.

use std::{
    fs::{self, Metadata},
    hash::{BuildHasher as _, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tracing::warn;

/// Files and folders that are looked at.
const MOST: usize = 10_000;
/// Between two looks, at least, and in proportion to what a look takes.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSES_A_LOOK: u32 = 20;

/// Tells when what lies at these paths has changed and then been left alone for one look. Runs until it is dropped.
pub(super) async fn tell_changes(paths: Vec<PathBuf>, changed: Arc<Notify>) {
    let (mut look, mut took) = look_at(&paths).await;
    if look.is_none() {
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        return warn!("{} hold more than {MOST} files: their changes are not noticed", paths.join(", "));
    }
    let mut told = look;
    loop {
        sleep(PAUSE.max(took * PAUSES_A_LOOK)).await;
        let before = look;
        (look, took) = look_at(&paths).await;
        // A build writes one file after the other: what it has half written is not started.
        if look != told && look == before {
            told = look;
            changed.notify_one();
        }
    }
}

async fn look_at(paths: &[PathBuf]) -> (Option<u64>, Duration) {
    let (paths, began) = (paths.to_vec(), Instant::now());
    let look = tokio::task::spawn_blocking(move || fingerprint(&paths)).await.unwrap_or_default();
    (look, began.elapsed())
}

/// A number that changes when a file below these paths comes, goes or is written; `None` when there are too many. Names that
/// begin with a dot are left out, and `node_modules`.
fn fingerprint(paths: &[PathBuf]) -> Option<u64> {
    let mut print = foldhash::fast::FixedState::default().build_hasher();
    let mut open: Vec<PathBuf> = paths.to_vec();
    let mut seen = 0;
    while let Some(path) = open.pop() {
        seen += 1;
        if seen > MOST {
            return None;
        }
        // Of a link, where it leads; but a folder is entered by its own name alone, so that no link leads in a circle.
        let Ok(file) = fs::metadata(&path) else { continue };
        (&path, file.len(), file.modified().ok()).hash(&mut print);
        if file.is_dir()
            && (paths.contains(&path) || fs::symlink_metadata(&path).is_ok_and(|own| Metadata::is_dir(&own)))
        {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            let mut inside: Vec<PathBuf> =
                entries.map(|entry| entry.path()).filter(|path| !is_left_out(path)).collect();
            // In whatever order the system has them.
            inside.sort();
            open.extend(inside);
        }
        if open.len() > MOST {
            return None;
        }
    }
    Some(print.finish())
}

fn is_left_out(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name == "node_modules" || name.as_encoded_bytes().starts_with(b".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_goes_or_is_written_makes_a_difference() {
        let folder = tempfile::tempdir().unwrap();
        let watched = folder.path().join("dist");
        let look = || fingerprint(std::slice::from_ref(&watched)).unwrap();
        let mut looks = vec![look()];
        let inner = watched.join("inner");
        fs::create_dir_all(&inner).unwrap();
        looks.push(look());
        fs::write(inner.join("app.js"), "1").unwrap();
        looks.push(look());
        fs::write(inner.join("app.js"), "22").unwrap();
        looks.push(look());
        fs::remove_file(inner.join("app.js")).unwrap();
        looks.push(look());
        for (before, after) in looks.iter().zip(&looks[1..]) {
            assert_ne!(before, after, "{looks:?}");
        }
        let last = look();
        fs::create_dir(inner.join("node_modules")).unwrap();
        // The folder itself has been written to; below what is left out nothing counts.
        let with_folder = look();
        fs::write(inner.join("node_modules/a.js"), "1").unwrap();
        assert_eq!(look(), with_folder);
        assert_ne!(last, with_folder);
    }

    #[test]
    fn links_that_lead_in_a_circle_come_to_an_end() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
        fingerprint(&[folder.path().to_owned()]).unwrap();
    }

    #[test]
    fn too_many_files_are_not_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=MOST {
            fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        assert_eq!(fingerprint(&[folder.path().to_owned()]), None);
    }

    #[tokio::test]
    async fn a_change_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let changed = Arc::<Notify>::default();
        let watching = tokio::spawn(tell_changes(vec![folder.path().to_owned()], Arc::clone(&changed)));
        let told = async {
            // The first look may come after the first write: then it is no change.
            for number in 0.. {
                fs::write(folder.path().join("app.js"), number.to_string()).unwrap();
                if tokio::time::timeout(3 * PAUSE, changed.notified()).await.is_ok() {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
        watching.abort();
    }
}
