//! What a command tells the person who typed it. The one place that writes to the standard outputs directly: an output
//! that cannot be written to is nobody's to be told of, so its errors are ignored, and nothing here panics.

use std::{
    fmt,
    io::{self, Write as _},
};

/// The result, on standard output.
pub fn result(text: impl fmt::Display) {
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// What is wrong, on standard error.
pub fn complaint(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
