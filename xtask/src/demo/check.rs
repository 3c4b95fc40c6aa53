//! What the demo promises, held against what it showed.
use super::report::{DemoReport, RunReport};

/// Every promise that was not kept, in words.
pub(crate) fn check(report: &DemoReport) -> Vec<String> {
    let mut broken: Vec<_> = report.failed.iter().map(|it| format!("{}: {}", it.name, it.error)).collect();
    if report.runs.is_empty() {
        broken.push("no run was played".to_owned());
    }
    for run in &report.runs {
        let kept = if run.protection == "bare" { bare(run) } else { protected(run) };
        broken.extend(
            kept.into_iter().filter(|(kept, _)| !kept).map(|(_, what)| format!("{}: {what}", run.name)),
        );
    }
    broken
}

/// Without Plimsoll the problem has to be there, or the other runs prove nothing.
fn bare(run: &RunReport) -> Vec<(bool, String)> {
    let trouble = run.protected.lost + run.protected.late > 0;
    vec![(trouble, "the bare run answered everything in time, so it shows no problem".into())]
}

fn protected(run: &RunReport) -> Vec<(bool, String)> {
    let lost = run.protected.lost;
    let oom = run.kernel_oom_kills;
    let others: Vec<_> =
        run.killed.iter().filter(|it| it.load != "batch").map(|it| it.load.as_str()).collect();
    vec![
        (run.protected.answered > 0, "the server answered nothing".into()),
        (lost == 0, format!("the server lost {lost} requests")),
        (oom == 0, format!("the kernel's OOM killer took {oom} victims")),
        (
            others.is_empty(),
            format!("{} was killed, which matters more than the batch job", others.join(", ")),
        ),
        (run.growth_to_first_action_ms.is_some(), "nothing was done".into()),
        (run.hooks > Some(0), "the controller ran without eBPF".into()),
        (
            run.released == Some(true),
            "something stayed frozen or limited after the controller had gone".into(),
        ),
        (run.controller_exit == Some(0), format!("the controller ended with {:?}", run.controller_exit)),
        (gave_back(run), "the pressure was over, and what was taken was not given back".into()),
    ]
}

/// In story B the server shrinks again: a batch job that is still alive has to be free again. In story A it wants
/// more than there is until the end.
fn gave_back(run: &RunReport) -> bool {
    run.story != "b" || !run.killed.is_empty() || run.restored == Some(true)
}

#[cfg(test)]
mod tests {
    use super::super::report::{DemoReport, Killed, RunReport};
    use super::check;

    fn report(run: RunReport) -> DemoReport {
        DemoReport::new("6.12", 2, vec![run], Vec::new())
    }

    #[test]
    fn a_run_that_keeps_everything_is_clean() {
        assert_eq!(check(&report(super::super::table::tests::protected())), Vec::<String>::new());
    }

    #[test]
    fn every_broken_promise_is_named() {
        let mut run = super::super::table::tests::protected();
        run.protected.lost = 3;
        run.kernel_oom_kills = 1;
        run.killed = vec![Killed { load: "server".into(), by: "kernel".into() }];
        run.released = Some(false);
        assert_eq!(
            check(&report(run)),
            [
                "a-none-plimsoll: the server lost 3 requests",
                "a-none-plimsoll: the kernel's OOM killer took 1 victims",
                "a-none-plimsoll: server was killed, which matters more than the batch job",
                "a-none-plimsoll: something stayed frozen or limited after the controller had gone",
            ]
        );
    }

    #[test]
    fn a_bare_run_without_trouble_shows_nothing() {
        let mut run = super::super::table::tests::protected();
        run.protection = "bare".into();
        assert_eq!(check(&report(run)).len(), 1);
    }
}
