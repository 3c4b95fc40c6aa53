//! The table of `plimsoll check`.

use std::fmt::Write;

use super::Host;

/// Everything that was looked for, one line each, and what to do about what is missing.
#[must_use]
pub fn render(host: &Host) -> String {
    let mut text = String::new();
    let width = host.capabilities().iter().map(|capability| capability.name.len()).max().unwrap_or(0);
    for capability in host.capabilities() {
        let mark = match &capability.missing {
            None => "ok",
            Some(missing) if missing.required => "REQUIRED",
            Some(_) => "missing",
        };
        // Writing to a string can't fail.
        let _ = writeln!(text, "{mark:<8}  {:<width$}  {}", capability.name, capability.detail);
        if let Some(missing) = &capability.missing {
            let indent = " ".repeat(8 + 2 + width + 2);
            let _ = writeln!(text, "{indent}lost: {}", missing.lost);
            let _ = writeln!(text, "{indent}to mend it: {}", missing.mend);
        }
    }
    let _ = writeln!(text, "\nmode: {}", host.mode());
    text
}
