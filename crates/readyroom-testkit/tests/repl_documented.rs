//! The REPLs that `docs/definitions.md` shows, run as they stand there: answers byte for byte, ends that nothing can
//! fake or swallow, cancels, crashes.

mod repl_support;

use std::time::Duration;

use readyroom::driver::Proof;
use readyroom::{Context, Exit, FailureKind, Job, Outcome, Permissions};
use repl_support::{Bench, Postgres};

#[tokio::test]
async fn python_answers_byte_for_byte() {
    let python = Bench::new("python3").await;
    let pid = python.pid().await;
    assert_eq!(python.answer("1 + 1").await, "2\n");
    assert_eq!(python.answer("x = 5\nfor n in range(2):\n    print(n, x)").await, "0 5\n1 5\n");
    assert_eq!(python.answer("print('no newline', end='')").await, "no newline");
    assert_eq!(python.answer("pass").await, "");
    let response = python.run("import sys\n_ = sys.stdout.buffer.write(bytes(range(256)) * 2)").await;
    let all: Vec<u8> = (0..=255).chain(0..=255).collect();
    assert_eq!(response.text().unwrap().as_bytes(), all);
    // Whatever looks like the REPL's own: prompts, the fence as it was sent, a marker of another nonce.
    let forged = ">>> \n... \nprint(\"\\n{a}\" + \"{b}\")\n0123456789abcdef\n\n\u{1b}[0m\u{0}\r\n> ";
    assert_eq!(python.answer(&format!("print({}, end='')", python_literal(forged))).await, forged);
    // Five megabytes in many small writes.
    let script = "import os\nfor n in range(50_000): _ = os.write(1, b'%099d\\n' % n)";
    let response = python.run(script).await;
    let long: Vec<u8> = (0..50_000).flat_map(|n| format!("{n:099}\n").into_bytes()).collect();
    assert!(response.text().unwrap().as_bytes() == long, "{}", response.answer.text.as_bytes().len());
    let odd = "é\u{1f600} /add !x @y {z \u{1b}[1m";
    assert_eq!(python.answer(&format!("'''{odd}''' == {}", python_literal(odd))).await, "True\n");
    let long = format!("text = '''{}'''\nlen(text)", "/x !y {z\n".repeat(25_000));
    assert_eq!(python.answer(&long).await, "225000\n");
    assert_eq!(python.pid().await, pid, "one process throughout");
    python.end().await;
}

