//! The model server itself: each API, each kind of step, the choice by words, and the journal.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use readyroom_testkit::model::Ending;
use readyroom_testkit::{Model, Step};
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy)]
enum Api {
    Chat,
    Responses,
    Anthropic,
    Gemini,
}

const APIS: [Api; 4] = [Api::Chat, Api::Responses, Api::Anthropic, Api::Gemini];

/// A message: who says it, and what.
type Said<'a> = (&'a str, &'a str);

impl Api {
    fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Anthropic => "/v1/messages",
            Self::Gemini => "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        }
    }

    fn body(self, said: &[Said]) -> Value {
        let messages: Vec<Value> =
            said.iter().map(|(role, content)| json!({ "role": role, "content": content })).collect();
        match self {
            Self::Chat => json!({ "model": "gpt-4o", "stream": true, "messages": messages }),
            Self::Responses => json!({ "model": "gpt-5", "stream": true, "input": messages }),
            Self::Anthropic => json!({ "model": "claude", "max_tokens": 100, "stream": true, "messages": messages }),
            Self::Gemini => {
                let contents: Vec<Value> = said
                    .iter()
                    .map(|(role, text)| {
                        let role = if *role == "assistant" { "model" } else { "user" };
                        json!({ "role": role, "parts": [{ "text": text }] })
                    })
                    .collect();
                json!({ "contents": contents })
            }
        }
    }

    /// The text that a stream of events carries.
    fn text(self, events: &[Value]) -> String {
        let part = |event: &Value| -> Option<String> {
            let text = match self {
                Self::Chat => &event["choices"][0]["delta"]["content"],
                Self::Responses if event["type"] == "response.output_text.delta" => &event["delta"],
                Self::Responses => return None,
                Self::Anthropic => &event["delta"]["text"],
                Self::Gemini => &event["candidates"][0]["content"]["parts"][0]["text"],
            };
            text.as_str().map(str::to_owned)
        };
        events.iter().filter_map(part).collect()
    }

    /// Whether the API's finish marker is among the events.
    fn finished(self, events: &[Value]) -> bool {
        events.iter().any(|event| match self {
            Self::Chat => event["choices"][0]["finish_reason"].is_string(),
            Self::Responses => event["type"] == "response.completed",
            Self::Anthropic => event["type"] == "message_stop",
            Self::Gemini => event["candidates"][0]["finishReason"].is_string(),
        })
    }

    /// The call of a tool that the events carry: its name, and its arguments as text.
    fn call(self, events: &[Value]) -> (String, String) {
        let mut name = String::new();
        let mut arguments = String::new();
        for event in events {
            let (named, given) = match self {
                Self::Chat => {
                    let function = &event["choices"][0]["delta"]["tool_calls"][0]["function"];
                    (&function["name"], function["arguments"].as_str().unwrap_or_default().to_owned())
                }
                Self::Responses => (
                    if event["type"] == "response.output_item.added" { &event["item"]["name"] } else { &Value::Null },
                    if event["type"] == "response.function_call_arguments.delta" {
                        event["delta"].as_str().unwrap_or_default().to_owned()
                    } else {
                        String::new()
                    },
                ),
                Self::Anthropic => (
                    &event["content_block"]["name"],
                    event["delta"]["partial_json"].as_str().unwrap_or_default().to_owned(),
                ),
                Self::Gemini => {
                    let call = &event["candidates"][0]["content"]["parts"][0]["functionCall"];
                    (&call["name"], call.get("args").map(Value::to_string).unwrap_or_default())
                }
            };
            if let Some(named) = named.as_str() {
                name = named.to_owned();
            }
            arguments.push_str(&given);
        }
        (name, arguments)
    }
}

/// An answer as it came over the wire.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// Whether the body came to the end that its framing announces.
    whole: bool,
}

