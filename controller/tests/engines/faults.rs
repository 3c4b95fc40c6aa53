//! Every engine with every fault of a server, in all its calls and in the one that releases.

use std::time::{Duration, Instant};

use plimsoll::ask::way::WayError;

use super::server::{FULL, Fault, Where};
use super::{Entry, TABLE, Tried, each};

/// What is wrong, in one word.
fn word(error: &WayError) -> &'static str {
    match error {
        WayError::NotOffered(_) => "not offered",
        WayError::Busy(_) => "busy",
        WayError::Unreachable(_) => "unreachable",
        WayError::Refused(_) => "refused",
        WayError::Garbled(_) => "garbled",
        WayError::Late(_) => "late",
        WayError::Misconfigured(_) => "misconfigured",
    }
}

/// Offers of a server all of whose calls fail.
async fn offers(fault: Fault, expected: &'static [&'static str]) {
    each(TABLE.iter(), move |entry| async move {
        let tried = Tried::new(entry, fault, Where::Everywhere).await;
        let begun = Instant::now();
        let offer = tried.way.offer().await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{} took {:?}", entry.kind, begun.elapsed());
        let error = offer.expect_err("a server that fails has nothing to offer");
        assert!(expected.contains(&word(&error)), "{} with {fault:?}: {error}", entry.kind);
        assert_eq!(tried.server.bytes(), FULL, "{} with {fault:?}", entry.kind);
    })
    .await;
}

/// Askings of a server whose release fails.
async fn askings(fault: Fault, expected: &'static [&'static str]) {
    each(TABLE.iter().filter(move |entry| reads(entry, fault)), move |entry| async move {
        let tried = Tried::new(entry, fault, Where::AtRelease).await;
        assert!(tried.way.offer().await.unwrap().levels.contains_key(&entry.level), "{}", entry.kind);
        let error = tried.ask(1, entry.level, 600).await.expect_err("the release failed");
        assert!(expected.contains(&word(&error)), "{} with {fault:?}: {error}", entry.kind);
        assert_eq!(tried.server.bytes(), FULL, "{} with {fault:?}", entry.kind);
        door_is_open(&tried, entry);
    })
    .await;
}

/// Whether an engine's release says anything that could be garbled.
fn reads(entry: &Entry, fault: Fault) -> bool {
    use plimsoll_policy::config::engine::EngineKind as Kind;
    let answers = [Kind::Ollama, Kind::LlamacppRouter, Kind::Lmstudio, Kind::Http];
    !matches!(fault, Fault::Garbled | Fault::OtherForm) || answers.contains(&entry.kind)
}

/// Whatever closed the door has opened it again.
fn door_is_open(tried: &Tried, entry: &Entry) {
    let said = tried.server.said();
    let last = |words: [&str; 2]| {
        said.iter().rev().find(|said| words.iter().any(|word| said.contains(word))).cloned()
    };
    for (shut, open) in
        [("/pause", "/resume"), ("/pause_generation", "/continue_generation"), ("?shut", "?open")]
    {
        if let Some(last) = last([shut, open]) {
            // SGLang that failed in the middle may be released: it keeps the door shut until it is restored.
            let failed = entry.kind == plimsoll_policy::config::engine::EngineKind::Sglang;
            assert!(failed || last.contains(open), "{}: the door is left shut: {said:?}", entry.kind);
        }
    }
}

#[tokio::test]
async fn one_that_hangs_is_late() {
    offers(Fault::Hangs, &["late"]).await;
    askings(Fault::Hangs, &["late"]).await;
}

#[tokio::test]
async fn one_that_was_started_without_its_flag_offers_nothing_or_says_so() {
    offers(Fault::Absent, &["misconfigured", "refused"]).await;
    offers(Fault::NotImplemented, &["misconfigured", "refused"]).await;
    askings(Fault::Absent, &["misconfigured", "refused", "not offered"]).await;
    askings(Fault::NotImplemented, &["misconfigured", "refused", "not offered"]).await;
}

#[tokio::test]
async fn one_that_answers_nonsense_is_not_understood() {
    offers(Fault::Garbled, &["garbled"]).await;
    offers(Fault::OtherForm, &["garbled"]).await;
    askings(Fault::Garbled, &["garbled"]).await;
    askings(Fault::OtherForm, &["garbled"]).await;
}

#[tokio::test]
async fn one_that_sends_us_elsewhere_is_not_followed() {
    offers(Fault::Redirects, &["refused"]).await;
    askings(Fault::Redirects, &["refused"]).await;
}

#[tokio::test]
async fn one_that_wants_another_secret_says_whose_mistake_that_is() {
    offers(Fault::WrongSecret, &["misconfigured"]).await;
    askings(Fault::WrongSecret, &["misconfigured"]).await;
}

#[tokio::test]
async fn one_that_hangs_up_is_unreachable() {
    offers(Fault::Reset, &["unreachable"]).await;
    askings(Fault::Reset, &["unreachable"]).await;
}

#[tokio::test]
async fn one_that_fails_inside_refuses() {
    // LocalAI says in the same words that a model is not loaded, llama.cpp that it has no slots.
    for entry in TABLE.iter().filter(|entry| !matches!(entry.kind.name(), "localai")) {
        let tried = Tried::new(entry, Fault::Fails, Where::Everywhere).await;
        let error = tried.way.offer().await.expect_err("a server that fails has nothing to offer");
        assert_eq!(word(&error), "refused", "{}: {error}", entry.kind);
        assert!(error.to_string().contains("out of memory"), "{}: {error}", entry.kind);
    }
    askings(Fault::Fails, &["refused"]).await;
}

#[tokio::test]
async fn one_that_is_busy_is_left_alone() {
    each(TABLE.iter().filter(|entry| entry.waits), |entry| async move {
        let tried = Tried::new(entry, Fault::Busy, Where::Everywhere).await;
        let error = tried.ask(1, entry.level, 3000).await.expect_err("it has a request that does not end");
        assert_eq!(word(&error), "busy", "{}: {error}", entry.kind);
        assert_eq!(tried.server.bytes(), FULL, "{} let go all the same", entry.kind);
        door_is_open(&tried, entry);
    })
    .await;
}

#[tokio::test]
async fn one_that_frees_nothing_is_found_out_by_nothing_but_a_meter() {
    each(TABLE.iter(), |entry| async move {
        let tried = Tried::new(entry, Fault::FreesNothing, Where::Everywhere).await;
        let answered = tried.ask(1, entry.level, 5000).await;
        assert!(answered.is_ok(), "{}: {answered:?}", entry.kind);
        assert_eq!(tried.server.bytes(), FULL, "{}", entry.kind);
    })
    .await;
}

/// Whatever the answers are: an error or an answer, no panic, and no time beyond the deadline.
#[tokio::test]
async fn answers_of_every_kind_are_survived() {
    for seed in 0..60 {
        each(TABLE.iter(), move |entry| async move {
            let tried = Tried::new(entry, Fault::Mangles(seed), Where::Everywhere).await;
            let _ = tried.way.offer().await;
            let _ = tried.ask(1, entry.level, 150).await;
            let _ = tried.ask(2, plimsoll_policy::concession::Level::Nothing, 150).await;
        })
        .await;
    }
}
