//! The programs that the edge runs.

use std::{sync::Arc, thread};

use super::{Resolver, Span, bytes, duration};
use crate::settings::{
    Command, CommandListen,
    file::WrittenCommand,
    value::{Ready, Text, Written},
};

impl Resolver<'_> {
    pub(super) fn command(&mut self, name: &Arc<str>, span: Span, written: WrittenCommand) -> Command {
        const EXAMPLE: &str = "[\"target/release/origin\", \"serve\"]";
        let words = self.list(written.run, &span, "run", EXAMPLE);
        let mut command = Command::new(name, Vec::with_capacity(words.len()));
        command.listen = self.or(written.listen, command.listen);
        for (place, Text(word)) in words {
            self.check_placeholders(place, &word, command.listen);
            command.run.push(word);
        }
        command.directory = written.directory.and_then(|directory| self.value(directory));
        command.env_file = written.env_file.and_then(|file| self.value(file));
        command.user = written.user.and_then(|user| self.value(user)).map(|user| user.0);
        command.group = written.group.and_then(|group| self.value(group)).map(|group| group.0);
        command.admin_port = written.admin_port.and_then(|name| self.admin_port(name, command.listen));
        command.metrics = written.metrics.and_then(|path| self.value(path)).map(|path| path.0.into());
        for (variable, value) in written.environment {
            let name = variable.get_ref();
            if name == command.listen.variable() || Some(name) == command.admin_port.as_ref() {
                let message = format!("{name} is set by the edge, for each instance its own");
                self.fault(variable.span(), message, "leave it out");
            } else if name.is_empty() || name.contains('=') {
                let message = format!("{name:?} is no name of a variable");
                self.fault(variable.span(), message, "write a name such as RUST_LOG");
            }
            if let Some(value) = self.value(value) {
                command.environment.insert(variable.into_inner(), value);
            }
        }
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let instances = written.instances.and_then(|instances| self.value(instances));
        command.instances = instances.map_or(command.instances, |instances| instances.on(cores()));
        command.output = self.or(written.output, command.output);
        command.memory = written.memory.and_then(|memory| self.value(bytes(memory)));
        command.watch = written.watch.into_iter().filter_map(|path| self.value(path)).collect();
        command.ready = match written.ready.and_then(|ready| self.value(ready)) {
            Some(Ready::Tcp) => None,
            Some(Ready::Path(path)) => Some(path),
            None => command.ready,
        };
        command.ready_interval = self.or(written.ready_interval.map(duration), command.ready_interval);
        command.ready_timeout = self.or(written.ready_timeout.map(duration), command.ready_timeout);
        command.ready_probe_timeout =
            self.or(written.ready_probe_timeout.map(duration), command.ready_probe_timeout);
        command.stop_signal = self.or(written.stop_signal, command.stop_signal);
        command.stop_timeout = self.or(written.stop_timeout.map(duration), command.stop_timeout);
        command
    }

    fn admin_port(&mut self, written: Written<Text>, listen: CommandListen) -> Option<String> {
        let place = written.span.clone();
        let name = self.value(written)?.0;
        let message = if name == listen.variable() {
            format!("{name} tells instances already where to listen for requests")
        } else if name.contains(['=', '\0']) {
            format!("{name:?} is no name of a variable")
        } else {
            return Some(name);
        };
        self.fault(place, message, "write another name, such as ADMIN_PORT");
        None
    }

    /// Whether a word of `run` names a place that the instance does not have: the program would get it as it is written.
    fn check_placeholders(&mut self, place: Span, word: &str, listen: CommandListen) {
        let all = [CommandListen::Port, CommandListen::Unix, CommandListen::Shared];
        let others = all.into_iter().filter(|other| *other != listen).map(CommandListen::placeholder);
        for other in others.filter(|other| word.contains(other)) {
            let message = format!("{other} stands for nothing: instances have a {}", listen.variable());
            let help = format!("write {}, or change `listen`", listen.placeholder());
            self.fault(place.clone(), message, help);
        }
    }
}
