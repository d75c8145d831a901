//! What the model was asked: the facts that the server tells, and waiting for them.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use serde_json::Value;

/// How a request's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// It has not.
    #[default]
    Open,
    /// The server sent all it had to.
    Answered,
    /// It was closed before that: by the client, or by the step that breaks it off.
    Closed,
}

/// A request that the model was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Its number, from 0.
    pub id: u64,
    /// The HTTP method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The headers; names are in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body; a string where it is not JSON.
    pub body: Value,
    /// When it came in.
    pub at: SystemTime,
    /// The word by which it was answered, if any.
    pub word: Option<String>,
    /// Whether it is a request that the tool makes beside the conversation (a title, a summary).
    pub side: bool,
    /// How its connection ended.
    pub ending: Ending,
}

impl Request {
    /// Whether it was answered by `word`'s script.
    pub fn is_of(&self, word: &str) -> bool {
        !self.side && self.word.as_deref() == Some(word)
    }

    /// Whether `text` stands anywhere in the body's strings. Escapes are resolved, so newlines and quotes are as typed.
    pub fn holds(&self, text: &str) -> bool {
        fn within(value: &Value, text: &str) -> bool {
            match value {
                Value::String(string) => string.contains(text),
                Value::Array(items) => items.iter().any(|item| within(item, text)),
                Value::Object(fields) => fields.values().any(|item| within(item, text)),
                _ => false,
            }
        }
        within(&self.body, text)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Fact {
    Request(Seen),
    Ended { id: u64, whole: bool },
    Done(u64),
    Trouble(String),
}

#[derive(Debug, Deserialize)]
struct Seen {
    id: u64,
    method: String,
    path: String,
    headers: BTreeMap<String, Value>,
    body: Value,
    side: bool,
    word: Option<String>,
    at: u64,
}

/// The facts so far.
#[derive(Debug, Default)]
pub(super) struct Journal {
    state: Mutex<State>,
    grown: Condvar,
    told: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Request>,
    done: u64,
    trouble: Vec<String>,
    closed: bool,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no waiter panics while it holds the journal")
    }

    /// Takes a line that the server printed.
    pub fn take(&self, line: &str) {
        let mut state = self.lock();
        match serde_json::from_str(line) {
            Ok(Fact::Request(seen)) => state.requests.push(Request {
                id: seen.id,
                method: seen.method,
                path: seen.path,
                headers: seen
                    .headers
                    .into_iter()
                    .map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
                    .collect(),
                body: seen.body,
                at: SystemTime::UNIX_EPOCH + Duration::from_millis(seen.at),
                word: seen.word,
                side: seen.side,
                ending: Ending::Open,
            }),
            Ok(Fact::Ended { id, whole }) => {
                if let Some(request) = state.requests.iter_mut().find(|request| request.id == id) {
                    request.ending = if whole { Ending::Answered } else { Ending::Closed };
                }
            }
            Ok(Fact::Done(id)) => state.done = id,
            Ok(Fact::Trouble(text)) => state.trouble.push(text),
            Err(error) => state.trouble.push(format!("the model server said {line:?}: {error}")),
        }
        drop(state);
        self.grown.notify_all();
        self.told.notify_waiters();
    }

    /// The server is gone.
    pub fn close(&self) {
        self.lock().closed = true;
        self.grown.notify_all();
        self.told.notify_waiters();
    }

    pub fn requests(&self) -> Vec<Request> {
        let state = self.lock();
        assert!(state.trouble.is_empty(), "the model server had trouble: {:?}", state.trouble);
        state.requests.clone()
    }

    pub fn take_all(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock().requests)
    }

    pub fn wait_done(&self, id: u64, patience: Duration) {
        self.wait_state("the model server to take a command", patience, |state| (state.done >= id).then_some(()));
    }

    pub fn wait<T>(&self, what: &str, patience: Duration, mut found: impl FnMut(&[Request]) -> Option<T>) -> T {
        self.wait_state(what, patience, |state| found(&state.requests))
    }

    fn wait_state<T>(&self, what: &str, patience: Duration, mut found: impl FnMut(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if let Some(found) = found(&state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.closed {
                let report = report(&state);
                drop(state);
                panic!("waited in vain for {what}; {report}");
            }
            state = self.grown.wait_timeout(state, left).expect("no waiter panics while it holds the journal").0;
        }
    }

    pub async fn until<T>(&self, what: &str, patience: Duration, mut found: impl FnMut(&[Request]) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            // Registered before the look, so that what comes between look and wait is not missed.
            let told = self.told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            {
                let state = self.lock();
                if let Some(found) = found(&state.requests) {
                    return found;
                }
                let closed = state.closed;
                drop(state);
                assert!(!closed, "waited in vain for {what}; the server is gone");
            }
            if tokio::time::timeout_at(deadline, told).await.is_err() {
                let report = report(&self.lock());
                panic!("waited in vain for {what}; {report}");
            }
        }
    }
}

fn report(state: &State) -> String {
    if state.closed {
        return "the server is gone".into();
    }
    let seen: Vec<String> = state
        .requests
        .iter()
        .map(|request| {
            let word = request.word.as_deref().unwrap_or("-");
            format!("{} {} word {word} {:?}", request.method, request.path, request.ending)
        })
        .collect();
    format!("the journal: {seen:#?}; trouble: {:?}", state.trouble)
}
