//! Asks a program of the operator's: started before memory is short and kept running, since a fork under pressure is the worst
//! moment for one. A JSON object per line goes in, and one comes back.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plimsoll_policy::concession::Offer;
use plimsoll_policy::config::ways::Hook;
use plimsoll_policy::sample::WorkloadId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::group::Group;
use super::way::{Answered, Answering, Asking, Way, WayError};
use super::webhook::{Claim, offer, request};

/// The longest answer.
const LONGEST: u64 = 64 << 10;
/// Before it is started again after it ended; doubles each time that it ends soon.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest that this becomes.
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);
/// One that ran for so long has worked.
const WORKED: Duration = Duration::from_secs(60);

/// The hook of one workload.
#[derive(Debug)]
pub(super) struct Hooked {
    hook: Hook,
    workload: WorkloadId,
    /// A question, and where its answer goes. The keeper takes one at a time.
    questions: mpsc::Sender<Question>,
    running: Arc<AtomicBool>,
    keeper: AbortHandle,
}

type Question = (String, oneshot::Sender<Result<Answered, WayError>>);

impl Drop for Hooked {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Hooked {
    /// Starts the program, and somebody who keeps it running: one that ended is started again when the host is not `short`. Call it
    /// on the runtime.
    pub(super) fn start(hook: &Hook, workload: &WorkloadId, short: watch::Receiver<bool>) -> Self {
        // A question that nobody can take now is not asked later, when nobody knows any more whether it is still wanted.
        let (questions, asked) = mpsc::channel(1);
        let running = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            command: hook.command.clone(),
            workload: workload.clone(),
            asked,
            short,
            is_running: Arc::clone(&running),
        };
        let keeper = tokio::spawn(keeper.keep()).abort_handle();
        Self { hook: hook.clone(), workload: workload.clone(), questions, running, keeper }
    }

    async fn tell(&self, asking: &Asking) -> Result<Answered, WayError> {
        let (answer, answered) = oneshot::channel();
        let line = format!("{}\n", request(asking, &self.workload));
        let dead = || WayError::Unreachable("the hook is not running; it is started again by and by".into());
        self.questions.try_send((line, answer)).map_err(|_| dead())?;
        answered.await.map_err(|_| dead())?
    }
}

impl Way for Hooked {
    fn name(&self) -> &'static str {
        "hook"
    }

    fn offer(&self) -> Answering<'_, Offer> {
        // Without the program there is nothing to offer: it is not started for an asking.
        let levels = if self.running.load(Ordering::Relaxed) { self.hook.levels.as_slice() } else { &[] };
        Box::pin(std::future::ready(Ok(offer(levels, self.hook.gated))))
    }

    fn ask<'a>(&'a self, asking: &'a Asking) -> Answering<'a, Answered> {
        Box::pin(self.tell(asking))
    }
}

/// Keeps the program running.
struct Keeper {
    command: Vec<String>,
    workload: WorkloadId,
    asked: mpsc::Receiver<Question>,
    short: watch::Receiver<bool>,
    is_running: Arc<AtomicBool>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut pause = AGAIN;
        loop {
            let begun = Instant::now();
            match self.start() {
                Ok(running) => {
                    self.is_running.store(true, Ordering::Relaxed);
                    let why = self.serve(running).await;
                    self.is_running.store(false, Ordering::Relaxed);
                    tracing::warn!(workload = %self.workload, why, "the hook of a workload ended");
                }
                Err(error) => {
                    tracing::warn!(workload = %self.workload, %error, "can't start the hook of a workload");
                }
            }
            pause = if begun.elapsed() >= WORKED { AGAIN } else { pause };
            self.turn_away(pause).await;
            pause = (pause * 2).min(AGAIN_AT_MOST);
        }
    }

    fn start(&self) -> std::io::Result<Running> {
        let (program, arguments) = self.command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let group = Group::of(child.id());
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(Running { _group: group, child, input, output: BufReader::new(output) })
    }

    /// Until it ends, or can't be understood.
    async fn serve(&mut self, mut running: Running) -> String {
        loop {
            tokio::select! {
                ended = running.child.wait() => {
                    return ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                }
                question = self.asked.recv() => {
                    let Some((line, answer)) = question else { return "it is not needed any more".into() };
                    match running.ask(&line, answer).await {
                        Ok(()) => {}
                        Err(why) => return why,
                    }
                }
            }
        }
    }

    /// While it does not run, nobody waits for it. It is not started while memory is short.
    async fn turn_away(&mut self, pause: Duration) {
        let turn_away = async {
            while self.asked.recv().await.is_some() {}
            std::future::pending::<()>().await;
        };
        let short = &mut self.short;
        let time = async {
            sleep(pause).await;
            // Whoever would know is gone at the end of the daemon.
            let _ = short.wait_for(|short| !short).await;
        };
        tokio::select! {
            () = turn_away => {}
            () = time => {}
        }
    }
}

/// The program while it runs; ended with this value.
struct Running {
    _group: Group,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Running {
    /// One line in, one line out. Who asked may be gone before: then it is ended, since its answer would be taken for that of
    /// the next question.
    async fn ask(
        &mut self,
        line: &str,
        mut answer: oneshot::Sender<Result<Answered, WayError>>,
    ) -> Result<(), String> {
        let said = tokio::select! {
            said = self.exchange(line) => said,
            () = answer.closed() => return Err("it did not answer in time".into()),
        };
        let failed = said.as_ref().err().map(ToString::to_string);
        // Whoever asked may have left in this moment.
        let _ = answer.send(said.and_then(|claim| match &claim.error {
            Some(why) => Err(WayError::Refused(why.chars().take(200).collect())),
            None => Ok(Answered { claimed: claim.gains() }),
        }));
        failed.map_or(Ok(()), Err)
    }

    async fn exchange(&mut self, line: &str) -> Result<Claim, WayError> {
        let broken = |error: std::io::Error| WayError::Unreachable(format!("the hook: {error}"));
        self.input.write_all(line.as_bytes()).await.map_err(broken)?;
        let mut text = String::new();
        let len = (&mut self.output).take(LONGEST).read_line(&mut text).await.map_err(broken)?;
        if len == 0 {
            return Err(WayError::Unreachable("the hook has closed its output".into()));
        }
        serde_json::from_str(&text).map_err(|error| WayError::Garbled(format!("the hook: {error}")))
    }
}
