//! Every kind of mistake, by its sentence; and that no tree whatever makes the reader panic.

use proptest::prelude::*;

use super::*;
use crate::concession::Level;

/// A tree from JSON, whose maps cannot repeat a key; the few tests that need that build their own.
fn tree(json: serde_json::Value) -> Node {
    use serde_json::Value;
    match json {
        Value::Null => Node::Null,
        Value::Bool(value) => Node::Bool(value),
        Value::Number(number) => {
            number.as_i128().map_or_else(|| Node::Float(number.as_f64().unwrap()), Node::Int)
        }
        Value::String(text) => Node::Text(text),
        Value::Array(items) => Node::List(items.into_iter().map(tree).collect()),
        Value::Object(map) => Node::Map(map.into_iter().map(|(key, value)| (key, tree(value))).collect()),
    }
}

fn sentences(tree: &Node) -> Vec<String> {
    read(tree).expect_err("refused").iter().map(ToString::to_string).collect()
}

macro_rules! refuses {
    ($name:ident, $json:tt, $($sentence:expr),+) => {
        #[test]
        fn $name() {
            assert_eq!(sentences(&tree(serde_json::json!($json))), [$($sentence),+]);
        }
    };
}

#[test]
fn nothing_written_is_the_default() {
    assert_eq!(read(&Node::Null), Ok(Config::default()));
    assert_eq!(read(&tree(serde_json::json!({"host": null, "workloads": []}))), Ok(Config::default()));
}

#[test]
fn every_unit_is_understood() {
    let config = read(&tree(serde_json::json!({
        "host": {"reserve": "1.5GiB", "dwell": {"stall": 0}, "emergency": {"forecast": "none", "used": "97.5%"}},
        "ladder": {"rungs": ["kill", "trim"], "floor_margin": "500MB", "hold": "2m"},
        "daemon": {"listen": "none", "journal": "none"},
    })))
    .unwrap();
    assert_eq!(config.host.reserve, Bytes::mib(1536));
    assert_eq!((config.host.dwell.stall, config.host.dwell.used), (Span::ZERO, Span::millis(100)));
    assert_eq!((config.host.emergency.forecast, config.host.emergency.used), (None, Share(975_000)));
    assert_eq!(config.ladder.rungs, [Rung::Trim, Rung::Kill]);
    assert_eq!(config.ladder.floor_margin, Bytes(500_000_000));
    assert_eq!(config.ladder.hold, Span::secs(120));
    assert_eq!((config.daemon.listen, config.daemon.journal), (None, None));
}

#[test]
fn a_workload_is_found_in_three_ways() {
    let config = read(&tree(serde_json::json!({"workloads": [
        {"name": "chat", "cgroup": "models.slice/chat-*", "priority": 2000, "preference": "omit"},
        {"name": "embed", "unit": "vllm@7.service", "rungs": ["throttle", "trim"], "restart_cost": "40s"},
        {"name": "local", "process": {"command": "llama-server", "user": 1000}},
    ]})))
    .unwrap();
    assert_eq!(config.workloads[0].find, Find::Cgroup("models.slice/chat-*".into()));
    assert_eq!(config.workloads[0].preference, Preference::Omit);
    assert_eq!(config.workloads[1].rungs, Some(vec![Rung::Trim, Rung::Throttle]));
    let process = Find::Process { command: "llama-server".into(), user: Some("1000".into()) };
    assert_eq!(config.workloads[2].find, process);
}

