"""Makes the sample models: `python sample_models/make.py [names...]`; without names, the four small ones that ship.

The small ones are trained on scikit-learn's digits and written beside this file; the large ones get seeded weights and
go to `generated/`, which git ignores. Needs the `training` extra: `pip install .[training,cpu]`.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

import digits_split
import torch

HERE = Path(__file__).resolve().parent
GENERATED = HERE / "generated"
THREADS = 1  # the result must not depend on the machine, and models this small gain nothing from more

SHIPPED = ("lenet5_digits", "digits_transformer", "digits_transformer_mask", "misaligned_cnn")
LARGE = ("resnet50", "bert_base", "unet_3000")


def main() -> None:
    """Makes the models that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = (*SHIPPED, *LARGE)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which to make: {', '.join(known)}")
    parser.add_argument("--out", type=Path, help="write into this folder instead of the usual places")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        parser.error(f"no sample model is called {', '.join(unknown)}; there are {', '.join(known)}")
    torch.set_num_threads(THREADS)
    for name in options.names or SHIPPED:
        folder = options.out or (HERE if name in SHIPPED else GENERATED)
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        importlib.import_module(name).make(folder)
        size = (folder / f"{name}.onnx").stat().st_size
        print(f"{name}: {size / 1e6:.2f} MB in {time.perf_counter() - start:.0f} s -> {folder / name}.onnx")
    if not options.names:
        digits_split.save_calibration_rows((options.out or HERE) / "digits_train.npz")


if __name__ == "__main__":
    main()
