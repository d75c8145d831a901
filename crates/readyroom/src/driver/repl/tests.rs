//! The driver without a process: what it writes and what it makes of what comes back.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::driver::Activity;
use crate::tool::{ContractOptions, Definition};

const AIDER: &str = include_str!("../../tool/builtin/aider.toml");
const PYTHON: &str = "id = \"python\"\ndriver = \"repl\"\nargv = [\"python3\"]\n[permissions.edit]\n[repl]\nframe = \"python_exec\"\n\
    start = \"start\"\nfence = 'print(\"\\n{a}\"+\"{b}\")'\nmarker = \"\\n{a}{b}\\n\"\ninterrupt = true\n";

/// A driver, what it has written, and a stand-in for the tool that prints what a test says.
struct Bench {
    repl: Repl,
    out: Vec<Effect>,
    marker: String,
    /// The markers of the fences that were written, oldest first.
    markers: Vec<String>,
    /// How many effects were seen.
    seen: usize,
}

impl Bench {
    fn new(text: &str) -> Self {
        Self::with(text, |_| {})
    }

    fn with(text: &str, change: impl FnOnce(&mut Contract)) -> Self {
        let definition: Definition = toml::from_str(text).unwrap();
        let marker = definition.repl.as_ref().unwrap().marker.clone();
        let mut contract =
            Contract::resolve(Arc::new(definition), std::path::Path::new("/bin/true"), &ContractOptions::default())
                .unwrap();
        change(&mut contract);
        let repl = Repl::new(&contract);
        Self { repl, out: Vec::new(), marker, markers: Vec::new(), seen: 0 }
    }

    /// An aider that is ready, in its mode of that name.
    fn aider(mode: &str) -> Self {
        Self::aider_with(mode, |_| {})
    }

    fn aider_with(mode: &str, change: impl FnOnce(&mut Contract)) -> Self {
        let mut bench = Self::with(AIDER, change);
        bench.repl.launched(&mut bench.out);
        bench.say(format!("\nAider v0.86.2\nMain model: m with diff edit format\nRepo-map: disabled\n\n{mode}> \n"));
        let effects = bench.fence();
        assert_eq!(effects, [Effect::Ready { version: Some("0.86.2".into()) }]);
        bench
    }

    fn request(&mut self, request: Request) -> Vec<Effect> {
        self.repl.request(request, &mut self.out);
        self.news()
    }

    fn begin(&mut self, prompt: &str, mode: Mode) -> Vec<Effect> {
        let turn =
            Turn { prompt: prompt.into(), mode, files: Vec::new(), permissions: Permissions::Full, schema: None };
        self.request(Request::Begin { slot: SLOT, turn })
    }

    /// Prints `text`.
    fn say(&mut self, text: impl AsRef<[u8]>) -> Vec<Effect> {
        self.repl.stdout(text.as_ref(), &mut self.out);
        self.news()
    }

    /// Prints the oldest fence's marker.
    fn fence(&mut self) -> Vec<Effect> {
        self.news_of_fences();
        let marker = self.markers.remove(0);
        self.say(marker)
    }

    fn news_of_fences(&mut self) {
        self.markers.clear();
        for finder in &self.repl.fences {
            self.markers.push(finder.text());
        }
        assert!(!self.marker.is_empty() && !self.markers.is_empty(), "no fence is out");
    }

    /// The effects since the last time, without texts.
    fn news(&mut self) -> Vec<Effect> {
        let new = self.out[self.seen..].to_vec();
        self.seen = self.out.len();
        new.into_iter()
            .filter(|effect| !matches!(effect, Effect::Activity { activity: Activity::Text(_), .. }))
            .collect()
    }

    /// What was last written, with the fence's nonce left out.
    fn written(&self) -> String {
        let last = self.out.iter().rev().find_map(|effect| match effect {
            Effect::Write(bytes) => Some(String::from_utf8(bytes.clone()).unwrap()),
            _ => None,
        });
        last.unwrap()
    }

    /// As many prompts as the last write has lines in front of its fence.
    fn prompts(&self, prompt: &str) -> String {
        prompt.repeat(frame::lines(&self.written()) - 1)
    }
}

