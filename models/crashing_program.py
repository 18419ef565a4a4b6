"""A backend of our own that ends itself: `make demo` shows with it what a crash looks like.

`python crashing_program.py MODEL` reads an ONNX model and, where a Softmax is in it, says which and aborts.
"""

import os
import sys
from pathlib import Path

import onnx


def main(path: Path) -> None:
    """Read the model and abort at its first Softmax; any other model is fine."""
    for node in onnx.load_model(path, load_external_data=False).graph.node:
        if node.op_type == "Softmax":
            print(f"fusing Softmax {node.name}", file=sys.stderr, flush=True)
            os.abort()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
