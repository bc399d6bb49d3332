"""The ONNX backend node suite: every case with a float32 input, under the full low plan.

Each case is converted, checked (onnx's full check, our own walk over every edge), run, and compared with the outputs
that the suite expects. What may differ is what storage in the format costs: the effect of rounding the inputs alone,
measured on the source model, plus some units in the last place of the largest output.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator
from support.graphs import as_float, assert_laws, run

from explorer.convert import Conversion, convert
from explorer.errors import ConversionError
from explorer.formats import get_format, round_array
from explorer.model import load_model
from explorer.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_BF16_OPSET = 13
ULPS = 8  # of the largest output: sums of a few dozen rounded terms, tanh and exp of ONNX Runtime among them
INPUT_SHARE = 4  # the effect of rounding the inputs is measured on one draw; the worst one is a small multiple

RANDOM = {
    # The outputs are drawn anew: only their types and shapes can be compared.
    "test_bernoulli": "draws",
    "test_bernoulli_double": "draws",
    "test_bernoulli_seed": "draws",
    "test_training_dropout": "a random mask",
}
DIFFERENT: Mapping[tuple[str, str], str] = {
    # Cases whose values may differ by more, with the reason; in fp16 there is none.
    ("bf16", "test_batchnorm_example_training_mode"): "the evaluator returns the variance in the type of its input",
    ("bf16", "test_batchnorm_epsilon_training_mode"): "the evaluator returns the variance in the type of its input",
    ("bf16", "test_maxpool_with_argmax_2d_precomputed_pads"): "the evaluator finds no maximum among bfloat16",
    ("bf16", "test_nllloss_NCd1d2d3d4d5_mean_weight"): "the evaluator sums thousands of terms in bfloat16",
    ("bf16", "test_nllloss_NCd1d2d3d4d5_mean_weight_expanded"): "the evaluator sums thousands of terms in bfloat16",
}
FEWEST_CASES, FEWEST_LOW = 1300, 950  # of onnx 1.23: 1385 and 1022; the suite grows with onnx


@dataclass
class Tally:
    """What became of the cases."""

    converted: int = 0
    low: int = 0
    ran_ort: int = 0
    ran_reference: int = 0
    unrun: list[str] = field(default_factory=list)
    disputed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.converted} converted and checked ({self.low} with a low layer), "
            f"{self.ran_ort} ran in ONNX Runtime, "
            f"{self.ran_reference} in the reference evaluator, {len(self.unrun)} in neither, "
            f"{len(self.failed)} failed; "
            f"in {len(set(self.disputed))} the evaluator disagrees with the suite on the source itself"
        )


@cache
def cases() -> tuple:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own numpy code overflows on purpose
        from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - it runs the suite's numpy code

        return tuple(case for case in collect_testcases(None) if any(map(_is_float32, case.model.graph.input)))


def _is_float32(info: onnx.ValueInfoProto) -> bool:
    kind = info.type
    while not kind.HasField("tensor_type"):
        if kind.HasField("sequence_type"):
            kind = kind.sequence_type.elem_type
        elif kind.HasField("optional_type"):
            kind = kind.optional_type.elem_type
        else:
            return False
    return kind.tensor_type.elem_type == onnx.TensorProto.FLOAT


def sweep(low: str) -> Tally:
    tally = Tally()
    for case in cases():
        opset = next((item.version for item in case.model.opset_import if item.domain == ""), 0)
        if low == "bf16" and opset < FIRST_BF16_OPSET:
            continue
        before = case.model.SerializeToString(deterministic=True)
        try:
            loaded = load_model(case.model)
            conversion = convert(loaded, Plan(format=low))
            assert_laws(case.model, loaded, conversion)
            tally.converted += 1
            tally.low += bool(conversion.decisions.low_layers)
            compare(case, conversion, low, tally)
        except (ConversionError, AssertionError) as error:
            tally.failed[case.name] = str(error)
        if case.model.SerializeToString(deterministic=True) != before:
            tally.failed[case.name] = "the source model was changed"
    return tally


def compare(case, conversion: Conversion, low: str, tally: Tally) -> None:
    inputs, expected = ([_array(item) for item in part] for part in case.data_sets[0])
    names = [info.name for info in case.model.graph.input]
    feeds = dict(zip(names, inputs, strict=False))
    got, how = evaluate(conversion.proto, feeds)
    if got is None:
        tally.unrun.append(f"{case.name}: {how}")
        return
    tally.ran_ort += how == "ort"
    tally.ran_reference += how == "reference"
    rounded, _ = evaluate(case.model, {name: _rounded(array, low) for name, array in feeds.items()})
    plain, plainly = evaluate(case.model, feeds)
    random = case.name.startswith(tuple(RANDOM))
    for index, wanted in enumerate(expected):
        if plain is not None and plainly == how and difference(plain[index], wanted, None, "fp32", random=random):
            tally.disputed.append(case.name)
            wanted = plain[index]  # noqa: PLW2901 - the evaluator disagrees with the suite on the source model itself
        moved = None if rounded is None else rounded[index]
        problem = difference(got[index], wanted, moved, low, random=random)
        if problem and (low, case.name) not in DIFFERENT:
            tally.failed[case.name] = f"output {index}, {how}: {problem}"


def evaluate(proto: onnx.ModelProto, feeds) -> tuple[list | None, str]:
    """Outputs from ONNX Runtime, else from onnx's own evaluator, else None with the reason."""
    state = ort.capi.onnxruntime_pybind11_state
    try:
        return run(proto, feeds), "ort"
    except (
        state.NotImplemented,
        state.Fail,
        state.InvalidGraph,
        state.InvalidArgument,
        state.RuntimeException,
        RuntimeError,
        ValueError,
        TypeError,
    ) as error:
        reason = str(error)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ReferenceEvaluator(proto).run(None, dict(feeds)), "reference"
    except Exception as error:  # noqa: BLE001 - the evaluator raises whatever numpy does
        return None, f"{type(error).__name__} {str(error)[:80]} | {reason[:120]}"
    finally:
        logging.disable(logging.NOTSET)


