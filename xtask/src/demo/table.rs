//! The result as a table on the terminal.
use super::report::{DemoReport, RunReport};

const HEAD: [&str; 15] = [
    "story",
    "swap",
    "protection",
    "calm p99 ms",
    "answered",
    "late",
    "lost",
    "p50 ms",
    "p99 ms",
    "max ms",
    "killed",
    "kernel OOM",
    "onset to action",
    "freed",
    "restored",
];

/// A calm guest on a quiet host answers within 5 ms; beyond this its clock was kept from running.
const BUSY_HOST_MS: f64 = 20.0;

/// All runs, one a line.
pub(super) fn table(report: &DemoReport) -> String {
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    rows.extend(report.runs.iter().map(row));
    let columns = rows[0].len();
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
        if number == 0 {
            text += &widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("  ");
            text.push('\n');
        }
    }
    if report.runs.iter().any(|run| run.calm.p99_ms > BUSY_HOST_MS) {
        text += "The host was busy: an idle guest woke up late, which shows in the latencies of calm, too.\n";
    }
    text
}

fn row(run: &RunReport) -> Vec<String> {
    vec![
        run.story.clone(),
        run.swap.clone(),
        run.protection.clone(),
        format!("{:.1}", run.calm.p99_ms),
        run.protected.answered.to_string(),
        run.protected.late.to_string(),
        run.protected.lost.to_string(),
        format!("{:.1}", run.protected.p50_ms),
        format!("{:.1}", run.protected.p99_ms),
        format!("{:.1}", run.protected.max_ms),
        killed(run),
        run.kernel_oom_kills.to_string(),
        run.onset_to_first_action_ms.map_or_else(|| "never".into(), |ms| format!("{ms:.1} ms")),
        if run.protection == "bare" { "-".into() } else { format!("{} MiB", run.freed_bytes >> 20) },
        restored(run),
    ]
}

fn killed(run: &RunReport) -> String {
    if run.killed.is_empty() {
        return "nobody".into();
    }
    run.killed.iter().map(|it| format!("{} by {}", it.load, it.by)).collect::<Vec<_>>().join(", ")
}

fn restored(run: &RunReport) -> String {
    match (run.restored, run.restored_after_ms) {
        (Some(true), Some(ms)) => format!("after {:.1} s", ms / 1e3),
        (Some(true), None) => "yes".into(),
        (Some(false), _) if !run.killed.is_empty() => "no: killed".into(),
        (Some(false), _) => "no: still held".into(),
        (None, _) => "-".into(),
    }
}

/// One run in a few words, as soon as it is over.
pub(super) fn one_line(run: &RunReport) -> String {
    let requests = run.protected;
    format!(
        "{} answered, {} lost, p99 {:.1} ms (calm {:.1}), killed: {}, first: {}",
        requests.answered,
        requests.lost,
        requests.p99_ms,
        run.calm.p99_ms,
        killed(run),
        run.first_action.as_deref().unwrap_or("nothing"),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::report::{DemoReport, Requests, RunReport};

    /// A protected run that keeps every promise.
    pub(in super::super) fn protected() -> RunReport {
        let requests = Requests { answered: 1000, late: 0, lost: 0, p50_ms: 2.4, p99_ms: 3.0, max_ms: 4.5 };
        RunReport {
            name: "a-none-plimsoll".into(),
            story: "a".into(),
            swap: "none".into(),
            protection: "plimsoll".into(),
            kernel: "6.12.1".into(),
            protected: requests,
            calm: requests,
            onset_to_first_action_ms: Some(0.0),
            growth_to_first_action_ms: Some(1500.0),
            growth_to_onset_ms: None,
            first_action: Some("high batch by plimsoll".into()),
            killed: Vec::new(),
            kernel_oom_kills: 0,
            freed_bytes: 64 << 20,
            server_stall_ms: 0.0,
            restored: Some(false),
            restored_after_ms: None,
            released: Some(true),
            tier: Some("critical".into()),
            rung: Some("freeze".into()),
            hooks: Some(10),
            controller_exit: Some(0),
            controller_peak_bytes: Some(10 << 20),
            controller_cpu_share: Some(0.01),
            guest_faults: 0,
            lost_boots: 0,
            wall_seconds: 40.0,
        }
    }

    #[test]
    fn the_table_has_a_line_for_every_run() {
        let text = super::table(&DemoReport::new("6.12", 2, vec![protected(), protected()], Vec::new()));
        assert_eq!(text.lines().count(), 4);
        assert!(text.lines().last().unwrap().ends_with("64 MiB  no: still held"));
    }
}
