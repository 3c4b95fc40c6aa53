//! Askings of ways that give, lie, hang, fail, panic and take their time, on a simulated clock.

mod real;

use std::fs;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Mutex;

use plimsoll_policy::concession::{Gains, Prospect, Wish};
use plimsoll_policy::plan::{ActResult, Wanted};
use plimsoll_policy::sample::Workload;
use tempfile::TempDir;

use super::way::{Answered, Answering, Way, WayError};
use super::*;

const MIB: u64 = 1 << 20;

/// How a way behaves when it is asked for something.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// Frees so many bytes and says so.
    Gives(u64),
    /// Says that it freed as much, and did not.
    Lies(u64),
    /// Says so at once, and frees after a while.
    Later(u64, Duration),
    Hangs,
    Refuses,
    Panics,
}

#[derive(Debug)]
struct Fake {
    name: &'static str,
    habit: Habit,
    levels: Vec<Level>,
    dir: PathBuf,
    /// Requests in flight, one less at each look.
    inflight: Mutex<u32>,
    level: Mutex<Level>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn less(dir: &std::path::Path, bytes: u64) {
        let file = dir.join("memory.current");
        let now: u64 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        fs::write(file, (now - bytes).to_string()).unwrap();
    }
}

impl Way for Fake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn offer(&self) -> Answering<'_, Offer> {
        let mut inflight = self.inflight.lock().unwrap();
        let levels = self.levels.iter().map(|level| (*level, Prospect::default())).collect();
        let offer = Offer {
            levels,
            inflight: Some(*inflight),
            level: Some(*self.level.lock().unwrap()),
            ..Offer::default()
        };
        *inflight = inflight.saturating_sub(1);
        Box::pin(async { Ok(offer) })
    }

    fn ask<'a>(&'a self, asking: &'a Asking) -> Answering<'a, Answered> {
        Box::pin(async {
            self.asked.lock().unwrap().push(format!("{} {}", self.name, asking.level));
            let claimed = |bytes: u64| Answered {
                claimed: Some(Gains { host: bytes.cast_signed(), ..Gains::default() }),
            };
            let answered = match (asking.level, self.habit) {
                (_, Habit::Hangs) => pending().await,
                (_, Habit::Refuses) => return Err(WayError::Refused("not now".into())),
                (_, Habit::Panics) => panic!("a way with a mistake in it"),
                (Level::Nothing, _) => Answered::default(),
                (_, Habit::Lies(bytes)) => claimed(bytes),
                (_, Habit::Gives(bytes)) => {
                    Self::less(&self.dir, bytes);
                    claimed(bytes)
                }
                (_, Habit::Later(bytes, after)) => {
                    let dir = self.dir.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(after).await;
                        Self::less(&dir, bytes);
                    });
                    claimed(bytes)
                }
            };
            *self.level.lock().unwrap() = asking.level;
            Ok(answered)
        })
    }
}

/// A workload in a directory that looks like a cgroup, and an asker that knows it.
struct Scene {
    asker: Asker,
    told: mpsc::Receiver<Told>,
    id: WorkloadId,
    slot: crate::ledger::SlotId,
    ledger: Arc<Ledger>,
    asked: Arc<Mutex<Vec<String>>>,
    known: Vec<Registered>,
    sample: Sample,
    dir: TempDir,
}