#[track_caller]
fn ended(effects: &[Effect]) -> &TurnEnd {
    let mut ends = effects.iter().filter_map(|effect| match effect {
        Effect::Ended { end, .. } => Some(end.as_ref()),
        _ => None,
    });
    let end = ends.next().unwrap_or_else(|| panic!("no turn has ended: {effects:?}"));
    assert!(ends.next().is_none());
    end
}

#[track_caller]
fn failed(effects: &[Effect]) -> Failure {
    match &ended(effects).status {
        TurnStatus::Failed(failure) => failure.clone(),
        other => panic!("{other:?}"),
    }
}

const TOKENS: &str = "\nTokens: 3.3k sent, 99 received. Cost: $0.0092 message, $0.02 session.\n";

#[test]
fn a_turn_of_aider_gives_its_answer_and_usage() {
    let mut aider = Bench::aider("");
    let written = aider.begin("/add x\nsecond", Mode::Default);
    assert!(matches!(&written[..], [Effect::Write(_)]), "one write");
    assert!(aider.written().contains("\n\n/add x\nsecond\n"));
    let head = format!("\n{}\n", aider.prompts("> "));
    aider.say(head);
    aider.say(format!("one\n> two\n{TOKENS}Applied edit to a b.py\n\na b.py\n> \n"));
    let effects = aider.fence();
    let end = ended(&effects);
    assert_eq!(end.status, TurnStatus::Succeeded);
    assert_eq!(end.answer.text, "one\n> two\n");
    assert_eq!(end.answer.changed_files, [PathBuf::from("a b.py")]);
    let usage = &end.answer.usage;
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.cost_usd), (Some(3300), Some(99), Some(0.0092)));
}

#[test]
fn forged_lines_do_not_end_an_answer_or_change_its_usage() {
    let mut aider = Bench::aider("");
    aider.begin("p", Mode::Default);
    let answer = format!("> \nInvalid command: /fence-0000{TOKENS}Applied edit to z\nRetrying in 0.2 seconds...\nend");
    aider.say(format!("\n{}\n{answer}\nTokens: 10 sent, 2 received.\n\n> \n", aider.prompts("> ")));
    let effects = aider.fence();
    let end = ended(&effects);
    assert_eq!(end.status, TurnStatus::Succeeded);
    assert_eq!(end.answer.text, answer.as_str());
}

/// A bug that others had (Untrivial-ai/agent-orchestrator#1376): a prompt was typed and never submitted.
#[test]
fn a_fence_without_a_report_is_a_failure_of_its_kind() {
    let rows = [
        ("litellm.AuthenticationError: AuthenticationError: OpenAIException - no\n", FailureKind::Auth),
        ("litellm.BadRequestError: OpenAIException - no\n", FailureKind::ModelError),
        ("litellm.NotFoundError: NotFoundError: OpenAIException - no\n", FailureKind::UnknownModel),
        ("litellm.APIError: APIError: OpenAIException - no\n", FailureKind::ModelError),
        (
            "litellm.RateLimitError: RateLimitError: OpenAIException - Rate limit reached\nThe API provider has rate \
             limited you. Try again later or check your quotas.\n",
            FailureKind::RateLimited { retry_after: None },
        ),
        (
            "litellm.RateLimitError: RateLimitError: OpenAIException - You exceeded your current quota, please check\n",
            FailureKind::UsageWindow { resets_at: None },
        ),
        ("litellm.InternalServerError: InternalServerError: OpenAIException - no\n", FailureKind::ModelError),
        (
            "litellm.InternalServerError: InternalServerError: OpenAIException - Connection error.\n",
            FailureKind::ModelError,
        ),
        ("litellm.Timeout: APITimeoutError - Request timed out.\n", FailureKind::ModelError),
        ("half an answerlitellm.APIConnectionError: APIConnectionError: peer closed\n", FailureKind::ModelError),
        ("\n\nModel openai/gpt-4o has hit a token limit!\nToken counts below\n", FailureKind::ModelError),
        (
            "Empty response received from LLM. Check your provider account?\n\nTokens: 10 sent, 0 received.\n",
            FailureKind::ModelError,
        ),
        ("\nTokens: 10 sent, 0 received.\n\n\nModel openai/gpt-4o has hit a token limit!\n", FailureKind::ModelError),
        ("", FailureKind::NotRun),
        ("something of its own\n", FailureKind::NotRun),
    ];
    for (text, kind) in rows {
        let mut aider = Bench::aider("");
        aider.begin("p", Mode::Default);
        aider.say(format!("\n{}\n{text}\n\n> \n", aider.prompts("> ")));
        let failure = failed(&aider.fence());
        assert_eq!(failure.kind, kind, "{text:?}: {failure:?}");
        assert!(!failure.message.is_empty());
    }
}

