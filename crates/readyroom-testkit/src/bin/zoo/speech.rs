//! The zoo's protocols, spoken well: what a line of the client's means, and the lines of a turn.

use std::path::PathBuf;

use readyroom_testkit::zoo::Protocol;
use serde_json::{Value, json};

/// What the client wants.
#[derive(Debug)]
pub enum Heard {
    /// A prompt.
    Prompt(String),
    /// The turn is to be cancelled.
    Cancel,
    /// Its answer to a request of ours.
    Answer,
    /// A new conversation.
    Fresh,
    /// Something that these lines answer, of which the first one makes us ready where `ready`.
    Other { answer: Vec<String>, ready: bool },
}

/// A conversation.
#[derive(Debug)]
pub struct Speech {
    protocol: Protocol,
    /// Conversations so far.
    sessions: usize,
    /// Prompts in this one.
    pub prompts: usize,
    /// What names the prompt that runs, by protocol: the request's id, the line's id, or the fence's halves.
    name: Value,
    turns: usize,
    /// Whether a new conversation keeps the name of the last one.
    pub stuck: bool,
    /// Where the conversation works: as the client said, else where the program was started.
    pub directory: PathBuf,
    /// The sandbox that Codex's client asked for.
    sandbox: &'static str,
}

impl Speech {
    pub fn new(protocol: Protocol) -> Self {
        let directory = std::env::current_dir().unwrap_or_default();
        Self {
            protocol,
            sessions: 0,
            prompts: 0,
            name: Value::Null,
            turns: 0,
            stuck: false,
            directory,
            sandbox: "readOnly",
        }
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn is_lines(&self) -> bool {
        matches!(self.protocol, Protocol::Repl | Protocol::Pty)
    }

    fn session(&self) -> String {
        format!("session-{}-{}", std::process::id(), self.sessions)
    }

    fn turn(&self) -> String {
        format!("turn-{}", self.turns)
    }

    /// What a line means. `next` gives the client's next line: behind a REPL's prompt comes its fence.
    pub fn hear(&mut self, line: &str, mut next: impl FnMut() -> Option<String>) -> Option<Heard> {
        if self.is_lines() {
            return match line {
                ":reset" => Some(Heard::Fresh),
                _ if line.starts_with(":fence ") => {
                    self.name = json!(line);
                    Some(Heard::Other { answer: vec![self.marker()], ready: true })
                }
                prompt => {
                    self.name = json!(next()?);
                    Some(self.prompt(prompt.to_owned()))
                }
            };
        }
        let message: Value = serde_json::from_str(line).ok()?;
        match self.protocol {
            Protocol::Claude => self.hear_claude(&message),
            _ => self.hear_rpc(&message),
        }
    }

    fn prompt(&mut self, text: String) -> Heard {
        self.prompts += 1;
        self.turns += 1;
        Heard::Prompt(text)
    }

    fn marker(&self) -> String {
        let fence = self.name.as_str().unwrap_or_default();
        fence.trim_start_matches(":fence ").replace(' ', "")
    }

    fn hear_claude(&mut self, message: &Value) -> Option<Heard> {
        let request = &message["request_id"];
        let answered = |answer: Value| {
            let response = json!({"subtype": "success", "request_id": request, "response": answer});
            vec![json!({"type": "control_response", "response": response}).to_string()]
        };
        match message["type"].as_str()? {
            "control_response" => Some(Heard::Answer),
            "control_request" => match message["request"]["subtype"].as_str()? {
                "interrupt" => Some(Heard::Cancel),
                "initialize" => Some(Heard::Other { answer: answered(json!({})), ready: true }),
                _ => Some(Heard::Other { answer: answered(json!({"version": "1.0.0"})), ready: false }),
            },
            "user" if message["message"]["content"] == "/clear" => Some(Heard::Fresh),
            "user" => {
                self.name = message["uuid"].clone();
                Some(self.prompt(message["message"]["content"][0]["text"].as_str()?.to_owned()))
            }
            _ => None,
        }
    }

    fn hear_rpc(&mut self, message: &Value) -> Option<Heard> {
        let id = message["id"].clone();
        let answer = |result: Value| vec![json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()];
        let other = |result: Value| Some(Heard::Other { answer: answer(result), ready: false });
        let params = &message["params"];
        let Some(method) = message["method"].as_str() else { return Some(Heard::Answer) };
        match method {
            "initialize" => {
                let result = json!({
                    "protocolVersion": 1, "agentCapabilities": {}, "authMethods": [],
                    "agentInfo": {"name": "zoo", "version": "1.0.0"}, "userAgent": "zoo/1.0.0 (test)",
                });
                Some(Heard::Other { answer: answer(result), ready: true })
            }
            "session/new" | "thread/start" => {
                self.name = id;
                self.sandbox = match params["sandbox"].as_str() {
                    Some("workspace-write") => "workspaceWrite",
                    Some("danger-full-access") => "dangerFullAccess",
                    _ => "readOnly",
                };
                if let Some(directory) = params["cwd"].as_str() {
                    self.directory = directory.into();
                }
                Some(Heard::Fresh)
            }
            "session/prompt" => {
                self.name = id;
                let text = params["prompt"].as_array()?.iter().rev().find_map(|part| part["text"].as_str());
                Some(self.prompt(text?.to_owned()))
            }
            "turn/start" => {
                self.name = id;
                let text = params["input"].as_array()?.iter().rev().find_map(|part| part["text"].as_str());
                Some(self.prompt(text?.to_owned()))
            }
            "session/cancel" | "turn/interrupt" => Some(Heard::Cancel),
            "config/read" => other(json!({"config": {}})),
            "thread/loaded/list" => other(json!({"data": []})),
            _ if id.is_null() => None,
            _ if self.protocol == Protocol::Codex => other(json!({})),
            _ => {
                let error = json!({"code": -32601, "message": format!("Method not found: {method}")});
                let answer = json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string();
                Some(Heard::Other { answer: vec![answer], ready: false })
            }
        }
    }

    /// Begins a new conversation, and says so.
    pub fn fresh(&mut self) -> Vec<String> {
        if !self.stuck {
            self.sessions += 1;
        }
        self.prompts = 0;
        let session = self.session();
        match self.protocol {
            Protocol::Repl | Protocol::Pty => vec!["context cleared".into()],
            Protocol::Acp => {
                vec![json!({"jsonrpc": "2.0", "id": self.name, "result": {"sessionId": session}}).to_string()]
            }
            Protocol::Codex => {
                let result = json!({"thread": {"id": session}, "sandbox": {"type": self.sandbox}});
                vec![json!({"id": self.name, "result": result}).to_string()]
            }
            Protocol::Claude => vec![
                json!({"type": "system", "subtype": "init", "session_id": session}).to_string(),
                json!({"type": "result", "subtype": "success", "is_error": false, "num_turns": 0, "result": "",
                    "session_id": session})
                .to_string(),
            ],
        }
    }

    /// What refuses a new conversation.
    pub fn refusal(&self) -> Vec<String> {
        match self.protocol {
            Protocol::Repl | Protocol::Pty => vec!["no".into()],
            Protocol::Acp | Protocol::Codex => {
                let error = json!({"code": -32603, "message": "no more of them"});
                vec![json!({"jsonrpc": "2.0", "id": self.name, "error": error}).to_string()]
            }
            Protocol::Claude => vec![
                json!({"type": "result", "subtype": "success", "is_error": true, "num_turns": 0, "result": "no",
                    "session_id": self.session()})
                .to_string(),
            ],
        }
    }

    /// What comes before a turn's text.
    pub fn begin(&self) -> Vec<String> {
        match self.protocol {
            Protocol::Claude => vec![
                json!({"type": "system", "subtype": "init", "session_id": self.session()}).to_string(),
                json!({"type": "user", "isReplay": true, "uuid": self.name, "message": {"role": "user", "content": []}})
                    .to_string(),
            ],
            Protocol::Codex => vec![
                json!({"id": self.name, "result": {"turn": {"id": self.turn()}}}).to_string(),
                self.notify("turn/started", json!({"turn": {"id": self.turn(), "status": "inProgress"}})),
            ],
            _ => Vec::new(),
        }
    }

    fn notify(&self, method: &str, mut params: Value) -> String {
        params["threadId"] = json!(self.session());
        json!({"method": method, "params": params}).to_string()
    }

    /// A turn's text.
    pub fn say(&self, text: &str) -> String {
        match self.protocol {
            Protocol::Repl | Protocol::Pty => text.to_owned(),
            Protocol::Claude => {
                json!({"type": "assistant", "message": {"content": [{"type": "text", "text": text}]}}).to_string()
            }
            Protocol::Codex => {
                let item = json!({"type": "agentMessage", "id": "m", "text": text});
                self.notify("item/completed", json!({"turnId": self.turn(), "item": item}))
            }
            Protocol::Acp => self.update(json!({
                "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text},
            })),
        }
    }

    fn update(&self, update: Value) -> String {
        let params = json!({"sessionId": self.session(), "update": update});
        json!({"jsonrpc": "2.0", "method": "session/update", "params": params}).to_string()
    }

    /// A turn's end, after this text.
    pub fn end(&self, text: &str) -> String {
        match self.protocol {
            Protocol::Repl | Protocol::Pty => self.marker(),
            Protocol::Claude => self.result(json!({"result": text, "stop_reason": "end_turn"})),
            Protocol::Codex => self.completed(json!({"id": self.turn(), "status": "completed", "items": []})),
            Protocol::Acp => {
                let usage = json!({"inputTokens": 10, "outputTokens": 10, "totalTokens": 20});
                json!({"jsonrpc": "2.0", "id": self.name, "result": {"stopReason": "end_turn", "usage": usage}})
                    .to_string()
            }
        }
    }

    fn result(&self, more: Value) -> String {
        let mut result = json!({
            "type": "result", "subtype": "success", "is_error": false, "num_turns": 1, "session_id": self.session(),
            "total_cost_usd": 0.5, "usage": {"input_tokens": 10, "output_tokens": 10},
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            result[name] = value.clone();
        }
        result.to_string()
    }

    fn completed(&self, turn: Value) -> String {
        self.notify("turn/completed", json!({ "turn": turn }))
    }

    /// A cancelled turn's end.
    pub fn cancelled(&self) -> Vec<String> {
        match self.protocol {
            Protocol::Repl | Protocol::Pty => vec![self.marker()],
            Protocol::Claude => vec![self.result(json!({
                "subtype": "error_during_execution", "is_error": true, "terminal_reason": "aborted_streaming",
            }))],
            Protocol::Codex => {
                vec![self.completed(json!({"id": self.turn(), "status": "interrupted", "items": []}))]
            }
            Protocol::Acp => {
                vec![json!({"jsonrpc": "2.0", "id": self.name, "result": {"stopReason": "cancelled"}}).to_string()]
            }
        }
    }

    /// A turn's end under a name that nobody asked for.
    pub fn foreign_end(&mut self, text: &str) -> String {
        let known = (self.name.clone(), self.turns, self.sessions);
        (self.name, self.turns) = (json!(4711), 4711);
        if self.protocol == Protocol::Claude {
            self.sessions = 4711;
        }
        let end = self.end(text);
        (self.name, self.turns, self.sessions) = known;
        end
    }

    /// The end of a turn that failed, put as if it had not.
    pub fn false_success(&self) -> String {
        match self.protocol {
            Protocol::Claude => {
                self.result(json!({"is_error": true, "api_error_status": 500, "result": "API Error: 500 boom"}))
            }
            _ => self.end(""),
        }
    }

    /// Messages of the zoo's own invention.
    pub fn unknown(&self) -> Vec<String> {
        match self.protocol {
            Protocol::Claude => vec![
                json!({"type": "weather", "sky": "blue"}).to_string(),
                json!({"type": "system", "subtype": "weather", "session_id": self.session()}).to_string(),
            ],
            Protocol::Codex => vec![
                self.notify("weather/changed", json!({"sky": "blue"})),
                self.notify("item/completed", json!({"turnId": self.turn(), "item": {"type": "weather", "sky": 1}})),
            ],
            _ => vec![
                json!({"jsonrpc": "2.0", "method": "weather/changed", "params": {"sky": "blue"}}).to_string(),
                self.update(json!({"sessionUpdate": "weather", "sky": "blue"})),
            ],
        }
    }

    /// A request of the zoo's own invention.
    pub fn own_request(&self) -> String {
        match self.protocol {
            Protocol::Claude => {
                json!({"type": "control_request", "request_id": "own", "request": {"subtype": "dance"}}).to_string()
            }
            _ => json!({"jsonrpc": "2.0", "id": "own", "method": "zoo/dance", "params": {}}).to_string(),
        }
    }

    /// A question that waits for its answer.
    pub fn question(&self) -> String {
        match self.protocol {
            Protocol::Claude => {
                let request = json!({
                    "subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": "rm x"}, "tool_use_id": "t",
                });
                json!({"type": "control_request", "request_id": "q", "request": request}).to_string()
            }
            Protocol::Codex => {
                let params = json!({
                    "threadId": self.session(), "turnId": self.turn(), "itemId": "c", "command": "rm x",
                });
                json!({"id": "q", "method": "item/commandExecution/requestApproval", "params": params}).to_string()
            }
            _ => {
                let option = |kind: &str| json!({"optionId": kind, "name": kind, "kind": kind});
                let params = json!({
                    "sessionId": self.session(), "options": [option("allow_once"), option("reject_once")],
                    "toolCall": {"toolCallId": "c", "title": "rm x", "kind": "execute", "status": "pending"},
                });
                json!({"jsonrpc": "2.0", "id": "q", "method": "session/request_permission", "params": params})
                    .to_string()
            }
        }
    }
}
