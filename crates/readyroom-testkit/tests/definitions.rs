//! The definitions of `docs/definitions.md`, each at work with its real program, through a cluster.
//!
//! An answer is the program's own, byte for byte; what could swallow a fence does not; a context is new for each turn by
//! default and goes on with `keep`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use readyroom::driver::Proof;
use readyroom::tool::{Layers, Registry};
use readyroom::{Cluster, ClusterOptions, Context, FailureKind, Job, Outcome, Permissions};
use readyroom_testkit::fake;

/// The page's definitions in a directory, and a directory to work in.
struct Page {
    dir: tempfile::TempDir,
}

impl Page {
    fn new() -> Self {
        fake::use_guardian();
        let dir = tempfile::tempdir().unwrap();
        let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/definitions.md"));
        std::fs::create_dir(dir.path().join("tools")).unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        for block in page.unwrap().split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let name = block.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap();
            std::fs::write(dir.path().join("tools").join(name), block).unwrap();
        }
        Self { dir }
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn options(&self) -> ClusterOptions {
        ClusterOptions::default()
            .count(1)
            .permissions(Permissions::Full)
            .cwd(self.work())
            .timeout(Duration::from_secs(60))
    }

    /// A cluster of one instance of the tool.
    async fn launch(&self, tool: &str, options: ClusterOptions) -> Cluster {
        let layers = Layers { user: Some(self.dir.path().join("tools")), ..Layers::default() };
        let (definition, found) = Registry::load(&layers).unwrap().locate(tool).unwrap();
        Cluster::launch(definition, &found.program, options).await.unwrap()
    }
}

/// Runs a prompt and returns its answer as text.
async fn says(cluster: &Cluster, prompt: &str) -> String {
    let response = cluster.submit(Job::new(prompt)).unwrap().await;
    assert!(response.ok(), "{prompt:?} ended with {:?}", response.outcome);
    response.answer.text.to_string_lossy().into_owned()
}

/// What each REPL is given, and what it must answer.
async fn talks(page: &Page, tool: &str, turns: &[(&str, &str)]) {
    let cluster = page.launch(tool, page.options().context(Context::Keep)).await;
    for (prompt, answer) in turns {
        assert_eq!(says(&cluster, prompt).await, *answer, "{tool} was given {prompt:?}");
    }
    assert_eq!(cluster.shutdown().await.dropped, 0);
}

/// A value set in one turn is gone in the next, since that has a new process.
async fn forgets(page: &Page, tool: &str, set: &str, get: &str, gone: &str) {
    let cluster = page.launch(tool, page.options()).await;
    says(&cluster, set).await;
    let response = cluster.submit(Job::new(get)).unwrap().await;
    let text = response.answer.text.to_string_lossy().into_owned();
    assert!(text.contains(gone), "{tool} answered {text:?}");
    assert_eq!(response.proof, Some(Proof::NewProcess));
    cluster.shutdown().await;
}

#[tokio::test]
async fn python() {
    let page = Page::new();
    let turns = [
        ("x = 6", ""),
        ("for i in range(2):\n    x += 18\nx", "42\n"),
        ("print('no newline', end='')", "no newline"),
        ("print('\"\"\" ( [ é')", "\"\"\" ( [ é\n"),
        ("import sys\nprint(repr(sys.stdin.read()))", "''\n"),
    ];
    talks(&page, "python3", &turns).await;
    forgets(&page, "python3", "x = 6", "x", "NameError").await;

    let cluster = page.launch("python3", page.options().context(Context::Keep)).await;
    assert!(says(&cluster, "print('abc").await.contains("SyntaxError"));
    assert!(says(&cluster, "input()").await.contains("EOFError"));
    assert_eq!(says(&cluster, "print(7)").await, "7\n");
    cluster.shutdown().await;
}

#[tokio::test]
async fn python_is_interrupted_and_goes_on() {
    let page = Page::new();
    let cluster = page.launch("python3", page.options().context(Context::Keep)).await;
    let pid = cluster.status().await.instances[0].pid;
    let long = Job::new("import time\ntime.sleep(600)").with_timeout(Duration::from_secs(1));
    let response = cluster.submit(long).unwrap().await;
    assert!(matches!(response.outcome, Outcome::TimedOut { .. }), "{:?}", response.outcome);
    assert_eq!(says(&cluster, "1 + 1").await, "2\n");
    assert_eq!(cluster.status().await.instances.len(), 1);
    assert!(pid.is_some());
    cluster.shutdown().await;
}

