//! Puts the daemon together: checks the host, repairs what a predecessor left, starts the threads.

use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll_policy::config::Config;
use tokio::sync::mpsc::{Receiver, channel};

use super::node::Node;
use super::{RunError, io_error, run_dir};
use crate::act::mail::{Inbox, mail};
use crate::act::oom::OomOrder;
use crate::act::react::Reaction;
use crate::act::worker::Workers;
use crate::act::{Actor, protect};
use crate::ask::{Asker, Told, Ways, watch};
use crate::check::{self, Capability, Host, HostPaths};
use crate::control::{self, Asked, Control, Counts, Listening, Sessions};
use crate::guardian::{self, Guardian};
use crate::kubernetes::find::Finder;
use crate::kubernetes::needs::Needs;
use crate::kubernetes::tell::{self, Evicted};
use crate::kubernetes::{self, Bell};
use crate::ledger::Ledger;
use crate::ledger::release::release;
use crate::memory::Keeper;
use crate::report::{About, Reporter};
use crate::sense::Senses;
use crate::sense::clock::now;
use crate::sense::discover::{Discovery, cgroup_of, discover};
use crate::sense::gpu::{Feed, Places};
use crate::sense::probes::{Options, Probes};
use crate::sense::psi::Trigger as PsiTrigger;

/// The daemon, ready to run.
pub(super) struct Parts {
    pub(super) node: Node,
    pub(super) inbox: Inbox,
    pub(super) discovered: Receiver<Discovery>,
    pub(super) asked: Receiver<Asked>,
    pub(super) ways: Ways,
    pub(super) told: Receiver<Told>,
    pub(super) evicted: Receiver<Evicted>,
    pub(super) control: Option<Listening>,
    pub(super) listening: Option<watch::Listening>,
    pub(super) minimum: protect::OwnMinimum,
    pub(super) oom: SharedOomOrder,
}

/// The order of OOM victims; `None` from the moment on which everything is released.
pub(super) type SharedOomOrder = Arc<Mutex<Option<OomOrder>>>;

