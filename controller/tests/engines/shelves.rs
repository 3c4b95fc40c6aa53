//! Engines that load and unload models by name: Ollama, llama.cpp's router, llama-swap, Triton, TorchServe, LM Studio, LocalAI.

use serde_json::{Value, json};

use super::server::{Asked, FULL, Fault, Protocol, Reply, World};

/// A server with one model `m`, whatever its words.
pub(crate) struct Shelf {
    world: World,
    loaded: bool,
    words: fn(&mut Self, &Asked) -> Reply,
    release: fn(&Asked) -> bool,
    /// Whether it may do what it is asked for.
    enabled: bool,
}

impl Shelf {
    fn boxed(
        fault: Fault,
        words: fn(&mut Self, &Asked) -> Reply,
        release: fn(&Asked) -> bool,
    ) -> Box<dyn Protocol> {
        Box::new(Self { world: World::new(fault), loaded: true, words, release, enabled: true })
    }

    fn unload(&mut self) {
        // Those that finish their requests first keep the model as long.
        if self.world.inflight == 0 {
            self.loaded = false;
            self.world.free();
        }
    }

    fn load(&mut self) {
        self.loaded = true;
        self.world.bytes = FULL;
    }

    /// Any request to the model loads it.
    fn completion(&mut self, asked: &Asked) -> Reply {
        match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", "/v1/completions") if asked.body["model"] == "m" => {
                self.load();
                Reply::ok(&json!({ "choices": [] }))
            }
            _ => Reply::absent(),
        }
    }
}

impl Protocol for Shelf {
    fn world(&mut self) -> &mut World {
        &mut self.world
    }

    fn releases(&self, asked: &Asked) -> bool {
        (self.release)(asked)
    }

    fn handle(&mut self, asked: &Asked) -> Reply {
        (self.words)(self, asked)
    }
}

fn when(there: bool, item: Value) -> Vec<Value> {
    if there { vec![item] } else { Vec::new() }
}

pub(crate) fn ollama(fault: Fault) -> Box<dyn Protocol> {
    let words = |shelf: &mut Shelf, asked: &Asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/api/ps") => {
            let runner = json!({ "name": "m:latest", "model": "m:latest", "size": FULL, "size_vram": 0 });
            Reply::ok(&json!({ "models": when(shelf.loaded, runner) }))
        }
        ("POST", "/api/generate") if asked.body["model"] == "m:latest" => {
            // With a prompt it loads the model first, whatever it is to do afterwards.
            let unload = asked.body["keep_alive"] == 0 && asked.body["prompt"].is_null();
            if unload {
                shelf.unload();
            } else {
                shelf.load();
            }
            let reason = if unload { "unload" } else { "load" };
            Reply::ok(&json!({ "model": "m:latest", "response": "", "done": true, "done_reason": reason }))
        }
        _ => Reply::no(404, "model not found"),
    };
    Shelf::boxed(fault, words, |asked| asked.path == "/api/generate" && asked.body["keep_alive"] == 0)
}

pub(crate) fn router(fault: Fault) -> Box<dyn Protocol> {
    let words = |shelf: &mut Shelf, asked: &Asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/models") => {
            let value = if shelf.loaded { "loaded" } else { "unloaded" };
            Reply::ok(&json!({ "data": [{ "id": "m", "status": { "value": value } }] }))
        }
        ("POST", "/models/unload") if asked.body["model"] == "m" => {
            shelf.unload();
            Reply::ok(&json!({ "success": true }))
        }
        ("POST", "/models/load") if asked.body["model"] == "m" => {
            shelf.load();
            Reply::ok(&json!({ "success": true }))
        }
        _ => shelf.completion(asked),
    };
    Shelf::boxed(fault, words, |asked| asked.path == "/models/unload")
}

pub(crate) fn llama_swap(fault: Fault) -> Box<dyn Protocol> {
    let words = |shelf: &mut Shelf, asked: &Asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/running") => {
            Reply::ok(&json!({ "running": when(shelf.loaded, json!({ "model": "m", "state": "ready" })) }))
        }
        ("POST", "/api/models/unload/m") => {
            shelf.unload();
            Reply(200, "OK".into())
        }
        _ => shelf.completion(asked),
    };
    Shelf::boxed(fault, words, |asked| asked.path.starts_with("/api/models/unload"))
}

