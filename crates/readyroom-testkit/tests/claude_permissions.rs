//! What each permission level prevents on Claude Code, seen on disk, against what its definition says.

mod claude_support;

use claude_support::{Stage, bash, write};
use readyroom::{Denials, Outcome, Permissions};
use readyroom_testkit::{Step, assert_nothing_left};

/// A bug that others had (aaif-goose/goose#7915): a question for permission waited for a person who was not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_level_prevents_what_the_definition_says() {
    for level in [Permissions::Read, Permissions::Edit, Permissions::Full] {
        let stage = Stage::new();
        let aside = tempfile_dir();
        let targets = [
            stage.sandbox.dir().join("inside.txt"),
            stage.sandbox.outside().join("outside.txt"),
            aside.path().join("aside.txt"),
            stage.sandbox.dir().join("../beside.txt"),
            stage.sandbox.dir().join(".git/hooks/post-commit"),
        ];
        let shell = stage.sandbox.dir().join("shell.txt");
        let mut steps: Vec<Step> = targets.iter().map(|path| write(&path.display().to_string(), "x\n")).collect();
        steps.push(bash(&format!("touch '{}'", shell.display())));
        steps.push(Step::say("done"));
        stage.model.on("tahr", steps);
        let cluster = stage.one(level).await;
        let response = cluster.submit("Do it, tahr").unwrap().await;
        assert_eq!(response.outcome, Outcome::Succeeded, "{level}: {response:?}");
        assert_eq!(response.answer.text, "done");
        cluster.shutdown().await;
        let made: Vec<bool> = targets.iter().chain([&shell]).map(|path| path.exists()).collect();
        let (definition, _) = stage.sandbox.definition();
        let prevents = definition.level(level).prevents;
        let says = |what: &str| prevents.iter().any(|line| line.starts_with(what));
        let expected = |what: &[&str]| !what.iter().any(|what| says(what));
        let all = "writes";
        let outside = "writes outside the directory";
        let anywhere = prevents.iter().any(|line| line == all);
        assert_eq!(
            made,
            [
                !anywhere,
                !anywhere && expected(&[outside]),
                !anywhere && expected(&[outside]),
                !anywhere && expected(&[outside]),
                !anywhere && expected(&["writes into what programs run"]),
                expected(&["shell"]),
            ],
            "{level}: {prevents:?}"
        );
        // And so that the table itself can't be empty by mistake:
        match level {
            Permissions::Read => assert_eq!(made, [false; 6]),
            Permissions::Edit => assert_eq!(made, [true, false, false, false, false, false]),
            Permissions::Full => assert_eq!(made, [true; 6]),
        }
        let Denials::Known(denials) = response.answer.denials else { panic!("the protocol tells of denials") };
        assert_eq!(denials.len(), made.iter().filter(|made| !**made).count(), "{denials:?}");
        assert_nothing_left(&stage.sandbox);
    }
}

fn tempfile_dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
