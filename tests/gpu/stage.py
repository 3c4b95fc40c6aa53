"""What the scenes stand on: cgroups with real model servers in them, and the daemon beside them."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

TREE = pathlib.Path("/sys/fs/cgroup")
ADDRESS = "127.0.0.1:9479"
#: What must come at all.
PATIENCE = 60.0
HERE = pathlib.Path(__file__).resolve().parent


class Failed(Exception):
    """What a scene promised did not come."""


def wait(what: str, done: Callable[[], Any], patience: float = PATIENCE) -> float:
    """Waits until it is so; returns the seconds that it took."""
    start = time.monotonic()
    while not done():
        if time.monotonic() - start > patience:
            raise Failed(f"waited {patience:.0f} s in vain: {what}")
        time.sleep(0.02)
    return time.monotonic() - start


class Server:
    """A model server in a cgroup of its own."""

    def __init__(self, name: str, control: pathlib.Path, log: pathlib.Path, *options: str) -> None:
        self.name, self.cgroup = name, TREE / f"gpu-{name}"
        self.cgroup.mkdir(exist_ok=True)
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        procs = self.cgroup / "cgroup.procs"
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "server.py"), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("a"),
            text=True,
            env={**os.environ, "PLIMSOLL_CONTROL": str(control)},
            preexec_fn=lambda: procs.write_text("0") and None,
        )
        threading.Thread(target=self._read, daemon=True).start()
        ready = self.hear("ready")
        self.gpu, self.pid = str(ready["gpu"]), int(ready["pid"])

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def hear(self, *what: str, patience: float = PATIENCE) -> dict[str, Any]:
        """The next of these lines; others are passed over."""
        end = time.monotonic() + patience
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, min(0.5, end - time.monotonic())))
            except queue.Empty:
                if self.process.poll() is not None or time.monotonic() >= end:
                    raise Failed(f"{self.name}: no {what}, status {self.process.poll()}") from None
                continue
            if line["what"] in what:
                return line

    def say(self, line: str) -> None:
        """A command."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line: str, *what: str, patience: float = PATIENCE) -> dict[str, Any]:
        """A command and its answer."""
        self.say(line)
        return self.hear(*what, patience=patience)

    @property
    def alive(self) -> bool:
        """Whether its process lives."""
        return self.process.poll() is None

    def end(self) -> None:
        """Ends it, and its cgroup."""
        (self.cgroup / "cgroup.kill").write_text("1")
        self.process.wait()
        with contextlib.suppress(Failed):
            wait("the cgroup is empty", lambda: "populated 0" in (self.cgroup / "cgroup.events").read_text(), 10)
        self.cgroup.rmdir()


class Daemon:
    """The daemon with its own files."""

    def __init__(self, program: pathlib.Path, place: pathlib.Path, config: str) -> None:
        self.program, self.place = program, place
        place.mkdir(parents=True)
        files = f'run_dir: "{place}/run", journal: "{place}/journal.jsonl", state: "{place}/state.json"'
        (place / "plimsoll.yaml").write_text(f"daemon: {{ listen: {ADDRESS!r}, {files} }}\n{config}")
        self.log = place / "log"
        command = [str(program), "run", "--config", str(place / "plimsoll.yaml")]
        self.process = subprocess.Popen(command, stderr=self.log.open("w"))
        wait("the daemon is ready", lambda: self.get("/readyz") is not None or self.process.poll() is not None, 20)
        if self.process.poll() is not None:
            raise Failed(f"the daemon ended:\n{self.log.read_text()}")

    @property
    def control(self) -> pathlib.Path:
        """Its socket."""
        return self.place / "run/control.sock"

    def get(self, path: str) -> str | None:
        """What it answers over HTTP, if it does."""
        try:
            with urllib.request.urlopen(f"http://{ADDRESS}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return None

    def metric(self, name: str, **labels: str) -> float | None:
        """A sample of its metrics."""
        for line in (self.get("/metrics") or "").splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                return float(found[2])
        return None

    def tool(self, *arguments: str) -> str:
        """What another command of the program prints."""
        command = [str(self.program), *arguments, "--config", str(self.place / "plimsoll.yaml")]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def end(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE)
