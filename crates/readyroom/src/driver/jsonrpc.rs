//! JSON-RPC 2.0 as agents speak it: one object a line, in both directions, on the same pair of pipes.
//!
//! Both sides send requests, each in an id space of its own: an agent's request 0 says nothing about our request 0.
//! So what a message is depends on its fields and never on its id: with `method` and `id` it is a request, with `method`
//! alone a notification, with `id` alone a response. Some agents leave out the `jsonrpc` field and expect the same.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The code for a method that this side does not know.
pub const METHOD_NOT_FOUND: i64 = -32601;

/// What one line says.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The other side asks and waits for an answer with the same id.
    Request {
        /// Its id, in the other side's own id space.
        id: Value,
        /// What it asks for.
        method: String,
        /// What goes with it; `Null` where nothing does.
        params: Value,
    },
    /// The other side tells something and waits for nothing.
    Notification {
        /// What it tells.
        method: String,
        /// What goes with it; `Null` where nothing does.
        params: Value,
    },
    /// The answer to a request of ours.
    Response {
        /// The id of our request.
        id: Value,
        /// The answer.
        result: Result<Value, RpcError>,
    },
    /// No message at all.
    Malformed {
        /// Why.
        why: &'static str,
    },
}

/// The other side's refusal.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    /// The code. JSON-RPC's own are negative; some agents put an HTTP status here.
    pub code: i64,
    /// The message.
    pub message: String,
    /// More, in a form of the agent's own; `Null` where there is none.
    pub data: Value,
}

impl RpcError {
    fn read(error: &Value) -> Self {
        let message = match &error["message"] {
            Value::String(text) => text.clone(),
            Value::Null if error.is_string() => error.as_str().unwrap_or_default().to_owned(),
            Value::Null => error.to_string(),
            other => other.to_string(),
        };
        let code = error["code"].as_i64().or_else(|| error["code"].as_str().and_then(|code| code.parse().ok()));
        Self { code: code.unwrap_or(0), message, data: error["data"].clone() }
    }

    /// Code, message and data in one text, for rules that classify by text.
    pub fn text(&self) -> String {
        match &self.data {
            Value::Null => format!("{} {}", self.code, self.message),
            data => format!("{} {} {data}", self.code, self.message),
        }
    }
}

/// Reads one line. Bytes that are not UTF-8 are replaced, since agents pass on what a tool printed.
pub fn decode(line: &[u8]) -> Message {
    let value = match serde_json::from_slice::<Value>(line) {
        Ok(value) => value,
        Err(_) if std::str::from_utf8(line).is_err() => {
            match serde_json::from_str::<Value>(&String::from_utf8_lossy(line)) {
                Ok(value) => value,
                Err(_) => return Message::Malformed { why: "not JSON" },
            }
        }
        Err(_) => return Message::Malformed { why: "not JSON" },
    };
    let Value::Object(mut object) = value else {
        return Message::Malformed { why: "not a JSON object" };
    };
    let id = object.remove("id");
    match (object.remove("method"), id) {
        (Some(Value::String(method)), id) => {
            let params = object.remove("params").unwrap_or(Value::Null);
            match id {
                Some(id) => Message::Request { id, method, params },
                None => Message::Notification { method, params },
            }
        }
        (Some(_), _) => Message::Malformed { why: "a method that is no string" },
        (None, Some(id)) => match (object.remove("error"), object.remove("result")) {
            (Some(error), _) if !error.is_null() => Message::Response { id, result: Err(RpcError::read(&error)) },
            (_, Some(result)) => Message::Response { id, result: Ok(result) },
            _ => Message::Malformed { why: "neither a method nor a result nor an error" },
        },
        (None, None) => Message::Malformed { why: "neither a method nor an id" },
    }
}

/// Writes our side: numbers our requests from 1, and remembers for each one that is unanswered what it was for.
#[derive(Debug)]
pub struct Pending<T> {
    next: u64,
    field: bool,
    open: BTreeMap<u64, T>,
}

impl<T> Pending<T> {
    /// For a side that expects the `jsonrpc` field.
    pub fn new() -> Self {
        Self { next: 1, field: true, open: BTreeMap::new() }
    }

    /// For a side that leaves the `jsonrpc` field out.
    pub fn without_version() -> Self {
        Self { field: false, ..Self::new() }
    }

    /// A request, encoded with its newline; `what` comes back with the answer. Also gives its id.
    pub fn request(&mut self, method: &str, params: Value, what: T) -> (u64, Vec<u8>) {
        let id = self.next;
        self.next += 1;
        self.open.insert(id, what);
        (id, self.encode([("id", json!(id)), ("method", json!(method)), ("params", params)]))
    }

    /// What the answered request was for; `None` where no request of ours with this id is unanswered. Each request
    /// is answered once.
    pub fn answered(&mut self, id: &Value) -> Option<T> {
        let id = id.as_u64().or_else(|| id.as_str().and_then(|id| id.parse().ok()))?;
        self.open.remove(&id)
    }

