"""What is shown: real model servers share a real GPU, and the one that matters keeps it."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from stage import Daemon, Failed, Server, wait

GIB = 1 << 30
Facts = dict[str, Any]
#: Allocations that may be refused before a scene has failed.
MOST_REFUSED = 30
CHAT = "  - { name: chat, cgroup: gpu-chat, priority: 2000 }\n"


@dataclasses.dataclass(frozen=True)
class Tools:
    """The programs, and where logs go."""

    program: pathlib.Path
    checkpoint: pathlib.Path | None
    place: pathlib.Path


class Stage:
    """One daemon, for which `batch` yields, and two servers that it knows; all end with the scene."""

    def __init__(self, tools: Tools, name: str, chat: str, batch: str, way: str = "") -> None:
        rules = f"workloads:\n{CHAT}  - {{ name: batch, cgroup: gpu-batch, priority: -10{way} }}\n"
        self.all = contextlib.ExitStack()
        with contextlib.ExitStack() as begun:
            self.daemon = Daemon(tools.program, tools.place / name, rules)
            begun.callback(self.daemon.end)
            self.chat, self.batch = (self._server(begun, *it) for it in (("chat", chat), ("batch", batch)))
            self.all = begun.pop_all()

    def _server(self, begun: contextlib.ExitStack, name: str, options: str) -> Server:
        server = Server(name, self.daemon.control, self.daemon.place / f"{name}.log", *options.split())
        begun.callback(server.end)
        wait(f"{name} is seen", lambda: self.held(server) > 0)
        return server

    def held(self, server: Server) -> float:
        """GiB of the GPU that a server holds, as the daemon sees it."""
        return (self.daemon.metric("plimsoll_workload_gpu_memory_bytes", workload=server.name) or 0) / GIB

    def grow(self, gib: float, step: float) -> Iterator[Facts]:
        """The one that matters more grows by steps, a second apart, until it holds so much in its cache."""
        refused = 0
        while refused < MOST_REFUSED:
            answer = self.chat.ask(f"grow {step}", "grown", "refused")
            yield answer
            if answer["what"] == "grown" and answer["gib"] >= gib:
                return
            refused += answer["what"] == "refused"
            time.sleep(1)
        raise Failed(f"still refused: {answer}")

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        print(self.daemon.tool("events"), flush=True)
        self.all.close()


def seen(tools: Tools) -> Facts:
    """What each process holds is what NVIDIA's own tool says."""
    with Stage(tools, "seen", "--gib 12", "--gib 5") as stage:
        query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
        theirs = {int(pid): float(mib) / 1024 for pid, mib in (line.split(",") for line in lines)}
        facts: Facts = {}
        for server in (stage.chat, stage.batch):

            def agree(server: Server = server) -> bool:
                return abs(stage.held(server) - theirs[server.pid]) < 0.01

            wait("both figures agree", agree)
            facts[server.name] = f"{theirs[server.pid]:.2f} GiB by both"
        stage.batch.process.kill()
        facts["gone after"] = f"{wait('the dead hold nothing', lambda: not stage.held(stage.batch)):.2f} s"
        return facts


def asked(tools: Tools) -> Facts:
    """One that can be asked gives its caches, then moves its model to the host; it comes back, and answers right."""
    with Stage(tools, "asked", "--gib 20 --guard", "--gib 20 --managed") as stage:
        stage.batch.ask("litter 12", "littered")
        wait("it holds them", lambda: stage.held(stage.batch) > 32)
        most, refused, caches = stage.held(stage.batch), 0, 0.0
        for answer in stage.grow(44, 2):
            refused += answer["what"] == "refused"
            if not caches and stage.held(stage.batch) < most - 8:
                caches = stage.held(stage.chat)
        wait("its model is on the host", lambda: stage.held(stage.batch) < 2)
        facts = moved(stage, most, refused) | {"caches came back when chat held": f"{caches:.1f} GiB"}
        return facts | restored(stage, most - 12)


