//! How instances are started, and where their output goes.

use std::{
    fmt,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
};

/// Where the output of instances goes, one or more whole lines at a time. It may block.
pub type Output = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// How instances are started.
#[derive(Clone)]
pub struct Launcher {
    /// The edge's program (an absolute path), whose `supervised` command starts the instance.
    pub program: PathBuf,
    /// Where their output goes.
    pub output: Output,
}

impl Launcher {
    /// Starts instances through the running program, also when its file has been replaced; output goes to stderr.
    #[must_use]
    pub fn this_program() -> Self {
        let output: Output = Arc::new(|lines| {
            // Nothing can be reported when stderr is closed.
            let _ = io::stderr().lock().write_all(lines);
        });
        Self { program: PathBuf::from("/proc/self/exe"), output }
    }
}

impl fmt::Debug for Launcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Launcher").field("program", &self.program).finish_non_exhaustive()
    }
}