#[tokio::test]
async fn bash() {
    let page = Page::new();
    let turns = [
        ("x='a  b'; cd /", ""),
        ("echo \"$x\"; pwd", "a  b\n/\n"),
        ("printf part", "part"),
        ("cat; read y; echo \"[$y]\"", "[]\n"),
        ("printf '\\377\\n' | wc -c", "2\n"),
    ];
    talks(&page, "bash", &turns).await;
    forgets(&page, "bash", "x=1", "echo \"[$x]\"", "[]").await;

    let cluster = page.launch("bash", page.options().context(Context::Keep)).await;
    assert!(says(&cluster, "echo \"abc").await.contains("unexpected EOF"));
    let bytes = cluster.submit(Job::new("printf '\\377\\0x'")).unwrap().await;
    assert_eq!(bytes.answer.text.as_bytes(), b"\xff\0x");
    let ended = cluster.submit(Job::new("exit 3")).unwrap().await;
    let Outcome::Failed(failure) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert!(matches!(failure.kind, FailureKind::Crashed { .. }), "{failure}");
    assert_eq!(says(&cluster, "echo again").await, "again\n");
    cluster.shutdown().await;
}

#[tokio::test]
async fn sqlite() {
    let page = Page::new();
    let turns = [
        ("create table t(a);\ninsert into t values (1), (2);", ""),
        ("select sum(a) from t;", "3\n"),
        ("select 'é', 2", "é|2\n"),
        ("select 1;", "1\n"),
    ];
    talks(&page, "sqlite3", &turns).await;
    forgets(&page, "sqlite3", "create table t(a);", "select * from t;", "no such table").await;
}

#[tokio::test]
async fn sqlite_that_can_only_read() {
    let page = Page::new();
    let sql = |text: &str| {
        let output = Command::new("sqlite3").arg(page.work().join("notes.db")).arg(text).output().unwrap();
        assert!(output.status.success());
        output.stdout
    };
    sql("create table n(a); insert into n values (9);");
    let cluster = page.launch("sqlite3-readonly", page.options().permissions(Permissions::Read)).await;
    assert_eq!(says(&cluster, "select a from n;").await, "9\n");
    for attempt in [
        "insert into n values (1);",
        ".shell touch made",
        ".output made",
        "attach 'made.db' as m; create table m.t(a);",
    ] {
        let response = cluster.submit(Job::new(attempt)).unwrap().await;
        // Safe mode ends the shell over some of these.
        let said = match &response.outcome {
            Outcome::Failed(failure) => failure.evidence.clone(),
            _ => response.answer.text.to_string_lossy().into_owned(),
        };
        let refused = ["readonly", "safe mode", "unable to open"].iter().any(|word| said.contains(word));
        assert!(refused, "{attempt}: {said:?}");
    }
    cluster.shutdown().await;
    let left: Vec<_> = std::fs::read_dir(page.work()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes.db"]);
    assert_eq!(sql("select count(*) from n;"), b"1\n");

    let layers = Layers { user: Some(page.dir.path().join("tools")), ..Layers::default() };
    let (definition, found) = Registry::load(&layers).unwrap().locate("sqlite3-readonly").unwrap();
    let refused = Cluster::launch(definition, &found.program, page.options().permissions(Permissions::Edit)).await;
    assert!(refused.unwrap_err().to_string().contains("opened for reading only"));
}

#[tokio::test]
async fn node() {
    let page = Page::new();
    let turns = [
        ("1 + 41", "42\n"),
        ("let f = (x) => {\n\treturn x + 'a\\tb'\n}\nf(1)", "'1a\\tb'\n"),
        ("await new Promise(done => setTimeout(() => done(5), 300))", "5\n"),
        ("console.log('é')", "é\n"),
        ("2 + 2", "4\n"),
    ];
    talks(&page, "node", &turns).await;
    forgets(&page, "node", "let x = 1", "x", "x is not defined").await;
}

/// A PostgreSQL server for one test, on a socket in a directory.
struct Postgres {
    dir: tempfile::TempDir,
    server: std::process::Child,
}

impl Postgres {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The server refuses to run as root.
        let root = rustix::process::getuid().is_root();
        if root {
            let owned = Command::new("chown").arg("postgres").arg(dir.path()).status().unwrap();
            assert!(owned.success(), "there is no user `postgres` to run PostgreSQL as");
        }
        let command = |program: &str| {
            let found = Self::binary(program);
            let mut command = if root { Command::new("setpriv") } else { Command::new(&found) };
            if root {
                command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(&found);
            }
            command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let data = dir.path().join("data");
        let made = command("initdb").arg("-D").arg(&data).args(["-A", "trust", "-U", "tester", "-N"]).status().unwrap();
        assert!(made.success(), "initdb failed");
        let mut server = command("postgres");
        server.arg("-D").arg(&data).arg("-k").arg(dir.path()).args(["-h", ""]);
        let server = Self { server: server.spawn().unwrap(), dir };
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while !server.dir.path().join(".s.PGSQL.5432").exists() || !server.answers() {
            assert!(std::time::Instant::now() < until, "the server did not start");
            std::thread::yield_now();
        }
        server
    }

    fn binary(name: &str) -> PathBuf {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut found: Vec<_> =
            versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).collect();
        found.sort();
        found.pop().unwrap_or_else(|| name.into())
    }

    fn answers(&self) -> bool {
        let mut ask = Command::new("psql");
        ask.args(["-X", "-U", "tester", "-h"]).arg(self.dir.path()).args(["-c", "select 1", "postgres"]);
        ask.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT is its fast shutdown, which ends its children too.
        let pid = rustix::process::Pid::from_child(&self.server);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.server.wait();
    }
}

