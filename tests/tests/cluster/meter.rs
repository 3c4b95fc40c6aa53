//! What an API server has counted of itself, and what it has used.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use plimsoll_cluster::Cluster;

/// The objects that we speak of.
const OURS: [&str; 3] = ["events", "nodes", "pods"];

/// At one time.
pub(crate) struct Reading {
    at: Instant,
    /// Ended requests, by what was asked and the answer's code: `PATCH nodes/status 200`. Watches are counted when they end; what is
    /// refused because too many ask at once is not looked at, and stands here as `REFUSED queue-full 429`.
    requests: BTreeMap<String, u64>,
    /// Watches that are open.
    pub(crate) watches: u64,
    /// Sent in answers, without watches.
    bytes: u64,
    server: Usage,
    own: Usage,
}

/// Between two readings.
pub(crate) struct Phase {
    pub(crate) took: Duration,
    pub(crate) requests: BTreeMap<String, u64>,
    pub(crate) bytes: u64,
    /// Time of a processor: of the API server, and of this process, which plays the nodes.
    pub(crate) cpu: (Duration, Duration),
}

/// Of a process.
#[derive(Clone, Copy)]
struct Usage {
    cpu: Duration,
    rss: u64,
}

impl Reading {
    pub(crate) fn take(cluster: &Cluster) -> Self {
        let text = cluster.kubectl(&["get", "--raw=/metrics"]).unwrap();
        let mut reading = Self {
            at: Instant::now(),
            requests: BTreeMap::new(),
            watches: 0,
            bytes: 0,
            server: usage(&cluster.api_server_pid().unwrap().to_string()),
            own: usage("self"),
        };
        text.lines().filter_map(Line::read).for_each(|line| reading.add(&line));
        reading
    }

    fn add(&mut self, line: &Line<'_>) {
        if line.name == "apiserver_flowcontrol_rejected_requests_total" {
            *self.requests.entry(format!("REFUSED {} 429", line.label("reason"))).or_default() += line.value;
        }
        let [verb, resource] = ["verb", "resource"].map(|name| line.label(name));
        if !OURS.contains(&resource) {
            return;
        }
        match line.name {
            "apiserver_request_total" => {
                let part = match line.label("subresource") {
                    "" => String::new(),
                    part => format!("/{part}"),
                };
                let key = format!("{verb} {resource}{part} {}", line.label("code"));
                *self.requests.entry(key).or_default() += line.value;
            }
            "apiserver_longrunning_gauge" if (verb, resource) == ("WATCH", "pods") => {
                self.watches += line.value;
            }
            "apiserver_response_sizes_sum" if verb != "WATCH" => self.bytes += line.value,
            _ => {}
        }
    }

    /// The API server's memory, in bytes.
    pub(crate) fn server_rss(&self) -> u64 {
        self.server.rss
    }

    pub(crate) fn own_rss(&self) -> u64 {
        self.own.rss
    }

    /// What happened since.
    pub(crate) fn since(&self, earlier: &Self) -> Phase {
        let more = |(key, count): (&String, &u64)| {
            let more = count - earlier.requests.get(key).unwrap_or(&0);
            (more > 0).then(|| (key.clone(), more))
        };
        Phase {
            took: self.at - earlier.at,
            requests: self.requests.iter().filter_map(more).collect(),
            bytes: self.bytes - earlier.bytes,
            cpu: (self.server.cpu - earlier.server.cpu, self.own.cpu - earlier.own.cpu),
        }
    }
}

impl Phase {
    /// All that ended, without watches.
    pub(crate) fn count(&self) -> u64 {
        self.requests.iter().filter(|(what, _)| !what.starts_with("WATCH ")).map(|(_, count)| count).sum()
    }

    /// Whether each was answered as it was meant: a server that is too slow, or asked for too much, says 5xx or 429.
    pub(crate) fn kept_up(&self) -> bool {
        self.requests.keys().all(|what| what.contains(" 2") || what.contains(" 409"))
    }

    /// Those that begin like this.
    pub(crate) fn of(&self, what: &str) -> u64 {
        self.requests.iter().filter(|(key, _)| key.starts_with(what)).map(|(_, count)| count).sum()
    }
}

/// `name{label="value",...} 12`
struct Line<'a> {
    name: &'a str,
    labels: &'a str,
    value: u64,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (name, rest) = line.split_once('{')?;
        let (labels, value) = rest.rsplit_once("} ")?;
        // Large ones are written like 1.2e+06.
        Some(Self { name, labels, value: value.parse::<f64>().ok()? as u64 })
    }

    fn label(&self, name: &str) -> &'a str {
        let of =
            |label: &'a str| label.split_once("=\"").filter(|(key, _)| *key == name).map(|(_, value)| value);
        self.labels.split("\",").find_map(of).unwrap_or_default().trim_end_matches('"')
    }
}

fn usage(pid: &str) -> Usage {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name, which is in brackets: state is the third field, utime and stime the 14th and 15th, rss the 24th.
    let fields: Vec<u64> =
        stat.rsplit_once(") ").unwrap().1.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    let ticks = rustix::param::clock_ticks_per_second();
    let cpu = Duration::from_millis((fields[11] + fields[12]) * 1000 / ticks);
    Usage { cpu, rss: fields[21] * rustix::param::page_size() as u64 }
}