/// JSON's strings are Python's too.
fn python_literal(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

#[tokio::test]
async fn nothing_that_python_runs_swallows_the_fence() {
    let python = Bench::new("python3").await;
    for (prompt, said) in [
        ("text = \"\"\"open", "SyntaxError"),
        ("foo(", "SyntaxError"),
        ("input()", "EOFError"),
        ("import sys; repr(sys.stdin.read())", "''"),
        ("import subprocess; subprocess.run(['cat']).returncode", "0"),
        ("import os; os.system('read x; echo got $x')", "got\n"),
        ("1 / 0", "ZeroDivisionError"),
        ("print('a\\x00b')", "a\0b\n"),
    ] {
        let answer = python.answer(prompt).await;
        assert!(answer.contains(said), "{prompt:?}: {answer:?}");
    }
    python.end().await;
}

#[tokio::test]
async fn python_is_cancelled_and_stays() {
    let python = Bench::new("python3").await;
    let pid = python.pid().await;
    python.answer("x = 1").await;
    // In one write, which `print` is not: the interrupt could come between the text and its newline.
    let sleep = "import subprocess, sys\nsys.stdout.write('begun\\n')\nsubprocess.run(['sleep', '4321'])";
    let mut events = python.cluster.events();
    let ticket = python.cluster.submit(sleep).unwrap();
    loop {
        use readyroom::{Event, driver::Activity};
        match events.recv().await.unwrap() {
            Event::TurnProgressed { activity: Activity::Text(text), .. } if text.contains("begun") => break,
            _ => {}
        }
    }
    ticket.cancel();
    let response = ticket.await;
    assert_eq!(response.outcome, Outcome::Cancelled);
    assert!(response.answer.text.to_string_lossy().starts_with("begun\n"), "{:?}", response.answer);
    let left = readyroom_testkit::processes_of(&python.sandbox);
    assert!(left.iter().all(|process| !process.command.starts_with("sleep")), "{left:?}");
    let late = Job::new("import time; time.sleep(4321)").with_timeout(Duration::from_millis(300));
    let response = python.cluster.submit(late).unwrap().await;
    assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{:?}", response.outcome);
    // What was kept is lost with a turn that did not succeed, since no reset could be proven.
    let response = python.run("'x' in globals()").await;
    assert_eq!(response.text().unwrap(), "False\n");
    assert!(response.context_lost);
    assert_ne!(python.pid().await, pid);
    python.end().await;
}

#[tokio::test]
async fn without_a_provable_reset_fresh_is_a_new_process() {
    let fresh = |options: readyroom::ClusterOptions| options.context(Context::Fresh);
    for (name, prompt) in [("python3", "import os; os.getpid()"), ("bash", "echo $$")] {
        let bench = Bench::with(name, fresh, |_| {}).await;
        let first = bench.run(prompt).await;
        let second = bench.run(prompt).await;
        assert_ne!(first.text().unwrap(), second.text().unwrap());
        assert_eq!((first.proof, second.proof), (Some(Proof::NewProcess), Some(Proof::NewProcess)));
        assert_eq!(second.generation, 2);
        bench.end().await;
    }
}

#[tokio::test]
async fn bash_answers_whatever_its_commands_do() {
    let bash = Bench::new("bash").await;
    let pid = bash.pid().await;
    assert_eq!(bash.answer("x=3; cd /usr; echo $x").await, "3\n");
    assert_eq!(bash.answer("echo $x; pwd").await, "3\n/usr\n");
    assert_eq!(bash.answer("printf partial").await, "partial");
    for (prompt, said) in [
        ("echo \"open", "unexpected EOF"),
        ("cat; echo over", "over\n"),
        ("read line; echo $?", "1\n"),
        ("false", ""),
        ("echo out; echo err >&2; echo out", "out\nerr\nout\n"),
        ("exec </dev/null; echo fine", "fine\n"),
        ("echo '\\necho {a}{b} 0'", "{a}{b} 0"),
    ] {
        let answer = bash.answer(prompt).await;
        assert!(answer.contains(said), "{prompt:?}: {answer:?}");
    }
    let response = bash.run("printf '\\xff\\xfe\\x00\\x80'").await;
    assert_eq!(response.text().unwrap().as_bytes(), b"\xff\xfe\x00\x80");
    let response = bash.run("head -c 5000000 /dev/zero").await;
    assert!(response.text().unwrap().as_bytes() == vec![0; 5_000_000]);
    assert_eq!(bash.pid().await, pid);
    let response = bash.run("echo last; exit 3").await;
    let failure = response.error().unwrap();
    assert_eq!(failure.kind, FailureKind::Crashed { exit: Some(Exit::Status(3)) });
    assert!(failure.evidence.contains("last"));
    let response = bash.run("echo ${x-unset}").await;
    assert_eq!((response.text().unwrap().to_string().as_str(), response.context_lost), ("unset\n", true));
    bash.end().await;
}

#[tokio::test]
async fn a_cancelled_bash_is_replaced_and_its_commands_end() {
    let bash = Bench::new("bash").await;
    let pid = bash.pid().await;
    // More often than crashes in a row are forgiven: a cancelled turn is none.
    for _ in 0..5 {
        let mut events = bash.cluster.events();
        let ticket = bash.cluster.submit("setsid sleep 4321 & echo begun; sleep 4321").unwrap();
        while !matches!(events.recv().await.unwrap(), readyroom::Event::TurnProgressed { .. }) {}
        ticket.cancel();
        assert_eq!(ticket.await.outcome, Outcome::Cancelled);
    }
    assert_eq!(bash.answer("echo back").await, "back\n");
    assert_ne!(bash.pid().await, pid);
    let left = readyroom_testkit::processes_of(&bash.sandbox);
    assert!(left.iter().all(|process| !process.command.contains("sleep 4321")), "{left:?}");
    bash.end().await;
}

#[tokio::test]
async fn sqlite_answers_and_ends_statements_that_are_left_open() {
    let sqlite = Bench::new("sqlite3").await;
    assert_eq!(sqlite.answer("create table t(a, b);\ninsert into t values (1, 'x'), (2, 'y');").await, "");
    assert_eq!(sqlite.answer("select * from t;").await, "1|x\n2|y\n");
    assert_eq!(sqlite.answer("select 'no semicolon'").await, "no semicolon\n");
    assert!(sqlite.answer("select nope from t;").await.contains("no such column"));
    assert_eq!(sqlite.answer(".tables").await.trim(), "t");
    assert_eq!(sqlite.answer("select '.print ''{a}'' {b}' || char(10) || '> ';").await, ".print '{a}' {b}\n> \n");
    let response = sqlite.run("select cast(x'ff80fe' as text);").await;
    assert_eq!(response.text().unwrap().as_bytes(), b"\xff\x80\xfe\n");
    // An open string swallows every fence; the time limit ends the turn, and the process with it.
    let open = Job::new("select 'open").with_timeout(Duration::from_millis(500));
    let response = sqlite.cluster.submit(open).unwrap().await;
    assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{:?}", response.outcome);
    let response = sqlite.run("select count(*) from sqlite_master;").await;
    assert_eq!((response.text().unwrap().to_string().as_str(), response.context_lost), ("0\n", true));
    let endless = "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c;";
    let response = sqlite.cluster.submit(Job::new(endless).with_timeout(Duration::from_millis(500))).unwrap().await;
    assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{:?}", response.outcome);
    assert_eq!(sqlite.answer("select 1;").await, "1\n");
    sqlite.end().await;
}

#[tokio::test]
async fn psql_answers_and_forgets_what_is_left_open() {
    let postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let mut sandbox = readyroom_testkit::Sandbox::bare("psql");
    for (name, value) in postgres.env() {
        sandbox.set_env(name, value);
    }
    let psql = Bench::within(sandbox, "psql", |options| options, |_| {}).await;
    let pid = psql.pid().await;
    assert_eq!(psql.answer("create table t(a int); insert into t values (1), (2);").await, "");
    assert_eq!(psql.answer("select * from t order by a;").await, "1\n2\n");
    assert_eq!(psql.answer("select 'no semicolon'").await, "no semicolon\n");
    assert!(psql.answer("select nothing;").await.contains("does not exist"));
    assert_eq!(psql.answer("select (1").await, "", "dropped: it can't be ended from outside");
    assert_eq!(psql.answer("\\echo hi\nselect 'é' || chr(10) || '> {a} {b}';").await, "hi\né\n> {a} {b}\n");
    let long = format!("select length('{}');", "x\n".repeat(100_000));
    assert_eq!(psql.answer(&long).await, "200000\n");
    assert_eq!(psql.pid().await, pid);
    let open = Job::new("select 'open").with_timeout(Duration::from_millis(500));
    assert!(matches!(psql.cluster.submit(open).unwrap().await.outcome, Outcome::TimedOut { .. }));
    let sleeping = Job::new("select pg_sleep(600);").with_timeout(Duration::from_millis(500));
    assert!(matches!(psql.cluster.submit(sleeping).unwrap().await.outcome, Outcome::TimedOut { .. }));
    assert_eq!(psql.answer("select count(*) from t;").await, "2\n");
    psql.end().await;
}

#[tokio::test]
async fn node_answers_in_order_also_when_it_awaits() {
    let node = Bench::new("node").await;
    let pid = node.pid().await;
    assert_eq!(node.answer("1 + 1").await, "2\n");
    assert_eq!(node.answer("let x = 5").await, "");
    assert_eq!(node.answer("x").await, "5\n");
    let waits = "await new Promise(done => setTimeout(() => done('late'), 700))";
    assert_eq!(node.answer(waits).await, "'late'\n");
    assert_eq!(
        node.answer("console.log('> \\n... '); process.stdout.write('partial'), undefined").await,
        "> \n... \npartial"
    );
    assert!(node.answer("foo(").await.contains("SyntaxError"), "an open call is left");
    assert!(node.answer("throw new Error('boom')").await.contains("boom"));
    assert!(node.answer("await Promise.reject(new Error('bang'))").await.contains("bang"));
    assert_eq!(node.answer("function f() {\n  return x\n}\nf()").await, "5\n");
    let response = node.run("process.stdout.write(Buffer.from([0xff, 0, 0x80])), undefined").await;
    assert_eq!(response.text().unwrap().as_bytes(), b"\xff\x00\x80");
    assert_eq!(node.answer("process.stdout.write('y'.repeat(5e6)), undefined").await.len(), 5_000_000);
    assert_eq!(node.pid().await, pid);
    node.end().await;
}

/// A level that names where a tool may write holds it there, and all that it starts.
#[tokio::test]
async fn a_shell_is_held_to_the_places_that_its_level_names() {
    let attempts =
        "echo x >inside; setsid sh -c 'echo x >\"$OUT/new\"'; echo x >>\"$OUT/old\"; rm \"$OUT/old\"; echo over";
    for permissions in [Permissions::Read, Permissions::Edit, Permissions::Full] {
        let mut sandbox = readyroom_testkit::Sandbox::bare("bash");
        let temporary = sandbox.home().join("tmp");
        std::fs::create_dir(&temporary).unwrap();
        let outside = sandbox.outside().to_owned();
        std::fs::write(outside.join("old"), "").unwrap();
        sandbox.set_env("TMPDIR", temporary.to_string_lossy());
        sandbox.set_env("OUT", outside.to_string_lossy());
        let bash = Bench::within(sandbox, "bash", |options| options.permissions(permissions), |_| {}).await;
        assert!(bash.answer(attempts).await.ends_with("over\n"));
        let inside = bash.sandbox.read("inside").is_some();
        let untouched =
            !outside.join("new").exists() && std::fs::read(outside.join("old")).is_ok_and(|old| old.is_empty());
        assert_eq!(
            (inside, untouched),
            (permissions != Permissions::Read, permissions != Permissions::Full),
            "{permissions}"
        );
        bash.end().await;
    }
}
