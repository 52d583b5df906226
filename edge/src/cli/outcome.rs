//! How commands end: what they have to tell goes to standard output, and why one has failed to standard error.

use std::{fmt::Display, process::ExitCode};

use crate::{message::reasons::reasons, observe::say};

/// Tells what came of a command, and with which exit code it ends.
pub(super) fn told(outcome: anyhow::Result<impl Display>) -> ExitCode {
    ended(outcome, |told| {
        say::result(told);
        ExitCode::SUCCESS
    })
}

/// As [`told`], where there is more to be said of what has been done.
pub(super) fn ended<T>(outcome: anyhow::Result<T>, done: impl FnOnce(T) -> ExitCode) -> ExitCode {
    match outcome {
        Ok(what) => done(what),
        Err(error) => {
            say::complaint(reasons(&error));
            ExitCode::FAILURE
        }
    }
}
