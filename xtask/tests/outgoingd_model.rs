//! The real daemon beside a model of a dozen lines: whatever commands, steps of the clock and restarts come in whatever order,
//! both give the same verdict to everybody, and list the same flags.
//!
//! The daemon's clock is the test's (libfaketime); each other part is as installed. A sequence that fails is made shorter.

use anyhow::{Context, Result, ensure};
use outgoingd_client::protocol::message::Kind;
use outgoingd_client::protocol::text::Verdict;
use outgoingd_client::{Client, Terms};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};
use xtask::testbed::Daemon;

/// What can be stopped. `shop.test` is alice's.
const SUBJECTS: [&str; 6] = ["alice", "carol", "bob@shop.test", "@shop.test", "@other.test", "*"];

/// Who sends, with and without a name in normal form.
const IDENTITIES: [&str; 8] =
    ["alice", " Alice", "carol", "bob@shop.test", "ann@SHOP.test", "eve@other.test", "dan@else.test", "root"];

const MESSAGES: [&str; 2] = ["1rABCD-000abc-XY", "1rABCE-000abc-XY"];

/// When it all begins.
const START: u64 = 1_800_000_000;

#[derive(Clone, Debug)]
enum Step {
    Set(&'static str, Kind, Option<u64>),
    Clear(&'static str, Kind),
    Pass(&'static str),
    Wait(u64),
    Restart,
    Kill,
}

/// All that there is to it.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    flags: BTreeMap<(&'static str, Kind), Option<u64>>,
    passes: BTreeSet<&'static str>,
}

impl Model {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Set(subject, kind, duration) => {
                self.flags.insert((subject, kind), duration.map(|duration| self.now + duration));
            }
            Step::Clear(subject, kind) => drop(self.flags.remove(&(subject, kind))),
            Step::Pass(message) => drop(self.passes.insert(message).then_some(())),
            Step::Wait(seconds) => self.now += seconds,
            Step::Restart | Step::Kill => {}
        }
    }

    fn verdict(&self, identity: &str, message: Option<&str>) -> Verdict {
        let name = identity.trim().to_lowercase();
        let domain = name.split_once('@').map(|(_, domain)| format!("@{domain}"));
        let owner = if domain.as_deref() == Some("@shop.test") { "alice" } else { "" };
        let covers = |subject: &str| ["*", owner, &name].contains(&subject) || domain.as_deref() == Some(subject);
        let is = |kind: Kind| self.in_force().any(|(subject, own)| own == kind && covers(subject));
        match () {
            () if name == "root" => Verdict::Ok,
            () if is(Kind::Suspend) => Verdict::Suspend,
            () if is(Kind::Hold) && !message.is_some_and(|message| self.passes.contains(message)) => Verdict::Hold,
            () => Verdict::Ok,
        }
    }

    fn in_force(&self) -> impl Iterator<Item = (&'static str, Kind)> {
        let lasting = self.flags.iter().filter(|(_, until)| until.is_none_or(|until| until > self.now));
        lasting.map(|((subject, kind), _)| (*subject, *kind))
    }
}

fn step() -> impl Strategy<Value = Step> {
    let subject = || prop::sample::select(&SUBJECTS[..]);
    let kind = || prop_oneof![Just(Kind::Hold), Just(Kind::Suspend)];
    let duration = prop::option::of(1_u64..120);
    prop_oneof![
        5 => (subject(), kind(), duration).prop_map(|(subject, kind, duration)| Step::Set(subject, kind, duration)),
        4 => (subject(), kind()).prop_map(|(subject, kind)| Step::Clear(subject, kind)),
        1 => prop::sample::select(&MESSAGES[..]).prop_map(Step::Pass),
        4 => (1_u64..90).prop_map(Step::Wait),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ]
}

fn do_it(daemon: &mut Daemon, client: &mut Client, model: &Model, step: &Step) -> Result<()> {
    match *step {
        Step::Set(subject, kind, duration) => {
            let terms = Terms { until: duration.map(|duration| model.now + duration), ..Terms::default() };
            match kind {
                Kind::Hold => client.hold(subject, &terms)?,
                Kind::Suspend => client.suspend(subject, &terms)?,
            };
        }
        Step::Clear(subject, Kind::Hold) => drop(client.release(subject)?),
        Step::Clear(subject, Kind::Suspend) => drop(client.unsuspend(subject)?),
        Step::Pass(message) => drop(client.pass(message)?),
        Step::Wait(seconds) => daemon.set_clock(model.now + seconds)?,
        Step::Restart => daemon.restart()?,
        Step::Kill => {
            daemon.kill9()?;
            daemon.start_again()?;
        }
    }
    if matches!(step, Step::Restart | Step::Kill) {
        *client = Client::new(daemon.socket());
    }
    Ok(())
}

fn compare(client: &mut Client, model: &Model) -> Result<()> {
    for identity in IDENTITIES {
        for message in [None, Some(MESSAGES[0]), Some(MESSAGES[1])] {
            let (verdict, expected) = (client.check(identity, message)?, model.verdict(identity, message));
            ensure!(
                verdict == expected,
                "{identity:?}, {message:?}: {verdict:?}, and {expected:?} by the model {model:?}"
            );
        }
    }
    let mut listed = BTreeSet::new();
    client.list(None, |flag| {
        listed.insert((flag.subject, flag.kind));
        Ok::<(), outgoingd_client::Error>(())
    })?;
    let expected = model.in_force().map(|(subject, kind)| (subject.to_owned(), kind)).collect();
    ensure!(listed == expected, "{listed:?} are listed, and by the model {expected:?}");
    Ok(())
}

fn run(steps: &[Step]) -> Result<()> {
    let accounts = ["alice", "carol"];
    let daemon = Daemon::builder().accounts(&accounts).owner("shop.test", "alice").owner("other.test", "nobody");
    let mut daemon = daemon.clock(START).start()?;
    let (mut client, mut model) = (Client::new(daemon.socket()), Model { now: START, ..Model::default() });
    for (number, step) in steps.iter().enumerate() {
        let done = do_it(&mut daemon, &mut client, &model, step);
        model.apply(step);
        done.and_then(|()| compare(&mut client, &model)).with_context(|| format!("step {number}, {step:?}"))?;
    }
    Ok(())
}

#[test]
fn whatever_happens_in_whatever_order_every_verdict_is_the_models() -> Result<()> {
    let config =
        ProptestConfig { cases: 40, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() };
    let sequences = prop::collection::vec(step(), 1..40);
    let outcome = TestRunner::new(config)
        .run(&sequences, |steps| run(&steps).map_err(|error| TestCaseError::fail(format!("{error:#}"))));
    outcome.map_err(|error| anyhow::anyhow!("{error}"))
}
