//! Single samples out of the metrics that engines publish as Prometheus text.

/// The sum of a metric over all its labels; `None` where there is none of this name, or one of them is no number.
pub(super) fn sum(text: &str, name: &str) -> Option<f64> {
    let values = samples(text, name).map(|(_, value)| value);
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value?)).filter(|sum: &f64| sum.is_finite())
}

/// The whole number of requests that several metrics add up to; `None` where the first is missing.
pub(super) fn requests(text: &str, names: &[&str]) -> Option<u32> {
    let mut sums = names.iter().map(|name| sum(text, name));
    let first = sums.next().flatten()?;
    let all: f64 = first + sums.flatten().sum::<f64>();
    // Saturates, and takes what is below zero for zero.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, as is meant here"
    )]
    let whole = all.ceil() as u32;
    Some(whole)
}

/// The label `label` of the sample of a one-hot metric that is 1.
pub(super) fn hot<'a>(text: &'a str, name: &str, label: &str) -> Option<&'a str> {
    let (labels, _) = samples(text, name).find(|(_, value)| value.is_some_and(|value| value >= 1.0))?;
    let value = labels.split(',').find_map(|pair| pair.trim().strip_prefix(label)?.strip_prefix("=\""))?;
    value.strip_suffix('"')
}

/// Labels and value of every sample of one name.
fn samples<'a>(text: &'a str, name: &str) -> impl Iterator<Item = (&'a str, Option<f64>)> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None if rest.starts_with([' ', '\t']) => ("", rest),
            None => return None,
        };
        Some((labels, value.split_whitespace().next().and_then(|value| value.parse().ok())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP vllm:num_requests_running x\n\
        vllm:num_requests_running{engine=\"0\",model_name=\"a}b\"} 2.0\n\
        vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 1.0 1700000000\n\
        vllm:num_requests_running_total 99\n\
        vllm:num_requests_waiting 4\n\
        vllm:engine_sleep_state{engine=\"0\",sleep_state=\"awake\"} 0.0\n\
        vllm:engine_sleep_state{engine=\"0\",sleep_state=\"discard_all\"} 1.0\n";

    #[test]
    fn samples_of_one_name_are_added() {
        assert_eq!(sum(TEXT, "vllm:num_requests_running"), Some(3.0));
        assert_eq!(
            requests(TEXT, &["vllm:num_requests_running", "vllm:num_requests_waiting", "none"]),
            Some(7)
        );
        assert_eq!(requests(TEXT, &["none", "vllm:num_requests_waiting"]), None);
        assert_eq!(sum("x NaN\n", "x"), None);
        assert_eq!(sum("x{a=\"b\"} many\n", "x"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(v|[a-z{}\"=, .0-9NaInf+-]|\n){0,200}") {
            let _ = (requests(&text, &["v", "vv"]), hot(&text, "v", "a"));
        }
    }

    #[test]
    fn the_hot_label_is_found() {
        assert_eq!(hot(TEXT, "vllm:engine_sleep_state", "sleep_state"), Some("discard_all"));
        assert_eq!(hot(TEXT, "vllm:engine_sleep_state", "other"), None);
        assert_eq!(hot("", "vllm:engine_sleep_state", "sleep_state"), None);
    }
}
