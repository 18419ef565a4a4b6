"""Which NVIDIA GPU this process would use, asked of the driver itself; no library needed.

`libcuda` is asked and not `nvidia-smi`, which knows nothing of CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from msgspec import Struct

from bisect_trt.machine.limits import WORKER

_COMPUTE_CAPABILITY_MAJOR = 75  # CUdevice_attribute, cuda.h
_COMPUTE_CAPABILITY_MINOR = 76


_OF_THE_CONTEXT = re.compile(
    r"\b(CUDA|CUBLAS|CUDNN|HIP)\w* (failure|error|runtime|driver)"
    r"|illegal memory access|unspecified launch failure|device-side assert",
    re.IGNORECASE,
)
_spoiled = False


class Gpu(Struct, frozen=True):
    """The first visible GPU. `cuda` is the newest CUDA version that the driver can do."""

    name: str
    compute_capability: tuple[int, int]
    cuda: str
    driver: str

    def versions(self) -> Mapping[str, str]:
        """Return the versions of driver and card for header and report."""
        major, minor = self.compute_capability
        named = {"GPU": f"{self.name} ({major}.{minor})", "CUDA": self.cuda, "driver": self.driver}
        return {key: value for key, value in named.items() if value}


def _driver() -> tuple[ctypes.CDLL | None, int]:
    """Return the driver, and how many GPUs it shows to this process."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, 0
    found = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(found)):
        return cuda, 0
    return cuda, found.value


def spoils(message: str) -> bool:
    """Return whether a failure's message is that of a CUDA error, which may stay with this process."""
    return _OF_THE_CONTEXT.search(message) is not None


def spoil() -> None:
    """Note that this process is not to be used again: whatever runs in it next would fail, too."""
    global _spoiled
    _spoiled = True


def is_well() -> bool:
    """Return whether this process has a CUDA context without an error that would stay with it."""
    cuda, _ = _driver()
    context = ctypes.c_void_p()
    if cuda is None or cuda.cuCtxGetCurrent(ctypes.byref(context)) or not context:
        return False
    return not cuda.cuCtxSynchronize()


def heed(message: str) -> None:
    """Spoil this process where a failure's message says so."""
    if spoils(message):
        spoil()


def leave_if_spoiled() -> None:
    """End a worker process that is spoiled, before the next candidate is blamed for it.

    The pool runs a job again in a fresh worker when its process is killed from outside its control.
    """
    if _spoiled and WORKER in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)


def count() -> int:
    """Say how many GPUs this process may use."""
    return _driver()[1]


def free_bytes() -> int:
    """Return the memory that is free on the first visible GPU.

    0 where that cannot be told. Makes no CUDA context.
    """
    cuda, found = _driver()
    uuid, device, handle = (ctypes.c_ubyte * 16)(), ctypes.c_int(), ctypes.c_void_p()
    if cuda is None or found < 1 or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return 0
    if cuda.cuDeviceGetUuid(uuid, device):
        return 0
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    name, memory = f"GPU-{UUID(bytes=bytes(uuid))}".encode(), (ctypes.c_ulonglong * 3)()  # total, free, used
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)):
        return 0
    return 0 if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) else int(memory[1])


def find_gpu() -> Gpu | None:
    """Return the first visible GPU; None without a driver or a GPU. Meant for worker processes."""
    cuda, found = _driver()
    device, version, major, minor = (ctypes.c_int() for _ in range(4))
    if cuda is None or found < 1 or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device)
    return Gpu(
        name=name.value.decode(errors="replace"),
        compute_capability=(major.value, minor.value),
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
        driver=_driver_version(),
    )


def _driver_version() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(errors="replace")
    except OSError:
        return ""
    found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return found.group(1) if found else ""
