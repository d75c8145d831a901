//! A small agent of the Agent Client Protocol that misbehaves on command.
//!
//! A prompt is answered by its own text, line by line; lines that begin with `@` do something instead (see [`Turn`]).
//! Each prompt runs by itself, so several sessions are truly side by side.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

/// What the program's parts share.
#[derive(Default)]
struct Agent {
    sessions: Mutex<HashMap<String, Session>>,
    /// Where answers to the agent's own requests go, by id.
    asked: Mutex<HashMap<u64, Sender<Inbound>>>,
    next_request: AtomicU64,
    deaf_to_cancel: bool,
}

/// A session: what was said in it, and its turn.
#[derive(Default)]
struct Session {
    said: Vec<String>,
    turn: Option<Sender<Inbound>>,
}

/// What reaches a turn while it runs.
enum Inbound {
    Cancel,
    Answer(Value),
}

fn main() -> anyhow::Result<()> {
    readyroom::init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |habit: &str| args.iter().any(|arg| arg == habit);
    if has("--version") {
        return line("readyroom-acp-fixture 1.0.0");
    }
    if has("--crash-start") {
        std::process::exit(3);
    }
    let agent = Arc::new(Agent { deaf_to_cancel: has("--deaf-to-cancel"), ..Agent::default() });
    for message in io::stdin().lock().lines() {
        let Ok(message) = serde_json::from_str::<Value>(&message?) else { continue };
        let id = message.get("id").cloned();
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        if method.is_empty() {
            let waiting = id.as_ref().and_then(Value::as_u64).and_then(|id| agent.asked.lock().unwrap().remove(&id));
            if let Some(waiting) = waiting {
                let _ = waiting.send(Inbound::Answer(message));
            }
            continue;
        }
        match (method.as_str(), id) {
            ("initialize", Some(_)) if has("--never-ready") => {}
            ("initialize", Some(id)) => reply(
                &id,
                json!({
                    "protocolVersion": 1,
                    "agentInfo": { "name": "readyroom-acp-fixture", "version": "1.0.0" },
                    "agentCapabilities": { "loadSession": false },
                    "authMethods": [],
                }),
            )?,
            ("session/new", Some(id)) if has("--refuse-sessions") => refuse(&id, -32603, "no more sessions")?,
            ("session/new", Some(id)) => {
                let mut sessions = agent.sessions.lock().unwrap();
                // With the habit, every session has the same name: no proof that it is new.
                let number = if has("--same-session") { 0 } else { sessions.len() };
                let name = format!("session-{}-{number}", std::process::id());
                sessions.insert(name.clone(), Session::default());
                reply(&id, json!({ "sessionId": name }))?;
            }
            ("session/prompt", Some(id)) => prompt(&agent, id, &message["params"])?,
            ("session/cancel", _) if agent.deaf_to_cancel => {}
            ("session/cancel", _) => {
                let name = message["params"]["sessionId"].as_str().unwrap_or_default();
                if let Some(turn) = agent.sessions.lock().unwrap().get(name).and_then(|session| session.turn.clone()) {
                    let _ = turn.send(Inbound::Cancel);
                }
            }
            (_, Some(id)) => refuse(&id, -32601, &format!("Method not found: {method}"))?,
            (_, None) => {}
        }
    }
    Ok(())
}

fn line(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{text}\n").as_bytes())?;
    out.flush().map_err(Into::into)
}

fn reply(id: &Value, result: Value) -> anyhow::Result<()> {
    line(&json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string())
}

fn refuse(id: &Value, code: i64, message: &str) -> anyhow::Result<()> {
    line(&json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string())
}

/// Starts a turn.
fn prompt(agent: &Arc<Agent>, id: Value, params: &Value) -> anyhow::Result<()> {
    let session = params["sessionId"].as_str().unwrap_or_default().to_owned();
    let parts = params["prompt"].as_array().cloned().unwrap_or_default();
    let text: Vec<String> = parts
        .iter()
        .filter_map(|part| match part["type"].as_str() {
            Some("text") => part["text"].as_str().map(str::to_owned),
            Some("resource_link") => part["uri"].as_str().map(|uri| format!("file: {uri}")),
            _ => None,
        })
        .collect();
    let text = text.join("\n");
    let (sender, inbound) = channel();
    {
        let mut sessions = agent.sessions.lock().unwrap();
        let Some(known) = sessions.get_mut(&session) else { return refuse(&id, -32602, "Session not found") };
        if known.turn.is_some() {
            return refuse(&id, -32603, "a prompt is already running in this session");
        }
        known.turn = Some(sender);
    }
    let turn = Turn { agent: Arc::clone(agent), session, inbound };
    std::thread::spawn(move || {
        // The client has gone when it can't be written to.
        let _ = turn.run(&id, &text);
    });
    Ok(())
}

/// A turn that runs.
struct Turn {
    agent: Arc<Agent>,
    session: String,
    inbound: Receiver<Inbound>,
}