#[test]
fn a_turn_whose_prompts_never_came_was_not_run() {
    let mut aider = Bench::aider("");
    aider.begin("p", Mode::Default);
    aider.say(format!("\n> \nok{TOKENS}\n> \n"));
    assert_eq!(failed(&aider.fence()).kind, FailureKind::NotRun);
}

#[test]
fn an_announced_retry_restarts_the_answer_and_one_too_many_ends_the_turn() {
    let error = "partlitellm.InternalServerError: InternalServerError: boom\nThe API provider's servers are down.\n";
    let mut aider = Bench::aider("");
    aider.begin("p", Mode::Default);
    aider.say(format!("\n{}\n", aider.prompts("> ")));
    let effects = aider.say(format!("{error}Retrying in 0.2 seconds...\nwhole"));
    assert!(matches!(&effects[..], [Effect::Activity { activity: Activity::Retrying { attempt: 1, why }, .. }]
        if why.starts_with("litellm.Internal") && why.ends_with("seconds...")));
    aider.say(format!("{TOKENS}\n> \n"));
    let effects = aider.fence();
    assert_eq!(ended(&effects).answer.text, "whole");
    assert!(ended(&effects).answer.transcript.to_string_lossy().starts_with("partlitellm"));

    aider.begin("p", Mode::Default);
    aider.say(format!("\n> {}\n", aider.prompts("> ").strip_prefix("> ").unwrap()));
    aider.say(format!("{error}Retrying in 0.2 seconds...\n"));
    let effects = aider.say(format!("{error}Retrying in 0.5 seconds...\n"));
    assert!(effects.contains(&Effect::Interrupt), "{effects:?}");
    aider.say("\n\n^C again to exit\n\n> \n");
    assert!(aider.fence().is_empty(), "the second fence is still out");
    aider.say("\n> \n");
    let failure = failed(&aider.fence());
    assert_eq!(failure.kind, FailureKind::ModelError);
    assert!(failure.evidence.contains("boom"));
}

#[test]
fn names_of_files_that_are_taken_up_are_no_part_of_the_answer() {
    let mut aider = Bench::aider("");
    aider.begin("look at a.py", Mode::Default);
    aider.say(format!("\n{}\n\na.py\nsee b.py{TOKENS}\nb.py\nit{TOKENS}Applied edit to a.py\n", aider.prompts("> ")));
    aider.say("\na.py\nb.py\n> \n");
    let effects = aider.fence();
    let answer = &ended(&effects).answer;
    assert_eq!(answer.text, "it");
    assert_eq!(answer.usage.output_tokens, Some(198));
    assert!(answer.transcript.to_string_lossy().contains("see b.py"));

    // A model that writes such lines itself, of a file that was there already.
    aider.begin("look at a.py", Mode::Default);
    aider.say(format!("\na.py\nb.py\n{}\n\na.py\nx{TOKENS}\na.py\nb.py\n> \n", aider.prompts("> ")));
    let effects = aider.fence();
    assert_eq!(ended(&effects).answer.text, "\na.py\nx");
}

