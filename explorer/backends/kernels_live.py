"""Ask an installed GPU build of ONNX Runtime for its kernels, in a process of its own.

``get_all_opkernel_def`` starts every provider that is compiled in: it raises where there is no device, and crashes the
process where a library such as TensorRT's is missing (seen with onnxruntime-gpu 1.31.1). So it is asked only where the
CUDA provider is ready and every library is there, never in this process, and once for each version: the answer is kept.
The list is compiled in and does not depend on the device. *Not run on a GPU so far*; the way through another process is
tested with the CPU build.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from explorer.backends.cache_folder import cache_folder
from explorer.backends.machine import missing_for_providers
from explorer.backends.status import backend_status
from explorer.errors import ExportError
from explorer.model.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ask_in_process", "cuda_kernels"]

Rows = list[list[Any]]
_PATIENCE_S: Final = 120  # starting CUDA on a machine with many GPUs takes tens of seconds
_OPEN_END: Final = 2**31 - 1  # INT_MAX, ONNX Runtime's mark of a kernel without a last version
_SCRIPT: Final = """
import json, sys
import onnxruntime
if hasattr(onnxruntime, "preload_dlls"):
    sys.stdout, out = sys.stderr, sys.stdout
    onnxruntime.preload_dlls()
    sys.stdout = out
rows = [
    [item.op_name, item.domain, *item.version_range, item.type_constraints]
    for item in onnxruntime.capi.onnxruntime_pybind11_state.get_all_opkernel_def()
    if item.provider == sys.argv[1]
]
print(json.dumps({"onnxruntime": onnxruntime.__version__, "kernels": rows}))
"""


def cuda_kernels() -> tuple[Rows, str] | None:
    """Return the installed CUDA provider's kernels and ONNX Runtime's version; None where asking is not safe or fails.

    A kernel is its operator, domain, first and last version (None for no end) and accepted types by variable.
    """
    status = next(item for item in backend_status() if item.name == "onnxruntime-cuda")
    if status.state != "ready":
        return None
    kept = cache_folder() / "kernels" / f"onnxruntime-gpu-{status.version}.json"
    if (known := _read(kept)) is not None:
        return known
    if missing_for_providers():
        return None
    answer = ask_in_process("CUDAExecutionProvider")
    if answer is not None and answer[0]:
        _keep(kept, answer)
        return answer
    return None


def ask_in_process(provider: str, *, patience_s: float = _PATIENCE_S) -> tuple[Rows, str] | None:
    """Return a provider's kernels and ONNX Runtime's version from another process; None where that fails or crashes."""
    command = [sys.executable, "-c", _SCRIPT, provider]
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, our own script
            command, capture_output=True, text=True, check=True, timeout=patience_s
        )
        told = json.loads(done.stdout.strip().rpartition("\n")[2])
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return _rows(told)


def _rows(told: dict[str, Any]) -> tuple[Rows, str]:
    rows = [
        [op, domain, first, None if last == _OPEN_END else last, types]
        for op, domain, first, last, types in told["kernels"]
    ]
    return rows, str(told["onnxruntime"])


def _read(path: Path) -> tuple[Rows, str] | None:
    try:
        return _rows(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):  # not there, cut short, or of another version of this package
        return None


def _keep(path: Path, answer: tuple[Rows, str]) -> None:
    """Write the answer whole or not at all; a folder that cannot be written only costs the time to ask again."""
    text = json.dumps({"onnxruntime": answer[1], "kernels": answer[0]})
    with contextlib.suppress(OSError, ExportError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")
