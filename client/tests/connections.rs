//! A client whose connection was closed while it was silent, as the daemon does it after minutes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use outgoingd_client::protocol::codec;
use outgoingd_client::protocol::frame::{self, HEADER_LEN, Header};
use outgoingd_client::protocol::message::Reply;
use outgoingd_client::{Client, Error};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::sync_channel;
use std::thread;

/// Reads one request.
fn hear(stream: &mut UnixStream) {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).unwrap();
    let length = Header::decode(&header).unwrap().length;
    stream.read_exact(&mut vec![0; length as usize]).unwrap();
}

/// Answers the one request of a connection, in words that name it, and hangs up.
fn serve(listener: &UnixListener, name: &str) {
    let (mut stream, _) = listener.accept().unwrap();
    hear(&mut stream);
    let reply = Reply::Settled { warning: Some(name.to_owned()) };
    stream.write_all(&frame::seal(&codec::encode(&reply).unwrap()).unwrap()).unwrap();
}

#[test]
fn a_client_whose_silent_connection_was_closed_connects_again_and_says_so_if_nobody_listens_any_more() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut client = Client::new(&socket);
    let (hung_up, closed) = sync_channel(1);
    let server = thread::spawn(move || {
        for name in ["first", "second"] {
            serve(&listener, name);
            hung_up.send(()).unwrap();
        }
    });
    for name in ["first", "second"] {
        assert_eq!(client.settle().unwrap().as_deref(), Some(name));
        closed.recv().unwrap();
    }
    server.join().unwrap();
    let refused = client.settle();
    assert!(matches!(refused, Err(Error::Unreachable { .. })), "{refused:?}");
}

#[test]
fn a_daemon_that_hangs_up_on_a_new_connection_is_asked_once() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut client = Client::new(&socket);
    let server = thread::spawn(move || {
        hear(&mut listener.accept().unwrap().0);
        listener
    });
    let lost = client.settle();
    assert!(matches!(lost, Err(Error::Lost { .. })), "{lost:?}");
    let listener = server.join().unwrap();
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "it came again");
}
