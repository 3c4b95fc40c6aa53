"""Plays all scenes on this machine's first GPU: ``python3 tests/gpu --plimsoll target/release/plimsoll``.

Needs root, cgroup v2, NVIDIA's driver and PyTorch, and the GPU for itself.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile
import time
import traceback

from scenes import SCENES, Tools


def main() -> int:
    """One block of lines for each scene; the last line has the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plimsoll", type=pathlib.Path, required=True, help="the controller's program")
    parser.add_argument("--checkpoint", type=pathlib.Path, help="NVIDIA's cuda-checkpoint")
    parser.add_argument("--keep", type=pathlib.Path, help="where logs and journals are kept")
    parser.add_argument("scene", nargs="*", help="only these")
    arguments = parser.parse_args()
    place = arguments.keep or pathlib.Path(tempfile.mkdtemp(prefix="plimsoll-gpu-"))
    checkpoint = arguments.checkpoint and arguments.checkpoint.resolve()
    tools = Tools(arguments.plimsoll.resolve(), checkpoint, place.resolve())
    failed = passed = skipped = 0
    for scene in SCENES:
        if arguments.scene and scene.__name__ not in arguments.scene:
            continue
        start = time.monotonic()
        try:
            facts = scene(tools)
        except Exception:
            failed += 1
            facts = {"failed": traceback.format_exc()}
        else:
            skipped += "skipped" in facts
            passed += "skipped" not in facts
        title = (scene.__doc__ or "").splitlines()[0]
        print(f"{scene.__name__}: {title} ({time.monotonic() - start:.0f} s)", flush=True)
        for what, value in facts.items():
            print(f"  {what}: {value}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped; logs in {place}")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