pub(super) fn build(config: &Config) -> Result<Parts, RunError> {
    let host = look(config)?;
    let ledger = Arc::new(Ledger::own(&run_dir(config), &config.daemon.cgroup_root)?);
    repair(&ledger);
    let own = cgroup_of(std::process::id().cast_signed()).unwrap_or_default();
    let (minimum, missing) = protect::protect(Path::new(&config.daemon.cgroup_root), &own);
    for missing in missing {
        tracing::warn!(missing, "could not protect itself in full");
    }
    // From here on something may be set, so from here on somebody is there to undo it.
    ledger.set_controller(std::process::id());
    let home = guardian::home(&config.daemon, &own);
    let guardian =
        Guardian::start(ledger.run_dir(), home.as_deref()).map_err(io_error("can't start the guardian"))?;
    let (probes, ring) = load_probes();
    let (mail, inbox) = mail().map_err(io_error("can't make an eventfd"))?;
    let workers = Workers::start(&mail, &ledger).map_err(io_error("can't start the workers"))?;
    let bell = mail.clone();
    let reaction = Reaction::start(mail, workers.jobs(), Arc::clone(&ledger), ring)
        .map_err(io_error("can't start the reaction thread"))?;
    if let Err(error) = &reaction.real_time {
        tracing::warn!(error, "no real-time priority for the reaction thread");
    }
    let mut senses = Senses::open(config).map_err(io_error("can't read the host"))?;
    let gpus = Feed::start(Places::of(config), config.pace.gpu.into(), bell)
        .map_err(io_error("can't start the GPU thread"))?;
    let xids = gpus.xids();
    senses.watch_gpus(gpus);
    let psi = arm_host_psi(&senses, &reaction);
    let hooks = probes.as_ref().map_or_else(Vec::new, |probes| check::hooks(probes.hooks()));
    let counts = Arc::new(Counts::default());
    let (kubernetes, bell) = start_kubernetes(config, &own)?.unzip();
    let telling = kubernetes.as_ref().map(|_| Arc::new(tell::Counts::default()));
    let about = About {
        capabilities: host.with(hooks).capabilities().to_vec(),
        guardian: Some(guardian.id()),
        control: Arc::clone(&counts),
        xids: Some(xids),
        kubernetes: kubernetes.as_ref().map(|parts| parts.contact.clone()),
        telling: telling.clone(),
    };
    let reporter = Reporter::start(config, about)?;
    let actor = Actor::new(Arc::clone(&ledger), reaction, workers);
    let mut oom = orders_oom(config).then(|| OomOrder::new(&ledger));
    let ways = Ways::default();
    let (asker, told) = Asker::new(config, Arc::clone(&ledger), ways.clone());
    let mut node = Node::new(config, senses, probes, actor, asker, reporter, ledger, guardian, psi);
    if let Some(path) = &config.daemon.state {
        let kept = Keeper::start(path.as_ref(), now()).map_err(io_error("can't start the memory thread"))?;
        node.remember(kept);
    }
    let evicted = start_telling(config, &mut node, kubernetes.as_ref().zip(telling));
    let (desk, asked) = control::desk();
    if let Some(parts) = &kubernetes {
        node.promise(Needs::new(parts.pods.clone(), desk.tickets()));
    }
    // The first pass knows all workloads: what is up before the daemon is protected from its first moment.
    let mut finder = kubernetes.map(|parts| Finder::new(config, parts.pods));
    let first = look_around(config, &own, &mut finder);
    node.take_workloads(&first);
    if let Some(oom) = &mut oom {
        oom.apply(config, &first.found);
    }
    let oom = Arc::new(Mutex::new(oom));
    let discovered = start_discovery(config, own, (finder, bell), Arc::clone(&oom))
        .map_err(io_error("can't start the discovery thread"))?;
    let sessions = Arc::new(Sessions::new(ways.clone()));
    let shared = Control::new(config, desk, node.herald().listen(), sessions, counts, node.showing());
    let path = control::path(&config.daemon);
    let control = path.map(|path| control::listen(&path, shared)).transpose()?;
    let listening = listen_to_watchers(config, &ways);
    tracing::info!(workloads = node.workloads(), "watching");
    Ok(Parts { node, inbox, discovered, asked, ways, told, evicted, control, listening, minimum, oom })
}

/// Refuses a host on which nothing can be protected, and says once what is missing on another.
fn look(config: &Config) -> Result<Host, RunError> {
    let cgroup = config.daemon.cgroup_root.clone().into();
    let paths = HostPaths { cgroup, ..HostPaths::default() };
    let host = check::probe(&paths).with(check::gpus(&Places::of(config)));
    let account = Path::new(check::SERVICE_ACCOUNT);
    let host = host.with(check::pod(&paths, account, config, |name| std::env::var(name).ok()));
    host.require()?;
    for capability in host.capabilities() {
        if let Some(missing) = &capability.missing {
            let Capability { name, detail, .. } = capability;
            tracing::warn!(
                capability = name,
                detail,
                lost = missing.lost,
                mend = missing.mend,
                "something is missing"
            );
        }
    }
    tracing::info!(mode = %host.mode(), "looked at the host");
    Ok(host)
}

/// What a predecessor left is undone before anything new is set.
fn repair(ledger: &Ledger) {
    let released = release(ledger);
    if !released.is_empty() {
        tracing::warn!(?released, "repaired what a predecessor left");
    }
    ledger.sweep();
}

fn load_probes() -> (Option<Probes>, Option<crate::sense::probes::Ring>) {
    match Probes::load(&Options::default()) {
        Ok(mut probes) => {
            for hook in probes.hooks() {
                if let Err(why) = &hook.attached {
                    tracing::warn!(hook = hook.name, why, "an eBPF hook is missing");
                }
            }
            let ring = probes.take_ring();
            (Some(probes), ring)
        }
        Err(error) => {
            let error = causes(&error);
            tracing::error!(error, "no eBPF: no gate and no reclaim events, PSI and polling only");
            (None, None)
        }
    }
}

