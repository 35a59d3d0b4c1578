//! Who exists: accounts, and which account owns which domain. Parsing is pure; [`Accounts::load`] and [`load_owners`] read
//! the places that the configuration names, and [`Accounts::has`] may ask NSS. Nothing of this is on the way of a lookup,
//! which sees the owners in the table.

use crate::config::{self, Source};
use crate::name;
use crate::table::Owners;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The accounts that flags may be set on.
#[derive(Debug)]
pub enum Accounts {
    /// Whatever NSS knows as a user; asked each time, so there is nothing to go stale.
    Passwd,
    /// Every name: accounts are somebody else's business.
    Any,
    /// These, in normal form, from this file or directory.
    Listed(HashSet<Box<str>>, PathBuf),
}

/// Why a list could not be read. The last good one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system would not let it be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing in it any more.
    #[error("{} is empty and had {before} domains before; if that is right, restart outgoingd", path.display())]
    Emptied {
        /// The file.
        path: PathBuf,
        /// How many domains it had.
        before: usize,
    },
    /// A line is not what it should be.
    #[error("{}, line {line}: \"{}\" {why}", path.display(), text.escape_debug())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Accounts {
    /// Reads the list that the configuration names.
    ///
    /// # Errors
    ///
    /// The list cannot be read or a line of it is no account.
    pub fn load(config: &config::Accounts) -> Result<Accounts, DirectoryError> {
        match (config.source, &config.path) {
            (Source::Any, _) => Ok(Accounts::Any),
            (Source::File, Some(path)) => {
                parse_accounts(&read(path)?, path).map(|accounts| Accounts::Listed(accounts, path.clone()))
            }
            (Source::Directory, Some(path)) => entries(path).map(|accounts| Accounts::Listed(accounts, path.clone())),
            // A configuration that was validated has a path where it needs one.
            (Source::Passwd | Source::File | Source::Directory, _) => Ok(Accounts::Passwd),
        }
    }

    /// Whether there is an account of this name, which is in normal form. May wait for NSS.
    ///
    /// # Errors
    ///
    /// NSS failed.
    pub fn has(&self, account: &str) -> io::Result<bool> {
        match self {
            Accounts::Passwd => Ok(nix::unistd::User::from_name(account)?.is_some()),
            Accounts::Any => Ok(true),
            Accounts::Listed(accounts, _) => Ok(accounts.contains(account)),
        }
    }

    /// Where an account would have to be for [`Accounts::has`] to find it.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Accounts::Passwd | Accounts::Any => "the system's user database".to_owned(),
            Accounts::Listed(_, path) => path.display().to_string(),
        }
    }
}

/// Reads the domain-owner map at `path`, in the place of `present`.
///
/// # Errors
///
/// The map cannot be read, a line of it is not `domain: account`, or it has become empty, as a file has that is being
/// written.
pub fn load_owners(path: &Path, present: &Owners) -> Result<Owners, DirectoryError> {
    let owners = parse_owners(&read(path)?, path)?;
    if owners.is_empty() && !present.is_empty() {
        return Err(DirectoryError::Emptied { path: path.to_path_buf(), before: present.len() });
    }
    Ok(owners)
}

fn read(path: &Path) -> Result<String, DirectoryError> {
    fs::read_to_string(path).map_err(|source| DirectoryError::Io { path: path.to_path_buf(), source })
}

/// The names of the entries of a directory with one file for each account, as in `/var/cpanel/users`.
fn entries(path: &Path) -> Result<HashSet<Box<str>>, DirectoryError> {
    let io = |source| DirectoryError::Io { path: path.to_path_buf(), source };
    let mut accounts = HashSet::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        // What is no account name (a backup, an editor's file) is no account.
        if let Some(Ok(account)) = name.to_str().filter(|name| !name.starts_with('.')).map(name::account) {
            accounts.insert(account.into());
        }
    }
    Ok(accounts)
}

/// One account a line; empty lines and lines that start with `#` do not count.
pub(crate) fn parse_accounts(text: &str, path: &Path) -> Result<HashSet<Box<str>>, DirectoryError> {
    lines(text)
        .map(|(line, text)| match name::account(text) {
            Ok(account) if !account.contains('@') => Ok(account.into()),
            Ok(_) => Err(malformed(path, line, text, "is no account name")),
            Err(error) => Err(malformed(path, line, text, &error.to_string())),
        })
        .collect()
}

/// One `domain: account` a line; empty lines and lines that start with `#` do not count, and neither does cPanel's
/// `*: nobody`, which speaks of no domain.
pub(crate) fn parse_owners(text: &str, path: &Path) -> Result<Owners, DirectoryError> {
    let mut owners = Owners::new();
    for (line, text) in lines(text) {
        let (domain, account) =
            text.split_once(':').ok_or_else(|| malformed(path, line, text, "is not \"domain: account\""))?;
        let why = |error: name::NameError| malformed(path, line, text, &error.to_string());
        let domain = name::domain(domain).map_err(why)?;
        if domain != "*" {
            owners.insert(domain.into(), name::account(account).map_err(why)?.into());
        }
    }
    Ok(owners)
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn malformed(path: &Path, line: usize, text: &str, why: &str) -> DirectoryError {
    // A line that is not what it should be may be anything, so not all of it goes into a log.
    let text = text.chars().take(80).collect();
    DirectoryError::Line { path: path.to_path_buf(), line, text, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_map_is_read_as_cpanel_writes_it() {
        let owners =
            parse_owners("# map\n\nExample.COM: Alice\nb\u{fc}cher.example: bob\n*: nobody\n", Path::new("m")).unwrap();
        assert_eq!(owners.len(), 2);
        assert_eq!(&*owners["example.com"], "alice");
        assert_eq!(&*owners["xn--bcher-kva.example"], "bob");
    }

    #[test]
    fn a_wrong_line_is_named_with_its_file_and_number() {
        let error = parse_owners("a.example: x\nno colon here\n", Path::new("/etc/userdomains")).unwrap_err();
        assert_eq!(error.to_string(), "/etc/userdomains, line 2: \"no colon here\" is not \"domain: account\"");
        let error = parse_accounts("alice\nbob carol\n", Path::new("f")).unwrap_err();
        assert_eq!(error.to_string(), "f, line 2: \"bob carol\" has a space in it");
    }

    #[test]
    fn the_line_of_no_domain_is_passed_over_however_it_is_spelled() {
        for line in ["*: nobody", " * : nobody", "*.:", "\u{ff0a}: nobody"] {
            assert_eq!(parse_owners(line, Path::new("m")).unwrap(), Owners::new(), "{line}");
        }
    }

    #[test]
    fn a_directory_lists_an_account_for_each_entry() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["alice", "Bob", ".cache"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let accounts =
            Accounts::load(&config::Accounts { source: Source::Directory, path: Some(directory.path().into()) })
                .unwrap();
        assert!(accounts.has("alice").unwrap() && accounts.has("bob").unwrap());
        assert!(!accounts.has("carol").unwrap() && !accounts.has(".cache").unwrap());
    }

    #[test]
    fn the_system_knows_its_users() {
        assert!(Accounts::Passwd.has("root").unwrap());
        assert!(!Accounts::Passwd.has("no-such-user-here").unwrap());
    }
}
