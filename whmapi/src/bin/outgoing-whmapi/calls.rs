//! Carries calls out: asks the daemon whose token it is, and then does what the function does. Blocking, so many at once.
//!
//! A call whose caller has gone, or has been told that it took too long, goes on to its end, and keeps its place until then.

use crate::authentication::Credentials;
use outgoingd_client::protocol::function::WHM;
use outgoingd_client::protocol::message::{Cause, Refusal};
use outgoingd_client::{Client, Error};
use outgoingd_whmapi::answer::Refused;
use outgoingd_whmapi::server::Operation;
use outgoingd_whmapi::{Answer, Arguments, Queue, Server, uapi, whm};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{self, Instant};
use tracing::{error, info};

/// Calls that are carried out at the same time; others wait for a place. Those that read all of Exim's queue, and those that list all
/// accounts, have places of their own, so that they keep nobody from holding anything.
const AT_ONCE: usize = 16;
const ON_THE_QUEUE: usize = 4;
const LISTINGS: usize = 1;

/// All of them.
pub(crate) const ALL_AT_ONCE: usize = AT_ONCE + ON_THE_QUEUE + LISTINGS;

/// How long they wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest that is logged of anything that a caller chose, in characters.
const MAX_LOGGED: usize = 120;

/// Where calls go.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    socket: PathBuf,
    queue_socket: PathBuf,
    places: Places,
}

/// Places for calls, by what they do.
#[derive(Clone, Debug)]
struct Places {
    usual: Arc<Semaphore>,
    on_the_queue: Arc<Semaphore>,
    listings: Arc<Semaphore>,
}

/// A call.
#[derive(Debug)]
pub(crate) struct Call {
    /// Who says to be calling.
    pub(crate) credentials: Credentials,
    /// What is called.
    pub(crate) function: Function,
    /// With what.
    pub(crate) arguments: Arguments,
    /// From where.
    pub(crate) address: IpAddr,
}

/// What can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    /// A function of WHM API 1.
    Whm(String),
    /// A function of UAPI.
    Uapi { module: String, function: String },
}

/// What became of a call that was carried out.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It has an answer, which may be that it was refused. The token is one.
    Answered(Answer),
    /// Nobody could say whether the token is one. That is an answer, too: the call was not carried out, and whoever called must
    /// know why; for scripts it is a refusal like any other, and no reason to look for another token.
    Unanswered(Answer),
    /// There is no such token, or it has ended.
    NoSuchToken(String),
    /// The token is not good for the function, or this service may not present any.
    NotPermitted(String),
}

/// Why a call has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// There was no place for it; nothing was done.
    Busy,
    /// It takes too long, and goes on.
    Late,
    /// It failed in a way that nobody foresaw.
    Broken,
}

impl Calls {
    /// Calls for this daemon and this helper.
    pub(crate) fn new(socket: PathBuf, queue_socket: PathBuf) -> Calls {
        let [usual, on_the_queue, listings] =
            [AT_ONCE, ON_THE_QUEUE, LISTINGS].map(|places| Arc::new(Semaphore::new(places)));
        Calls { socket, queue_socket, places: Places { usual, on_the_queue, listings } }
    }

    /// Carries out a call, if there is a place for it in time, and waits for it until `deadline`.
    pub(crate) async fn carry_out(&self, call: Call, deadline: Instant) -> Result<Outcome, Missed> {
        let Calls { socket, queue_socket, places } = self.clone();
        in_its_place(places.of(call.function.name()), deadline, move || {
            let (secret, function) = (call.credentials.secret.clone(), call.function.name().to_owned());
            let queue = Queue::Helper { socket: queue_socket, secret, function };
            call.carry_out(&mut Server { client: &mut Client::new(socket), queue })
        })
        .await
    }
}

impl Places {
    fn of(&self, function: &str) -> &Arc<Semaphore> {
        match Operation::of(function) {
            Some(Operation::Count | Operation::Delete) => &self.on_the_queue,
            None if function == "listaccts" => &self.listings,
            Some(Operation::Deliver) | None => &self.usual,
        }
    }
}

/// Does blocking work that keeps its place, and a panic to itself.
async fn in_its_place<T: Send + 'static>(
    places: &Arc<Semaphore>,
    deadline: Instant,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Missed> {
    let waiting = time::timeout_at(deadline.min(Instant::now() + PATIENCE), places.clone().acquire_owned());
    let Ok(Ok(place)) = waiting.await else { return Err(Missed::Busy) };
    let working = tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    });
    match time::timeout_at(deadline, working).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(defect)) => {
            error!("a call failed: {defect}");
            Err(Missed::Broken)
        }
        Err(_) => Err(Missed::Late),
    }
}