#[tokio::test]
async fn psql() {
    let page = Page::new();
    let server = Postgres::start();
    let mut options = page.options().context(Context::Keep);
    let host = server.dir.path().display().to_string();
    options.contract.env.extend([
        ("PGHOST".to_owned(), host),
        ("PGUSER".into(), "tester".into()),
        ("PGDATABASE".into(), "postgres".into()),
    ]);
    let cluster = page.launch("psql", options.clone()).await;
    assert_eq!(says(&cluster, "create temp table t(a int); insert into t values (1), (2);").await, "");
    assert_eq!(says(&cluster, "select sum(a)\nfrom t;").await, "3\n");
    assert_eq!(says(&cluster, "select 'no semicolon'").await, "no semicolon\n");
    assert_eq!(says(&cluster, "select 'é', 2;").await, "é|2\n");
    let stopped = cluster.submit(Job::new("select pg_sleep(600);").with_timeout(Duration::from_secs(1))).unwrap().await;
    assert!(matches!(stopped.outcome, Outcome::TimedOut { .. }), "{:?}", stopped.outcome);
    assert_eq!(says(&cluster, "select 4;").await, "4\n");
    cluster.shutdown().await;

    let fresh = page.launch("psql", options.context(Context::Fresh)).await;
    says(&fresh, "create temp table t(a int);").await;
    assert!(says(&fresh, "select * from t;").await.contains("does not exist"));
    fresh.shutdown().await;
}

#[tokio::test]
async fn a_filter_and_a_command_with_the_prompt_as_argument() {
    let page = Page::new();
    let filter = page.launch("tr", page.options().permissions(Permissions::Edit)).await;
    assert_eq!(says(&filter, "hello\nthere").await, "HELLO\nTHERE");
    assert_eq!(says(&filter, "again").await, "AGAIN");
    filter.shutdown().await;

    let once = page.launch("python-once", page.options()).await;
    assert_eq!(says(&once, "print(-5)").await, "-5\n");
    assert_eq!(says(&once, "-5").await, "");
    let wrong = once.submit(Job::new("print(")).unwrap().await;
    let Outcome::Failed(failure) = &wrong.outcome else { panic!("{:?}", wrong.outcome) };
    assert_eq!(failure.kind, FailureKind::BadInput, "{failure}");
    once.shutdown().await;
}

#[tokio::test]
async fn any_agent_of_the_agent_client_protocol() {
    let page = Page::new();
    let file = page.dir.path().join("tools/my-agent.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let agent = fake::program("readyroom-acp-fixture");
    std::fs::write(&file, text.replace("\"my-agent\", \"--acp\"", &format!("{:?}", agent.display().to_string())))
        .unwrap();
    let cluster = page.launch("my-agent", page.options().permissions(Permissions::Edit)).await;
    assert_eq!(says(&cluster, "hello").await, "hello\n");
    let second = cluster.submit(Job::new("there")).unwrap().await;
    assert!(matches!(second.proof, Some(Proof::NewSession(_))), "{:?}", second.proof);
    cluster.shutdown().await;
}
