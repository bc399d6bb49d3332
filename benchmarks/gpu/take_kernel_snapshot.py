"""Write the kernel lists of ONNX Runtime's CPU and CUDA providers to ``explorer/backends/data/``.

Run it in an environment of its own, with onnxruntime-gpu and the CUDA libraries that its provider links::

    python -m venv /tmp/kernels
    /tmp/kernels/bin/pip install onnxruntime-gpu==1.31.1 nvidia-cublas nvidia-cuda-runtime nvidia-curand
    /tmp/kernels/bin/python benchmarks/gpu/take_kernel_snapshot.py --stand-ins

``--stand-ins`` compiles ``stand_ins.c`` with ``cc`` and loads it in place of the driver, cuDNN and TensorRT, so that no
GPU is needed. Without the flag a GPU *and* TensorRT must be there: ``get_all_opkernel_def`` makes one provider of each
kind that is compiled in, raises where there is no device, and crashes where TensorRT's library is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "explorer" / "backends" / "data"
PROVIDERS = {"CPUExecutionProvider": "onnxruntime_cpu", "CUDAExecutionProvider": "onnxruntime_cuda"}
OPEN_END = 2**31 - 1  # INT_MAX: the kernel has no last version
STAND_INS = ("libcuda.so.1", "libcudnn.so.9", "libnvinfer.so.10", "libnvonnxparser.so.10")


def compile_stand_ins(folder: Path) -> None:
    """Compile one library a name; cuDNN's symbols carry its version, so that library needs a version script."""
    for name in STAND_INS:
        script = folder / f"{name}.map"
        script.write_text(f"{name} {{ global: *; }};\n")
        versioned = [f"-Wl,--version-script={script}"] if "cudnn" in name else []
        output = ["-o", str(folder / name), f"-Wl,-soname,{name}"]
        subprocess.run(["cc", "-shared", "-fPIC", *versioned, *output, str(HERE / "stand_ins.c")], check=True)


def run_with_stand_ins() -> int:
    """Run this script again with the stand-ins before every other library."""
    cuda = Path(sysconfig.get_path("platlib")) / "nvidia" / "cu13" / "lib"
    with tempfile.TemporaryDirectory() as name:
        compile_stand_ins(Path(name))
        paths = [name, str(cuda), os.environ.get("LD_LIBRARY_PATH", "")]
        env = os.environ | {"LD_PRELOAD": f"{name}/libcuda.so.1", "LD_LIBRARY_PATH": ":".join(filter(None, paths))}
        return subprocess.run([sys.executable, __file__, "--how", "without a GPU"], env=env, check=False).returncode


def compact(kernels: list[object]) -> list[list[object]]:
    """Return ``[op, domain, first version, last version or null, {type variable: types}]``, sorted and unique."""
    rows = {}
    for kernel in kernels:
        first, last = kernel.version_range
        types = {name: sorted(allowed) for name, allowed in sorted(kernel.type_constraints.items())}
        row = [kernel.op_name, kernel.domain, first, None if last == OPEN_END else last, types]
        rows[json.dumps(row)] = row
    return [rows[key] for key in sorted(rows)]


def write(path: Path, provider: str, version: str, how: str, rows: list[list[object]]) -> None:
    head = {
        "provider": provider,
        "onnxruntime": version,
        "source": f"get_all_opkernel_def() of onnxruntime-gpu {version} for Linux x86-64, taken {how} by "
        "benchmarks/gpu/take_kernel_snapshot.py",
        "columns": ["op", "domain", "first_version", "last_version", "types"],
    }
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    body = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    path.write_text(f'{{\n{body},\n"kernels": [\n{lines}\n]\n}}\n', encoding="utf-8")
    print(f"{path.name}: {len(rows)} kernels, {path.stat().st_size / 1000:.0f} kB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stand-ins", action="store_true", help="work without a GPU")
    parser.add_argument("--how", default="on a machine with a GPU", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stand_ins:
        return run_with_stand_ins()

    import onnxruntime  # noqa: PLC0415 - only the process that lists needs it
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415

    kernels = state.get_all_opkernel_def()
    for provider, stem in PROVIDERS.items():
        rows = compact([kernel for kernel in kernels if kernel.provider == provider])
        if not rows:
            print(f"No kernel of {provider} was listed: is this onnxruntime-gpu?", file=sys.stderr)
            return 1
        write(DATA / f"{stem}_kernels.json", provider, onnxruntime.__version__, arguments.how, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