impl Answer {
    fn events(&self) -> Vec<Value> {
        let text = String::from_utf8_lossy(&self.body);
        text.lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).expect("an event is JSON"))
            .collect()
    }
}

fn send(model: &Model, path: &str, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", model.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: local\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: \
         close\r\nx-probe: 7\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    stream
}

fn receive(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset in mid-stream is one of the things under test.
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset), "{error}");
    }
    let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Answer { status: 0, head: String::new(), body: Vec::new(), whole: false };
    };
    let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
    let rest = &bytes[at + 4..];
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let (body, whole) = if head.contains("transfer-encoding: chunked") { dechunk(rest) } else { (rest.to_vec(), true) };
    Answer { status, head, body, whole }
}

fn dechunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap().trim(), 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        let end = (at + 2 + size).min(rest.len());
        body.extend_from_slice(&rest[at + 2..end]);
        rest = rest.get(end + 2..).unwrap_or_default();
    }
    (body, false)
}

fn ask(model: &Model, api: Api, said: &[Said]) -> Answer {
    receive(send(model, api.path(), &api.body(said)))
}

#[test]
fn each_api_gets_the_text_whole() {
    let model = Model::start();
    let text = "first line\n`code` \u{1f600} and \u{1b}[1m bold, no final newline";
    model.on("zebra", text);
    for api in APIS {
        let answer = ask(&model, api, &[("user", "say zebra")]);
        let events = answer.events();
        assert_eq!(answer.status, 200, "{api:?}");
        assert_eq!(api.text(&events), text, "{api:?}");
        assert!(answer.whole && api.finished(&events), "{api:?}");
    }
}

#[test]
fn a_text_of_five_megabytes_arrives_whole_and_tears_no_character() {
    let model = Model::start();
    let text = "0123456789abcde\u{1f600}".repeat(5 << 16);
    assert!(text.len() > 5 << 20);
    model.on("giant", text.as_str());
    for api in APIS {
        let answer = ask(&model, api, &[("user", "giant")]);
        assert!(!String::from_utf8_lossy(&answer.body).contains("\\ud83d"), "{api:?} was given half a character");
        assert_eq!(api.text(&answer.events()), text, "{api:?}");
    }
}

#[test]
fn without_a_word_the_answer_is_ok_or_as_told() {
    let model = Model::start();
    for api in APIS {
        assert_eq!(api.text(&ask(&model, api, &[("user", "anything")]).events()), "ok", "{api:?}");
    }
    model.otherwise("as told");
    assert_eq!(Api::Chat.text(&ask(&model, Api::Chat, &[("user", "anything")]).events()), "as told");
}

#[test]
fn a_tool_call_and_then_the_text_after_its_result() {
    for api in APIS {
        let model = Model::start();
        model.on("crane", [Step::call("write", json!({ "path": "a.txt" })), Step::say("written")]);
        let first = ask(&model, api, &[("user", "crane please")]).events();
        assert_eq!(api.call(&first), ("write".to_owned(), r#"{"path":"a.txt"}"#.to_owned()), "{api:?}");
        // The result's own text must not choose another script.
        model.on("heron", "wrong");
        let mut body = api.body(&[("user", "crane please")]);
        let result = match api {
            Api::Chat => json!({ "role": "tool", "tool_call_id": "1", "content": "heron" }),
            Api::Responses => json!({ "type": "function_call_output", "call_id": "1", "output": "heron" }),
            Api::Anthropic => {
                json!({ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "1", "content": "heron" }] })
            }
            Api::Gemini => json!({ "role": "user", "parts": [{ "functionResponse": {
                "name": "write", "response": { "output": "heron" } } }] }),
        };
        let list = match api {
            Api::Chat | Api::Anthropic => "messages",
            Api::Responses => "input",
            Api::Gemini => "contents",
        };
        body[list].as_array_mut().unwrap().push(result);
        let second = receive(send(&model, api.path(), &body)).events();
        assert_eq!(api.text(&second), "written", "{api:?}");
    }
}

