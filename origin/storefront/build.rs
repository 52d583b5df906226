//! Writes the table of the storefront's files, `[(path, bytes)]`, which `src/lib.rs` includes.
//! Adding a page, script, style or picture is adding a file: no list to keep.

use std::{env, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let mut paths = Vec::new();
    for folder in ["images", "pages", "scripts", "styles"] {
        // Relative: a copy of the project that shares the target folder then builds nothing anew.
        println!("cargo::rerun-if-changed={folder}");
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name().into_string().map_err(|name| format!("{name:?} is not UTF-8"))?;
            if !name.starts_with('.') && !name.ends_with(".md") {
                paths.push(format!("{folder}/{name}"));
            }
        }
    }
    // Directory order differs between machines; the binary should not.
    paths.sort();
    // Resolved where it is compiled: two checkouts that share a target folder share this table.
    let row = |path: &String| {
        let file = format!("/{path}");
        format!("({path:?}, include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {file:?}))),\n")
    };
    let rows: String = paths.iter().map(row).collect();
    fs::write(Path::new(&env::var("OUT_DIR")?).join("files.rs"), format!("&[\n{rows}]"))?;
    Ok(())
}
