//! A task that panics is begun again, after a pause: it speaks to the API server, and protection needs none of that.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::backoff::{Backoff, Dice};

/// Whoever has done well for so long has overcome what it fell over before, and its next pause is the first again.
const WELL: Duration = Duration::from_secs(600);

/// Sees to one task.
pub(super) struct Revival {
    task: &'static str,
    backoff: Backoff,
    dice: Dice,
}

impl Revival {
    pub(super) fn new(task: &'static str) -> Self {
        Self { task, backoff: Backoff::new(), dice: Dice::new() }
    }

    /// Runs it to its end. What it works on must not be used any more as it is after a panic, which may have come half way.
    ///
    /// # Errors
    /// When to begin it again, where it panicked.
    pub(super) async fn attempt<T>(&mut self, task: impl Future<Output = T>) -> Result<T, Instant> {
        let begun = Instant::now();
        let panic = match AssertUnwindSafe(task).catch_unwind().await {
            Ok(end) => return Ok(end),
            Err(panic) => panic,
        };
        let now = Instant::now();
        if now - begun >= WELL {
            self.backoff.succeeded();
        }
        self.backoff.failed(None, now, &mut self.dice);
        let until = self.backoff.until(now).unwrap_or(now);
        let (task, why, again) = (self.task, said(&*panic), until - now);
        tracing::error!(task, why, ?again, "a task that speaks to the API server panicked; all else goes on");
        Err(until)
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say why")
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, sleep_until};

    use super::*;

    async fn falls(after: u64) {
        sleep(Duration::from_secs(after)).await;
        panic!("after {after} s");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_it_has_done_well() {
        let mut revival = Revival::new("test");
        let mut pauses = Vec::new();
        for lives in [0, 1, 0, 599, 600] {
            let until = revival.attempt(falls(lives)).await.unwrap_err();
            pauses.push((until - Instant::now()).as_millis());
            sleep_until(until).await;
        }
        for (pause, longest) in pauses.into_iter().zip([1000, 2000, 4000, 8000, 1000]) {
            assert!((longest / 2..=longest).contains(&pause), "{pause} of {longest}");
        }
        assert_eq!(revival.attempt(async { 7 }).await, Ok(7));
    }

    #[test]
    fn what_a_panic_says_is_told() {
        let name = "x";
        assert_eq!(said(&*std::panic::catch_unwind(|| panic!("plain")).unwrap_err()), "plain");
        assert_eq!(said(&*std::panic::catch_unwind(|| panic!("with {name}")).unwrap_err()), "with x");
        assert_eq!(said(&7), "it did not say why");
    }
}