#[test]
fn a_reset_counts_only_with_its_acknowledgement() {
    let mut aider = Bench::aider("");
    assert!(matches!(
        &aider.request(Request::Open { slot: SLOT, cwd: PathBuf::new() })[..],
        [Effect::Fresh { proof: Proof::NewProcess, .. }]
    ));
    aider.request(Request::Reset { slot: SLOT });
    assert!(aider.written().starts_with("/reset\n/fence-"));
    aider.say("\na.py\n> \nAll files dropped and chat history cleared.\n\n> \n");
    assert!(matches!(&aider.fence()[..], [Effect::Fresh { proof: Proof::Acknowledged(_), .. }]));
    aider.request(Request::Reset { slot: SLOT });
    aider.say("\n> \nAll files dropped, mostly.\n\n> \n");
    assert!(matches!(&aider.fence()[..], [Effect::NotFresh { .. }]));
    aider.request(Request::Reset { slot: SLOT });
    aider.say("\n> \nAll files dropped and chat history cleared.\n\nask> \n");
    assert!(matches!(&aider.fence()[..], [Effect::NotFresh { .. }]), "it is in another mode");
}

#[test]
fn a_question_is_asked_in_ask_mode_and_the_mode_is_switched_back() {
    let mut aider = Bench::aider("whole");
    aider.begin("!rm x", Mode::Ask);
    assert!(aider.written().starts_with("/chat-mode ask\n/fence-"), "the prompt waits for the switch");
    aider.say("\nwhole> \nAider v0.86.2\n\nask> \n");
    aider.fence();
    assert!(aider.written().contains("\n\n!rm x\n"));
    aider.say(format!("\n{}\nno{TOKENS}\nask> \n", aider.prompts("ask> ")));
    assert!(matches!(&aider.fence()[..], [Effect::Write(_)]), "the turn ends when the mode is back");
    assert!(aider.written().starts_with("/chat-mode whole\n/fence-"));
    aider.say("\nask> \nAider v0.86.2\n\nwhole> \n");
    let effects = aider.fence();
    assert_eq!(ended(&effects).answer.text, "no");
    assert_eq!(ended(&effects).status, TurnStatus::Succeeded);
}

#[test]
fn no_prompt_is_sent_in_a_mode_that_was_not_switched_to() {
    let mut aider = Bench::aider("");
    aider.begin("p", Mode::Ask);
    aider.say("\n> \nsomething else\n\n> \n");
    aider.fence();
    assert!(aider.written().starts_with("/chat-mode code\n"));
    aider.say("\n> \nAider v0.86.2\n\n> \n");
    assert_eq!(failed(&aider.fence()).kind, FailureKind::NotRun);
}

#[test]
fn where_only_reading_is_allowed_no_prompt_command_leaves_the_mode_that_asks() {
    let mut aider = Bench::aider_with("ask", |contract| contract.permissions = Permissions::Read);
    for mode in [Mode::Default, Mode::Ask, Mode::Code, Mode::Architect] {
        aider.begin("p", mode);
        assert!(!aider.written().contains("/chat-mode"), "{mode:?}");
        aider.say(format!("\n{}\nok{TOKENS}\nask> \n", aider.prompts("ask> ")));
        aider.fence();
    }
}

#[test]
fn a_cancel_waits_until_the_whole_prompt_was_read() {
    let mut aider = Bench::aider("");
    aider.begin("a\n!rm x\nb", Mode::Default);
    let prompts = aider.prompts("> ");
    aider.say("\n");
    aider.say(&prompts[..4]);
    assert!(aider.request(Request::Cancel { slot: SLOT }).is_empty());
    assert!(aider.say(&prompts[4..]).is_empty());
    let effects = aider.say("\n");
    assert!(matches!(&effects[..], [Effect::Accepted { .. }, Effect::Interrupt, Effect::Write(_)]), "{effects:?}");
    assert!(aider.request(Request::Cancel { slot: SLOT }).is_empty(), "never twice");
    // The signal took the first fence away: the second proves the end.
    aider.news_of_fences();
    let second = aider.markers[1].clone();
    let effects = aider.say(format!("\n\n^C again to exit\n\n> \n{second}"));
    assert_eq!(ended(&effects).status, TurnStatus::Cancelled);
    aider.begin("next", Mode::Default);
    aider.say(format!("\n{}\nok{TOKENS}\n> \n", aider.prompts("> ")));
    let effects = aider.fence();
    assert_eq!(ended(&effects).answer.text, "ok");
}

