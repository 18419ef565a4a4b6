"""A small index of wheels, made by the tests: tiny packages under the names of real ones."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

NUMPY = """
__version__ = "2.0.0"
def load(file): return {}
asarray = list
"""

RUNTIME = """
__version__ = {version!r}
{first}
class SessionOptions:
    def add_session_config_entry(self, key, value): pass
class InferenceSession:
    def __init__(self, model, options=None, providers=None, enable_fallback=0):
        {body}
    def get_outputs(self): return []
    def run(self, names, inputs): return []
"""

OPENVINO = """
def get_version(): return {version!r}
class Core:
    def read_model(self, path): return path
    def compile_model(self, model, device, properties):
        print(device, properties)
        if {said!r}: raise RuntimeError({said!r})
        return self
    def create_infer_request(self): return self
    def infer(self, values): return dict()
"""

MESSAGE = "the frobnicator of the graph is out of order"
BAD = f'raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : {MESSAGE}")'
GOOD = "pass"
OTHER = 'raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : something else entirely is wrong here")'
HANGS = "import time; time.sleep(600)"
DIES = "import os; os.kill(os.getpid(), 11)"


def add(index: Path, name: str, version: str, code: str, *, needs: str = "", yanked: bool = False) -> None:
    """Add a release to an index that `pip` reads, a folder of pages."""
    folder = index / name
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{module}/__init__.py": code,
        f"{info}/METADATA": metadata + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        rows = []
        for place, text in files.items():
            archive.writestr(place, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{place},sha256={digest},{len(text.encode())}")
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,", ""]))
    known = folder / "yanked.json"
    marked = json.loads(known.read_text()) if known.exists() else []
    marked += [wheel.name] if yanked else []
    known.write_text(json.dumps(marked))
    links = (
        f'<a href="{w.name}"{" data-yanked=broken" if w.name in marked else ""}>{w.name}</a><br>'
        for w in sorted(folder.glob("*.whl"))
    )
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")


def runtimes(index: Path, bodies: Mapping[str, str], *, firsts: Mapping[str, str] | None = None) -> None:
    """Releases of a pretended onnxruntime: what a session does in each."""
    add(index, "numpy", "2.0.0", NUMPY)
    for version, body in bodies.items():
        code = RUNTIME.format(version=version, body=body, first=(firsts or {}).get(version, ""))
        add(index, "onnxruntime", version, code)


def reproducer(folder: Path, *, version: str = "", timeout: float | None = None) -> Path:
    """A reproducer of a failure to build on ONNX Runtime's CPU provider."""
    folder.mkdir()
    text = '<ir_version: 8, opset_import: ["" : 13]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
    (folder / "repro.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    np.savez(folder / "inputs.npz", x=np.zeros(2, np.float32))
    failure = {
        "stage": "build",
        "symptom": "error",
        "signature": f"FAIL: {MESSAGE}",
        "message": f"FAIL: {MESSAGE}",
    }
    report = {
        "failure": failure,
        "settings": {"target": {"spec": "ort:CPU"}, "run": {"timeout": timeout}},
        "target": {"versions": {"onnxruntime": version} if version else {}},
    }
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "repro.py").write_text("raise SystemExit('a script of strangers was run')\n")
    return folder
