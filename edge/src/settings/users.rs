//! Who may come in by a name and a password: a file of lines `name:hash`, as htpasswd writes it.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use argon2::password_hash::phc::PasswordHash;

/// The hashes of passwords by name. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Users(BTreeMap<Box<str>, HashText>);

/// A hash as the file has it, known to be one that can be asked.
#[derive(Clone, PartialEq, Eq)]
pub enum HashText {
    /// `$2b$..` and its kin.
    Bcrypt(Box<str>),
    /// `$argon2id$..` (RFC 9106) and its kin.
    Argon2(Box<str>),
}

impl fmt::Debug for Users {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

/// Bytes of the file.
const LARGEST_FILE: u64 = 1 << 20;
/// The work of a hash, as a power of two of rounds: more takes seconds for each password that is tried.
const MOST_BCRYPT_COST: u32 = 14;
/// Memory of a hash, in KiB.
const MOST_ARGON2_MEMORY: u32 = 256 << 10;
const MOST_ARGON2_PASSES: u32 = 16;

impl Users {
    /// Reads a file. Empty lines and those that begin with `#` are of no matter.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub(super) fn read(path: &Path) -> Result<Self, (String, String)> {
        let make = format!("make one: htpasswd -cB {} NAME", path.display());
        let told = |what: String, help: &str| (format!("{}{what}", path.display()), help.to_owned());
        let size = fs::metadata(path).map(|file| file.len()).unwrap_or_default();
        if size > LARGEST_FILE {
            return Err(told(" is larger than 1 MiB".to_owned(), "keep so many users in the app"));
        }
        let text =
            fs::read_to_string(path).map_err(|error| told(format!(" cannot be read: {error}"), &make))?;
        let mut users = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str, help: &str| told(format!(":{number}: {what}"), help);
            let (name, hash) =
                line.split_once(':').ok_or_else(|| wrong("is no line name:hash", "write name:hash"))?;
            let hash = HashText::new(hash).map_err(|(what, help)| wrong(what, help))?;
            if users.insert(name.into(), hash).is_some() {
                return Err(wrong("names a user a second time", "keep one of the two lines"));
            }
        }
        if users.is_empty() {
            return Err(told(" names nobody".to_owned(), &make));
        }
        Ok(Self(users))
    }

    /// The hash of a user's password.
    pub fn get(&self, name: &str) -> Option<&HashText> {
        self.0.get(name)
    }

    /// One of the hashes: what the name of nobody is compared with takes as long.
    pub fn any(&self) -> Option<&HashText> {
        self.0.values().next()
    }
}

impl HashText {
    fn new(text: &str) -> Result<Self, (&'static str, &'static str)> {
        const COSTLY: (&str, &str) =
            ("has a hash that takes too long", "use htpasswd -B with a cost of 14 at most");
        if let Ok(parts) = text.parse::<bcrypt::HashParts>() {
            return if parts.get_cost() > MOST_BCRYPT_COST {
                Err(COSTLY)
            } else {
                Ok(Self::Bcrypt(text.into()))
            };
        }
        match PasswordHash::new(text) {
            Ok(hash) if hash.algorithm.as_str().starts_with("argon2") => {
                let parameter = |name: &str| hash.params.get_decimal(name).unwrap_or_default();
                match parameter("m") > MOST_ARGON2_MEMORY || parameter("t") > MOST_ARGON2_PASSES {
                    true => Err((
                        "has a hash that takes too long",
                        "use argon2 with at most 256 MiB and 16 passes",
                    )),
                    false => Ok(Self::Argon2(text.into())),
                }
            }
            _ => Err((
                "has a hash that is neither bcrypt nor argon2",
                "write it with htpasswd -B, which uses bcrypt",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$05$Gr59V42/rB77oBsb7TRVgeXLCkKpibIlsFBQgwTqPBEsTwgrH.L.G";

    fn read(text: &str) -> Result<Users, (String, String)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Users::read(file.path())
    }

    #[test]
    fn lines_of_htpasswd_are_read_and_no_hash_is_shown() {
        let argon2 =
            "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmUu$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let users = read(&format!("# staff\n\nada:{BCRYPT}\ngrace:{argon2}\n")).unwrap();
        assert!(matches!(users.get("ada"), Some(HashText::Bcrypt(_))));
        assert!(matches!(users.get("grace"), Some(HashText::Argon2(_))));
        assert!(users.get("eve").is_none());
        assert_eq!(format!("{users:?}"), "{\"ada\", \"grace\"}");
    }

    #[test]
    fn what_cannot_be_asked_is_told_with_its_line() {
        for (text, told) in [
            ("", " names nobody"),
            ("ada", ":1: is no line name:hash"),
            ("\nada:secret", ":2: has a hash that is neither bcrypt nor argon2"),
            ("ada:$apr1$a$b", ":1: has a hash that is neither bcrypt nor argon2"),
            (&format!("ada:{}", BCRYPT.replace("$05$", "$31$")), ":1: has a hash that takes too long"),
            (&format!("a:{BCRYPT}\na:{BCRYPT}"), ":2: names a user a second time"),
        ] {
            let (said, _) = read(text).unwrap_err();
            assert!(said.ends_with(told), "{said}");
        }
    }
}
