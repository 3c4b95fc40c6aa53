//! The status for people: the host in three lines, the workloads in columns, and what is not as it should be.

mod gpus;

use std::fmt::Write;

use plimsoll_policy::assess::thrashing::ThrashState;
use plimsoll_policy::units::{Bytes, Share, Span};

use super::status::{
    AdmissionStatus, AskingStatus, ConcededStatus, HostStatus, Status, TotalsStatus, WorkloadStatus,
};

/// The whole status as text.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = write(status, &mut text);
    text
}

fn write(status: &Status, out: &mut String) -> std::fmt::Result {
    head(status, out)?;
    match &status.host {
        Some(host) => self::host(host, out)?,
        None => writeln!(out, "host       the first pass is not done yet")?,
    }
    gpus::gpus(&status.gpus, out)?;
    admission(&status.admission, out)?;
    totals(&status.totals, out)?;
    writeln!(out)?;
    workloads(&status.workloads, out)?;
    missing(status, out)
}

fn head(status: &Status, out: &mut String) -> std::fmt::Result {
    let paused = |seconds| format!("paused for another {}: nothing is done", duration(seconds));
    let mode = match &status.dry_run {
        _ if let Some(seconds) = status.paused_seconds => paused(seconds),
        dry if dry.is_whole() => "dry run: nothing is touched".into(),
        dry if dry.is_off() => "protecting".into(),
        dry => format!("protecting, but dry run of {dry}"),
    };
    let guardian = status.guardian_pid.map_or_else(|| "no guardian".into(), |pid| format!("guardian {pid}"));
    let up = duration(status.uptime_seconds);
    writeln!(out, "plimsoll   {}, {mode}, up {up}, {guardian}", status.version)
}