#[test]
fn steps_by_answers_begin_again_with_each_conversation() {
    let model = Model::start();
    model.on("wren", Step::ByAnswers(vec![Step::say("first"), Step::say("second")]));
    for api in APIS {
        let text = |said: &[Said]| api.text(&ask(&model, api, said).events());
        for _ in 0..2 {
            assert_eq!(text(&[("user", "the wren")]), "first", "{api:?}");
            assert_eq!(text(&[("user", "the wren"), ("assistant", "first"), ("user", "on")]), "second", "{api:?}");
        }
    }
}

#[test]
fn steps_advance_with_each_request_and_the_last_repeats() {
    let model = Model::start();
    model.on("otter", [Step::status(500), Step::say("one"), Step::say("two")]);
    let answers: Vec<(u16, String)> = (0..4)
        .map(|_| {
            let answer = ask(&model, Api::Chat, &[("user", "otter")]);
            (answer.status, Api::Chat.text(&answer.events()))
        })
        .collect();
    let expected = [(500, ""), (200, "one"), (200, "two"), (200, "two")];
    assert_eq!(answers, expected.map(|(status, text)| (status, text.to_owned())));
}

#[test]
fn the_newest_message_with_a_word_chooses() {
    let model = Model::start();
    model.on("job1", "first");
    model.on("job12", "twelfth");
    let text = |said: &[Said]| Api::Chat.text(&ask(&model, Api::Chat, said).events());
    assert_eq!(text(&[("user", "job1"), ("assistant", "first"), ("user", "job12")]), "twelfth");
    assert_eq!(text(&[("user", "job12"), ("assistant", "x"), ("user", "job1")]), "first");
    assert_eq!(text(&[("user", "job12"), ("assistant", "x"), ("user", "no word")]), "twelfth");
    assert_eq!(text(&[("user", "job12, then job1")]), "first", "the word that stands last");
}

#[test]
fn side_requests_advance_nothing() {
    let model = Model::start();
    model.on("robin", [Step::say("one"), Step::say("two")]);
    let title = [("system", "You are a title generator."), ("user", "robin")];
    assert_eq!(Api::Chat.text(&ask(&model, Api::Chat, &title).events()), "ok");
    assert_eq!(Api::Chat.text(&ask(&model, Api::Chat, &[("user", "robin")]).events()), "one");
    let requests = model.requests();
    assert_eq!(requests.iter().map(|request| request.side).collect::<Vec<_>>(), [true, false]);
    assert_eq!(model.requests_of("robin").len(), 1);
}

#[test]
fn a_status_has_the_headers_given_and_a_body_in_the_apis_own_form() {
    let model = Model::start();
    model.on("limit", Step::retry_after(3));
    for api in APIS {
        let answer = ask(&model, api, &[("user", "limit")]);
        assert_eq!(answer.status, 429, "{api:?}");
        assert!(answer.head.contains("retry-after: 3"), "{api:?}: {}", answer.head);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let expected = match api {
            Api::Chat | Api::Responses => json!("rate_limit_exceeded"),
            Api::Anthropic => json!("rate_limit_error"),
            Api::Gemini => json!("RESOURCE_EXHAUSTED"),
        };
        let found = match api {
            Api::Chat | Api::Responses => &body["error"]["code"],
            Api::Anthropic => &body["error"]["type"],
            Api::Gemini => &body["error"]["status"],
        };
        assert_eq!(*found, expected, "{api:?}");
    }
    let body = r#"{"error":{"type":"usage_limit_reached"}}"#;
    model.on("window", Step::Status { code: 429, headers: [].into(), body: body.into() });
    assert_eq!(ask(&model, Api::Responses, &[("user", "window")]).body, body.as_bytes());
}