#[test]
fn a_cancelled_turn_that_had_just_ended_is_cancelled_once_both_fences_are_back() {
    let mut aider = Bench::aider("");
    aider.begin("p", Mode::Default);
    aider.say(format!("\n{}\n", aider.prompts("> ")));
    aider.request(Request::Cancel { slot: SLOT });
    aider.say(format!("ok{TOKENS}\n> \n"));
    assert!(aider.fence().is_empty());
    aider.say("\n\n^C again to exit\n\n> \n");
    let effects = aider.fence();
    assert_eq!(ended(&effects).status, TurnStatus::Cancelled);
    assert_eq!(ended(&effects).answer.text, "ok");
}

#[test]
fn context_commands_give_the_tools_own_answers() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("x y.py"), "").unwrap();
    let mut aider = Bench::aider_with("", |contract| contract.cwd = directory.path().to_owned());
    let commands = vec![
        ContextCommand::Add("missing.py".into()),
        ContextCommand::Add("x y.py".into()),
        ContextCommand::Add("a\"b".into()),
        ContextCommand::Drop("-z".into()),
        ContextCommand::Add("a\nb".into()),
    ];
    aider.request(Request::Context { slot: SLOT, commands });
    let path = directory.path().display();
    assert!(aider.written().starts_with(&format!("/add \"{path}/x y.py\"\n/fence-")), "{}", aider.written());
    aider.say("\n> \nAdded x y.py to the chat\n\nx y.py\n> \n");
    aider.fence();
    assert!(aider.written().starts_with(&format!("/drop \"{path}/-z\"\n/fence-")));
    aider.say("\nx y.py\n> \n\nx y.py\n> \n");
    let effects = aider.fence();
    let [Effect::ContextDone { replies, .. }] = &effects[..] else { panic!("{effects:?}") };
    let kinds: Vec<_> = replies.iter().map(|reply| reply.result.as_ref().map_err(|failure| &failure.kind)).collect();
    let bad = || Err(&FailureKind::BadInput);
    assert_eq!(kinds, [bad(), Ok(&"Added x y.py to the chat".to_owned()), bad(), bad(), bad()]);
    assert!(!directory.path().join("missing.py").exists());
}

#[test]
fn a_prompt_that_would_hang_the_tool_is_refused() {
    let aider = Bench::aider("");
    let turn = |prompt: String| Turn {
        prompt,
        mode: Mode::Default,
        files: Vec::new(),
        permissions: Permissions::Edit,
        schema: None,
    };
    let failure = aider.repl.refuses(&turn("a".repeat(60_000))).unwrap();
    assert_eq!(failure.kind, FailureKind::BadInput);
    assert!(aider.repl.refuses(&turn("word ".repeat(60_000))).is_none());
    assert!(aider.repl.refuses(&turn("\0\u{1b}[1m".into())).is_none());
}

#[test]
fn a_tool_that_ends_before_it_is_ready_shows_its_words() {
    let mut aider = Bench::new(AIDER);
    aider.repl.launched(&mut aider.out);
    aider.news();
    let effects = aider.say("No LLM model was specified and no API keys were provided.\n");
    assert!(matches!(&effects[..], [Effect::Broken(failure)] if failure.kind == FailureKind::Auth), "{effects:?}");

    let mut aider = Bench::new(AIDER);
    aider.repl.launched(&mut aider.out);
    aider.say("ImportError: no module\n");
    aider.repl.exited(Exit::Status(1), &mut aider.out);
    let effects = aider.news();
    assert!(matches!(&effects[..], [Effect::Broken(failure)]
        if failure.kind == FailureKind::NotReady && failure.evidence.contains("ImportError")));
}

#[test]
fn a_tool_without_a_reset_is_never_fresh_again() {
    let mut python = Bench::new(PYTHON);
    python.repl.launched(&mut python.out);
    assert!(python.written().starts_with("start\nprint("));
    python.say("banner");
    assert_eq!(python.fence(), [Effect::Ready { version: None }]);
    assert!(matches!(&python.request(Request::Reset { slot: SLOT })[..], [Effect::NotFresh { .. }]));
}

