//! What the tests of aider share: a place with a model of its own, and one warm cluster for many checks, since a start
//! of aider costs seconds.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::{Arc, OnceLock};

use readyroom::cluster::{Status, blocking};
use readyroom::tool::Definition;
use readyroom::{Cluster, ClusterOptions, Job, Response, Wait};
use readyroom_testkit::{Model, Sandbox};

/// A model and a sandbox, in which aiders run.
pub struct Place {
    pub model: Model,
    pub sandbox: Sandbox,
}

impl Place {
    pub fn new() -> Self {
        let model = Model::start();
        let sandbox = Sandbox::new("aider", &model);
        Self { model, sandbox }
    }

    /// Options for so many instances, all ready at launch.
    pub fn options(&self, count: usize) -> ClusterOptions {
        self.sandbox.options().count(count).wait(Wait::All)
    }

    pub async fn launch(&self, options: ClusterOptions) -> Cluster {
        self.launch_with(options, |_| {}).await
    }

    /// Launches with a definition that differs from the built-in one.
    pub async fn launch_with(&self, options: ClusterOptions, change: impl FnOnce(&mut Definition)) -> Cluster {
        let (definition, program) = self.sandbox.definition();
        let mut definition = Definition::clone(&definition);
        change(&mut definition);
        Cluster::launch(Arc::new(definition), &program, options).await.expect("aider becomes ready")
    }

    /// The prompt with `word` in it, as the model got it, without the rules that aider appends for some models.
    pub fn prompt_of(&self, word: &str) -> String {
        let prompts = self.model.requests().into_iter().map(|request| last_user(&request.body));
        let prompt = prompts.into_iter().find(|prompt| prompt.contains(word)).expect("the model was asked");
        let rules = ["\n\n# *SEARCH/REPLACE block* Rules:", "\n\nReply in English.\n"];
        let end = rules.iter().filter_map(|rule| prompt.find(rule)).min();
        prompt[..end.unwrap_or(prompt.len())].to_owned()
    }
}

/// One cluster that the tests of a file share, with its place. Each test uses words of its own.
pub struct Room {
    pub place: Place,
    pub cluster: blocking::Cluster,
}

impl Room {
    /// The room, with two warm aiders.
    pub fn get() -> &'static Self {
        static ROOM: OnceLock<Room> = OnceLock::new();
        ROOM.get_or_init(|| {
            let place = Place::new();
            let (definition, program) = place.sandbox.definition();
            let cluster =
                blocking::Cluster::launch(definition, &program, place.options(2)).expect("aider becomes ready");
            Room { place, cluster }
        })
    }

    pub fn model(&self) -> &Model {
        &self.place.model
    }

    /// Runs a job to its end.
    pub fn run(&self, job: impl Into<Job>) -> Response {
        self.cluster.submit(job).expect("there is room in the queue").wait()
    }
}

/// The content of a request's newest user message.
pub fn last_user(body: &serde_json::Value) -> String {
    let messages = body["messages"].as_array().expect("messages");
    let newest = messages.iter().rev().find(|message| message["role"] == "user").expect("a user message");
    newest["content"].as_str().expect("text").to_owned()
}

/// An answer that makes `file` hold `new` instead of `old`; an empty `old` makes the file.
pub fn edit(file: &str, old: &str, new: &str) -> String {
    format!("{file}\n```python\n<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE\n```\n")
}

/// The process ids of all instances.
pub fn pids(status: &Status) -> Vec<u32> {
    status.instances.iter().map(|instance| instance.pid.expect("it runs")).collect()
}
