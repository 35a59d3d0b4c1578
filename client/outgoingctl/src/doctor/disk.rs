//! Room on a disk: a state that cannot be written refuses changes, and a queue that cannot be written refuses mail.

use super::report::Finding;
use rustix::io::Errno;
use std::path::Path;

/// Less than this part of a hundred is little.
const LITTLE_PART: u64 = 5;

/// And so is less than this, in bytes.
const LITTLE: u64 = 100 << 20;

/// What is left where `directory` is; `gone` is what to do if it is not there.
pub(super) fn space(directory: &Path, gone: &str) -> Finding {
    let shown = directory.display();
    let stat = match rustix::fs::statvfs(directory) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR) => return Finding::failed(format!("there is no directory {shown}"), gone),
        Err(error @ (Errno::ACCESS | Errno::PERM)) => {
            return Finding::unknown(format!("cannot look at {shown}: {error}"), "run it as root");
        }
        Err(error) => {
            let advice = format!("mend the file system of {shown}: the kernel's log says more");
            return Finding::failed(format!("cannot look at {shown}: {error}"), advice);
        }
    };
    let (bytes, all) = (stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize));
    let part = |left: u64, all: u64| left.saturating_mul(100).checked_div(all).unwrap_or(100);
    let (room, files) = (part(bytes, all), part(stat.f_favail, stat.f_files));
    let found = format!("{shown}: {} MiB free, {room} %", bytes >> 20);
    if bytes < LITTLE || room < LITTLE_PART {
        Finding::warning(found, format!("make room on the file system of {shown}"))
    } else if files < LITTLE_PART {
        let found = format!("{found}, and {files} % of its inodes");
        Finding::warning(found, format!("remove files from the file system of {shown}: it runs out of inodes"))
    } else {
        Finding::ok(found)
    }
}
