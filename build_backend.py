"""Builds the package with hatchling, once Python is new enough.

pip learns from the metadata that Python is too old, and says so only after it has collected, and perhaps
built, all that an extra needs: with TensorRT's source archives that takes minutes. This is read first.
"""

import sys

OLDEST = (3, 11)

if sys.version_info < OLDEST:
    have, need = (".".join(map(str, version[:2])) for version in (sys.version_info, OLDEST))
    sys.exit(f"bisect-trt needs Python {need} or newer, and this is {have}: python{need} -m pip install ...")

from hatchling.build import *  # noqa: E402, F403