refuses!(no_map, ["a"], "configuration: is a list of 1, expected a section with keys");
refuses!(unknown_key, {"ladder": {"reclaim-step": "1MiB"}}, "ladder.reclaim-step: unknown key, did you mean `reclaim_step`?");
refuses!(
    unknown_word,
    {"colour": 1},
    "colour: unknown key, known here are preset, host, gpu, ladder, pace, ask, protect_priority, workloads, admission, kubernetes, daemon"
);
refuses!(
    unit_missing,
    {"ladder": {"hold": 5}},
    "ladder.hold: is 5, expected a time from 100ms to 10m, written like 250ms, 5s or 2m"
);
refuses!(
    out_of_range,
    {"ladder": {"reclaim_step": "8GiB"}},
    "ladder.reclaim_step: is \"8GiB\", expected an amount of memory from 4KiB to 1GiB, written like 64MiB or 8GiB"
);
refuses!(
    fraction,
    {"host": {"critical": {"used": 0.95}}},
    "host.critical.used: is 0.95, expected a share from 1% to 100%, written like 80%"
);
refuses!(
    leave_above_used,
    {"host": {"critical": {"used": "95%", "leave": "96%"}}},
    "host.critical.leave: is 96%, which has to be below `used`, 95%"
);
refuses!(
    tiers_out_of_order,
    {"host": {"critical": {"used": "85%", "leave": "80%", "forecast": "20s", "thrash": 3}}},
    "host.critical.used: has to be above that of constrained",
    "host.critical.leave: has to be at least that of constrained",
    "host.critical.forecast: has to be at most that of constrained",
    "host.critical.thrash: has to be at least that of constrained"
);
refuses!(
    gpu_tiers_out_of_order,
    {"gpu": {"critical": {"used": "90%", "leave": "80%", "forecast": "1m"}}},
    "gpu.critical.used: has to be above that of constrained",
    "gpu.critical.leave: has to be at least that of constrained",
    "gpu.critical.forecast: has to be at most that of constrained"
);
refuses!(
    no_such_rung,
    {"ladder": {"rungs": ["trim", "hug", "free"]}},
    "ladder.rungs[1]: is \"hug\", expected trim or throttle or offload or freeze or kill",
    "ladder.rungs[2]: is \"free\", expected trim or throttle or offload or freeze or kill"
);
refuses!(rung_twice, {"ladder": {"rungs": ["trim", "kill", "trim"]}}, "ladder.rungs: names trim twice");
refuses!(no_rungs, {"ladder": {"rungs": []}}, "ladder.rungs: is empty: to only watch, set `dry_run: true`");
refuses!(no_list, {"ladder": {"rungs": "trim"}}, "ladder.rungs: is \"trim\", expected a list, each item trim or throttle or offload or freeze or kill");
refuses!(no_flag, {"ladder": {"gate": "yes"}}, "ladder.gate: is \"yes\", expected true or false");
refuses!(busy_slower, {"pace": {"busy": "1s", "calm": "100ms"}}, "pace.busy: has to be at most `calm`");
refuses!(
    listen_name,
    {"daemon": {"listen": "localhost:9478"}},
    "daemon.listen: is \"localhost:9478\", expected none, or an IP address and a port from 1 to 65535, like 127.0.0.1:9478 or [::]:9478"
);
refuses!(relative_path, {"daemon": {"run_dir": "run"}}, "daemon.run_dir: is \"run\", expected an absolute path");
refuses!(
    priority_too_high,
    {"protect_priority": 4_000_000_000u64},
    "protect_priority: is 4000000000, expected a whole number from -2147483648 to 2147483647"
);
refuses!(
    nothing_to_find,
    {"workloads": [{"name": "chat"}]},
    "workloads[0]: needs one of `cgroup`, `unit` or `process` to find its workloads"
);
refuses!(
    two_ways_to_find,
    {"workloads": [{"name": "chat", "cgroup": "a", "unit": "b.service"}]},
    "workloads[0]: has cgroup and unit, of which only one can be"
);
refuses!(
    bad_globs,
    {"workloads": [
        {"name": "a", "cgroup": "/a"},
        {"name": "b", "cgroup": "a/../b"},
        {"name": "c", "cgroup": "**/x"},
        {"name": "d", "unit": "vllm"},
    ]},
    "workloads[0].cgroup: is \"/a\", expected a cgroup path below the root, without a leading slash; '*' and '?' stay in a component",
    "workloads[1].cgroup: is \"a/../b\", expected a cgroup path below the root, without a leading slash; '*' and '?' stay in a component",
    "workloads[2].cgroup: is \"**/x\", expected a cgroup path below the root, without a leading slash; '*' and '?' stay in a component",
    "workloads[3].unit: is \"vllm\", expected the full name of a systemd unit, like vllm.service"
);
refuses!(
    rules_that_repeat,
    {"workloads": [{"name": "a", "cgroup": "x"}, {"name": "a", "cgroup": "x"}]},
    "workloads[1].name: is \"a\", as is that of workloads[0]",
    "workloads[1]: can never match: \"a\" finds the same and comes first"
);
refuses!(
    rung_beyond_the_ladder,
    {"ladder": {"rungs": ["trim"]}, "workloads": [{"name": "a", "cgroup": "x", "rungs": ["kill"]}]},
    "workloads[0].rungs: has kill, which `ladder.rungs` does not allow"
);
refuses!(
    omitted_with_rungs,
    {"workloads": [{"name": "a", "cgroup": "x", "preference": "omit", "rungs": ["kill"]}]},
    "workloads[0].rungs: says what may be done, but `preference: omit` says nothing may"
);
refuses!(
    process_without_command,
    {"workloads": [{"process": {"usr": "me"}}]},
    "workloads[0].name: is missing, expected 1 to 63 letters, digits, '-', '_' or '.'",
    "workloads[0].process.command: is missing, expected part of a command line",
    "workloads[0].process.usr: unknown key, did you mean `user`?"
);

