//! Messages that the test bed puts into the spool are to Exim as if it had taken them itself.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use xtask::testbed::{Bed, Delivery, Exim, Letter, Outside, Queued};

const FRIENDS: [&str; 3] = ["ann@outside.test", "ben@outside.test", "cis@outside.test"];

/// Each message is listed as it is, is delivered to whom it still has to go, and leaves nothing.
fn is_taken_for_real(exim: &Exim, outside: &Outside, message: &Queued, remaining: &[&str]) -> Result<()> {
    let before = outside.count();
    let (delivered, removed) = (exim.enqueue(message)?, exim.enqueue(message)?);
    for id in [&delivered, &removed] {
        let listed = exim.queued(id)?.with_context(|| format!("{id} is not listed"))?;
        assert_eq!(listed.remaining, remaining, "{message:?}");
    }
    exim.deliver(&delivered)?;
    let received = outside.received().split_off(before);
    let mut recipients: Vec<String> = received.into_iter().flat_map(|message| message.recipients).collect();
    recipients.sort();
    assert_eq!(recipients, remaining, "{message:?}");
    let gone = exim.exim(&["-Mrm", &removed])?;
    assert!(gone.stdout.contains("has been removed"), "{gone:?}");
    assert_eq!(exim.queue()?, []);
    assert_eq!(files(exim)?, Vec::<PathBuf>::new());
    assert_eq!(exim.panic_log()?, "");
    Ok(())
}

/// What is left in the directories of the queue and of the messages' logs.
fn files(exim: &Exim) -> Result<Vec<PathBuf>> {
    let (mut found, mut directories) = (Vec::new(), vec![exim.spool().join("input"), exim.spool().join("msglog")]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() { directories.push(path) } else { found.push(path) }
        }
    }
    Ok(found)
}

#[test]
fn a_message_with_one_recipient_is_listed_delivered_and_removed() -> Result<()> {
    let bed = Bed::start()?;
    is_taken_for_real(&bed.exim, &bed.outside, &Queued::new("alice", &FRIENDS[..1]), &FRIENDS[..1])?;
    let received = bed.outside.received();
    assert_eq!(received[0].sender, "alice@local.test");
    assert!(received[0].data.contains("\nSubject: good morning\n"), "{received:?}");
    assert!(received[0].data.ends_with("\n\nGood morning.\n"), "{received:?}");
    Ok(())
}

#[test]
fn so_are_messages_with_several_recipients_of_whom_some_have_it() -> Result<()> {
    let bed = Bed::start()?;
    let message = || Queued::new("alice", &FRIENDS);
    is_taken_for_real(&bed.exim, &bed.outside, &message(), &FRIENDS)?;
    is_taken_for_real(&bed.exim, &bed.outside, &message().delivered(&FRIENDS[..1]), &FRIENDS[1..])?;
    is_taken_for_real(&bed.exim, &bed.outside, &message().delivered(&FRIENDS[..2]), &FRIENDS[2..])?;
    is_taken_for_real(&bed.exim, &bed.outside, &message().journalled(&FRIENDS[..2]), &FRIENDS[2..])?;
    let both = message().delivered(&FRIENDS[..1]).journalled(&FRIENDS[1..2]);
    is_taken_for_real(&bed.exim, &bed.outside, &both, &FRIENDS[2..])
}

#[test]
fn a_hundred_recipients_half_of_whom_have_it_are_told_apart() -> Result<()> {
    let bed = Bed::start()?;
    let everybody: Vec<String> = (0..100).map(|number| format!("friend{number:02}@outside.test")).collect();
    let everybody: Vec<&str> = everybody.iter().map(String::as_str).collect();
    let message = Queued::new("alice", &everybody).delivered(&everybody[..50]);
    is_taken_for_real(&bed.exim, &bed.outside, &message, &everybody[50..])
}

#[test]
fn so_are_messages_whose_recipients_have_more_in_their_lines() -> Result<()> {
    let bed = Bed::start()?;
    let notify = Queued::new("alice", &FRIENDS).notify().delivered(&FRIENDS[..1]);
    is_taken_for_real(&bed.exim, &bed.outside, &notify, &FRIENDS[1..])?;
    let list = Queued::new("alice", &["list@local.test"])
        .list_member(FRIENDS[0], "owner@local.test")
        .list_member(FRIENDS[1], "owner@local.test");
    is_taken_for_real(&bed.exim, &bed.outside, &list, &FRIENDS[..2])?;
    assert_eq!(bed.outside.received().last().context("nothing came")?.sender, "owner@local.test");
    Ok(())
}

