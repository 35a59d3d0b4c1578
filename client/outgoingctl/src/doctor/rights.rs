//! What keeps Exim's user from the socket or from the fallback file, and what opens the way to them for good.
//!
//! Looks at owners and modes as whoever runs us, and leaves what is right to systemd: units and tmpfiles lines say what socket and
//! directory are after the next boot too.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What gives socket and directory to Exim's group, for good. Packages have it.
const GIVE: &str = "/usr/lib/outgoingd/exim-group";

/// The directory that the tmpfiles line makes.
const DIRECTORY: &str = "/var/lib/outgoingd-exim";

/// What makes that directory as the line says.
const MAKE: &str = "systemd-tmpfiles --create outgoingd.conf";

/// The group of Exim's user.
pub(super) struct Group<'a> {
    pub(super) name: &'a str,
    /// None: Exim does not say it.
    pub(super) id: Option<u32>,
}

impl Group<'_> {
    fn has(&self, metadata: &Metadata) -> bool {
        self.id.is_none_or(|id| id == metadata.gid())
    }
}

/// Exim's user may not connect to the socket.
pub(super) fn to_socket(socket: &Path, group: &Group<'_>) -> String {
    if let Some(advice) = closed(socket.parent()) {
        return advice;
    }
    match fs::metadata(socket) {
        Ok(metadata) if !group.has(&metadata) && Path::new(GIVE).exists() => give(),
        _ => format!(
            "let the socket belong to group {} with mode 0660: SocketGroup= and SocketMode= in a drop-in (systemctl edit outgoingd.socket), then systemctl restart outgoingd.socket outgoingd.service",
            group.name
        ),
    }
}

/// Exim's user does not find the fallback file, or cannot read it.
pub(super) fn to_fallback(file: &Path, group: &Group<'_>) -> String {
    let directory = file.parent().unwrap_or(Path::new("/"));
    let (shown, name, is_usual) = (directory.display(), group.name, directory == Path::new(DIRECTORY));
    let restart = "systemctl restart outgoingd";
    if let Some(advice) = closed(directory.parent()) {
        return advice;
    }
    match fs::metadata(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound && is_usual => format!("{MAKE}; {restart}"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            format!("install -d -o outgoingd -g {name} -m 2750 {shown}; {restart}")
        }
        Ok(metadata) if is_usual && !group.has(&metadata) && Path::new(GIVE).exists() => give(),
        Ok(metadata) if is_usual && !group.has(&metadata) => {
            let line = format!("d {DIRECTORY} 2750 outgoingd {name} -");
            format!("let the only line of /etc/tmpfiles.d/outgoingd.conf be `{line}`; {MAKE}; {restart}")
        }
        Ok(metadata) if is_usual && metadata.mode() & 0o010 == 0 => format!("{MAKE}; {restart}"),
        Ok(metadata) if !group.has(&metadata) || metadata.mode() & 0o2010 != 0o2010 => {
            format!("chgrp {name} {shown}; chmod 2750 {shown}; {restart}")
        }
        _ => match fs::metadata(file) {
            Ok(metadata) if metadata.mode() & 0o040 == 0 => {
                format!("set fallback-mode = \"0640\" in /etc/outgoingd/outgoingd.toml; {restart}")
            }
            _ => format!("{restart}, which writes it anew"),
        },
    }
}

fn give() -> String {
    format!("{GIVE} (only if that changes nothing: {MAKE}; systemctl restart outgoingd.socket outgoingd.service)")
}

/// A directory on the way that not everybody may pass through.
fn closed(directory: Option<&Path>) -> Option<String> {
    let mut directories = directory?.ancestors();
    let is_closed = |directory: &&Path| fs::metadata(directory).is_ok_and(|found| found.mode() & 0o001 == 0);
    directories.find(is_closed).map(|directory| format!("chmod o+x {}", directory.display()))
}