fn host(host: &HostStatus, out: &mut String) -> std::fmt::Result {
    let because = host.because.as_ref().map(|words| format!(" ({words})")).unwrap_or_default();
    writeln!(out, "host       {}{because}", host.tier)?;
    let facts = [
        host.used_ratio.map(|ratio| format!("{} used", percent(ratio))),
        host.headroom_bytes.map(|bytes| format!("{} headroom", Bytes(bytes))),
        forecast(host),
        host.stall_ratio.map(|ratio| format!("protected wait {} of the time", percent(ratio))),
        (host.thrash > ThrashState::Healthy).then(|| format!("protected fault: {}", host.thrash)),
        (host.age_seconds > 5.0)
            .then(|| format!("seen {} ago: the control loop stands still", duration(host.age_seconds))),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    writeln!(out, "           {}", facts.join(", "))?;
    host.gaps.iter().try_for_each(|gap| writeln!(out, "           not read: {gap}"))
}

fn forecast(host: &HostStatus) -> Option<String> {
    let why = host.forecast.as_deref().unwrap_or_default();
    match host.forecast_seconds {
        Some(left) => Some(format!("exhausted in {} by {why}", duration(left))),
        None => (!why.is_empty()).then(|| format!("no forecast: {why}")),
    }
}

/// Nothing is said where nobody ever asked.
fn admission(admission: &AdmissionStatus, out: &mut String) -> std::fmt::Result {
    let AdmissionStatus { reserved_bytes, reservations, waiting, granted, refused } = admission;
    let no: u64 = refused.values().sum();
    if granted + no == 0 && waiting.is_empty() {
        return Ok(());
    }
    let reserved = Bytes(*reserved_bytes);
    writeln!(out, "admission  {reserved} promised and not used yet, {granted} granted, {no} refused")?;
    for one in reservations.iter().filter(|one| one.unsettled_bytes > 0) {
        let (size, left) = (Bytes(one.size_bytes), Bytes(one.unsettled_bytes));
        let expires = duration(one.expires_seconds);
        writeln!(out, "           {left} of {size} for {}, expires in {expires}", one.cgroup)?;
    }
    for one in waiting {
        let (size, left) = (Bytes(one.size_bytes), duration(one.left_seconds));
        writeln!(out, "           {} waits for {size}, for another {left}", one.cgroup)?;
    }
    Ok(())
}

fn totals(totals: &TotalsStatus, out: &mut String) -> std::fmt::Result {
    let TotalsStatus {
        passes,
        passes_seconds: _,
        tier_changes,
        actions,
        freed_bytes,
        kills,
        journal_dropped,
    } = totals;
    let freed = Bytes(*freed_bytes);
    writeln!(
        out,
        "so far     {passes} passes, {tier_changes} changes of tier, {actions} actions, {freed} freed, {kills} kills"
    )?;
    if *journal_dropped > 0 {
        writeln!(out, "           {journal_dropped} passes are missing from the journal")?;
    }
    Ok(())
}

fn workloads(workloads: &[WorkloadStatus], out: &mut String) -> std::fmt::Result {
    if workloads.is_empty() {
        return writeln!(
            out,
            "no workloads: none of the rules matches a cgroup, and `plimsoll exec` started none"
        );
    }
    let rows: Vec<[String; 8]> = workloads.iter().map(row).collect();
    let heads = ["WORKLOAD", "PRIORITY", "RUNG", "MEMORY", "SWAP", "HIGH", "LOW", "GROWTH"].map(String::from);
    let width =
        |column: usize| rows.iter().chain([&heads]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 8] = std::array::from_fn(width);
    line(&heads, &widths, out)?;
    for (row, workload) in rows.iter().zip(workloads) {
        line(row, &widths, out)?;
        for evidence in &workload.evidence {
            writeln!(out, "  because {evidence}")?;
        }
        if let Some(it) = &workload.asking {
            asking(it, out)?;
        }
        if !workload.foreign.is_empty() {
            writeln!(out, "  set by somebody else: {}", workload.foreign.join(", "))?;
        }
        if let Some(left) = workload.held_off_seconds {
            writeln!(out, "  not let go for another {}", duration(left))?;
        }
        if let Some(would) = &workload.would {
            writeln!(out, "  dry run: would be on {}", would.rung)?;
            would.evidence.iter().try_for_each(|evidence| writeln!(out, "    because {evidence}"))?;
        }
    }
    Ok(())
}

/// What is asked of it now, and how the last asking ended; what it could be asked for is in the JSON.
fn asking(it: &AskingStatus, out: &mut String) -> std::fmt::Result {
    if let Some(level) = it.wanted.as_ref().filter(|_| it.busy) {
        writeln!(out, "  being asked for {level}")?;
    }
    if let Some(level) = it.level.as_ref().filter(|level| *level != "nothing") {
        writeln!(out, "  in force by its own word: {level}")?;
    }
    let Some(ConcededStatus { level, by, result, why, ago_seconds, took_seconds, freed, .. }) = &it.last
    else {
        return Ok(());
    };
    let by = if by.is_empty() { String::new() } else { format!(" by {by}") };
    let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    let (took, ago) = (duration(*took_seconds), duration(*ago_seconds));
    write!(out, "  asked for {level}{by}, {result} in {took}, {ago} ago{why}")?;
    if level != "restore" {
        let host = u64::try_from(freed.host).ok().map(|bytes| ("host".to_owned(), Bytes(bytes)));
        let gpus = freed.gpus.iter().map(|(gpu, bytes)| (format!("gpu:{gpu}"), *bytes));
        host.into_iter()
            .chain(gpus)
            .try_for_each(|(of, bytes)| write!(out, "; {bytes} of {of} came back"))?;
    }
    writeln!(out)
}

fn row(workload: &WorkloadStatus) -> [String; 8] {
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".into(), |bytes| Bytes(bytes).to_string());
    let rung = if workload.frozen == Some(true) {
        format!("{} (frozen)", workload.rung)
    } else if workload.leash {
        format!("{} (being let go)", workload.rung)
    } else {
        workload.rung.to_string()
    };
    [
        workload.name.clone(),
        workload.priority.to_string(),
        rung,
        bytes(workload.memory_bytes),
        bytes(workload.swap_bytes),
        bytes(workload.high_bytes),
        bytes(workload.low_bytes),
        workload.growth_bytes_per_second.map_or_else(|| "-".into(), growth),
    ]
}

/// Text to the left, numbers to the right, as one reads them.
fn line(row: &[String; 8], widths: &[usize; 8], out: &mut String) -> std::fmt::Result {
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        match column {
            0 => write!(out, "{cell:<width$}")?,
            2 => write!(out, "  {cell:<width$}")?,
            _ => write!(out, "  {cell:>width$}")?,
        }
    }
    writeln!(out)
}

fn missing(status: &Status, out: &mut String) -> std::fmt::Result {
    for capability in &status.capabilities {
        if let Some(missing) = &capability.missing {
            writeln!(out, "\nmissing    {}: {}", capability.name, capability.detail)?;
            writeln!(out, "           lost: {}", missing.lost)?;
            if !missing.mend.is_empty() {
                writeln!(out, "           to mend it: {}", missing.mend)?;
            }
        }
    }
    Ok(())
}

fn growth(bytes_per_second: i64) -> String {
    let sign = if bytes_per_second < 0 { "-" } else { "+" };
    format!("{sign}{}/s", Bytes(bytes_per_second.unsigned_abs()))
}

fn percent(ratio: f64) -> Share {
    Share((ratio.clamp(0.0, 1000.0) * f64::from(Share::ONE.0)) as u32)
}

/// Days and hours for an uptime, fractions of a second for a forecast.
fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60) {
        (0, 0, 0) => Span((seconds.max(0.0) * 1e9) as u64).to_string(),
        (0, 0, minutes) => format!("{minutes}m {}s", whole % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests;