#[test]
fn so_are_messages_of_other_senders_ages_and_sizes() -> Result<()> {
    let bed = Bed::start()?;
    let message = |identity| Queued::new(identity, &FRIENDS[..1]);
    let cases = [
        message("alice").sender("someone@else.test"),
        message("bob@shop.test"),
        message("").sender("visitor@else.test"),
        message("jörg").sender("alice@local.test"),
        message("alice").before_the_snippets(),
        message("alice").verdict("hold"),
        message("alice").age(Duration::from_secs(100_000)),
        message("alice").body_size(0),
        message("alice").body_size(100_000),
    ];
    for case in &cases {
        is_taken_for_real(&bed.exim, &bed.outside, case, &FRIENDS[..1])?;
    }
    let id = bed.exim.enqueue(&cases[6])?;
    let listed = bed.exim.queued(&id)?.context("not listed")?;
    assert_eq!(listed.age, Duration::from_secs(28 * 60 * 60), "as Exim rounds it");
    Ok(())
}

#[test]
fn so_are_messages_in_a_spool_that_is_split() -> Result<()> {
    let bed = Bed::varied(|exim| exim.main("split_spool_directory = true"))?;
    is_taken_for_real(&bed.exim, &bed.outside, &Queued::new("alice", &FRIENDS), &FRIENDS)?;
    let made = bed.exim.enqueue(&Queued::new("alice", &FRIENDS))?;
    let letter = Letter::new("alice@local.test", &FRIENDS);
    let taken = bed.exim.submit_as("alice", &letter, Delivery::Queued)?.accepted()?;
    for id in [made, taken] {
        let directory = bed.exim.spool().join("input").join(&id[5..6]);
        assert!(directory.join(format!("{id}-H")).is_file(), "{id}: {:?}", files(&bed.exim)?);
    }
    Ok(())
}

#[test]
fn a_frozen_message_stays_until_it_is_thawed() -> Result<()> {
    let bed = Bed::start()?;
    let id = bed.exim.enqueue(&Queued::new("alice", &FRIENDS[..1]).frozen())?;
    bed.exim.run_queue("-q")?;
    assert!(bed.exim.queued(&id)?.is_some_and(|message| message.frozen));
    assert_eq!(bed.outside.count(), 0);
    let thawed = bed.exim.exim(&["-Mt", &id])?;
    assert!(thawed.stdout.contains("is no longer frozen"), "{thawed:?}");
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.outside.recipients(), FRIENDS[..1]);
    assert_eq!(bed.exim.panic_log()?, "");
    Ok(())
}

/// A named queue is another queue: each command sees the one that it names, or else the usual one.
#[test]
fn a_message_on_a_named_queue_is_seen_by_commands_that_name_it() -> Result<()> {
    for more in ["", "split_spool_directory = true"] {
        let bed = Bed::varied(|exim| exim.main(more))?;
        let message = || Queued::new("alice", &FRIENDS[..1]);
        let (usual, slow, gone) = (
            bed.exim.enqueue(&message())?,
            bed.exim.enqueue(&message().on_queue("slow"))?,
            bed.exim.enqueue(&message().on_queue("slow"))?,
        );
        let listed = |arguments: &[&str]| -> Result<BTreeSet<String>> {
            let listing = bed.exim.exim(arguments)?.stdout;
            Ok(listing.lines().filter(|line| line.contains('<')).map(|line| line[10..26].to_owned()).collect())
        };
        assert_eq!(listed(&["-bp"])?, BTreeSet::from([usual.clone()]));
        let both = BTreeSet::from([slow.clone(), gone.clone()]);
        for arguments in [&["-qGslow", "-bp"], &["-bp", "-qGslow"], &["-bpr", "-qGslow"]] {
            assert_eq!(listed(arguments)?, both, "{arguments:?}");
        }
        bed.exim.deliver(&slow)?;
        assert_eq!(bed.outside.count(), 0, "not named, not found");
        bed.exim.exim(&["-qGslow", "-Mrm", &gone])?;
        bed.exim.exim(&["-qGslow", "-Mc", &slow])?;
        assert_eq!(bed.outside.count(), 1);
        assert_eq!(listed(&["-qGslow", "-bp"])?, BTreeSet::new());
        bed.exim.deliver(&usual)?;
        assert_eq!(bed.outside.count(), 2);
        assert_eq!(bed.exim.panic_log()?, "");
    }
    Ok(())
}

