//! Routes that are closed while a file is there: the operator's switch, which needs no reload.
//!
//! The file is looked at each second, on a thread of its own, one look at a time: a file system that hangs leaves things as they
//! were.

use std::{
    fs,
    io::{self, Read as _},
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwapOption;

use super::refusal::Refusal;
use crate::settings::{MaintenanceSettings, PageTemplate};

/// Bytes of the page: each refusal sends one.
const LARGEST_PAGE: u64 = 256 << 10;

/// The routes that one file closes.
#[derive(Debug)]
pub struct Closure {
    settings: Arc<MaintenanceSettings>,
    /// `None` while they are open.
    closed: ArcSwapOption<ClosedBy>,
    looking: AtomicBool,
}

/// The file that is there.
#[derive(Debug)]
struct ClosedBy {
    /// By which a change of it is seen.
    stamp: (u64, Option<SystemTime>),
    /// What it holds for people to read; the edge's own page where that is nothing.
    page: Option<Arc<PageTemplate>>,
}

impl Closure {
    /// As the file is now.
    pub fn new(settings: &Arc<MaintenanceSettings>) -> Arc<Self> {
        let settings = Arc::clone(settings);
        let closure = Self { settings, closed: ArcSwapOption::empty(), looking: AtomicBool::new(false) };
        closure.look();
        Arc::new(closure)
    }

    /// By what it closes.
    pub fn settings(&self) -> &Arc<MaintenanceSettings> {
        &self.settings
    }

    /// Lets a client in, unless the file is there.
    ///
    /// # Errors
    /// 503 while it is, but for those who are to see how things get on.
    pub fn admit(&self, client: IpAddr) -> Result<(), Refusal> {
        let closed = self.closed.load();
        let Some(closed) = &*closed else { return Ok(()) };
        let client = client.to_canonical();
        if self.settings.except.iter().any(|network| network.contains(&client)) {
            return Ok(());
        }
        let retry_after = self.settings.retry_after;
        Err(Refusal::Maintenance { page: closed.page.clone(), retry_after })
    }

    /// Looks at the file, on a thread that may wait for it. Nothing happens while an earlier look is under way.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn look_aside(self: &Arc<Self>) {
        if !self.looking.swap(true, Ordering::Acquire) {
            let closure = Arc::clone(self);
            tokio::task::spawn_blocking(move || {
                closure.look();
                closure.looking.store(false, Ordering::Release);
            });
        }
    }

    /// Looks at the file, which may take as long as its file system.
    pub fn look(&self) {
        let file = &*self.settings.file;
        let was = self.closed.load_full();
        let stamp = match fs::metadata(file) {
            Ok(there) => (there.len(), there.modified().ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if was.is_some() {
                    tracing::warn!("{} is gone: its routes are open again", file.display());
                    self.closed.store(None);
                }
                return;
            }
            Err(error) => {
                // Whoever cannot see whether they are closed leaves them as they are.
                if was.is_none() {
                    tracing::debug!("{} cannot be looked at: {error}", file.display());
                }
                return;
            }
        };
        if was.as_ref().is_some_and(|was| was.stamp == stamp) {
            return;
        }
        let page = read(file).unwrap_or_else(|error| {
            tracing::warn!("{} cannot be shown: {error}; people see the edge's own page", file.display());
            String::new()
        });
        if was.is_none() {
            tracing::warn!("{} is there: its routes are closed, and answer 503", file.display());
        }
        let page = (!page.trim().is_empty()).then(|| Arc::new(PageTemplate::new(&page)));
        self.closed.store(Some(Arc::new(ClosedBy { stamp, page })));
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(file)?.take(LARGEST_PAGE + 1).read_to_string(&mut text)?;
    match text.len() as u64 > LARGEST_PAGE {
        true => Err(io::Error::other(format!("it is larger than {} KiB", LARGEST_PAGE >> 10))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::PagePart;

    #[test]
    fn routes_are_closed_while_the_file_is_there_but_for_those_who_look() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("closed.html");
        let settings = MaintenanceSettings {
            file: file.clone(),
            except: vec!["10.0.0.0/8".parse().unwrap()],
            retry_after: Duration::from_secs(60),
        };
        let closure = Closure::new(&Arc::new(settings));
        let [client, operator] = ["192.0.2.1", "::ffff:10.1.2.3"].map(|text| text.parse().unwrap());
        let refused = || {
            closure.look();
            closure.admit(client).err()
        };
        assert!(refused().is_none());
        fs::write(&file, "<h1>{title}</h1>").unwrap();
        let Some(Refusal::Maintenance { page: Some(page), .. }) = refused() else { panic!("a page") };
        assert_eq!(page.parts()[1], PagePart::Title);
        assert!(closure.admit(operator).is_ok());
        for unreadable in [&[0xff; 3][..], &vec![b'x'; LARGEST_PAGE as usize + 1], b" \n"] {
            fs::write(&file, unreadable).unwrap();
            assert!(matches!(refused(), Some(Refusal::Maintenance { page: None, .. })));
        }
        fs::remove_file(&file).unwrap();
        assert!(refused().is_none());
    }
}
