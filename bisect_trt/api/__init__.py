"""The commands as functions, as a script or a notebook calls them.

A model is the path of an ONNX file. Every option of a command is a keyword of its function: those that a
command has for itself are in its signature, all others go by the name of their field in the settings
(`target`, `inputs`, `repeats`, `rtol`, ...), and may be given together as a `Settings` instead. Nothing here
needs `if __name__ == "__main__"`: no process that starts imports the script.
"""

from bisect_trt.api.models import check, precision, profile, reduce, reduce_all, scan, simplify
from bisect_trt.api.reproducers import blame, verify

__all__ = ["blame", "check", "precision", "profile", "reduce", "reduce_all", "scan", "simplify", "verify"]
