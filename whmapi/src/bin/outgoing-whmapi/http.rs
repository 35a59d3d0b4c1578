//! Paths, methods and bodies of HTTP to calls, and what became of them to answers.
//!
//! `/json-api/FUNCTION` and `/xml-api/FUNCTION` are WHM API 1, `/execute/MODULE/FUNCTION` is UAPI; before each may stand
//! what cPanel puts there for a session, which means nothing here. Arguments are those of the query and of a form, or an
//! object in JSON, in the body, by GET or POST. Refusals are in the envelope of the face, whatever their status, so that a client that parses
//! nothing else reads why.

use crate::authentication::{Schemes, Unusable};
use crate::calls::{self, Call, Calls, Function, Missed, Outcome};
use crate::config::Limits;
use crate::guard::{Guard, Known, Lines, Network};
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use outgoingd_whmapi::render::render;
use outgoingd_whmapi::{Answer, Arguments, Format};
use std::future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{self, Instant};
use tracing::warn;

/// Most bytes of a body.
const MAX_BODY: usize = 64 << 10;

/// Most bytes that are taken in of a body that is longer.
const MAX_FORGOTTEN: usize = 4 << 20;

/// Failed authentications from one address in a minute that are logged.
const MAX_TOLD: u32 = 3;

/// Longest name of a function or a module. What it is made of does not matter: there is none, or there is.
const MAX_NAME: usize = 64;

/// What a form is sent as, and what an object.
const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// From where a request comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// What all requests have in common.
#[derive(Debug)]
struct Api {
    calls: Calls,
    guard: Mutex<Guard>,
    known: Mutex<Known>,
    lines: Mutex<Lines>,
    patience: Duration,
}

/// How a function is called, and in what its answer comes.
#[derive(Clone, Debug)]
struct Face {
    function: Function,
    format: Format,
}

/// Why a request is no call, or has no answer.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    words: String,
    header: Option<(HeaderName, HeaderValue)>,
}

/// The whole service.
pub(crate) fn router(calls: Calls, limits: &Limits) -> Router {
    let api = Api {
        calls,
        guard: Mutex::new(Guard::new(limits.failed_authentications)),
        known: Mutex::default(),
        lines: Mutex::default(),
        patience: limits.request_deadline(),
    };
    let mut router = Router::new().fallback(|| async { unknown() });
    for session in ["", "/cpsess{session}"] {
        router = router
            .route(&format!("{session}/json-api/{{function}}"), any(json))
            .route(&format!("{session}/xml-api/{{function}}"), any(xml))
            .route(&format!("{session}/execute/{{module}}/{{function}}"), any(execute));
    }
    router.with_state(Arc::new(api))
}

type Parameters = Result<RawPathParams, RawPathParamsRejection>;

async fn json(State(api): State<Arc<Api>>, parameters: Parameters, request: Request) -> Response {
    api.answer(Face::whm(parameters, Format::Json), request).await
}

async fn xml(State(api): State<Arc<Api>>, parameters: Parameters, request: Request) -> Response {
    api.answer(Face::whm(parameters, Format::Xml), request).await
}

async fn execute(State(api): State<Arc<Api>>, parameters: Parameters, request: Request) -> Response {
    api.answer(Face::uapi(parameters), request).await
}

impl Api {
    async fn answer(&self, face: Option<Face>, request: Request) -> Response {
        let Some(face) = face else { return unknown() };
        match self.outcome(&face, request).await {
            Ok(answer) => face.response(StatusCode::OK, &answer, None),
            Err(Problem { status, words, header }) => {
                closing(face.response(status, &face.function.refuse(words), header))
            }
        }
    }

