//! The rest: llama.cpp with one model, ComfyUI, Stable Diffusion web UI, TF Serving's status, and a server of somebody's own.

use std::path::PathBuf;

use serde_json::json;

use super::server::{Asked, FULL, Fault, Protocol, Reply, World};

/// A server of few words.
pub(crate) struct Plain {
    world: World,
    released: bool,
    file: PathBuf,
    words: fn(&mut Self, &Asked) -> Reply,
    release: &'static str,
}

impl Plain {
    fn boxed(
        fault: Fault,
        release: &'static str,
        words: fn(&mut Self, &Asked) -> Reply,
    ) -> Box<dyn Protocol> {
        Box::new(Self { world: World::new(fault), released: false, file: PathBuf::new(), words, release })
    }

    fn set(&mut self, released: bool) -> Reply {
        self.released = released;
        if released {
            self.world.free();
        } else {
            self.world.bytes = FULL;
        }
        Reply::ok(&json!({}))
    }
}

impl Protocol for Plain {
    fn world(&mut self) -> &mut World {
        &mut self.world
    }

    fn releases(&self, asked: &Asked) -> bool {
        asked.method != "GET" && asked.path.contains(self.release)
    }

    fn handle(&mut self, asked: &Asked) -> Reply {
        (self.words)(self, asked)
    }
}

/// Its slots can be erased; a slot that is busy is not to be.
pub(crate) fn llamacpp(fault: Fault) -> Box<dyn Protocol> {
    Plain::boxed(fault, "/slots/", |plain, asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/props") => {
            Reply::ok(&json!({ "default_generation_settings": {}, "is_sleeping": false, "build_info": "b1" }))
        }
        ("GET", "/slots") => {
            let busy = plain.world.inflight > 0;
            Reply::ok(&json!([{ "id": 0, "is_processing": busy }, { "id": 1, "is_processing": busy }]))
        }
        ("POST", "/slots/0" | "/slots/1") if asked.query == "action=erase" => {
            assert_eq!(plain.world.inflight, 0, "a busy slot was erased");
            plain.world.free();
            Reply::ok(&json!({ "id_slot": 0, "n_erased": 7 }))
        }
        ("POST", "/completion") => plain.set(false),
        _ => Reply::no(501, "This server does not support it"),
    })
}

/// llama.cpp that sleeps: whoever asks for its slots wakes it.
pub(crate) fn llamacpp_asleep() -> Box<dyn Protocol> {
    let mut first = Plain::boxed(Fault::None, "/slots/", |plain, asked| match asked.path.as_str() {
        "/props" => {
            Reply::ok(&json!({ "default_generation_settings": {}, "is_sleeping": plain.world.bytes == 0 }))
        }
        "/slots" | "/completion" => {
            plain.world.bytes = FULL;
            Reply::ok(&json!([]))
        }
        _ => Reply::absent(),
    });
    first.world().bytes = 0;
    first
}

/// It answers at once; its worker comes to it later, and only between prompts.
pub(crate) fn comfyui(fault: Fault) -> Box<dyn Protocol> {
    Plain::boxed(fault, "/free", |plain, asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/system_stats") => {
            if plain.released && plain.world.inflight == 0 {
                plain.world.free();
            }
            let free = (FULL - plain.world.bytes) << 20;
            Reply::ok(
                &json!({ "system": { "comfyui_version": "0.9", "ram_free": 0 }, "devices": [{ "vram_free": free }] }),
            )
        }
        ("GET", "/queue") => {
            let running = vec![json!([0, "id", {}]); plain.world.inflight as usize];
            Reply::ok(&json!({ "queue_running": running, "queue_pending": [] }))
        }
        ("POST", "/free") => {
            plain.released = asked.body["unload_models"] == true;
            Reply::empty()
        }
        _ => Reply::absent(),
    })
}

pub(crate) fn sdwebui(fault: Fault) -> Box<dyn Protocol> {
    Plain::boxed(fault, "/unload-checkpoint", |plain, asked| {
        match (asked.method.as_str(), asked.path.as_str()) {
            ("GET", "/sdapi/v1/progress") => {
                Reply::ok(&json!({ "progress": 0.0, "state": { "job_count": plain.world.inflight } }))
            }
            ("GET", "/sdapi/v1/memory") => Reply::ok(&json!({ "ram": { "free": 1 }, "cuda": {} })),
            ("POST", "/sdapi/v1/unload-checkpoint") => plain.set(true),
            ("POST", "/sdapi/v1/reload-checkpoint") => plain.set(false),
            ("POST", "/sdapi/v1/server-stop") => Reply::empty(),
            _ => Reply::absent(),
        }
    })
}

/// Reads its file whenever it is asked, as one that polls it does.
pub(crate) fn tfserving(fault: Fault, file: PathBuf) -> Box<dyn Protocol> {
    let words = |plain: &mut Plain, asked: &Asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/v1/models/m") => {
            let config = std::fs::read_to_string(&plain.file).unwrap();
            // It finishes its requests first, and then takes its time.
            if plain.world.inflight == 0 {
                plain.set(!config.contains("\"m\""));
            }
            let state = if plain.released { "END" } else { "AVAILABLE" };
            Reply::ok(&json!({ "model_version_status": [{ "version": "1", "state": state }] }))
        }
        _ => Reply::absent(),
    };
    Box::new(Plain { world: World::new(fault), released: false, file, words, release: "never" })
}

/// A server with calls of its own.
pub(crate) fn own(fault: Fault) -> Box<dyn Protocol> {
    Plain::boxed(fault, "/admin/drop", |plain, asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/load") => Reply::ok(&json!({ "queue": { "running": plain.world.inflight } })),
        ("DELETE", "/admin/drop") if asked.headers.get("x-admin").is_some_and(|value| value == "yes") => {
            plain.set(true);
            Reply(200, "dropped".into())
        }
        ("POST", "/admin/door") => Reply::empty(),
        ("POST", "/admin/take") if asked.body["what"] == "all" => plain.set(false),
        ("GET", "/one") if !plain.released => Reply::empty(),
        _ => Reply::absent(),
    })
}