#[test]
fn what_can_not_be_interrupted_is_cancelled_at_once_and_never_used_again() {
    let mut python = Bench::new(&PYTHON.replace("interrupt = true", "interrupt = false"));
    python.repl.launched(&mut python.out);
    python.fence();
    python.begin("loop", Mode::Default);
    python.say("said so far");
    let effects = python.request(Request::Cancel { slot: SLOT });
    assert_eq!(ended(&effects).status, TurnStatus::Cancelled);
    assert_eq!(ended(&effects).answer.text, "said so far");
    assert!(python.say("and more").is_empty());
    assert!(matches!(&python.request(Request::Reset { slot: SLOT })[..], [Effect::NotFresh { .. }]));
    assert_eq!(python.request(Request::Stop), [Effect::Interrupt, Effect::CloseStdin]);
}

#[test]
fn what_comes_late_is_told_and_belongs_to_no_answer() {
    let mut python = Bench::new(PYTHON);
    python.repl.launched(&mut python.out);
    python.fence();
    python.say("a thread's\n");
    let effects = python.begin("1", Mode::Default);
    assert!(matches!(&effects[..], [Effect::Anomaly { raw, .. }, Effect::Write(_)] if raw == "a thread's\n"));
    python.say("1\n");
    let effects = python.fence();
    assert_eq!(ended(&effects).answer.text, "1\n");
}

#[test]
fn too_much_output_fails_the_turn() {
    let text = format!("{PYTHON}[limits]\noutput_bytes = 100\n");
    let mut python = Bench::new(&text);
    python.repl.launched(&mut python.out);
    python.fence();
    python.begin("x", Mode::Default);
    let effects = python.say("y".repeat(101));
    assert_eq!(failed(&effects).kind, FailureKind::OutputLimit);
    assert!(matches!(effects.last(), Some(Effect::Broken(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_answer_comes_out_byte_for_byte_however_it_is_cut(
        answer in prop::collection::vec(
            prop_oneof![any::<u8>().prop_map(|byte| vec![byte]), Just(b"> ".to_vec()), Just(b"\n> \n".to_vec()),
                Just(b"\nTokens: 1 sent, 2 received.\n".to_vec()), Just(b"Invalid command: /fence-".to_vec()),
                Just(b"Retrying in 0.2 seconds...\n".to_vec()), Just("\u{1b}[0m\u{1f600}".as_bytes().to_vec())], 1..40),
        cuts in prop::collection::vec(1_usize..60, 1..6),
        lines in 1_usize..5,
    ) {
        let answer = answer.concat();
        let mut aider = Bench::aider("");
        aider.begin(&"p\n".repeat(lines), Mode::Default);
        aider.news_of_fences();
        let mut output = format!("\n{}\n", aider.prompts("> ")).into_bytes();
        output.extend_from_slice(&answer);
        output.extend_from_slice(b"\nTokens: 10 sent, 2 received.\n\n> \n");
        output.extend_from_slice(aider.markers[0].as_bytes());
        output.extend_from_slice(b"\n> ");
        let (mut at, mut cut) = (0, cuts.iter().cycle());
        let mut effects = Vec::new();
        while at < output.len() {
            let end = output.len().min(at + cut.next().unwrap());
            effects.extend(aider.say(&output[at..end]));
            at = end;
        }
        let end = ended(&effects);
        prop_assert_eq!(&end.status, &TurnStatus::Succeeded);
        prop_assert_eq!(end.answer.text.as_bytes(), &answer[..]);
    }

    #[test]
    fn text_is_told_in_whole_characters(pieces in prop::collection::vec(1_usize..5, 1..6)) {
        let mut python = Bench::new(PYTHON);
        python.repl.launched(&mut python.out);
        python.fence();
        python.begin("x", Mode::Default);
        let text = "aé€😀".repeat(5);
        let (mut at, mut piece) = (0, pieces.iter().cycle());
        while at < text.len() {
            let end = text.len().min(at + piece.next().unwrap());
            python.say(&text.as_bytes()[at..end]);
            at = end;
        }
        let told: String = python.out.iter().filter_map(|effect| match effect {
            Effect::Activity { activity: Activity::Text(text), .. } => Some(text.as_str()),
            _ => None,
        }).collect();
        prop_assert_eq!(told, text);
    }
}
