"""The commands as functions, as a script or a notebook calls them.

A model is the path of an ONNX file. What a command takes as an option is a keyword here, under the name of
its field in the settings (`target`, `inputs`, `repeats`, `rtol`, ...), or part of a `Settings`. Nothing here
needs `if __name__ == "__main__"`: no process that starts imports the script.
"""

from bisect_trt.api.models import check, precision, profile, reduce, reduce_all, scan, simplify
from bisect_trt.api.reproducers import blame, verify

__all__ = ["blame", "check", "precision", "profile", "reduce", "reduce_all", "scan", "simplify", "verify"]
