//! Engines that put themselves to sleep: vLLM, SGLang, TensorRT-LLM, Ray Serve LLM.

use std::collections::BTreeSet;

use serde_json::json;

use super::server::{Asked, FULL, Fault, Protocol, Reply, World};

/// Answers what every OpenAI-like server answers.
pub(crate) fn openai(asked: &Asked, awake: bool) -> Reply {
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/v1/models") => Reply::ok(&json!({ "data": [{ "id": "m", "owned_by": "vllm" }] })),
        ("POST", "/v1/completions") if awake => Reply::ok(&json!({ "choices": [{ "text": "." }] })),
        ("POST", "/v1/completions") => Reply::no(500, "CUDA error: an illegal memory access"),
        _ => Reply::absent(),
    }
}

/// vLLM in development mode. Level, mode and tags are query parameters, and a body is ignored.
pub(crate) struct Vllm {
    world: World,
    asleep: BTreeSet<&'static str>,
    level: &'static str,
    reloaded: bool,
    paused: bool,
    /// Whether it has a metric of how deep it sleeps, and calls to pause.
    modern: bool,
}

impl Vllm {
    pub(crate) fn boxed(fault: Fault) -> Box<dyn Protocol> {
        Box::new(Self::new(fault, true))
    }

    pub(crate) fn old(fault: Fault) -> Box<dyn Protocol> {
        Box::new(Self::new(fault, false))
    }

    fn new(fault: Fault, modern: bool) -> Self {
        let world = World::new(fault);
        Self { world, asleep: BTreeSet::new(), level: "awake", reloaded: true, paused: false, modern }
    }

    fn metrics(&self) -> String {
        let mut text = format!("vllm:num_requests_running{{engine=\"0\"}} {}.0\n", self.world.inflight);
        text += "vllm:num_requests_waiting{engine=\"0\"} 0.0\n";
        for state in ["awake", "weights_offloaded", "discard_all"].iter().filter(|_| self.modern) {
            let hot = u8::from(*state == self.level);
            text += &format!("vllm:engine_sleep_state{{engine=\"0\",sleep_state=\"{state}\"}} {hot}.0\n");
        }
        text
    }

    fn sleep(&mut self, query: &str) -> Reply {
        if self.asleep.is_empty() {
            self.level = if query.contains("level=2") { "discard_all" } else { "weights_offloaded" };
            self.reloaded = self.level != "discard_all";
            self.asleep = BTreeSet::from(["weights", "kv_cache"]);
            self.world.free();
        }
        Reply::empty()
    }

    fn wake(&mut self, query: &str) -> Reply {
        let tags = |tag: &&str| query.is_empty() || query.contains(*tag);
        self.asleep.retain(|tag| !tags(tag));
        if self.asleep.is_empty() {
            self.level = "awake";
            self.world.bytes = FULL;
        }
        Reply::empty()
    }
}

impl Protocol for Vllm {
    fn world(&mut self) -> &mut World {
        &mut self.world
    }

    fn releases(&self, asked: &Asked) -> bool {
        asked.path == "/sleep"
    }

    fn handle(&mut self, asked: &Asked) -> Reply {
        match (asked.method.as_str(), asked.path.as_str()) {
            ("GET", "/is_sleeping") => {
                Reply::ok(&json!({ "is_sleeping": self.paused || !self.asleep.is_empty() }))
            }
            ("GET", "/version") => Reply::ok(&json!({ "version": "0.20" })),
            ("GET", "/metrics") => Reply(200, self.metrics()),
            ("GET", "/is_paused") if self.modern => Reply::ok(&json!({ "is_paused": self.paused })),
            ("POST", "/pause") if self.modern => {
                self.paused = true;
                Reply::ok(&json!({ "status": "paused" }))
            }
            ("POST", "/resume") if self.modern => {
                self.paused = false;
                Reply::ok(&json!({ "status": "resumed" }))
            }
            ("POST", "/sleep") => self.sleep(&asked.query),
            ("POST", "/wake_up") => self.wake(&asked.query),
            ("POST", "/collective_rpc") if asked.body["method"] == "reload_weights" => {
                self.reloaded = !self.asleep.contains("weights");
                Reply::ok(&json!({ "results": [null] }))
            }
            _ => openai(asked, self.asleep.is_empty() && self.reloaded && !self.paused),
        }
    }
}

/// SGLang. Releasing while something runs, or resuming what is there, ends its scheduler.
pub(crate) struct Sglang {
    world: World,
    saver: bool,
    backup: bool,
    asleep: BTreeSet<&'static str>,
    garbage: bool,
    paused: bool,
    dead: bool,
}

impl Sglang {
    pub(crate) fn boxed(fault: Fault) -> Box<dyn Protocol> {
        Self::with(fault, true, true)
    }

    pub(crate) fn with(fault: Fault, saver: bool, backup: bool) -> Box<dyn Protocol> {
        let world = World::new(fault);
        let asleep = BTreeSet::new();
        Box::new(Self { world, saver, backup, asleep, garbage: false, paused: false, dead: false })
    }

    fn release(&mut self) -> Reply {
        self.dead |= self.world.inflight > 0;
        self.asleep = BTreeSet::from(["kv_cache", "weights"]);
        self.garbage = !self.backup;
        if self.saver {
            self.world.free();
        }
        Reply(200, "null".into())
    }

    fn resume(&mut self, asked: &Asked) -> Reply {
        let tags = asked.body["tags"].as_array().cloned().unwrap_or_default();
        for tag in tags {
            // KV cache before the weights would take the room that they need.
            let order = tag == "weights" || !self.asleep.contains("weights");
            let there = self.asleep.iter().find(|asleep| tag == **asleep).copied();
            self.dead |= !order || there.is_none();
            self.asleep.retain(|asleep| tag != *asleep);
        }
        if self.asleep.is_empty() {
            self.world.bytes = FULL;
        }
        Reply(200, "null".into())
    }
}