impl Turn {
    fn run(self, id: &Value, text: &str) -> anyhow::Result<()> {
        let mut late = None;
        let end = self.lines(text, &mut late)?;
        {
            let mut sessions = self.agent.sessions.lock().unwrap();
            let session = sessions.get_mut(&self.session).context("the session is known")?;
            session.said.push(text.to_owned());
            session.turn = None;
        }
        match end {
            End::Never => return Ok(()),
            End::Stop(reason) => {
                let usage = json!({ "inputTokens": 1000, "outputTokens": 100, "totalTokens": 1100 });
                reply(id, json!({ "stopReason": reason, "usage": usage }))?;
            }
            End::Error(code, message) => refuse(id, code, &message)?,
        }
        if let Some(text) = late {
            self.say(&text)?;
        }
        Ok(())
    }

    fn lines(&self, text: &str, late: &mut Option<String>) -> anyhow::Result<End> {
        for line_of in text.lines() {
            let (word, rest) = line_of.split_once(' ').unwrap_or((line_of, ""));
            match word {
                // `@sleep MS`
                "@sleep" => {
                    if self.cancelled(Some(Duration::from_millis(rest.parse()?))) {
                        return Ok(End::Stop("cancelled".into()));
                    }
                }
                // Waits to be cancelled.
                "@hang" => {
                    self.cancelled(None);
                    return Ok(End::Stop("cancelled".into()));
                }
                // Never answers, whatever comes.
                "@never" => return Ok(End::Never),
                // `@die CODE`
                "@die" => std::process::exit(rest.parse()?),
                // `@stop REASON`
                "@stop" => return Ok(End::Stop(rest.to_owned())),
                // `@error CODE MESSAGE`
                "@error" => {
                    let (code, message) = rest.split_once(' ').context("@error CODE MESSAGE")?;
                    return Ok(End::Error(code.parse()?, message.to_owned()));
                }
                // `@late TEXT`: said after the turn's end.
                "@late" => *late = Some(rest.to_owned()),
                // `@malformed TEXT`: a line that is no message.
                "@malformed" => line(rest)?,
                // `@update KIND`: an update of a kind of its own invention.
                "@update" => self.update(json!({ "sessionUpdate": rest, "odd": true }))?,
                // `@request METHOD`: asks the client something, and says what came back.
                "@request" => {
                    let answer = self.ask(rest, json!({ "sessionId": self.session }))?;
                    let Some(answer) = answer else { return Ok(End::Stop("cancelled".into())) };
                    self.say(&format!("client: {}\n", answer.get("error").unwrap_or(&answer["result"])))?;
                }
                // `@permission TOOLKIND KIND...`: asks leave, with an option of each kind, and says what it got.
                "@permission" => {
                    let (tool, kinds) = rest.split_once(' ').context("@permission TOOLKIND KIND...")?;
                    let options: Vec<Value> = kinds
                        .split(' ')
                        .enumerate()
                        .map(|(at, kind)| json!({ "optionId": format!("option-{at}"), "name": kind, "kind": kind }))
                        .collect();
                    let call = json!({ "toolCallId": "call-1", "title": rest, "kind": tool, "status": "pending" });
                    let asked = json!({ "sessionId": self.session, "options": options, "toolCall": call });
                    let answer = self.ask("session/request_permission", asked)?;
                    let Some(answer) = answer else { return Ok(End::Stop("cancelled".into())) };
                    self.say(&format!("leave: {}\n", answer["result"]["outcome"]))?;
                }
                // `@print BYTES`
                "@print" => {
                    let mut left: usize = rest.parse()?;
                    while left > 0 {
                        let count = left.min(1 << 20);
                        self.say(&"x".repeat(count))?;
                        left -= count;
                    }
                }
                "@recall" => {
                    let said = self.agent.sessions.lock().unwrap()[&self.session].said.join("\n");
                    self.say(&format!("{said}\n"))?;
                }
                _ => self.say(&format!("{line_of}\n"))?,
            }
        }
        Ok(End::Stop("end_turn".into()))
    }

    fn update(&self, update: Value) -> anyhow::Result<()> {
        let params = json!({ "sessionId": self.session, "update": update });
        line(&json!({ "jsonrpc": "2.0", "method": "session/update", "params": params }).to_string())
    }

    fn say(&self, text: &str) -> anyhow::Result<()> {
        self.update(json!({ "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": text } }))
    }

    /// Asks the client; none where the turn is cancelled meanwhile.
    fn ask(&self, method: &str, params: Value) -> anyhow::Result<Option<Value>> {
        let id = self.agent.next_request.fetch_add(1, Ordering::Relaxed);
        let turn = self.agent.sessions.lock().unwrap()[&self.session].turn.clone().context("the turn runs")?;
        self.agent.asked.lock().unwrap().insert(id, turn);
        line(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string())?;
        match self.inbound.recv() {
            Ok(Inbound::Answer(answer)) => Ok(Some(answer)),
            Ok(Inbound::Cancel) | Err(_) => Ok(None),
        }
    }

    /// Waits; true when the turn is cancelled before the time is over.
    fn cancelled(&self, time: Option<Duration>) -> bool {
        let deadline = time.map(|time| Instant::now() + time);
        loop {
            let left = deadline.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
            match self.inbound.recv_timeout(left) {
                Ok(Inbound::Cancel) => return true,
                Err(RecvTimeoutError::Timeout) if deadline.is_some() => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
                Ok(Inbound::Answer(_)) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// How a turn ends.
enum End {
    Never,
    Stop(String),
    Error(i64, String),
}
