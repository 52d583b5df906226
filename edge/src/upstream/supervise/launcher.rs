//! How instances are started, and where their output goes.

use std::{fmt, path::PathBuf, sync::Arc};

use crate::observe::own_log::OwnLog;

/// Where the output of instances goes: an instance's name and one line, without its end. It must not block.
pub type Output = Arc<dyn Fn(&str, &[u8]) + Send + Sync>;

/// How instances are started.
#[derive(Clone)]
pub struct Launcher {
    /// The edge's program (an absolute path), whose `supervised` command starts the instance.
    pub program: PathBuf,
    /// Where their output goes.
    pub output: Output,
}

impl Launcher {
    /// Starts instances through the running program, also when its file has been replaced; output goes to its log.
    #[must_use]
    pub fn this_program(log: &Arc<OwnLog>) -> Self {
        let log = Arc::clone(log);
        let output: Output = Arc::new(move |name, line| log.instance(name, line));
        Self { program: PathBuf::from("/proc/self/exe"), output }
    }
}

impl fmt::Debug for Launcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Launcher").field("program", &self.program).finish_non_exhaustive()
    }
}
