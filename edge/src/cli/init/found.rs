//! What kind of app a folder holds, by the names of its files and the packages that they name.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

/// An app, as far as its settings differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FoundApp {
    Next,
    /// Built into a folder: Vite, Create React App, Angular, Vue.
    SinglePage {
        folder: String,
    },
    /// A server of Express, Fastify, Koa and others.
    Node {
        port: u16,
    },
    Django,
    /// Or another app of Python.
    Flask,
    WordPress,
    Php,
    Rails,
    /// Ready-made files.
    Pages {
        folder: String,
    },
    Unknown,
}

impl FoundApp {
    /// # Errors
    /// There is no such folder, or it cannot be read.
    pub(super) fn in_folder(folder: &Path) -> io::Result<Self> {
        fs::read_dir(folder)?;
        let has = |name: &str| folder.join(name).exists();
        if has("package.json") {
            return Ok(of_package(folder));
        }
        if has("wp-config.php") || has("wp-config-sample.php") || has("wp-content") {
            return Ok(Self::WordPress);
        }
        if has("manage.py") {
            return Ok(Self::Django);
        }
        let python = ["requirements.txt", "pyproject.toml", "Pipfile"]
            .map(|name| content(&folder.join(name)).to_lowercase());
        if python.iter().any(|text| text.contains("django")) {
            return Ok(Self::Django);
        }
        if python
            .iter()
            .any(|text| ["flask", "fastapi", "starlette", "bottle"].iter().any(|name| text.contains(name)))
        {
            return Ok(Self::Flask);
        }
        if content(&folder.join("Gemfile")).contains("rails") {
            return Ok(Self::Rails);
        }
        if has("index.php") || has("composer.json") {
            return Ok(Self::Php);
        }
        let built = PAGES.iter().find(|name| has(&format!("{name}/index.html")));
        Ok(match built {
            Some(name) => Self::Pages { folder: (*name).to_owned() },
            None if has("index.html") => Self::Pages { folder: "site".to_owned() },
            None => Self::Unknown,
        })
    }

    /// In words.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Next => "a Next.js app at port 3000".to_owned(),
            Self::SinglePage { folder } => format!("an app of one page, built into {folder}"),
            Self::Node { port } => format!("a Node.js server at port {port}"),
            Self::Django => "a Django project at port 8000".to_owned(),
            Self::Flask => "a Flask app at port 5000".to_owned(),
            Self::WordPress => "WordPress, served at port 8081".to_owned(),
            Self::Php => "a PHP app, served at port 8081".to_owned(),
            Self::Rails => "a Rails app at port 3000".to_owned(),
            Self::Pages { folder } => format!("the pages in {folder}"),
            Self::Unknown => "an app at port 3000: change it where yours is another".to_owned(),
        }
    }

    /// What has to be done before the edge can serve it.
    pub(super) fn before(&self) -> Option<&'static str> {
        match self {
            Self::Next => Some("npx next build && npx next start &"),
            Self::SinglePage { .. } => Some("npm run build"),
            Self::Pages { folder } if folder == "site" => {
                Some("mkdir -p site; put the pages there: what stands beside edge.toml is not public")
            }
            _ => None,
        }
    }
}

fn of_package(folder: &Path) -> FoundApp {
    let package: serde_json::Value =
        serde_json::from_str(&content(&folder.join("package.json"))).unwrap_or_default();
    let names = |name: &str| {
        ["dependencies", "devDependencies"].iter().any(|kind| package[*kind].get(name).is_some())
    };
    let any = |list: &[&str]| list.iter().any(|name| names(name));
    if names("next") {
        return FoundApp::Next;
    }
    let serves = any(&[
        "express",
        "fastify",
        "koa",
        "@nestjs/core",
        "@hapi/hapi",
        "hono",
        "nuxt",
        "@remix-run/serve",
        "@sveltejs/kit",
    ]);
    if !serves && names("react-scripts") {
        return FoundApp::SinglePage { folder: "build".to_owned() };
    }
    if !serves && any(&["vite", "@vue/cli-service", "@angular/core", "parcel"]) {
        return FoundApp::SinglePage { folder: "dist".to_owned() };
    }
    let main = package["main"].as_str().filter(|main| !main.starts_with('/') && !main.contains(".."));
    let files = main.into_iter().chain(["server.js", "app.js", "index.js", "src/index.js", "src/server.js"]);
    let port = files.filter_map(|file| port_of(&content(&folder.join(file)))).next();
    FoundApp::Node { port: port.unwrap_or(3000) }
}

/// The number in `listen(3000`, or behind `PORT || `.
fn port_of(program: &str) -> Option<u16> {
    let number = |text: &str| {
        let digits = text.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse::<u16>().ok().filter(|port| *port > 0)
    };
    let behind =
        |sign: &'static str| program.match_indices(sign).map(move |(at, _)| &program[at + sign.len()..]);
    ["listen(", "PORT ||", "PORT ??", "port = "].into_iter().flat_map(behind).find_map(number)
}

/// What a file holds, if it is one, as far as it is looked at.
fn content(file: &Path) -> String {
    let mut content = Vec::new();
    let is_file = fs::metadata(file).is_ok_and(|looks| looks.is_file());
    if is_file && let Ok(file) = File::open(file) {
        // What cannot be read says nothing.
        let _ = file.take(LOOKED_AT).read_to_end(&mut content);
    }
    String::from_utf8_lossy(&content).into_owned()
}

/// In bytes.
const LOOKED_AT: u64 = 1 << 20;
/// Folders that builders and people put pages into.
const PAGES: [&str; 9] = ["dist", "public", "build", "out", "_site", "site", "www", "htdocs", "html"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_the_one_that_the_program_listens_on() {
        for (program, port) in [
            ("app.listen(3001, () => {})", Some(3001)),
            ("const port = process.env.PORT || 8080;\napp.listen(port)", Some(8080)),
            ("const port = 4000", Some(4000)),
            ("server.listen(0)", None),
            ("server.listen( 99999 )", None),
            ("", None),
        ] {
            assert_eq!(port_of(program), port, "{program}");
        }
    }
}
