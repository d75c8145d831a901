//! A tool that says its own key wherever a protocol lets it: it stands in no event, no failure and no status, and only
//! what the tool answers is as it was.

use std::path::Path;
use std::time::Duration;

use readyroom::cluster::LaunchError;
use readyroom::{Cluster, Event, Job, Permissions, Wait};
use readyroom_testkit::{Sandbox, assert_nothing_left, use_guardian};

const SECRET: &str = "sk-planted-9876543210";

/// An agent in a shell. Its key is in its version, its session's name, a line that is no JSON, a notification of an
/// unknown kind, stderr, a tool call, a request for permission, a process that it leaves, and in its last prompt's error.
const AGENT: &str = r#"
say() { printf '%s\n' "$1"; }
update() { say '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"'$K'","update":'"$1"'}}'; }
K=$MY_API_KEY
read -r _; say '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"agentCapabilities":{},"authMethods":[],"agentInfo":{"name":"a","version":"1.0-'$K'"}}}'
read -r _; say '{"jsonrpc":"2.0","id":2,"result":{"sessionId":"'$K'"}}'
read -r _
echo "stderr $K" >&2
say "not JSON $K"
say '{"jsonrpc":"2.0","method":"x/'$K'","params":{}}'
update '{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"my key is '$K'"}}'
update '{"sessionUpdate":"tool_call","toolCallId":"t","title":"run '$K'","kind":"execute","status":"pending"}'
say '{"jsonrpc":"2.0","id":"p","method":"session/request_permission","params":{"sessionId":"'$K'","toolCall":{"toolCallId":"t","title":"run '$K'","kind":"execute"},"options":[{"optionId":"no","name":"no","kind":"reject_once"}]}}'
read -r _
(setsid sh -c 'echo; exec >&-; sleep 1000; :' "$K" </dev/null 2>/dev/null &) | head -n 1 >/dev/null
update '{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"still '$K'"}}'
say '{"jsonrpc":"2.0","id":3,"result":{"stopReason":"end_turn"}}'
while read -r line; do
    id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
    case $line in
    *session/new*) say '{"jsonrpc":"2.0","id":'$id',"result":{"sessionId":"again-'$K'"}}' ;;
    *session/prompt*) say '{"jsonrpc":"2.0","id":'$id',"error":{"code":-32603,"message":"bad key '$K'","data":{"details":"'$K'"}}}' ;;
    *) ;;
    esac
done
"#;

async fn launch(sandbox: &Sandbox, script: &str) -> Result<Cluster, LaunchError> {
    let text = format!(
        "id = \"agent\"\ndriver = \"acp\"\nargv = [\"/bin/sh\", \"-c\", {script:?}]\n[permissions.read]\nprevents = [\"shell\"]\n"
    );
    let definition = toml::from_str(&text).unwrap();
    let mut options = sandbox.options().count(1).permissions(Permissions::Read).wait(Wait::All);
    options.contract.env.insert("MY_API_KEY".into(), SECRET.into());
    Cluster::launch(std::sync::Arc::new(definition), Path::new("/bin/sh"), options).await
}

fn holds_none(what: &str, text: &str) {
    assert!(!text.contains(SECRET), "{what}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_says_of_its_key_stands_in_its_answer_only() {
    use_guardian();
    let sandbox = Sandbox::bare("agent");
    let cluster = launch(&sandbox, AGENT).await.unwrap();
    let mut events = cluster.events();
    let job = |prompt: &str| Job::new(prompt).with_timeout(Duration::from_secs(30));
    let first = cluster.submit(job("hello")).unwrap().await;
    assert!(first.answer.transcript.to_string().contains(SECRET), "an answer is as it was: {first:#?}");
    let denied = format!("{:?}", first.answer.denials);
    assert!(denied.contains("[secret]"), "{denied}");
    let mut told = format!("{:?} {denied}", first.outcome);
    let second = cluster.submit(job("again")).unwrap().await;
    assert!(!second.ok());
    told.push_str(&format!("{second:?} {} {:?}", second.outcome, cluster.status().await));
    holds_none("responses and status", &told);
    assert!(told.contains("bad key [secret]"), "{told}");
    // Its version was told before anybody could listen.
    cluster.restart_instance(0, true).await.unwrap();
    cluster.wait_ready(Wait::All).await.unwrap();
    cluster.shutdown().await;
    drop(cluster);
    assert_nothing_left(&sandbox);
    let mut kinds = Vec::new();
    while let Some(event) = events.recv().await {
        // The answer's own text, as it comes.
        if matches!(&event, Event::TurnProgressed { activity: readyroom::driver::Activity::Text(_), .. }) {
            continue;
        }
        let shown = format!("{event:?}{}", serde_json::to_string(&event).unwrap());
        holds_none("an event", &shown);
        if shown.contains("[secret]") {
            kinds.push(shown.split(' ').next().unwrap().to_owned());
        }
    }
    for kind in ["InstanceReady", "ContextProven", "TurnProgressed", "TurnEnded"] {
        assert!(kinds.iter().any(|seen| seen == kind), "no {kind} told of it: {kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_never_becomes_ready_tells_no_key() {
    use_guardian();
    let sandbox = Sandbox::bare("agent");
    let error = launch(&sandbox, "echo \"bad key $MY_API_KEY\" >&2; exit 3").await.unwrap_err();
    let told = format!("{error} {error:?}");
    holds_none("the error", &told);
    assert!(told.contains("bad key [secret]"), "{told}");
}
