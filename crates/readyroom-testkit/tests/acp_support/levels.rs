//! What each permission level prevents, by real attempts, on disk.

use readyroom::{Context, Denials, Permissions};
use readyroom_testkit::{Step, assert_nothing_left};

use super::{Bed, run};

/// Which attempts of a model have an effect: a file in the directory, one outside of it, one that git would run, a shell
/// command that writes inside, one that writes outside, a tool of the user's own.
#[derive(Debug, PartialEq, Eq)]
pub struct Effects {
    pub inside: bool,
    pub outside: bool,
    pub hook: bool,
    pub shell: bool,
    pub shell_outside: bool,
    pub own_tool: bool,
}

/// None of them.
pub const NONE: Effects =
    Effects { inside: false, outside: false, hook: false, shell: false, shell_outside: false, own_tool: false };

/// Has a model try everything under `level`.
pub async fn attempts(tool: &'static str, level: Permissions) -> Effects {
    attempts_in(&Bed::new(tool), level).await
}

/// The same, for a user who `has` settings of their own.
pub async fn attempts_of_a_user(tool: &'static str, level: Permissions, has: impl FnOnce(&mut Bed)) -> Effects {
    let mut bed = Bed::new(tool);
    has(&mut bed);
    attempts_in(&bed, level).await
}

async fn attempts_in(bed: &Bed, level: Permissions) -> Effects {
    let (inside, outside) = (bed.sandbox.dir().join("in.txt"), bed.sandbox.outside().join("out.txt"));
    let (shell, shell_outside) = (bed.sandbox.dir().join("sh.txt"), bed.sandbox.outside().join("sh.txt"));
    let hook = bed.sandbox.dir().join(".git/hooks/post-checkout");
    let own = bed.sandbox.dir().join("own.txt");
    bed.add_tool();
    let cases = [
        ("TRY-INSIDE-X", bed.write(&inside, "x\n"), &inside),
        ("TRY-OUTSIDE-X", bed.write(&outside, "x\n"), &outside),
        ("TRY-HOOK-X", bed.write(&hook, "x\n"), &hook),
        ("TRY-SHELL-X", bed.shell(&format!("echo x > '{}'", shell.display())), &shell),
        ("TRY-SHELL-FAR-X", bed.shell(&format!("echo x > '{}'", shell_outside.display())), &shell_outside),
        ("TRY-OWN-X", bed.own_tool(&own), &own),
    ];
    let cluster = bed.cluster(1, Context::Fresh, level).await;
    for (word, step, file) in &cases {
        bed.model.on(word, [step.clone(), Step::say("done")]);
        let response = run(&cluster, *word).await;
        let denied = matches!(&response.answer.denials, Denials::Known(denials) if !denials.is_empty());
        // A tool of the user's is not even offered by Gemini, which says nothing of a call of it.
        let told = !(*word == "TRY-OWN-X" && bed.tool == "gemini");
        assert_eq!(
            denied,
            told && !file.exists(),
            "{word} under {level}: {:?}, {}",
            response.answer.denials,
            response.outcome
        );
    }
    // The page asked for is on a machine that does not exist, so that only the denial can be seen.
    bed.model.on("TRY-FETCH-X", [bed.fetch("https://nowhere.invalid/"), Step::say("done")]);
    let denied = run(&cluster, "TRY-FETCH-X").await.answer.denials;
    let denied = matches!(&denied, Denials::Known(denials) if !denials.is_empty());
    assert_eq!(denied, level != Permissions::Full, "fetching under {level}");
    cluster.shutdown().await;
    assert_nothing_left(&bed.sandbox);
    let [inside, outside, hook, shell, shell_outside, own_tool] = cases.map(|(_, _, file)| file.exists());
    Effects { inside, outside, hook, shell, shell_outside, own_tool }
}

/// What `readyroom tools` says that a level prevents.
pub fn prevents(tool: &'static str, level: Permissions) -> Vec<String> {
    let registry = readyroom::tool::Registry::builtin().expect("the built-in definitions");
    registry.get(tool).expect("a built-in tool").definition.level(level).prevents
}