pub(crate) fn triton(fault: Fault) -> Box<dyn Protocol> {
    let words = |shelf: &mut Shelf, asked: &Asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/v2/repository/index") => {
            let (state, reason) = if shelf.loaded { ("READY", "") } else { ("UNAVAILABLE", "unloaded") };
            Reply::ok(
                &json!([{ "name": "m", "version": "1", "state": state, "reason": reason }, { "name": "never" }]),
            )
        }
        ("POST", "/v2/repository/models/m/unload" | "/v2/repository/models/m/load") if !shelf.enabled => {
            Reply::no(400, "explicit model load / unload is not allowed if polling is enabled")
        }
        ("POST", "/v2/repository/models/m/unload") => {
            shelf.unload();
            Reply::empty()
        }
        ("POST", "/v2/repository/models/m/load") => {
            shelf.load();
            Reply::empty()
        }
        ("GET", "/v2") => Reply::ok(&json!({ "name": "triton", "version": "2.60.0", "extensions": [] })),
        ("GET", "/v2/models/m/ready") if shelf.loaded => Reply::empty(),
        _ => Reply::no(400, "unknown"),
    };
    Shelf::boxed(fault, words, |asked| asked.path.ends_with("/unload"))
}

/// Triton started without `--model-control-mode=explicit`.
pub(crate) fn triton_polling() -> Box<dyn Protocol> {
    let words = |shelf: &mut Shelf, asked: &Asked| {
        shelf.enabled = false;
        match asked.path.as_str() {
            "/v2/repository/index" => Reply::ok(&json!([{ "name": "m", "version": "1", "state": "READY" }])),
            _ => Reply::no(400, "explicit model load / unload is not allowed if polling is enabled"),
        }
    };
    Shelf::boxed(Fault::None, words, |asked| asked.path.ends_with("/unload"))
}

pub(crate) fn torchserve(fault: Fault) -> Box<dyn Protocol> {
    let words = |shelf: &mut Shelf, asked: &Asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/models") => Reply::ok(&json!({ "models": [{ "modelName": "m", "modelUrl": "m.mar" }] })),
        ("GET", "/models/m") => {
            let worker =
                json!({ "id": "9000", "status": "READY", "memoryUsage": FULL, "pid": 1, "gpu": false });
            let queue = json!({ "remainingCapacity": 100, "pendingRequests": shelf.world.inflight });
            let workers = when(shelf.loaded, worker);
            Reply::ok(
                &json!([{ "modelName": "m", "minWorkers": 1, "workers": workers, "jobQueueStatus": queue }]),
            )
        }
        ("PUT", "/models/m") if asked.query.contains("max_worker=0") => {
            shelf.unload();
            Reply::ok(&json!({ "status": "Workers scaled to 0 for model: m" }))
        }
        ("PUT", "/models/m") => {
            shelf.load();
            Reply::ok(&json!({ "status": "Workers scaled" }))
        }
        _ => Reply::no(405, "Requested method is not allowed"),
    };
    Shelf::boxed(fault, words, |asked| asked.method == "PUT" && asked.query.contains("max_worker=0"))
}

pub(crate) fn lmstudio(fault: Fault) -> Box<dyn Protocol> {
    let words = |shelf: &mut Shelf, asked: &Asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/api/v1/models") => {
            let instance = json!({ "id": "m:2", "config": { "context_length": 4096 } });
            let loaded = when(shelf.loaded, instance);
            Reply::ok(&json!({ "models": [{ "type": "llm", "key": "m", "loaded_instances": loaded }] }))
        }
        ("POST", "/api/v1/models/unload") if asked.body["instance_id"] == "m:2" => {
            shelf.unload();
            Reply::ok(&json!({ "instance_id": "m:2" }))
        }
        ("POST", "/api/v1/models/load")
            if asked.body["model"] == "m" && asked.body["context_length"] == 4096 =>
        {
            shelf.load();
            Reply::ok(&json!({ "load_time_seconds": 1.0, "status": "loaded" }))
        }
        ("POST", "/v1/completions") if asked.body["model"] == "m:2" => Reply::ok(&json!({ "choices": [] })),
        _ => Reply::absent(),
    };
    Shelf::boxed(fault, words, |asked| asked.path == "/api/v1/models/unload")
}

pub(crate) fn localai(fault: Fault) -> Box<dyn Protocol> {
    let words = |shelf: &mut Shelf, asked: &Asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/backend/monitor") if asked.query == "model=m" && shelf.loaded => {
            let state = if shelf.world.inflight > 0 { 1 } else { 2 };
            Reply::ok(&json!({ "state": state, "memory": { "total": FULL } }))
        }
        ("GET", "/backend/monitor") => Reply::no(500, "backend m is not currently loaded"),
        ("POST", "/backend/shutdown") if asked.body["model"] == "m" => {
            shelf.unload();
            Reply::ok(&json!({ "message": "done" }))
        }
        ("POST", "/backend/load") if asked.body["model"] == "m" => {
            shelf.load();
            Reply::ok(&json!({ "loaded": ["m"], "message": "model loaded" }))
        }
        _ => shelf.completion(asked),
    };
    Shelf::boxed(fault, words, |asked| asked.path == "/backend/shutdown")
}