refuses!(
    ways_that_lead_nowhere,
    {"ask": {"addresses": ["localhost"]}, "workloads": [
        {"name": "a", "cgroup": "a", "ask": {"signal": {"gc": "SIGKILL"}, "webhok": {}}},
        {"name": "b", "cgroup": "b", "ask": {"signal": {"restore": "SIGUSR1"}, "watch": "normal"}},
        {"name": "c", "cgroup": "c", "ask": {"webhook": {"url": "https://x"}, "hook": {"command": ["sh"], "levels": []}}},
    ]},
    "ask.addresses[0]: is \"localhost\", expected an IP address or a network, like 10.1.2.3 or 10.1.0.0/16",
    "workloads[0].ask.signal.gc: is \"SIGKILL\", expected one of SIGUSR1, SIGUSR2, SIGHUP, SIGURG, SIGWINCH, SIGRTMIN+0 to SIGRTMIN+29",
    "workloads[0].ask.webhok: unknown key, did you mean `webhook`?",
    "workloads[1].ask.signal: names no signal for gc, aggressive, offload or unload",
    "workloads[1].ask.watch: is \"normal\", expected asked or elevated or constrained or critical or emergency",
    "workloads[2].ask.webhook.url: is \"https://x\", expected a URL like http://127.0.0.1:8000/memory",
    "workloads[2].ask.webhook.levels: is missing, expected gc or aggressive or offload or unload",
    "workloads[2].ask.hook.command: has to begin with the absolute path of a program"
);

#[test]
fn means_of_asking_are_read() {
    let config = read(&tree(serde_json::json!({"workloads": [{"name": "a", "cgroup": "a", "ask": {
        "signal": {"gc": "SIGUSR1", "unload": "SIGRTMIN+2", "to": "all"},
        "webhook": {"url": "http://127.0.0.1:1/x", "levels": ["unload", "gc"], "gated": true},
        "hook": {"command": ["/bin/cat", "-u"], "levels": ["gc"]},
        "watch": "critical",
    }}]})))
    .unwrap();
    let ways::Means { signal, webhook, hook, watch, .. } = config.workloads[0].ask.clone();
    assert_eq!(signal.unwrap().unload, Some(signals::Signal::Realtime(2)));
    assert_eq!(webhook.unwrap().levels, [Level::Gc, Level::Unload]);
    assert_eq!(hook.unwrap().command, ["/bin/cat", "-u"]);
    assert_eq!(watch, ways::Watch::Critical);
}

#[test]
fn a_repeated_key_is_refused() {
    let twice = Node::Map(vec![("protect_priority".into(), Node::Int(1)); 2]);
    assert_eq!(sentences(&twice), ["protect_priority: is given twice"]);
}

fn any_node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        Just(Node::Null),
        any::<bool>().prop_map(Node::Bool),
        any::<i128>().prop_map(Node::Int),
        any::<f64>().prop_map(Node::Float),
        "(\\PC{0,8}|[0-9.]{1,30}(GiB|ms|s|%|TB| h)|none|trim|kill|/[a-z.]{0,4}|[a-z*.]{1,4}/[a-z]{1,4})"
            .prop_map(Node::Text),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        let key = prop_oneof![
            proptest::sample::select(vec![
                "host",
                "ladder",
                "pace",
                "workloads",
                "daemon",
                "protect_priority",
                "elevated",
                "critical",
                "used",
                "leave",
                "forecast",
                "thrash",
                "rungs",
                "reclaim_step",
                "calm",
                "busy",
                "listen",
                "name",
                "cgroup",
                "unit",
                "process",
                "command",
                "user",
                "priority",
                "preference",
                "journal",
                "journal_files",
                "reserve",
                "ask",
                "signal",
                "webhook",
                "levels",
                "addresses",
            ])
            .prop_map(str::to_owned),
            "\\PC{0,6}",
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Node::List),
            proptest::collection::vec((key, inner), 0..8).prop_map(Node::Map),
        ]
    })
}

proptest! {
    #[test]
    fn no_tree_makes_it_panic(tree in any_node()) {
        if let Err(errors) = read(&tree) {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(!error.to_string().contains('\n'), "one line: {error}");
            }
        }
    }
}
