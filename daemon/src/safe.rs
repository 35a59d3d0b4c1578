//! Directories in which nobody else can put something in our way.
//!
//! The state file, the fallback file and a socket of our own are made, replaced and removed by name. Whoever else can make or
//! rename names there could have the daemon follow a link, read a state that it never wrote, or answer Exim in its place.
//! So the directory must be the daemon's or root's and writable by nobody else, and each one above it too, where those may also be
//! sticky, as /tmp is.
//!
//! Honest limit: it is looked at once, at the start; root, and whoever runs as the daemon's own user, may do anything anyway.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes a directory with these permissions, if there is none; sees to it that it is safe. Returns its path without any link in it,
/// by which it is to be called from then on: a link may be made to point elsewhere.
///
/// # Errors
///
/// It cannot be made (its parent must exist), or somebody else could change what is in it: then it is no error of the system's
/// ([`io::Error::raw_os_error`]).
pub fn directory(path: &Path, mode: u32) -> io::Result<PathBuf> {
    if !path.exists()
        && let (Some(parent), Some(name)) = (path.parent(), path.file_name())
    {
        let parent = parent.canonicalize()?;
        examine(&parent, Place::Above)?;
        let new = parent.join(name);
        match DirBuilder::new().mode(mode).create(&new) {
            // The process's mask may have taken from it.
            Ok(()) => fs::set_permissions(&new, Permissions::from_mode(mode))?,
            // Somebody who may has been quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    let real = path.canonicalize()?;
    examine(&real, Place::Itself)?;
    Ok(real)
}

/// Looks at a directory and at all above it.
fn examine(directory: &Path, place: Place) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    for (level, directory) in directory.ancestors().enumerate() {
        let place = if level == 0 { place } else { Place::Above };
        let there = fs::metadata(directory)?;
        if !there.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                format!("{} is no directory", directory.display()),
            ));
        }
        if let Some(danger) = danger(place, there.uid(), there.mode(), own) {
            let message = format!("{} {danger}", directory.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
    }
    Ok(())
}

/// Takes all permissions from everybody else.
///
/// # Errors
///
/// It is not ours.
pub fn keep_private(directory: &Path) -> io::Result<()> {
    let others = fs::metadata(directory)?.mode() & 0o077;
    if others == 0 { Ok(()) } else { fs::set_permissions(directory, Permissions::from_mode(0o700)) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Itself,
    Above,
}

/// Who else could put something into a directory with this owner and mode.
fn danger(place: Place, owner: u32, mode: u32, own: u32) -> Option<String> {
    let sticky = mode & 0o1000 != 0 && place == Place::Above;
    if owner != own && owner != 0 {
        Some(format!(
            "belongs to uid {owner}, who could put another file in the place of outgoingd's; outgoingd runs as uid {own}"
        ))
    } else if mode & 0o022 != 0 && !sticky {
        Some("may be written by its group or by everybody, who could put another file in the place of outgoingd's: chmod go-w it".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_our_own_or_of_root_is_safe_and_anybody_elses_is_not() {
        for place in [Place::Itself, Place::Above] {
            assert_eq!(danger(place, 998, 0o755, 998), None);
            assert_eq!(danger(place, 0, 0o755, 998), None);
            assert!(danger(place, 1000, 0o755, 998).unwrap().contains("uid 1000"));
            assert!(danger(place, 998, 0o755, 0).is_some(), "root does not write where somebody else may put links");
        }
    }

    #[test]
    fn a_directory_that_others_may_write_is_not_safe_but_for_a_sticky_one_above() {
        for mode in [0o775, 0o757, 0o777] {
            assert!(danger(Place::Itself, 0, mode, 998).is_some());
            assert!(danger(Place::Above, 0, mode, 998).is_some());
            assert!(danger(Place::Itself, 0, mode | 0o1000, 998).is_some());
            assert_eq!(danger(Place::Above, 0, mode | 0o1000, 998), None);
        }
        assert_eq!(danger(Place::Itself, 998, 0o2750, 998), None);
    }
}