    /// Requests without an answer so far, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.open.iter().map(|(id, what)| (*id, what))
    }

    /// A notification, encoded with its newline.
    pub fn notification(&self, method: &str, params: Value) -> Vec<u8> {
        self.encode([("method", json!(method)), ("params", params)])
    }

    /// An answer to a request of the other side, encoded with its newline.
    pub fn answer(&self, id: &Value, result: Value) -> Vec<u8> {
        self.encode([("id", id.clone()), ("result", result)])
    }

    /// A refusal of a request of the other side, encoded with its newline.
    pub fn refuse(&self, id: &Value, code: i64, message: &str) -> Vec<u8> {
        self.encode([("id", id.clone()), ("error", json!({"code": code, "message": message}))])
    }

    /// The refusal of a method that this side does not know, encoded with its newline.
    pub fn unknown(&self, id: &Value, method: &str) -> Vec<u8> {
        self.refuse(id, METHOD_NOT_FOUND, &format!("method not found: {method}"))
    }

    fn encode<const N: usize>(&self, fields: [(&str, Value); N]) -> Vec<u8> {
        let mut object = Map::new();
        if self.field {
            object.insert("jsonrpc".into(), json!("2.0"));
        }
        object.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let mut line = Value::Object(object).to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_known_by_its_fields() {
        assert_eq!(
            decode(br#"{"jsonrpc":"2.0","id":0,"method":"session/request_permission","params":{"a":1}}"#),
            Message::Request { id: json!(0), method: "session/request_permission".into(), params: json!({"a": 1}) }
        );
        assert_eq!(
            decode(br#"{"method":"turn/completed"}"#),
            Message::Notification { method: "turn/completed".into(), params: Value::Null }
        );
        assert_eq!(
            decode(br#"{"id":3,"result":{"stopReason":"end_turn"}}"#),
            Message::Response { id: json!(3), result: Ok(json!({"stopReason": "end_turn"})) }
        );
        assert_eq!(decode(br#"{"id":3,"result":null}"#), Message::Response { id: json!(3), result: Ok(Value::Null) });
    }

    #[test]
    fn a_request_is_one_whatever_its_id() {
        for id in [json!(0), json!(1), json!("x"), Value::Null, json!(-1)] {
            let line = json!({"id": id, "method": "m", "params": {}}).to_string();
            assert!(matches!(decode(line.as_bytes()), Message::Request { .. }), "{line}");
        }
    }

    #[test]
    fn errors_are_read_in_the_forms_that_occur() {
        let error = |line: &str| match decode(line.as_bytes()) {
            Message::Response { result: Err(error), .. } => error,
            other => panic!("{other:?}"),
        };
        let plain = error(
            r#"{"id":1,"error":{"code":-32603,"message":"Internal error: x","data":{"service":"session","errorName":"APIError"}}}"#,
        );
        assert_eq!((plain.code, plain.message.as_str()), (-32603, "Internal error: x"));
        assert!(plain.text().contains("APIError"));
        assert_eq!(error(r#"{"id":1,"error":{"code":"429","message":"m"}}"#).code, 429);
        assert_eq!(error(r#"{"id":1,"error":"boom"}"#).message, "boom");
        assert_eq!(error(r#"{"id":1,"result":null,"error":{"message":"m"}}"#).message, "m");
    }

    #[test]
    fn what_is_no_message_says_why() {
        for line in ["", "hello", "[1]", "{", "{}", r#"{"id":1}"#, r#"{"method":1,"id":1}"#, r#"{"id":1,"error":null}"#]
        {
            assert!(matches!(decode(line.as_bytes()), Message::Malformed { .. }), "{line}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_do_not_hide_a_message() {
        let line = b"{\"method\":\"m\",\"params\":\"a\xffb\"}";
        assert_eq!(decode(line), Message::Notification { method: "m".into(), params: json!("a\u{fffd}b") });
    }

    #[test]
    fn each_request_is_answered_once() {
        let mut pending = Pending::new();
        let (first, bytes) = pending.request("initialize", json!({"protocolVersion": 1}), "first");
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}\n"
        );
        let (second, _) = pending.request("session/new", json!({}), "second");
        assert_eq!(pending.iter().map(|(id, _)| id).collect::<Vec<_>>(), [first, second]);
        assert_eq!(pending.answered(&json!(second)), Some("second"));
        assert_eq!(pending.answered(&json!(second)), None);
        assert_eq!(pending.answered(&json!("1")), Some("first"));
        assert_eq!(pending.answered(&Value::Null), None);
    }

    #[test]
    fn the_version_field_can_be_left_out() {
        let mut pending = Pending::<()>::without_version();
        let (_, bytes) = pending.request("m", Value::Null, ());
        assert_eq!(bytes, b"{\"id\":1,\"method\":\"m\",\"params\":null}\n");
        assert_eq!(pending.notification("n", json!({})), b"{\"method\":\"n\",\"params\":{}}\n");
        assert_eq!(
            pending.unknown(&json!(0), "fs/x"),
            b"{\"id\":0,\"error\":{\"code\":-32601,\"message\":\"method not found: fs/x\"}}\n"
        );
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_one_line_and_reads_back(method in any::<String>(), params in json_value()) {
            let mut pending = Pending::new();
            let (id, bytes) = pending.request(&method, params.clone(), ());
            prop_assert_eq!(bytes.iter().filter(|&&byte| byte == b'\n').count(), 1);
            prop_assert_eq!(
                decode(&bytes[..bytes.len() - 1]),
                Message::Request { id: json!(id), method: method.clone(), params: params.clone() }
            );
            let answer = pending.answer(&json!(id), params.clone());
            prop_assert_eq!(
                decode(&answer[..answer.len() - 1]),
                Message::Response { id: json!(id), result: Ok(params) }
            );
        }

        #[test]
        fn any_bytes_are_a_message_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }
    }
}