impl Call {
    fn carry_out(&self, server: &mut Server<'_>) -> Outcome {
        let token = match server.client.present(&self.credentials.secret, self.function.name()) {
            Ok(token) => token,
            Err(Error::Refused(Refusal { cause: Cause::NoSuchToken, message })) => {
                return Outcome::NoSuchToken(message);
            }
            Err(Error::Refused(Refusal { cause: Cause::NotPermitted, message })) => {
                return Outcome::NotPermitted(message);
            }
            Err(error) => return Outcome::Unanswered(self.function.refuse(error.to_string())),
        };
        let answer = self.answer(server);
        self.log(&format!("token {}", token.name), reason(&answer));
        Outcome::Answered(answer)
    }

    fn answer(&self, server: &mut Server<'_>) -> Answer {
        let Call { credentials, function, arguments, .. } = self;
        match function {
            Function::Whm(name) => match arguments.get("api.version") {
                None if WHM.contains(&name.as_str()) => {
                    function.refuse("the version of the API is missing: say api.version=1".to_owned())
                }
                _ => whm::call(server, name, arguments),
            },
            Function::Uapi { module, function } => {
                uapi::call(server, module, function, credentials.account.as_deref(), arguments)
            }
        }
    }

    /// One line about the call, whatever became of it.
    fn log(&self, who: &str, outcome: &str) {
        let Call { credentials, function, arguments, address } = self;
        let account = credentials.account.as_deref().map(|account| format!(" for account {}", short(account)));
        let about: String = ["user", "email"]
            .into_iter()
            .filter_map(|name| arguments.get(name).map(|value| format!(" {name}={}", short(value))))
            .collect();
        let (account, outcome) = (account.unwrap_or_default(), short(outcome));
        info!("{who}{account} from {address} called {}{about}: {outcome}", short(function.name()));
    }
}

impl Function {
    /// Its name, which a token may be limited to.
    pub(crate) fn name(&self) -> &str {
        match self {
            Function::Whm(function) | Function::Uapi { function, .. } => function,
        }
    }

    /// The answer to a call of it that was not carried out.
    pub(crate) fn refuse(&self, reason: String) -> Answer {
        match self {
            Function::Whm(function) => Answer::whm(function, Err(Refused(reason))),
            Function::Uapi { .. } => Answer::uapi(Err(Refused(reason))),
        }
    }
}

/// Why an answer is what it is, in words.
pub(crate) fn reason(answer: &Answer) -> &str {
    let said = answer.tree.pointer("/metadata/reason").or_else(|| answer.tree.pointer("/errors/0"));
    said.and_then(|said| said.as_str()).unwrap_or(if answer.done { "OK" } else { "refused" })
}

/// What a caller chose, in one line that does not fill the log.
fn short(text: &str) -> String {
    let mut short = String::new();
    for char in text.chars().take(MAX_LOGGED) {
        match char {
            '"' | '\'' => short.push(char),
            _ => short.extend(char.escape_debug()),
        }
    }
    if text.chars().nth(MAX_LOGGED).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use outgoingd_whmapi::answer::Done;
    use std::sync::mpsc;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_panic_in_a_call_is_its_own_and_its_place_is_free_again() {
        let places = Arc::new(Semaphore::new(1));
        block_on(async {
            let deadline = Instant::now() + Duration::from_secs(60);
            let broken = in_its_place(&places, deadline, || panic!("on purpose")).await;
            assert_eq!(broken, Err::<(), _>(Missed::Broken));
            assert_eq!(in_its_place(&places, deadline, || 7).await, Ok(7));
        });
    }

    #[test]
    fn a_call_that_is_late_keeps_its_place_until_it_ends() {
        let places = Arc::new(Semaphore::new(1));
        let (go_on, gone) = mpsc::channel::<()>();
        block_on(async {
            let soon = || Instant::now() + Duration::from_millis(50);
            let late = in_its_place(&places, soon(), move || gone.recv().is_ok()).await;
            assert_eq!(late, Err(Missed::Late));
            assert_eq!(in_its_place(&places, soon(), || ()).await, Err(Missed::Busy));
            drop(go_on);
            assert_eq!(in_its_place(&places, Instant::now() + Duration::from_secs(60), || ()).await, Ok(()));
        });
    }

    #[test]
    fn what_a_caller_chose_stays_one_short_line_in_the_log() {
        assert_eq!(short("a\nb\u{1b}\\ \"c\""), "a\\nb\\u{1b}\\\\ \"c\"");
        assert_eq!(short(&"x".repeat(MAX_LOGGED)).len(), MAX_LOGGED);
        assert!(short(&"x".repeat(10_000)).ends_with("x…"));
    }

    #[test]
    fn the_reason_of_an_answer_is_found_in_both_envelopes() {
        let refused = || Refused("no".to_owned());
        assert_eq!(reason(&Answer::whm("version", Err(refused()))), "no");
        assert_eq!(reason(&Answer::uapi(Err(refused()))), "no");
        assert_eq!(reason(&Answer::uapi(Ok(Done::default()))), "OK");
    }
}