#[test]
fn a_break_comes_after_its_text_and_before_any_marker() {
    let model = Model::start();
    model.on("snap", Step::Break { after_text: "half of".into() });
    for api in APIS {
        let answer = ask(&model, api, &[("user", "snap")]);
        let events = answer.events();
        assert_eq!(api.text(&events), "half of", "{api:?}");
        assert!(!answer.whole && !api.finished(&events), "{api:?} ended in order");
    }
}

#[test]
fn a_stream_can_end_in_order_without_its_marker() {
    let model = Model::start();
    model.on("mute", Step::NoFinish { text: "no end".into() });
    for api in APIS {
        let answer = ask(&model, api, &[("user", "mute")]);
        let events = answer.events();
        assert_eq!(api.text(&events), "no end", "{api:?}");
        assert!(answer.whole && !api.finished(&events), "{api:?}");
    }
}

#[test]
fn a_hang_lasts_until_the_client_goes_and_the_journal_tells() {
    let model = Model::start();
    model.on("void", Step::Hang);
    model.on("pause", Step::HangAfter { text: "so far".into() });
    let silent = send(&model, Api::Chat.path(), &Api::Chat.body(&[("user", "void")]));
    assert_eq!(model.wait_request("void").ending, Ending::Open);
    drop(silent);
    assert_eq!(model.wait_closed("void").word.as_deref(), Some("void"));

    for api in APIS {
        let mut stream = send(&model, api.path(), &api.body(&[("user", "pause")]));
        let mut seen = String::new();
        let mut piece = [0; 4096];
        while !seen.contains("so far") {
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "{api:?} ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        let closed = |model: &Model| model.requests_of("pause").iter().filter(|r| r.ending == Ending::Closed).count();
        let before = closed(&model);
        drop(stream);
        model.wait("the close", |requests| {
            let count = requests.iter().filter(|r| r.is_of("pause") && r.ending == Ending::Closed).count();
            (count > before).then_some(())
        });
    }
}

#[test]
fn delay_and_slow_take_their_time_and_say_it_all() {
    let model = Model::start();
    model.on("later", Step::say("now").after(300));
    model.on("slowly", Step::Slow { text: "abcdefghij".into(), chunk: 2, delay_ms: 60 });
    for api in APIS {
        let start = Instant::now();
        assert_eq!(api.text(&ask(&model, api, &[("user", "later")]).events()), "now", "{api:?}");
        assert!(start.elapsed().as_millis() >= 300, "{api:?}");
        let start = Instant::now();
        let events = ask(&model, api, &[("user", "slowly")]).events();
        assert_eq!(api.text(&events), "abcdefghij", "{api:?}");
        assert!(start.elapsed().as_millis() >= 300, "{api:?}");
    }
}

#[test]
fn the_journal_keeps_what_was_asked() {
    let model = Model::start();
    let prompt = "quote \" newline \n nul \0 escape \u{1b}[0m";
    ask(&model, Api::Anthropic, &[("user", prompt)]);
    let requests = model.requests();
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/messages"));
    assert_eq!(request.headers["x-probe"], "7");
    assert_eq!(request.body["messages"][0]["content"], prompt);
    assert!(request.holds("newline \n nul \0") && !request.holds("absent"));
    assert_eq!(request.ending, Ending::Answered);
}

#[tokio::test]
async fn async_tests_wait_without_holding_up_their_runtime() {
    let model = Model::start();
    let address = ("127.0.0.1", model.port());
    model.on("gull", Step::Hang);
    let client = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let body = Api::Chat.body(&[("user", "gull")]).to_string();
        let head = format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", Api::Chat.path(), body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        stream
    });
    model.requested("gull").await;
    drop(client.await.unwrap());
    assert_eq!(model.closed("gull").await.ending, Ending::Closed);
}

#[test]
fn nothing_of_the_server_outlives_it() {
    let model = Model::start();
    let address = ("127.0.0.1", model.port());
    drop(model);
    TcpStream::connect(address).expect_err("the port is closed");
}
