//! What the tests of plain REPLs and commands share: the definitions of `docs/definitions.md`, run as they stand there.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use readyroom::tool::document::Layer;
use readyroom::tool::{Definition, Layers, Registry};
use readyroom::{Cluster, ClusterOptions, Context, Permissions, Response, Wait};
use readyroom_testkit::{Sandbox, tools};

/// The definition that the page shows as `name.toml`, as the registry reads it, and its program.
pub fn documented(name: &str) -> (Definition, PathBuf) {
    let page = std::fs::read_to_string(tools::workspace().join("docs/definitions.md")).unwrap();
    let begin = format!("```toml\n# {name}.toml\n");
    let text = page.split(&begin).nth(1).expect("the page shows it").split("```").next().unwrap();
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join(format!("{name}.toml")), text).unwrap();
    let registry = Registry::load(&Layers { user: Some(home.path().to_owned()), ..Layers::default() }).unwrap();
    let entry = registry.get(name).unwrap();
    assert_eq!(entry.layers.last().unwrap().0.layer, Layer::User);
    let definition = Definition::clone(&entry.definition);
    let program = PathBuf::from(&definition.argv[0]);
    let path = std::env::var_os("PATH");
    let program = readyroom::process::find_program(&program, path.as_deref())
        .unwrap_or_else(|error| panic!("this test needs {}: {error}", program.display()));
    (definition, program)
}

/// A sandbox with a cluster of one documented tool.
pub struct Bench {
    pub sandbox: Sandbox,
    pub cluster: Cluster,
}

impl Bench {
    /// One instance that keeps its context and may do everything.
    pub async fn new(name: &str) -> Self {
        Self::with(name, |options| options, |_| {}).await
    }

    pub async fn with(
        name: &str,
        options: impl FnOnce(ClusterOptions) -> ClusterOptions,
        change: impl FnOnce(&mut Definition),
    ) -> Self {
        let sandbox = Sandbox::bare(name);
        Self::within(sandbox, name, options, change).await
    }

    /// The same with another program than the page's.
    pub async fn with_program(
        name: &str,
        program: &str,
        options: impl FnOnce(ClusterOptions) -> ClusterOptions,
        change: impl FnOnce(&mut Definition),
    ) -> Self {
        let (mut definition, _) = documented(name);
        change(&mut definition);
        Self::launch(Sandbox::bare(name), definition, Path::new(program), options).await
    }

    pub async fn within(
        sandbox: Sandbox,
        name: &str,
        options: impl FnOnce(ClusterOptions) -> ClusterOptions,
        change: impl FnOnce(&mut Definition),
    ) -> Self {
        let (mut definition, program) = documented(name);
        change(&mut definition);
        Self::launch(sandbox, definition, &program, options).await
    }

    async fn launch(
        sandbox: Sandbox,
        definition: Definition,
        program: &Path,
        options: impl FnOnce(ClusterOptions) -> ClusterOptions,
    ) -> Self {
        let plain = sandbox.options().count(1).context(Context::Keep).permissions(Permissions::Full).wait(Wait::All);
        let cluster = Cluster::launch(Arc::new(definition), program, options(plain)).await.expect("it becomes ready");
        Self { sandbox, cluster }
    }

    pub async fn run(&self, prompt: &str) -> Response {
        self.cluster.submit(prompt).unwrap().await
    }

    /// The answer to a prompt that must succeed.
    pub async fn answer(&self, prompt: &str) -> String {
        let response = self.run(prompt).await;
        response.text().unwrap_or_else(|outcome| panic!("{prompt:?}: {outcome:?}")).to_string()
    }

    pub async fn pid(&self) -> u32 {
        self.cluster.status().await.instances[0].pid.expect("it runs")
    }

    pub async fn end(self) {
        self.cluster.shutdown().await;
        readyroom_testkit::assert_nothing_left(&self.sandbox);
    }
}

/// A PostgreSQL server of a test's own, on a socket in a temporary directory. Ends with the test.
pub struct Postgres {
    directory: tempfile::TempDir,
    server: std::process::Child,
}

impl Postgres {
    pub fn start() -> Self {
        use std::process::{Command, Stdio};
        let bin = std::fs::read_dir("/usr/lib/postgresql")
            .expect("this test needs PostgreSQL (Debian: apt install postgresql)")
            .map(|version| version.unwrap().path().join("bin"))
            .max()
            .expect("a version of PostgreSQL");
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let root = rustix::process::geteuid().is_root();
        if root {
            // It refuses to run as root; its package brings a user for it.
            let id = Command::new("id").args(["-u", "postgres"]).output().unwrap();
            let id: u32 = String::from_utf8(id.stdout).unwrap().trim().parse().expect("a user `postgres`");
            std::os::unix::fs::chown(directory.path(), Some(id), None).unwrap();
        }
        let command = |program: &Path| {
            let mut command = if root {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
                command
            } else {
                Command::new(program)
            };
            command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let made = command(&bin.join("initdb"))
            .args([
                "--auth=trust",
                "--username=tester",
                "--no-sync",
                "--no-instructions",
                "--encoding=UTF8",
                "--pgdata",
            ])
            .arg(&data)
            .status()
            .unwrap();
        assert!(made.success(), "initdb");
        let server = command(&bin.join("postgres"))
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
            .arg(directory.path())
            .arg("-D")
            .arg(&data)
            .spawn()
            .unwrap();
        let postgres = Self { directory, server };
        let ready = || {
            let mut psql = Command::new("psql");
            psql.args(["-X", "-c", "select 1"]).envs(postgres.env()).stdout(Stdio::null()).stderr(Stdio::null());
            psql.status().is_ok_and(|status| status.success())
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !ready() {
            assert!(std::time::Instant::now() < deadline, "PostgreSQL does not come up");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        postgres
    }

    /// What a client needs.
    pub fn env(&self) -> [(&'static str, String); 3] {
        let socket = self.directory.path().display().to_string();
        [("PGHOST", socket), ("PGUSER", "tester".into()), ("PGDATABASE", "postgres".into())]
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT ends it at once, without a last checkpoint.
        if let Some(pid) = i32::try_from(self.server.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        let _ = self.server.wait();
    }
}