/// The quickest host trigger that this kernel takes; it is used for the workloads as well.
fn arm_host_psi(senses: &Senses, reaction: &Reaction) -> Option<PsiTrigger> {
    for trigger in PsiTrigger::LADDER {
        match senses.node().psi_trigger(&trigger) {
            Ok(fd) => {
                reaction.order(crate::act::react::Order::HostPsi(fd));
                return Some(trigger);
            }
            Err(error) => tracing::debug!(error = %error, window = %trigger.window, "PSI trigger refused"),
        }
    }
    tracing::warn!("no PSI triggers: stalls are seen by polling only");
    None
}

/// Nothing else depends on it: without it, programs are asked by other ways.
fn listen_to_watchers(config: &Config, ways: &Ways) -> Option<watch::Listening> {
    let listening = watch::listen(&config.daemon, ways.clone());
    listening.map_err(|error| tracing::warn!(error = %error, "no socket for MEMORY_PRESSURE_WATCH")).ok()
}

fn orders_oom(config: &Config) -> bool {
    config.ladder.oom_order && !config.ladder.dry_run.is_whole()
}

/// Nobody waits for the API server: until it answers, pods are those that an earlier run wrote down.
fn start_kubernetes(config: &Config, own: &str) -> Result<Option<(kubernetes::Parts, Bell)>, RunError> {
    if !config.kubernetes.enabled {
        return Ok(None);
    }
    let started = kubernetes::start(config, own, &tokio::runtime::Handle::current());
    started.map(Some).map_err(io_error("can't start the thread that keeps the pods"))
}

/// Who tells the API server is handed to the pass; where there is no cluster nobody is ever evicted.
fn start_telling(
    config: &Config,
    node: &mut Node,
    to: Option<(&kubernetes::Parts, Arc<tell::Counts>)>,
) -> Receiver<Evicted> {
    let Some((parts, counts)) = to else { return channel(1).1 };
    let (client, pods) = (parts.client.clone(), parts.pods.clone());
    let (teller, evicted) = tell::start(config, client, &parts.node, pods, counts);
    node.tells(teller);
    evicted
}

fn look_around(config: &Config, own: &str, finder: &mut Option<Finder>) -> Discovery {
    discover(config, own, finder.as_mut().map(Finder::find).unwrap_or_default())
}

/// Until it is time to look again, or pods have changed. Of changes that come close together one look is enough.
fn wait(pace: Duration, bell: Option<&Bell>) {
    match bell.map(|bell| bell.recv_timeout(pace)) {
        Some(Ok(())) => std::thread::sleep(SETTLED),
        Some(Err(RecvTimeoutError::Timeout)) => {}
        Some(Err(RecvTimeoutError::Disconnected)) | None => std::thread::sleep(pace),
    }
}

/// A pod that starts or ends changes a few times in a second; that bounds how much of our time somebody can take by changing them.
const SETTLED: Duration = Duration::from_millis(200);

fn start_discovery(
    config: &Config,
    own: String,
    (mut finder, bell): (Option<Finder>, Option<Bell>),
    oom: SharedOomOrder,
) -> std::io::Result<Receiver<Discovery>> {
    // One may wait: what is older than the newest look is of no use.
    let (sender, receiver) = channel(1);
    let config = config.clone();
    std::thread::Builder::new().name("discovery".into()).spawn(move || {
        loop {
            wait(config.pace.discover.into(), bell.as_ref());
            let discovery = look_around(&config, &own, &mut finder);
            if let Ok(mut oom) = oom.lock()
                && let Some(oom) = oom.as_mut()
            {
                oom.apply(&config, &discovery.found);
            }
            if sender.is_closed() || sender.blocking_send(discovery).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// An error with what caused it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
