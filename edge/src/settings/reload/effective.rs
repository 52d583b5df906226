//! All settings as a file would have them, table by table.

use std::fmt;

/// The tables of a file.
#[derive(Debug)]
pub(super) struct EffectiveTables {
    /// The first has no header.
    tables: Vec<EffectiveTable>,
    /// Where the one begins that the next keys are of, with those within it.
    at: usize,
    left_out: &'static [&'static str],
}

#[derive(Debug, Default)]
struct EffectiveTable {
    header: String,
    name: String,
    lines: Vec<(String, Option<String>)>,
}

impl Default for EffectiveTables {
    fn default() -> Self {
        Self { tables: vec![EffectiveTable::default()], at: 0, left_out: &[] }
    }
}

impl EffectiveTables {
    /// Begins one of several tables: keys of this name, and of tables within it, are its own from here on.
    pub(super) fn begin(&mut self, header: String, name: &str) {
        self.at = self.tables.len();
        self.left_out = &[];
        self.tables.push(EffectiveTable { header, name: name.to_owned(), lines: Vec::new() });
    }

    /// Keys and tables of the present table that would be an error there.
    pub(super) fn leave_out(&mut self, keys: &'static [&'static str]) {
        self.left_out = keys;
    }

    /// A key with its value; `None` where it is there by not being written.
    pub(super) fn key(&mut self, table: &str, key: &str, value: Option<String>) {
        let present = &self.tables[self.at].name;
        let within = match table.strip_prefix(present.as_str()).and_then(|rest| rest.strip_prefix('.')) {
            Some(inner) => inner.split('.').next().unwrap_or_default(),
            None => key,
        };
        if self.left_out.contains(&within) {
            return;
        }
        let known = if table.is_empty() { Some(0) } else { None };
        let known = known.or_else(|| {
            let here = self.tables[self.at..].iter().position(|other| other.name == table);
            here.map(|place| self.at + place)
        });
        let place = known.unwrap_or_else(|| {
            let header = format!("[{table}]");
            self.tables.push(EffectiveTable { header, name: table.to_owned(), lines: Vec::new() });
            self.tables.len() - 1
        });
        self.tables[place].lines.push((key.to_owned(), value));
    }
}

impl fmt::Display for EffectiveTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, EffectiveTable { header, lines, .. }) in self.tables.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            let is_written = header.starts_with("[[") || lines.iter().any(|(_, value)| value.is_some());
            match header.as_str() {
                "" => {}
                header if is_written => writeln!(f, "{header}")?,
                header => writeln!(f, "# {header}")?,
            }
            for (key, value) in lines {
                match value {
                    Some(value) => writeln!(f, "{key} = {value}")?,
                    None => writeln!(f, "# {key}: not set")?,
                }
            }
        }
        Ok(())
    }
}
