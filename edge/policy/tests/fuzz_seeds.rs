//! What the fuzz targets check, over their seeds and over what lies near them: without a nightly compiler, and in no time.

#[path = "../fuzz/replay.rs"]
mod replay;
#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::Path;

#[test]
fn every_target_bears_its_seeds_and_what_lies_near_them() {
    replay::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz"), &targets::ALL);
}
