"""`workaround.onnx`: a model with further outputs or fixed shapes, and `apply.py` for the next export."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from inspect import getsource
from pathlib import Path

import onnx
from msgspec import Struct
from onnx import TensorProto

from bisect_trt._version import __version__
from bisect_trt.model import patch
from bisect_trt.model.external import referenced_files, tensors
from bisect_trt.model.store import copy_file, external_info

MODEL, SCRIPT = "workaround.onnx", "apply.py"

_TAIL = '''
# What a run of bisect-trt found to help; see blame.json beside this file.
TENSORS = {tensors}
SHAPES = {shapes}


def main(words):
    """Exit code: 0 all was done, 1 the model was written but something was not found, 2 wrong usage."""
    if len(words) != 2:
        print("usage: python apply.py MODEL.onnx PATCHED.onnx")
        return 2
    model = onnx.load(words[0])
    inputs = {{value.name for value in model.graph.input}}
    made = fixed(model, SHAPES)
    made = exposed(made, TENSORS, onnx.shape_inference.infer_shapes(made))
    size = sum(len(t.raw_data) for t in made.graph.initializer)
    location = words[1].rpartition("/")[2] + ".data"
    more = {{"save_as_external_data": True, "location": location}} if size > 1.5e9 else {{}}
    onnx.save(made, words[1], **more)
    outputs = {{value.name for value in made.graph.output}}
    missing = [n for n in TENSORS if n not in outputs] + [n for n in SHAPES if n not in inputs]
    for name in missing:
        print(f"{{name}}: not found in this model; it was left out")
    print(f"{{words[1]}}: {{len(TENSORS) + len(SHAPES) - len(missing)}} changes")
    return 1 if missing else 0


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
'''


class Patch(Struct, frozen=True):
    """What is changed of a model.

    Attributes:
        told: in words.
        tensors: inner tensors that become outputs.
        shapes: of inputs, by name.
    """

    told: str
    tensors: tuple[str, ...] = ()
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def of(self, model: onnx.ModelProto, inferred: onnx.ModelProto) -> onnx.ModelProto:
        """Return the changed copy of a model; `inferred` is the model with inferred shapes."""
        if self.shapes:
            return patch.fixed(model, dict(self.shapes))
        return patch.exposed(model, self.tensors, inferred)

    def script(self) -> str:
        """Return a program that does the same to the next export; it stands alone."""
        head = f"# Written by bisect-trt {__version__}: python {SCRIPT} MODEL.onnx PATCHED.onnx\n"
        words = {"tensors": repr(list(self.tensors)), "shapes": repr(dict(self.shapes))}
        return f"{head}{getsource(patch)}\n{_TAIL.format(**words)}"


def outputs_patch(model: onnx.ModelProto, outputs: Sequence[str], nodes: Sequence[str]) -> Patch | None:
    """Return tensors by the names of the reproducer, else all that the nodes found make; None without any."""
    inner = patch.inner_tensors(model)
    names = [name for name in inner if name in set(outputs)]
    if len(names) < len(outputs):
        made = {name for node in model.graph.node if node.name in set(nodes) for name in node.output}
        names = [name for name in inner if name in made]
    if not names:
        return None
    text = f"with {', '.join(names[:4])}{', ...' if len(names) > 4 else ''} as further outputs"
    return Patch(text, tensors=tuple(names))


class Written:
    """A patched model in a folder of its own inside `out`, with its weights; gone unless it is kept.

    Weights in files of their own are copied under plain names: they share their blocks with the user's where
    the file system can. The user's own folder is never written to.

    Raises:
        OSError: no space is left.
    """

    def __init__(self, model: Path, made: onnx.ModelProto, out: Path) -> None:
        self._out = out
        self._scratch = tempfile.TemporaryDirectory(prefix=".patched-", dir=out)
        folder = Path(self._scratch.name)
        try:
            self._names = _copy_weights(made, model, folder)
            self.place = folder / MODEL
            self.place.write_bytes(made.SerializeToString())
        except BaseException:
            self.close()
            raise

    def keep(self, script: str) -> None:
        """Move it into `out`, with the script that does the same."""
        for name in (*self._names, MODEL):
            (self.place.parent / name).replace(self._out / name)
        (self._out / SCRIPT).write_text(script)

    def close(self) -> None:
        """Remove what was not kept."""
        self._scratch.cleanup()


def _copy_weights(made: onnx.ModelProto, model: Path, folder: Path) -> list[str]:
    names: dict[str, str] = {}
    for location, source in sorted(referenced_files(made, model).items()):
        names[location] = f"{MODEL}.{f'{len(names)}.' if names else ''}data"
        copy_file(source, folder / names[location])
    for tensor in tensors(made):
        if tensor.data_location == TensorProto.EXTERNAL:
            held = external_info(tensor) | {"location": names[external_info(tensor)["location"]]}
            del tensor.external_data[:]
            for key, value in held.items():
                tensor.external_data.add(key=key, value=value)
    return list(names.values())