def _array(item):
    if isinstance(item, onnx.TensorProto):
        return onnx.numpy_helper.to_array(item)
    return [_array(part) for part in item] if isinstance(item, list) else item


def _rounded(array, low: str):
    if isinstance(array, list):
        return [_rounded(item, low) for item in array]
    if isinstance(array, np.ndarray) and array.dtype == np.float32:
        return round_array(array, get_format(low))
    return array


def difference(got, wanted, rounded, low: str, *, random: bool) -> str:
    """What is wrong with an output; empty when nothing is."""
    if isinstance(wanted, list):
        if len(got) != len(wanted):
            return f"{len(got)} elements instead of {len(wanted)}"
        parts = [None] * len(wanted) if rounded is None else rounded
        return "; ".join(
            filter(None, (difference(g, w, r, low, random=random) for g, w, r in zip(got, wanted, parts, strict=True)))
        )
    if wanted is None or got is None:
        return "" if wanted is got else "presence differs"
    got, wanted = np.asarray(got), np.asarray(wanted)
    if got.dtype != wanted.dtype and not (got.dtype.kind in "OUS" and wanted.dtype.kind in "OUS"):
        return f"{got.dtype} instead of {wanted.dtype}"
    if random:
        return "" if got.shape == wanted.shape else "shape differs"
    if wanted.dtype.kind != "f":
        return _exact(got, wanted, rounded)
    if got.shape != wanted.shape:
        return f"shape {got.shape} instead of {wanted.shape}"
    return _near(as_float(got), as_float(wanted), rounded, low)


def _exact(got, wanted, rounded) -> str:
    if wanted.dtype.kind == "V":  # bfloat16, float8, int4 ...: numpy's extension types
        got, wanted = got.astype(np.float32), wanted.astype(np.float32)
        rounded = None if rounded is None else np.asarray(rounded).astype(np.float32)
        nans = np.isnan(wanted) & np.isnan(got) if got.shape == wanted.shape else False
        got, wanted = np.where(nans, 0, got), np.where(nans, 0, wanted)
        rounded = None if rounded is None else np.where(nans, 0, rounded)
    if got.shape == wanted.shape and (got == wanted).all():
        return ""
    # a comparison or an index may differ where rounding the inputs alone makes it differ
    if rounded is not None and got.shape == np.shape(rounded) and (got == rounded).all():
        return ""
    return f"{np.count_nonzero(got != wanted) if got.shape == wanted.shape else 'all'} of {wanted.size} integers differ"


def _near(got, wanted, rounded, low: str) -> str:
    fmt = get_format(low)
    with np.errstate(all="ignore"):
        finite = np.isfinite(wanted)
        scale = float(np.max(np.abs(wanted[finite]), initial=0))
        allowed = ULPS * fmt.epsilon * scale + fmt.min_subnormal
        if rounded is not None and np.shape(rounded) == wanted.shape:
            moved = np.abs(as_float(rounded).astype(np.float64) - wanted.astype(np.float64))
            allowed += INPUT_SHARE * float(np.max(moved[np.isfinite(moved)], initial=0))
        beyond = np.abs(wanted) >= fmt.max  # infinite in the format
        error = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
        wrong = finite & ~beyond & ~(error <= allowed)
        wrong |= np.isnan(wanted) & ~np.isnan(got)
        wrong |= np.isinf(wanted) & (got != wanted)
    if not wrong.any():
        return ""
    worst = np.nanmax(error[wrong])
    return f"{np.count_nonzero(wrong)} of {wanted.size} differ, by up to {worst:.3g}; allowed {allowed:.3g}"


def report(tally: Tally, low: str) -> None:
    print(f"\nnode suite, {low}: {len(cases())} cases with a float32 input; {tally}")  # noqa: T201 - the numbers are the point
    for name, problem in (*tally.failed.items(), *(line.split(": ", 1) for line in tally.unrun)):
        print(f"  {name}: {problem}")  # noqa: T201


def test_every_case_under_fp16():
    tally = sweep("fp16")
    report(tally, "fp16")
    assert not tally.failed
    assert not tally.unrun
    assert tally.converted == tally.ran_ort + tally.ran_reference == len(cases()) >= FEWEST_CASES
    assert tally.low >= FEWEST_LOW


@pytest.mark.slow
def test_every_case_under_bf16():
    tally = sweep("bf16")
    report(tally, "bf16")
    assert not tally.failed
