"""An embedding server that gives memory back when it is asked: a real model on onnxruntime, over HTTP.

    pip install plimsoll numpy onnxruntime tokenizers
    python embedding_server.py --model model.onnx --tokenizer tokenizer.json
    curl -d '{"input": "a cat sits on the mat"}' http://127.0.0.1:8080/v1/embeddings

Everything that Plimsoll needs is in `offer`. Without a controller on the machine this is an ordinary server.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Optional, TextIO

import numpy as np
import onnxruntime
import plimsoll
from tokenizers import Tokenizer

#: What the smoke test embeds.
PROBE = "a cat sits on the mat"
#: Embeddings that are kept for those who ask the same again.
CACHED = 10_000


class Embedder:
    """A sentence embedding model, and a cache before it. Whoever calls keeps `load` and `unload` apart from `embed`."""

    def __init__(self, model: Path, tokenizer: Path) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._session: Optional[onnxruntime.InferenceSession] = None
        self._tokens: Optional[Tokenizer] = None
        self._cache: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def load(self) -> None:
        """Reads the model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self._model, options)
        self._tokens = Tokenizer.from_file(str(self._tokenizer))
        self._tokens.no_padding()

    def unload(self) -> None:
        """Drops everything."""
        self._session = self._tokens = None
        self.forget()

    def forget(self) -> None:
        """Empties the cache."""
        with self._lock:
            self._cache.clear()

    def shrink(self) -> None:
        """Has onnxruntime return what its arena keeps for batches as large as the largest so far."""
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._run("", options)

    def embed(self, text: str) -> list[float]:
        """The embedding of a text: 384 numbers, a vector of length 1."""
        with self._lock:
            if text in self._cache:
                self._cache.move_to_end(text)
                return self._cache[text]
        vector = self._run(text, None)
        with self._lock:
            self._cache[text] = vector
            while len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        return vector

    def _run(self, text: str, options: Optional[onnxruntime.RunOptions]) -> list[float]:
        session, tokens = self._session, self._tokens
        if session is None or tokens is None:
            raise RuntimeError("the model is not loaded")
        ids = np.array([tokens.encode(text).ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (hidden,) = session.run(["last_hidden_state"], inputs, options)
        mean = hidden[0].mean(axis=0)
        return [float(x) for x in mean / np.linalg.norm(mean)]


def offer(client: plimsoll.Plimsoll, model: Embedder, gains: int, takes: float) -> None:
    """Tells Plimsoll what this server can do without. ``gains``: bytes of the model; ``takes``: seconds to load it."""
    known = model.embed(PROBE)

    @client.on_trim(takes=0.1)
    def trim(request: plimsoll.Request) -> int:
        before = plimsoll.host_bytes() or 0
        model.forget()
        if request.level == "aggressive" and client.given_up is None:
            model.shrink()
        plimsoll.collect_garbage()
        return max(0, before - (plimsoll.host_bytes() or 0))

    # No request is inside while these run, and none is let in until the model is back.
    @client.on_unload(gains=gains, takes=0.5)
    def unload(request: plimsoll.Request) -> int:
        before = plimsoll.host_bytes() or 0
        model.unload()
        plimsoll.collect_garbage()
        return max(0, before - (plimsoll.host_bytes() or 0))

    @client.on_restore(takes=takes)
    def restore(request: plimsoll.Request) -> None:
        model.load()
        model.forget()
        # It answers, and as before: otherwise the door stays closed, and the controller hears why.
        if not np.allclose(model.embed(PROBE), known, atol=1e-4):
            raise RuntimeError("the model answers otherwise than before it was unloaded")


class Log:
    """One JSON line for each request."""

    def __init__(self, path: Optional[Path]) -> None:
        self._file: Optional[TextIO] = path.open("a", buffering=1) if path else None
        self._lock = threading.Lock()

    def write(self, begun: float, status: int, reason: str) -> None:
        """What became of a request that began at a time of ``time.monotonic``."""
        if self._file is None:
            return
        took = round((time.monotonic() - begun) * 1000, 1)
        line = {"at": round(begun, 3), "milliseconds": took, "status": status, "reason": reason}
        with self._lock:
            self._file.write(json.dumps(line) + "\n")


class Server(ThreadingHTTPServer):
    """Answers ``POST /v1/embeddings`` with the shapes of OpenAI's interface."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], client: plimsoll.Plimsoll, model: Embedder, log: Log, patience: float):
        super().__init__(address, Handler)
        self.client, self.model, self.log, self.patience = client, model, log, patience


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """An embedding, or 503 while the model is away."""
        begun = time.monotonic()
        status, answer, reason = self._answer()
        body = json.dumps(answer).encode()
        self.send_response(status)
        if status == 503:
            self.send_header("Retry-After", "5")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.log.write(begun, status, reason)

    def _answer(self) -> tuple[int, dict[str, Any], str]:
        try:
            request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            texts = [request["input"]] if isinstance(request["input"], str) else list(request["input"])
        except (ValueError, KeyError, TypeError):
            return 400, {"error": 'expected {"input": "a text"}'}, "bad request"
        try:
            # Counted while it is served. While the model is away it waits here for so long.
            with self.server.client.inflight(timeout=self.server.patience):
                data = [{"index": i, "embedding": self.server.model.embed(text)} for i, text in enumerate(texts)]
        except plimsoll.Unloaded as away:
            return 503, {"error": str(away)}, str(away)
        return 200, {"data": data}, ""

    def log_message(self, format: str, *args: Any) -> None:
        """`Log` says it."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Embeds sentences, and gives memory back when it is asked.")
    parser.add_argument("--model", type=Path, required=True, help="an ONNX file with the output last_hidden_state")
    parser.add_argument("--tokenizer", type=Path, required=True, help="its tokenizer.json")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--needs-mib", type=int, default=256, help="what is reserved before the model is loaded")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for that room")
    parser.add_argument("--patience", type=float, default=2.0, help="seconds a request waits while the model is away")
    parser.add_argument("--log", type=Path, help="a JSON line for each request goes here")
    return parser.parse_args()


def main() -> None:
    """Reserves, loads, offers, serves."""
    asked = arguments()
    client = plimsoll.Plimsoll()
    model = Embedder(asked.model, asked.tokenizer)
    begun, before = time.monotonic(), plimsoll.host_bytes() or 0
    with client.reserve(asked.needs_mib << 20, wait=asked.wait):
        model.load()
        model.embed(PROBE)
    loaded = max(0, (plimsoll.host_bytes() or 0) - before)
    offer(client, model, gains=loaded, takes=time.monotonic() - begun)
    Server(("127.0.0.1", asked.port), client, model, Log(asked.log), asked.patience).serve_forever()


if __name__ == "__main__":
    main()
