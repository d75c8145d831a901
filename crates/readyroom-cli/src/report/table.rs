//! The table at the end of a run.

use std::time::Instant;

use super::render::{Look, Paint};
use super::text;
use super::view::View;

/// Outcomes by kind, times, usage, and turns and restarts of each instance.
pub fn table(view: &View, now: Instant, look: Look) -> Vec<String> {
    let mut lines = Vec::new();
    let total = view.plan.jobs.len();
    lines.push(format!("{} in {}", text::count(total, "job"), text::time(now.duration_since(view.began))));
    const NOT_DONE: &str = "not done";
    let rest = (view.done < total).then_some(NOT_DONE);
    let widest = view.outcomes.iter().map(|(name, _)| name.len()).chain(rest.map(str::len)).max().unwrap_or(0);
    for (name, count) in &view.outcomes {
        let paint = if *name == "succeeded" { Paint::Good } else { Paint::Bad };
        lines.push(format!("  {} {count:>5}", look.paint(&text::column(name, widest, look.cut()), paint)));
    }
    if let Some(rest) = rest {
        lines.push(format!("  {} {:>5}", text::column(rest, widest, look.cut()), total - view.done));
    }
    lines.push(format!(
        "in the model {}, overhead {} (starting {}, fresh contexts {})",
        text::time(view.in_turns),
        text::time(view.in_starts + view.in_resets),
        text::time(view.in_starts),
        text::time(view.in_resets)
    ));
    let usage = &view.usage;
    let mut used = Vec::new();
    if usage.input_tokens.is_some() || usage.output_tokens.is_some() {
        let tell = |tokens: Option<u64>| tokens.map_or("unknown".into(), text::number);
        used.push(format!("tokens {} in, {} out", tell(usage.input_tokens), tell(usage.output_tokens)));
    }
    if let Some(cost) = usage.cost_usd {
        used.push(format!("cost ${cost:.4}"));
    }
    if !used.is_empty() {
        lines.push(used.join(", "));
    }
    if !view.one_shot && view.rows.iter().any(|row| row.turns > 0 || row.restarts > 0) {
        let widest = view.rows.iter().map(|row| text::width(&row.name)).max().unwrap_or(0).max(8);
        let head = format!("{}  turns  restarts", text::column("instance", widest, look.cut()));
        lines.push(look.paint(&head, Paint::Dim));
        for row in &view.rows {
            let name = text::column(&row.name, widest, look.cut());
            lines.push(format!("{name}  {:>5}  {:>8}", row.turns, row.restarts));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use readyroom::{Failure, FailureKind, Outcome};

    use super::super::Ended;
    use super::super::view::tests::{ended, plan};
    use super::*;

    #[test]
    fn the_table_tells_all_of_it() {
        let now = Instant::now();
        let mut view = View::new(plan("aider", 2, &["a", "b", "c", "d"]), false, now);
        let mut first = ended(0, Outcome::Succeeded, Duration::from_secs(4));
        first.usage.input_tokens = Some(12_345);
        first.usage.cost_usd = Some(0.25);
        view.ended(&first);
        view.ended(&ended(1, Outcome::Succeeded, Duration::from_secs(3)));
        view.ended(&Ended::unstarted(2, Failure::new(FailureKind::RateLimited { retry_after: None }, "slow").into()));
        view.in_starts = Duration::from_millis(1500);
        view.in_resets = Duration::from_millis(500);
        view.rows[1].restarts = 1;
        let lines = table(&view, now + Duration::from_secs(65), Look { colour: false, unicode: false });
        assert_eq!(
            lines.join("\n"),
            "\
4 jobs in 1m05s
  succeeded        2
  rate_limited     1
  not done         1
in the model 7.0s, overhead 2.0s (starting 1.5s, fresh contexts 0.5s)
tokens 12,345 in, unknown out, cost $0.2500
instance  turns  restarts
aider 0       2         0
aider 1       0         1"
        );
        let lines =
            table(&View::new(plan("aider", 1, &["a"]), false, now), now, Look { colour: false, unicode: false });
        assert_eq!(lines[1], "  not done     1");
    }
}