/// The header file with every number as 0, without the message's own names and the shape of the tree.
fn shape(exim: &Exim, id: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(exim.spool().join(format!("input/{id}-H")))?.replace(id, "ID");
    let is_in_tree = |line: &&str| ["YY ", "YN ", "NY ", "NN "].iter().any(|mark| line.starts_with(mark));
    let (mut tree, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(is_in_tree);
    // The same addresses make another tree when they come in another order.
    tree.sort_by_key(|line| &line[3..]);
    let names = tree.iter().map(|line| &line[3..]);
    let lines = lines.into_iter().filter(|line| !line.to_lowercase().contains("message-id"));
    Ok(names
        .chain(lines)
        .map(|line| {
            let mut shape = String::new();
            for character in line.chars() {
                match character {
                    '0'..='9' if shape.ends_with('0') => {}
                    '0'..='9' => shape.push('0'),
                    _ => shape.push(character),
                }
            }
            // A later Exim may have a third number.
            shape.replace("Exim 0.0.0)", "Exim 0.0)")
        })
        .collect())
}

#[test]
fn what_is_made_has_the_files_of_a_message_that_exim_has_taken() -> Result<()> {
    let bed = Bed::start()?;
    for recipients in [&FRIENDS[..1], &FRIENDS] {
        let letter = Letter::new("alice@local.test", recipients);
        let taken = bed.exim.submit_as("alice", &letter, Delivery::Queued)?.accepted()?;
        let made = bed.exim.enqueue(&Queued::new("alice", recipients).subject("letter 1"))?;
        assert_eq!(shape(&bed.exim, &made)?, shape(&bed.exim, &taken)?);
        for file in ["H", "D"] {
            let path = |id: &str| bed.exim.spool().join(format!("input/{id}-{file}"));
            let (made, taken) = (fs::metadata(path(&made))?, fs::metadata(path(&taken))?);
            assert_eq!((made.mode(), made.uid(), made.gid()), (taken.mode(), taken.uid(), taken.gid()));
        }
        let data = |id: &str| fs::read_to_string(bed.exim.spool().join(format!("input/{id}-D")));
        assert_eq!(data(&made)?.replace(&made, ""), data(&taken)?.replace(&taken, ""));
    }
    Ok(())
}

#[test]
fn what_is_made_partly_delivered_has_the_header_file_that_exim_leaves() -> Result<()> {
    let bed = Bed::start()?;
    let recipients = ["Ann@Outside.TEST", "ben@outside.test", "cis@outside.test", "dot@local.test"];
    bed.outside.refuse("ben@outside.test", "450 not now");
    let letter = Letter::new("alice@local.test", &recipients);
    let taken = bed.exim.submit_as("alice", &letter, Delivery::AtOnce)?.accepted()?;
    assert_eq!(bed.waiting(&taken)?, ["ben@outside.test"]);
    let done = [recipients[0], recipients[2], recipients[3]];
    let made = bed.exim.enqueue(&Queued::new("alice", &recipients).delivered(&done).subject("letter 1"))?;
    assert_eq!(shape(&bed.exim, &made)?, shape(&bed.exim, &taken)?);
    bed.exim.freeze(&taken)?;
    let frozen = Queued::new("alice", &recipients).delivered(&done).subject("letter 1").frozen();
    let frozen = bed.exim.enqueue(&frozen)?;
    assert_eq!(shape(&bed.exim, &frozen)?, shape(&bed.exim, &taken)?);
    Ok(())
}

#[test]
fn thousands_are_made_each_from_its_number() -> Result<()> {
    let exim = Exim::builder().main("split_spool_directory = true").start()?;
    let ids = exim.fill_queue(5_000, |number| {
        let age = Duration::from_secs(number as u64 % 60);
        Queued::new(&format!("user{number}"), &FRIENDS[..1]).age(age)
    })?;
    let queue = exim.queue()?;
    assert_eq!(queue.len(), 5_000);
    let listed: BTreeSet<(&str, &str)> = queue.iter().map(|message| (&*message.id, &*message.sender)).collect();
    for (number, id) in ids.iter().enumerate() {
        assert!(listed.contains(&(id.as_str(), format!("user{number}@local.test").as_str())), "{id}");
    }
    assert_eq!(exim.panic_log()?, "");
    Ok(())
}
