//! The floor: a server that does nothing but what the kernel takes.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use anyhow::Result;

/// As many threads as the daemon answers with.
const THREADS: usize = 2;

/// Accepts on plain threads, reads once, writes a constant, closes; until the process is ended.
pub fn serve(socket: &Path) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    let mut threads = Vec::new();
    for _ in 0..THREADS {
        let listener = listener.try_clone()?;
        threads.push(thread::spawn(move || accept_all(&listener)));
    }
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn accept_all(listener: &UnixListener) {
    let mut buffer = [0; 1024];
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(b"ok");
    }
}
