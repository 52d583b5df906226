//! What a fuzzer makes up, read as lines of text: seeds are files that people can read and write.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The lines that have not been read yet.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// The next line, without its end; empty where there is none.
    pub(crate) fn line(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|octet| *octet == b'\n').unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        line
    }

    /// The next line as text; none where it is no UTF-8.
    pub(crate) fn text(&mut self) -> &'a str {
        std::str::from_utf8(self.line()).unwrap_or_default()
    }

    /// The next line as a number: what it says, or one made of its octets.
    pub(crate) fn number(&mut self) -> u64 {
        let line = self.line();
        let said = std::str::from_utf8(line).ok().and_then(|text| text.parse().ok());
        said.unwrap_or_else(|| line.iter().fold(0, |number, octet| number << 8 | u64::from(*octet)))
    }

    /// The lines up to an empty one.
    pub(crate) fn lines(&mut self) -> Vec<&'a [u8]> {
        let mut lines = Vec::new();
        loop {
            match self.line() {
                [] => return lines,
                line => lines.push(line),
            }
        }
    }

    /// The fields up to an empty line, `name: value` each, of these names: another name stands for one of them.
    pub(crate) fn fields(&mut self, names: &[&'static str]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for line in self.lines() {
            let colon = line.iter().position(|octet| *octet == b':').unwrap_or(line.len());
            let (said, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default();
            let known = names.iter().find(|name| name.as_bytes() == said);
            let name =
                known.unwrap_or(&names[usize::from(said.first().copied().unwrap_or_default()) % names.len()]);
            if let Ok(value) = HeaderValue::from_bytes(value.trim_ascii_start()) {
                fields.append(HeaderName::from_static(name), value);
            }
        }
        fields
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}
