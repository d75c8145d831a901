//! A REPL that only talks to a terminal: it echoes what it reads and prints prompts, and neither is taken for an answer.

mod repl_support;

use readyroom::Outcome;
use readyroom::tool::Definition;
use repl_support::Bench;

/// `node -i` on a terminal. It takes a line at a time and echoes it; prompts stand in front of each.
fn node(definition: &mut Definition) {
    let text = r#"
        id = "node"
        driver = "repl"
        transport = "pty"
        argv = ["node", "-i"]
        [env]
        NO_COLOR = "1"
        [repl]
        fence = "console.log('\\n{a}' + '{b}')"
        marker = "\n{a}{b}\n"
        head = '[^\n]*\n'
        tail = '(?:undefined\n)?> [^\n]*\n'
        after_fence = "undefined\n> "
        interrupt = true
        [repl.refuse]
        '\n' = "it takes one line at a time"
    "#;
    *definition = toml::from_str(text).unwrap();
}

#[tokio::test]
async fn echo_and_prompts_are_no_part_of_an_answer() {
    let dumb = |mut options: readyroom::ClusterOptions| {
        options.contract.env.insert("TERM".into(), "dumb".into());
        options
    };
    let node = Bench::with("node", dumb, node).await;
    assert_eq!(node.answer("1 + 1").await, "2\n");
    assert_eq!(node.answer("await new Promise(done => setTimeout(() => done('late'), 500))").await, "'late'\n");
    let long = format!("'{}'.length", "x".repeat(6_000));
    assert_eq!(node.answer(&long).await, "6000\n");
    assert_eq!(node.answer("console.log('> 1\\nundefined\\n> ')").await, "> 1\nundefined\n> \n");
    let refused = node.run("1\n2").await;
    assert!(matches!(&refused.outcome, Outcome::Failed(failure) if failure.message.contains("one line at a time")));
    node.end().await;
}