impl Scene {
    fn new(ways: &[(&'static str, Habit)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = dir.path().join("w");
        fs::create_dir(&cgroup).unwrap();
        for (file, text) in [("memory.current", "104857600"), ("cgroup.events", "populated 1\nfrozen 0\n")] {
            fs::write(cgroup.join(file), text).unwrap();
        }
        let cgroup = Arc::new(Cgroup::open(dir.path(), "w").unwrap());
        let ledger = Arc::new(Ledger::own(&dir.path().join("run"), dir.path().to_str().unwrap()).unwrap());
        let slot = ledger.claim(&cgroup.id).unwrap();
        let (mut asker, told) = Asker::new(&Config::default(), Arc::clone(&ledger), Ways::default());
        asker.watch(&cgroup, &Means::default()).unwrap();
        let id = cgroup.id.clone();
        let sample = Sample { workloads: [(id.clone(), Workload::default())].into(), ..Sample::default() };
        let mut scene =
            Self { asker, told, id, slot, ledger, asked: Arc::default(), known: Vec::new(), sample, dir };
        ways.iter().for_each(|(name, habit)| scene.add(name, *habit, 0));
        scene.asker.refresh();
        scene
    }

    fn add(&mut self, name: &'static str, habit: Habit, inflight: u32) {
        let way = Fake {
            name,
            habit,
            levels: vec![Level::Gc, Level::Offload, Level::Unload],
            dir: self.dir.path().join("w"),
            inflight: Mutex::new(inflight),
            level: Mutex::default(),
            asked: Arc::clone(&self.asked),
        };
        self.known.push(self.asker.ways().register(&self.id, Arc::new(way)));
    }

    fn wish(number: u64, level: Level, mib: u64, secs: u64) -> Wish {
        let expected = Gains { host: (mib * MIB).cast_signed(), ..Gains::default() };
        Wish { number, level, expected, deadline: Span::secs(secs), ..Wish::default() }
    }

    fn plan(&mut self, wish: Option<Wish>) {
        let wanted = Wanted { wish, ..Wanted::default() };
        let plan = Plan { workloads: [(self.id.clone(), wanted)].into_iter().collect(), ..Plan::default() };
        self.asker.apply(&plan, &self.sample, &Assessment::default());
    }

    /// Until it offers something, as every wish follows from an offer.
    async fn offered(&mut self) -> Offer {
        loop {
            self.asker.tell(&mut self.sample);
            match &self.sample.workloads[&self.id].offer {
                Some(offer) if !offer.levels.is_empty() => return offer.clone(),
                _ => drop(self.asker.take(self.told.recv().await.unwrap())),
            }
        }
    }

    async fn conceded(&mut self) -> Concession {
        loop {
            self.asker.tell(&mut self.sample);
            if let Some(concession) = self.sample.conceded.pop() {
                return concession;
            }
            self.asker.take(self.told.recv().await.unwrap());
        }
    }

    async fn ask(&mut self, wish: Wish) -> Concession {
        self.offered().await;
        self.plan(Some(wish));
        self.conceded().await
    }

    fn away(&self) -> bool {
        self.ledger.flags(self.slot).contains(Flags::AWAY)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn mib(concession: &Concession) -> i64 {
    concession.freed.host / MIB.cast_signed()
}

#[tokio::test(start_paused = true)]
async fn what_was_given_is_measured_and_given_back() {
    let mut scene = Scene::new(&[("client", Habit::Gives(40 * MIB))]);
    let conceded = scene.ask(Scene::wish(1, Level::Unload, 50, 10)).await;
    assert_eq!((&conceded.result, mib(&conceded)), (&ActResult::Done, 40), "80 % of what was expected");
    assert_eq!((conceded.by.as_str(), conceded.number, scene.away()), ("client", 1, true));
    let conceded = scene.ask(Scene::wish(2, Level::Nothing, 0, 10)).await;
    assert_eq!((&conceded.result, scene.away()), (&ActResult::Done, false));
    assert_eq!(scene.asked(), ["client unload", "client nothing"]);
}

#[tokio::test(start_paused = true)]
async fn a_lie_is_found_out_and_the_next_way_tried() {
    let mut scene = Scene::new(&[("engine", Habit::Gives(40 * MIB)), ("client", Habit::Lies(40 * MIB))]);
    let conceded = scene.ask(Scene::wish(1, Level::Unload, 40, 30)).await;
    assert_eq!((conceded.by.as_str(), &conceded.result), ("client+engine", &ActResult::Done));
    assert_eq!(conceded.claimed.map(|claimed| claimed.host), Some(80 * MIB.cast_signed()));
    let mut scene = Scene::new(&[("client", Habit::Lies(40 * MIB))]);
    let conceded = scene.ask(Scene::wish(1, Level::Gc, 40, 30)).await;
    assert_eq!((&conceded.result, conceded.freed.host), (&ActResult::Partial, 0), "a 200 proves nothing");
}

#[tokio::test(start_paused = true)]
async fn memory_that_comes_back_late_counts() {
    let mut scene = Scene::new(&[("engine", Habit::Later(30 * MIB, Duration::from_secs(2)))]);
    let conceded = scene.ask(Scene::wish(1, Level::Offload, 40, 30)).await;
    assert_eq!((&conceded.result, mib(&conceded)), (&ActResult::Done, 30));
}

#[tokio::test(start_paused = true)]
async fn who_hangs_refuses_or_panics_is_passed_over() {
    for habit in [Habit::Hangs, Habit::Refuses, Habit::Panics] {
        let mut scene = Scene::new(&[("client", habit)]);
        let conceded = scene.ask(Scene::wish(1, Level::Unload, 40, 8)).await;
        assert!(matches!(conceded.result, ActResult::Failed(_)), "{habit:?}: {:?}", conceded.result);
        let mut scene = Scene::new(&[("client", habit), ("hook", Habit::Gives(40 * MIB))]);
        let conceded = scene.ask(Scene::wish(1, Level::Unload, 40, 8)).await;
        assert_eq!((conceded.by.as_str(), &conceded.result), ("client+hook", &ActResult::Done), "{habit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_estimate_any_gain_will_do() {
    let mut scene = Scene::new(&[("client", Habit::Gives(MIB))]);
    assert_eq!(scene.ask(Scene::wish(1, Level::Gc, 0, 8)).await.result, ActResult::Done);
    let mut scene = Scene::new(&[("client", Habit::Gives(0))]);
    assert_eq!(scene.ask(Scene::wish(1, Level::Gc, 0, 8)).await.result, ActResult::Partial);
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_waited_for_where_there_is_time() {
    let mut scene = Scene::new(&[]);
    scene.add("client", Habit::Gives(40 * MIB), 5);
    scene.asker.refresh();
    let begun = tokio::time::Instant::now();
    scene.ask(Scene::wish(1, Level::Unload, 40, 10)).await;
    assert_eq!(begun.elapsed().as_millis(), 1250, "one request less at each look");
    let mut scene = Scene::new(&[]);
    scene.add("client", Habit::Gives(40 * MIB), 1000);
    scene.asker.refresh();
    let begun = tokio::time::Instant::now();
    scene.ask(Scene::wish(1, Level::Unload, 40, 10)).await;
    assert_eq!(begun.elapsed().as_secs(), 5, "half of the deadline");
    let begun = tokio::time::Instant::now();
    scene.ask(Scene::wish(2, Level::Gc, 0, 10)).await;
    assert_eq!(begun.elapsed().as_secs(), 0, "a trim interrupts nobody");
}

#[tokio::test(start_paused = true)]
async fn a_newer_wish_overtakes_and_each_is_asked_once() {
    let mut scene = Scene::new(&[("client", Habit::Hangs), ("hook", Habit::Gives(40 * MIB))]);
    scene.offered().await;
    scene.plan(Some(Scene::wish(1, Level::Gc, 40, 600)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.plan(Some(Scene::wish(1, Level::Gc, 40, 600)));
    scene.asker.tell(&mut scene.sample);
    assert_eq!(scene.sample.workloads[&scene.id].offer.as_ref().unwrap().busy, Some(1));
    scene.plan(Some(Scene::wish(2, Level::Unload, 40, 8)));
    assert_eq!(scene.conceded().await.number, 2);
    scene.plan(Some(Scene::wish(2, Level::Unload, 40, 8)));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(scene.asked(), ["client gc", "client unload", "hook unload"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_in_the_middle_of_it_has_failed() {
    let mut scene = Scene::new(&[("client", Habit::Hangs)]);
    scene.offered().await;
    scene.plan(Some(Scene::wish(1, Level::Unload, 40, 600)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.known.clear();
    scene.asker.refresh();
    let conceded = scene.conceded().await;
    assert!(matches!(conceded.result, ActResult::Failed(_)) && conceded.number == 1);
    assert!(scene.sample.conceded.is_empty());
    scene.plan(Some(Scene::wish(2, Level::Unload, 40, 600)));
    assert_eq!(scene.conceded().await.number, 2, "nobody to ask is an answer as well");
}

#[tokio::test(start_paused = true)]
async fn what_a_predecessor_left_away_is_brought_back_in_calm() {
    let mut scene = Scene::new(&[]);
    scene.ledger.raise(scene.slot, Flags::AWAY);
    scene.add("client", Habit::Gives(0), 0);
    scene.asker.refresh();
    scene.offered().await;
    scene.plan(None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.asked(), [""; 0], "a plan that was not made yet might want it");
    scene.sample.at = scene.sample.at + ORPHANED;
    scene.plan(None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((scene.asked(), scene.away()), (vec!["client nothing".to_owned()], false));
    assert!(scene.asker.conceded.is_empty(), "nobody asked for that");
}

#[tokio::test(start_paused = true)]
async fn the_end_asks_back_what_is_away_and_waits_no_longer_than_two_seconds() {
    let mut scene = Scene::new(&[("client", Habit::Gives(40 * MIB))]);
    scene.ask(Scene::wish(1, Level::Unload, 40, 10)).await;
    let (ledger, slot, asked) = (Arc::clone(&scene.ledger), scene.slot, Arc::clone(&scene.asked));
    scene.asker.farewell().await;
    assert!(!ledger.flags(slot).contains(Flags::AWAY));
    assert_eq!(asked.lock().unwrap().last().unwrap(), "client nothing");
    let mut scene = Scene::new(&[("client", Habit::Hangs)]);
    scene.offered().await;
    scene.plan(Some(Scene::wish(1, Level::Unload, 40, 600)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = tokio::time::Instant::now();
    scene.asker.farewell().await;
    assert_eq!(begun.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_in_a_dry_run() {
    let mut scene = Scene::new(&[("client", Habit::Gives(0))]);
    scene.asker.dry = true;
    scene.offered().await;
    scene.plan(Some(Scene::wish(1, Level::Unload, 40, 8)));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(scene.asked(), [""; 0]);
}

#[test]
fn attempts_grow_rarer() {
    assert_eq!([1, 2, 3, 60].map(again), [10, 20, 40, 300].map(Span::secs));
}
