//! Pages for people whose request the edge refuses, or whose upstream gave no answer.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use http::StatusCode;

/// Pages from a folder, by status: `404.html` for one, `4xx.html` and `5xx.html` for all others of their class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPages {
    /// The folder they were read from; `None` where the file names none.
    pub folder: Option<PathBuf>,
    pages: BTreeMap<String, PageTemplate>,
}

/// A page with places for what there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageTemplate(Vec<PagePart>);

/// A part of a [`PageTemplate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PagePart {
    Text(Box<str>),
    Status,
    /// The status's name, such as `Not Found`.
    Title,
    /// What is wrong, in a sentence.
    Detail,
    RequestId,
}

/// Bytes of one page: each error sends one.
const LARGEST_PAGE: u64 = 256 << 10;

impl ErrorPages {
    /// Reads the pages of a folder. Other files in it are of no matter.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub(super) fn read(folder: &Path) -> Result<Self, (String, String)> {
        let entries = fs::read_dir(folder).map_err(|error| {
            (
                format!("{} cannot be read: {error}", folder.display()),
                "name a folder of pages such as 404.html".to_owned(),
            )
        })?;
        let mut pages = BTreeMap::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(of) = name.strip_suffix(".html").filter(|of| is_of_errors(of)) else { continue };
            let path = entry.path();
            let wrong = |what: String, help: &str| (format!("{} {what}", path.display()), help.to_owned());
            let size = fs::metadata(&path).map(|file| file.len()).unwrap_or_default();
            if size > LARGEST_PAGE {
                return Err(wrong(
                    format!("is larger than {} KiB", LARGEST_PAGE >> 10),
                    "each error sends it: write less",
                ));
            }
            let text = fs::read_to_string(&path).map_err(|error| {
                wrong(format!("cannot be read: {error}"), "write it in UTF-8, readable for the edge")
            })?;
            pages.insert(of.to_owned(), PageTemplate::new(&text));
        }
        if pages.is_empty() {
            let help = "put a page such as 404.html, 4xx.html or 5xx.html there".to_owned();
            return Err((format!("{} has no page", folder.display()), help));
        }
        Ok(Self { folder: Some(folder.to_owned()), pages })
    }

    /// The page for a status, if there is one.
    pub fn of(&self, status: StatusCode) -> Option<&PageTemplate> {
        let class = format!("{}xx", status.as_u16() / 100);
        self.pages.get(status.as_str()).or_else(|| self.pages.get(&class))
    }

    /// The folder and the files that pages were read from.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let folder = self.folder.iter().cloned();
        let page = |of: &String| Some(self.folder.as_ref()?.join(format!("{of}.html")));
        folder.chain(self.pages.keys().filter_map(page))
    }
}

/// `404`, `4xx`: what the edge answers by itself is an error of either kind.
fn is_of_errors(name: &str) -> bool {
    matches!(name, "4xx" | "5xx") || name.parse::<u16>().is_ok_and(|status| (400..600).contains(&status))
}

impl PageTemplate {
    /// What stands in braces and is no part, as in a style sheet, is text.
    pub fn new(text: &str) -> Self {
        const PARTS: [(&str, PagePart); 4] = [
            ("{status}", PagePart::Status),
            ("{title}", PagePart::Title),
            ("{detail}", PagePart::Detail),
            ("{request_id}", PagePart::RequestId),
        ];
        let mut parts = Vec::new();
        let mut rest = text;
        let next = |rest: &str| {
            let found = PARTS.iter().filter_map(|(name, part)| Some((rest.find(name)?, *name, part.clone())));
            found.min_by_key(|(at, ..)| *at)
        };
        while let Some((at, name, part)) = next(rest) {
            parts.extend((at > 0).then(|| PagePart::Text(rest[..at].into())));
            parts.push(part);
            rest = &rest[at + name.len()..];
        }
        parts.extend((!rest.is_empty()).then(|| PagePart::Text(rest.into())));
        Self(parts)
    }

    /// Its parts, in their order.
    pub fn parts(&self) -> &[PagePart] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_its_own_page_before_that_of_its_class() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let read = || ErrorPages::read(folder.path());
        assert!(read().unwrap_err().0.ends_with("has no page"));
        write("404.html", "own");
        write("4xx.html", "class");
        write("200.html", "no error");
        write("style.css", "body {}");
        let pages = read().unwrap();
        let of = |status: u16| pages.of(StatusCode::from_u16(status).unwrap()).map(PageTemplate::parts);
        assert_eq!(of(404), Some(&[PagePart::Text("own".into())][..]));
        assert_eq!(of(429), Some(&[PagePart::Text("class".into())][..]));
        assert_eq!((of(502), of(200)), (None, None));
        assert_eq!(pages.files().count(), 3);
        write("503.html", &"x".repeat((256 << 10) + 1));
        assert!(read().unwrap_err().0.contains("larger than 256 KiB"));
    }

    #[test]
    fn braces_of_a_style_sheet_are_text() {
        let template = PageTemplate::new("p { margin: 0 }{status}{title}: {detail}");
        let text = |text: &str| PagePart::Text(text.into());
        let parts =
            [text("p { margin: 0 }"), PagePart::Status, PagePart::Title, text(": "), PagePart::Detail];
        assert_eq!(template.parts(), parts);
    }
}