    async fn outcome(&self, face: &Face, request: Request) -> Result<Answer, Problem> {
        let deadline = Instant::now() + self.patience;
        // The body first, whatever comes of it: a client that is refused while it sends may not hear why.
        let (request, body) = request.into_parts();
        let body = time::timeout_at(deadline, whole(body))
            .await
            .map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body of the request has not come in time"))??;
        if !matches!(request.method, Method::GET | Method::POST) {
            let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "a function is called by GET or POST");
            return Err(problem.with(ALLOW, HeaderValue::from_static("GET, POST")));
        }
        // Every request has it; without one it comes from nowhere, and is treated like all others that do.
        let address = request.extensions.get().map_or(IpAddr::from([0; 4]), |Peer(address)| *address);
        let schemes = face.schemes();
        let shown = request.headers.get_all(AUTHORIZATION);
        let credentials = schemes.credentials(shown.iter().map(HeaderValue::as_bytes));
        let is_known = credentials.as_ref().is_ok_and(|credentials| self.known().has(&credentials.secret));
        // A token that was good before is not kept out by others who try theirs from the same address.
        if let Some(left) = self.guard().refused(Network::of(address), std::time::Instant::now())
            && !is_known
        {
            let problem =
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many failed authentications from this address");
            return Err(problem.with(RETRY_AFTER, HeaderValue::from(left.as_secs() + 1)));
        }
        let credentials = credentials.map_err(|unusable| {
            // Whoever shows nothing has tried nothing.
            if unusable != Unusable::Missing {
                self.failed(address, &unusable.to_string());
            }
            Problem::unauthorized(schemes, unusable.to_string())
        })?;
        let arguments = arguments(&request, &body)?;
        let secret = credentials.secret.clone();
        let call = Call { credentials, function: face.function.clone(), arguments, address };
        match self.calls.carry_out(call, deadline).await {
            Ok(Outcome::Answered(answer)) => {
                self.known().add(&secret);
                Ok(answer)
            }
            Ok(Outcome::Unanswered(answer)) => {
                self.tell(address, calls::reason(&answer));
                Ok(answer)
            }
            Ok(Outcome::NoSuchToken(words)) => {
                self.known().remove(&secret);
                self.failed(address, &words);
                Err(Problem::unauthorized(schemes, words))
            }
            Ok(Outcome::NotPermitted(words)) => {
                self.tell(address, &words);
                Err(Problem::new(StatusCode::FORBIDDEN, words))
            }
            Err(Missed::Busy) => {
                let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many calls at once; nothing was done");
                Err(problem.with(RETRY_AFTER, HeaderValue::from(1)))
            }
            // A script must not take it for something that it can do again without a look.
            Err(Missed::Late) => Ok(face.function.refuse(format!(
                "there is no answer after {} ms; the call goes on, and may be carried out yet",
                self.patience.as_millis()
            ))),
            Err(Missed::Broken) => {
                Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the call failed; the service's log says how"))
            }
        }
    }

    fn failed(&self, address: IpAddr, words: &str) {
        // The first few tell who it is; others are to be told of, too.
        if self.guard().failed(Network::of(address), std::time::Instant::now()) <= MAX_TOLD {
            self.tell(address, &format!("failed authentication: {words}"));
        }
    }

    /// Logs what a stranger can bring about, and not all of it.
    fn tell(&self, address: IpAddr, words: &str) {
        match self.lines.lock().unwrap_or_else(PoisonError::into_inner).next(std::time::Instant::now()) {
            None => {}
            Some(0) => warn!("{address}: {words}"),
            Some(more) => warn!("{address}: {words} ({more} more before it are not shown)"),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guard(&self) -> MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Face {
    fn whm(parameters: Parameters, format: Format) -> Option<Face> {
        let [_, function] = names(parameters)?;
        Some(Face { function: Function::Whm(function?), format })
    }

    fn uapi(parameters: Parameters) -> Option<Face> {
        let [module, function] = names(parameters)?;
        Some(Face { function: Function::Uapi { module: module?, function: function? }, format: Format::Json })
    }

    fn schemes(&self) -> Schemes {
        match self.function {
            Function::Whm(_) => Schemes::Whm,
            Function::Uapi { .. } => Schemes::WhmAndCpanel,
        }
    }

    fn response(&self, status: StatusCode, answer: &Answer, header: Option<(HeaderName, HeaderValue)>) -> Response {
        let mut response = response(status, self.format.content_type(), render(&answer.tree, self.format));
        response.headers_mut().extend(header);
        response
    }
}

impl Problem {
    fn new(status: StatusCode, words: impl Into<String>) -> Problem {
        Problem { status, words: words.into(), header: None }
    }

    fn unauthorized(schemes: Schemes, words: String) -> Problem {
        let challenge = HeaderValue::from_static(schemes.challenge());
        Problem::new(StatusCode::UNAUTHORIZED, words).with(WWW_AUTHENTICATE, challenge)
    }

    fn with(self, name: HeaderName, value: HeaderValue) -> Problem {
        Problem { header: Some((name, value)), ..self }
    }
}

/// Module and function of a path, if it has them and they can be names.
fn names(parameters: Parameters) -> Option<[Option<String>; 2]> {
    let (mut module, mut function) = (None, None);
    for (key, value) in &parameters.ok()? {
        let fits = match key {
            "session" => !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()),
            _ => value.len() <= MAX_NAME,
        };
        if !fits {
            return None;
        }
        match key {
            "module" => module = Some(value.to_owned()),
            "function" => function = Some(value.to_owned()),
            _ => {}
        }
    }
    Some([module, function])
}

fn arguments(request: &Parts, body: &[u8]) -> Result<Arguments, Problem> {
    let query = Arguments::from_form(request.uri.query().unwrap_or_default().as_bytes());
    if body.is_empty() {
        return Ok(query);
    }
    // A body without a type is a form, as most are.
    let kind = request.headers.get(CONTENT_TYPE).map_or(FORM, |kind| kind.to_str().unwrap_or_default());
    let kind = kind.split(';').next().unwrap_or_default().trim_ascii();
    if kind.eq_ignore_ascii_case(FORM) {
        return Ok(query.and(Arguments::from_form(body)));
    }
    if !kind.eq_ignore_ascii_case(JSON) {
        let words = format!("a body must be a form or an object: Content-Type: {FORM}, or {JSON}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, words));
    }
    let arguments = Arguments::from_json(body);
    Ok(query.and(arguments.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))?))
}

/// The whole of a body. One that is too long is taken in to some length nevertheless, and forgotten.
async fn whole(mut body: Body) -> Result<Vec<u8>, Problem> {
    let too_long = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {MAX_BODY} bytes"));
    if body.size_hint().lower() > MAX_FORGOTTEN as u64 {
        return Err(too_long());
    }
    let (mut whole, mut length) = (Vec::new(), 0);
    while let Some(frame) = future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the body of the request is broken"))?;
        let part = frame.into_data().unwrap_or_default();
        length += part.len();
        if length <= MAX_BODY {
            whole.extend_from_slice(&part);
        } else if length > MAX_FORGOTTEN {
            break;
        }
    }
    if length > MAX_BODY { Err(too_long()) } else { Ok(whole) }
}

fn unknown() -> Response {
    let words =
        "there is nothing here; functions are at /json-api/FUNCTION, /xml-api/FUNCTION and /execute/MODULE/FUNCTION\n";
    closing(response(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", words.to_owned()))
}

/// Whoever has shown nothing that was good does not keep a place for what comes next.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response {
    (status, [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], body).into_response()
}