impl Protocol for Sglang {
    fn world(&mut self) -> &mut World {
        &mut self.world
    }

    fn releases(&self, asked: &Asked) -> bool {
        asked.path == "/release_memory_occupation"
    }

    fn handle(&mut self, asked: &Asked) -> Reply {
        if self.dead {
            return Reply::no(500, "the scheduler is dead");
        }
        match (asked.method.as_str(), asked.path.as_str()) {
            ("GET", "/get_server_info") => Reply::ok(&json!({
                "model_path": "/models/m", "version": "0.5",
                "enable_memory_saver": self.saver, "enable_weights_cpu_backup": self.backup,
            })),
            ("GET", "/get_load") => {
                Reply::ok(&json!([{ "dp_rank": 0, "num_reqs": self.world.inflight, "num_waiting_reqs": 0 }]))
            }
            ("POST", "/pause_generation") => {
                self.paused = true;
                Reply::ok(&json!({ "status": "ok" }))
            }
            ("POST", "/continue_generation") => {
                self.paused = false;
                Reply::ok(&json!({ "status": "ok" }))
            }
            ("POST", "/flush_cache") if self.world.inflight > 0 => Reply(400, "pending requests".into()),
            ("POST", "/flush_cache") => Reply(200, "Cache flushed.".into()),
            ("POST", "/release_memory_occupation") => self.release(),
            ("POST", "/resume_memory_occupation") => self.resume(asked),
            ("POST", "/update_weights_from_disk") if asked.body["model_path"] == "/models/m" => {
                self.garbage = self.asleep.contains("weights");
                Reply::ok(&json!({ "success": true }))
            }
            _ => openai(asked, self.asleep.is_empty() && !self.garbage && !self.paused),
        }
    }
}

/// TensorRT-LLM. It checks that requests are signed and that no nonce comes twice; the signature itself is checked in the unit
/// test against Python's.
pub(crate) struct Trtllm {
    world: World,
    parked: bool,
    nonces: BTreeSet<String>,
}

impl Trtllm {
    pub(crate) fn boxed(fault: Fault) -> Box<dyn Protocol> {
        Box::new(Self { world: World::new(fault), parked: false, nonces: BTreeSet::new() })
    }

    fn signed(&mut self, asked: &Asked) -> bool {
        let text =
            |name: &str| asked.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let digest = text("x-trtllm-runtime-control-auth").strip_prefix("sha256=").map(str::len);
        let nonce = text("x-trtllm-runtime-control-nonce").to_owned();
        let now = text("x-trtllm-runtime-control-timestamp").parse::<u64>().is_ok();
        digest == Some(64) && nonce.len() == 32 && now && self.nonces.insert(nonce)
    }
}

impl Protocol for Trtllm {
    fn world(&mut self) -> &mut World {
        &mut self.world
    }

    fn releases(&self, asked: &Asked) -> bool {
        asked.path == "/release_memory"
    }

    fn handle(&mut self, asked: &Asked) -> Reply {
        let control = ["/memory_status", "/release_memory", "/resume_memory"].contains(&asked.path.as_str());
        if control && !self.signed(asked) {
            return Reply::no(401, "not signed");
        }
        match (asked.method.as_str(), asked.path.as_str()) {
            ("GET", "/memory_status") => {
                let state = if self.parked { "parked" } else { "running" };
                Reply::ok(&json!({ "state": state, "parked_tags": [] }))
            }
            ("POST", "/release_memory") if self.world.inflight > 0 => Reply::no(409, "transition conflict"),
            ("POST", "/release_memory") if asked.raw.as_ref() == b"{}" => {
                self.parked = true;
                self.world.free();
                Reply::ok(&json!({ "status": "success" }))
            }
            ("POST", "/resume_memory") => {
                self.parked = false;
                self.world.bytes = FULL;
                Reply::ok(&json!({ "status": "success" }))
            }
            _ => openai(asked, !self.parked),
        }
    }
}

/// Ray Serve LLM with two replicas; a question goes to either of them.
pub(crate) struct Ray {
    world: World,
    asleep: bool,
    paused: bool,
}

impl Ray {
    pub(crate) fn boxed(fault: Fault) -> Box<dyn Protocol> {
        Box::new(Self { world: World::new(fault), asleep: false, paused: false })
    }
}

impl Protocol for Ray {
    fn world(&mut self) -> &mut World {
        &mut self.world
    }

    fn releases(&self, asked: &Asked) -> bool {
        asked.path == "/sleep"
    }

    fn handle(&mut self, asked: &Asked) -> Reply {
        let ours = asked.query == "model=m" || asked.body["model"] == "m";
        match (asked.method.as_str(), asked.path.as_str()) {
            (_, path) if !ours && !path.starts_with("/v1") => Reply::no(404, "no such model"),
            ("GET", "/is_sleeping") => Reply::ok(&json!({ "is_sleeping": self.asleep })),
            ("GET", "/is_paused") => Reply::ok(&json!({ "is_paused": self.paused })),
            ("POST", "/pause") if self.world.inflight > 0 => Reply::no(503, "replicas are busy"),
            ("POST", "/pause" | "/resume") => {
                self.paused = asked.path == "/pause";
                Reply::empty()
            }
            ("POST", "/sleep") if asked.body["options"]["level"] == 1 => {
                self.asleep = true;
                self.world.free();
                Reply::empty()
            }
            ("POST", "/wakeup") => {
                self.asleep = false;
                self.world.bytes = FULL;
                Reply::empty()
            }
            _ => openai(asked, !self.asleep && !self.paused),
        }
    }
}
