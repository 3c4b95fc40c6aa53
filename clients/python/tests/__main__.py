"""Runs all tests of the client, with nothing installed: ``python3 clients/python/tests``."""

from __future__ import annotations

import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent


def main() -> int:
    """Ends with the counts in one line."""
    sys.path[:0] = [str(HERE.parent / "src"), str(HERE)]
    suite = unittest.defaultTestLoader.discover(str(HERE), pattern=sys.argv[1] if len(sys.argv) > 1 else "test_*.py")
    runner = unittest.TextTestRunner(warnings="error", buffer=True)
    result = runner.run(suite)
    failed = len(result.failures) + len(result.errors)
    skipped = len(result.skipped)
    passed = result.testsRun - failed - skipped
    print(
        f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed; {skipped} ignored", flush=True
    )
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