def checkpointed(tools: Tools) -> Facts:
    """One that can't be asked is moved to the host from outside, and back."""
    if tools.checkpoint is None:
        return {"skipped": "no --checkpoint"}
    way = f", ask: {{ cuda_checkpoint: {{ program: {tools.checkpoint} }} }}"
    with Stage(tools, "checkpointed", "--gib 20 --guard", "--gib 30", way) as stage:
        most = stage.held(stage.batch)
        refused = sum(answer["what"] == "refused" for answer in stage.grow(40, 2))
        wait("its memory is on the host", lambda: not stage.held(stage.batch))
        return moved(stage, most, refused) | restored(stage, most)


def moved(stage: Stage, most: float, refused: int) -> Facts:
    """How it went until the room was there."""
    chat, batch = stage.held(stage.chat), stage.held(stage.batch)
    return {"chat": f"{chat:.1f} GiB, {refused} allocations refused", "batch": f"{most:.1f} GiB -> {batch:.1f} GiB"}


def restored(stage: Stage, most: float) -> Facts:
    """What comes back when the room is there again."""
    stage.chat.ask("report", "report")
    stage.chat.ask("shrink", "shrunk")
    took = wait("it is back", lambda: stage.held(stage.batch) > most - 1, 180)
    # Those that waited meanwhile.
    time.sleep(1)
    waited = stage.batch.ask("report", "report")
    time.sleep(2)
    facts = {"back after": f"{took:.1f} s of calm", "longest wait of a request": f"{waited['slowest']:.1f} s"}
    return facts | answers(stage.chat, stage.batch)


def answers(*servers: Server) -> Facts:
    """What the requests of the last time came to; a wrong one is a failure."""
    facts: Facts = {}
    for server in servers:
        report = server.ask("report", "report")
        if report["wrong"] or not report["answers"]:
            raise Failed(f"{server.name} answers wrong: {report}")
        facts[f"{server.name}'s answers"] = f"{report['answers']} right, slowest {1000 * report['slowest']:.0f} ms"
    return facts


def killed(tools: Tools) -> Facts:
    """One that can't be asked is killed for one that matters more and wants the room."""
    return made_room(Stage(tools, "killed", "--gib 20 --guard", "--gib 40"), 40, 1)


def large(tools: Tools) -> Facts:
    """The same where what is wanted is more than what is left, so that the GPU never gets full."""
    return made_room(Stage(tools, "large", "--gib 20 --guard", "--gib 40"), 36, 12)


def made_room(stage: Stage, gib: float, step: float) -> Facts:
    """What it took until the one that matters more holds so much, by the other one's death."""
    with stage:
        refused = sum(answer["what"] == "refused" for answer in stage.grow(gib, step))
        if stage.batch.alive:
            raise Failed("both fit")
        return {"chat": f"{stage.held(stage.chat):.1f} GiB", "refused before": refused} | answers(stage.chat)


def promised(tools: Tools) -> Facts:
    """Of two loaders that race, one is granted the room."""
    with Stage(tools, "promised", "--gib 1", "--gib 1") as stage:
        both = [stage.chat, stage.batch]
        for server in both:
            server.say("reserve 45")
        outcomes = [server.hear("room", "no room") for server in both]
        if sorted(outcome["what"] for outcome in outcomes) != ["no room", "room"]:
            raise Failed(f"{outcomes}")
        refusal = next(outcome for outcome in outcomes if outcome["what"] == "no room")
        wait("it has what it was granted", lambda: max(stage.held(server) for server in both) > 45)
        return {"refused": refusal["reason"], "granted": "45 GiB"}


def faulty(tools: Tools) -> Facts:
    """A context that is lost is told, counted, and nobody else's business."""
    with Stage(tools, "faulty", "--gib 4", "--gib 4 --guard") as stage:
        sticky = stage.batch.ask("fault 1", "sticky", "not sticky")
        if sticky["what"] != "sticky":
            raise Failed("the context was not lost")
        wait("the driver's error is counted", lambda: stage.daemon.metric("plimsoll_gpu_xids_total", xid="43"))
        stage.chat.ask("report", "report")
        time.sleep(1)
        return {"error": sticky["error"], "Xid": 43} | answers(stage.chat)


SCENES = (seen, asked, checkpointed, killed, large, promised, faulty)
