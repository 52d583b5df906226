//! An error and its causes in one line, each told once.

/// The error, then its causes. A cause whose text is in what has been said already is left out: an error that ends with a
/// remedy names its cause within.
#[must_use]
pub fn reasons(error: &anyhow::Error) -> String {
    let mut told = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !told.contains(&cause) {
            told.push_str(": ");
            told.push_str(&cause);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read it: {source}; correct the path")]
    struct Unread {
        source: io::Error,
    }

    #[test]
    fn a_cause_that_is_told_already_is_not_told_again() {
        let cause = || io::Error::from_raw_os_error(2);
        let error = anyhow::Error::from(Unread { source: cause() });
        assert_eq!(
            reasons(&error),
            "cannot read it: No such file or directory (os error 2); correct the path"
        );
        let error = Err::<(), _>(cause()).context("no token").unwrap_err();
        assert_eq!(reasons(&error), "no token: No such file or directory (os error 2)");
    }
}
