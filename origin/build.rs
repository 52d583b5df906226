//! Writes the table of the storefront's files, `[(path below storefront/, bytes)]`, which `src/storefront.rs` includes.
//! Adding a page, script, style or picture is adding a file: no list to keep.

use std::{env, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("storefront");
    // Relative: a copy of the project that shares the target folder then builds nothing anew.
    println!("cargo::rerun-if-changed=storefront");
    // `sqlx::migrate!` embeds this folder and does not notice new files by itself.
    println!("cargo::rerun-if-changed=../migrations");
    let mut paths = Vec::new();
    for folder in ["images", "pages", "scripts", "styles"] {
        for entry in fs::read_dir(root.join(folder))? {
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
        let file = format!("/storefront/{path}");
        format!("({path:?}, include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {file:?}))),\n")
    };
    let rows: String = paths.iter().map(row).collect();
    fs::write(Path::new(&env::var("OUT_DIR")?).join("storefront_files.rs"), format!("&[\n{rows}]"))?;
    Ok(())
}
