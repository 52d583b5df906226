//! `edge completions` and `edge man`: what the shell and `man` are to know of the commands, made from their arguments.

use std::{fs, io, path::PathBuf, process::ExitCode};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::observe::say;

/// Which shell.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    shell: Shell,
}

/// Prints a script that the shell reads.
pub fn completions(CompletionsArguments { shell }: &CompletionsArguments, mut command: Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut command, "edge", &mut script);
    say::result(String::from_utf8_lossy(&script).trim_end());
    ExitCode::SUCCESS
}

/// Where the pages go.
#[derive(Debug, Args)]
pub struct ManArguments {
    /// Made if it is not there; as in /usr/local/share/man/man1
    folder: PathBuf,
}

/// Writes a page for the program and one for each command.
pub fn man(ManArguments { folder }: &ManArguments, command: Command) -> ExitCode {
    let written = fs::create_dir_all(folder).and_then(|()| {
        let mut command = command;
        command.build();
        let mut names = Vec::new();
        for (name, command) in pages(&command) {
            let mut page = Vec::new();
            Man::new(command).title(name.clone()).render(&mut page)?;
            fs::write(folder.join(format!("{name}.1")), page)?;
            names.push(name);
        }
        Ok::<_, io::Error>(names)
    });
    match written {
        Ok(names) => {
            say::result(format_args!("{}: {} pages", folder.display(), names.len()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say::complaint(format_args!("{} cannot be written to: {error}", folder.display()));
            ExitCode::FAILURE
        }
    }
}

fn pages(command: &Command) -> Vec<(String, Command)> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let each = shown.map(|one| (format!("edge-{}", one.get_name()), one.clone()));
    [("edge".to_owned(), command.clone())].into_iter().chain(each).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            man(&ManArguments { folder: folder.path().join("man1") }, Cli::command()),
            ExitCode::SUCCESS
        );
        let page = |name: &str| fs::read_to_string(folder.path().join("man1").join(name)).unwrap();
        for (name, _) in pages(&Cli::command()).into_iter().skip(1) {
            assert!(page(&format!("{name}.1")).contains("Examples:"), "{name}");
        }
        assert!(page("edge.1").contains("purge"));
    }

    #[test]
    fn every_shell_has_a_script_that_knows_the_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "edge", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("config"), "{shell}");
        }
    }
}
