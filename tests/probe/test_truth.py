"""The emulator against numpy: the same numbers bit for bit, and the sums that numpy makes of them in float64."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from support.graphs import BOOL, FLOAT, INT64, model, node, run, value, weight
from support.probing import Bench, entries, rounded, same

from explorer.formats import get_format
from explorer.plan import Plan

FORMATS = ("fp16", "bf16")
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SUM_TOLERANCE = 2e-5  # sums of a few hundred float32 squares, against float64

# What float32 holds of interest to the two formats: ties, borders, subnormals, both zeros, what overflows.
SPECIAL = np.float32(
    [0.0, -0.0, 1.0, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 65504, 65519.9, 65520, -65520, 1e5, 3e38,
     -3.4e38, 2**-14, 2**-14 - 2**-25, 2**-24, 2**-25, 1.0001 * 2**-25, 2**-26, 1e-30, 1e-38, 1e-40, -1e-45, 0.1, 1 / 3]
)  # fmt: skip


def numbers(seed: int, shape=(6, 26)) -> np.ndarray:
    """Random float32 over many magnitudes, the special ones among them."""
    rng = np.random.default_rng(seed)
    array = rng.standard_normal(shape) * 10.0 ** rng.integers(-9, 6, shape)
    array[0, : SPECIAL.size] = SPECIAL
    return array.astype(np.float32)


def small(seed: int, shape) -> np.ndarray:
    """Multiples of 1/8 up to 2: every sum of their products is exact in float32, in any order."""
    return (np.random.default_rng(seed).integers(-16, 17, shape) / 8).astype(np.float32)


def where(condition, one, other):
    return np.where(condition, one, other).astype(np.float32)


# -- one layer -----------------------------------------------------------------------------------------------------

ELEMENTWISE = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Max": np.maximum,
    "Min": np.minimum,
    "Relu": lambda a: np.maximum(a, np.float32(0)),
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Sign": np.sign,
    "Identity": np.positive,
}
QUIET = {"over": "ignore", "invalid": "ignore", "divide": "ignore", "under": "ignore"}


@pytest.mark.parametrize("low_format", FORMATS)
@pytest.mark.parametrize("op", ELEMENTWISE)
def test_an_elementwise_layer_equals_numpy(op, low_format):
    """Inputs rounded, computed in float32, the result rounded: numpy's numbers, special values included."""
    function = ELEMENTWISE[op]
    arity = 2 if isinstance(function, np.ufunc) and function.nin == 2 else 1
    x, z = numbers(1), numbers(2)[:, ::-1].copy()
    names = ["x", "z"][:arity]
    inputs, outputs = [value(n, x.shape) for n in names], [value("y", x.shape)]
    proto = model([node(op, names, ["y"], "layer")], inputs, outputs, opset=22)
    feeds = dict(zip(names, (x, z), strict=False))
    if op == "Sqrt":
        feeds["x"] = np.abs(x)
    bench = Bench.of(proto, feeds, Plan(format=low_format).set({"layer": low_format}))
    with np.errstate(**QUIET):
        exact = function(*feeds.values()).astype(np.float32)
        wanted = rounded(function(*(rounded(each, low_format) for each in feeds.values())), low_format)
    assert same(bench.exact()["y"] + np.float32(0), exact + np.float32(0))  # the sign of a zero is the kernel's affair
    assert same(bench.planned()["y"] + np.float32(0), wanted + np.float32(0))


@pytest.mark.parametrize("low_format", FORMATS)
def test_rounding_keeps_signs_of_zeros(low_format):
    """What flushes to zero keeps its sign, and nothing else changes sign."""
    x = numbers(3)
    bench = Bench.of(
        model([node("Identity", ["x"], ["y"])], [value("x", x.shape)], [value("y", x.shape)]),
        {"x": x},
        Plan(format=low_format).set({"Identity_1": low_format}),
    )
    assert same(bench.planned()["y"], rounded(x, low_format))


@pytest.mark.parametrize("low_format", FORMATS)
def test_every_value_of_the_format_survives(low_format):
    """All 65,536 codes of the format, as float32, come through unchanged; NaN stays NaN."""
    dtype = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}[low_format]
    codes = np.arange(1 << 16, dtype=np.uint16).view(dtype).astype(np.float32)
    codes = codes[~np.isnan(codes)].reshape(1, -1)
    proto = model([node("Neg", ["x"], ["y"], "layer")], [value("x", codes.shape)], [value("y", codes.shape)])
    assert same(Bench.of(proto, {"x": codes}, Plan(format=low_format)).planned()["y"], -codes)


@FEW
@given(st.integers(0, 2**32 - 1), st.sampled_from(FORMATS))
def test_rounding_of_random_bits(seed, low_format):
    """Any finite float32 is rounded as numpy and ml_dtypes round it: to nearest, ties to even."""
    bits = np.random.default_rng(seed).integers(0, 1 << 32, 4096, dtype=np.uint32).view(np.float32)
    x = bits[np.isfinite(bits)].reshape(1, -1)
    proto = model([node("Abs", ["x"], ["y"], "layer")], [value("x", [1, "n"])], [value("y", [1, "n"])])
    assert same(Bench.of(proto, {"x": x}, Plan(format=low_format)).planned()["y"], np.abs(rounded(x, low_format)))


@pytest.mark.parametrize("low_format", FORMATS)
def test_casts_between_integers_and_floats(low_format):
    """A cast to an integer reads the stored value; one from an integer stores its result."""
    x = np.float32([[0.1, 2.7, -3.9, 1000.7, 2049.0, -0.5]])
    nodes = [
        node("Mul", ["x", "w"], ["a"], "scale"),
        node("Cast", ["a"], ["i"], "to_int", to=INT64),
        node("Cast", ["i"], ["f"], "to_float", to=FLOAT),
        node("Greater", ["a", "f"], ["c"], "compare"),
        node("Where", ["c", "a", "f"], ["y"], "pick"),
    ]
    proto = model(nodes, [value("x", x.shape)], [value("y", x.shape), value("i", x.shape, INT64)], [weight("w", 2.3)])
    bench = Bench.of(proto, {"x": x}, Plan(format=low_format).set({"pick": low_format}))
    formats = {item.layer_id: item.format for item in bench.decisions()}
    assert formats["scale"] == formats["pick"] == low_format
    a = rounded(rounded(x, low_format) * rounded(2.3, low_format), low_format)
    i = a.astype(np.int64)
    f = rounded(i.astype(np.float32), low_format) if formats["to_float"] == low_format else i.astype(np.float32)
    found = bench.planned()
    assert (found["i"] == i).all()
    assert same(found["y"], where(a > f, a, f))


@pytest.mark.parametrize("low_format", FORMATS)
def test_matmul_gemm_and_conv_equal_numpy(low_format):
    """Sums are kept in float32 and rounded once at the end; weights are stored low."""
    x, w, b = small(1, (3, 16)), small(2, (16, 8)) * np.float32(1.01), small(3, 8) * np.float32(3.3)
    low_w, low_b = rounded(w, low_format), rounded(b, low_format)
    nodes = [node("MatMul", ["x", "w"], ["a"], "mm"), node("Gemm", ["x", "w", "b"], ["y"], "gemm")]
    proto = model(
        nodes, [value("x", x.shape)], [value("a", (3, 8)), value("y", (3, 8))], [weight("w", w), weight("b", b)]
    )
    found = Bench.of(proto, {"x": x}, Plan(format=low_format)).planned()
    exact = x.astype(np.float64) @ low_w.astype(np.float64)
    assert_within(found["a"], exact, low_format)
    assert_within(found["y"], exact + low_b, low_format)

    image, kernel = small(4, (1, 2, 5, 5)), small(5, (3, 2, 3, 3))
    inputs, outputs = [value("x", image.shape)], [value("y", (1, 3, 3, 3))]
    proto = model([node("Conv", ["x", "k"], ["y"], "conv")], inputs, outputs, [weight("k", kernel)], opset=22)
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), (2, 3))
    wanted = np.einsum("ncijkl,ockl->noij", windows.astype(np.float64), kernel.astype(np.float64))
    found = Bench.of(proto, {"x": image}, Plan(format=low_format)).planned()["y"]
    assert same(found, rounded(wanted, low_format))  # every product and sum is exact here


def assert_within(found, exact, low_format):
    """Equal to the rounded exact sum, or its neighbour where float32's order of adding decides a tie."""
    wanted = rounded(exact, low_format)
    ulp = get_format(low_format).epsilon * np.exp2(np.floor(np.log2(np.maximum(np.abs(exact), 1e-5))))
    assert (np.abs(found - wanted) <= ulp).all()
    assert (found == wanted).mean() > 0.9


@FEW
@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.sampled_from(FORMATS))
def test_matmul_of_exact_sums(seed, inner, low_format):
    """Where float32 sums are exact, a low MatMul is the rounded exact product, bit for bit."""
    x, w = small(seed, (4, inner)), small(seed + 1, (inner, 5)) * np.float32(256)
    proto = model(
        [node("MatMul", ["x", "w"], ["y"], "mm")], [value("x", x.shape)], [value("y", (4, 5))], [weight("w", w)]
    )
    found = Bench.of(proto, {"x": x}, Plan(format=low_format)).planned()["y"]
    assert same(found + np.float32(0), rounded(x.astype(np.float64) @ w.astype(np.float64), low_format) + np.float32(0))


# -- chains --------------------------------------------------------------------------------------------------------


class NumpyChain:
    """A chain of elementwise layers and exact MatMuls, in ONNX and in numpy."""

    def __init__(self, seed: int, low_format: str) -> None:
        self.rng, self.format = np.random.default_rng(seed), low_format
        self.steps: list[tuple[str, str, np.ndarray | None]] = []
        for number in range(int(self.rng.integers(1, 9))):
            op = str(self.rng.choice(["Add", "Mul", "Sub", "Relu", "Neg", "Max", "Sqrt"]))
            operand = None
            if op in ("Add", "Mul", "Sub", "Max"):
                operand = (self.rng.standard_normal(8) * 10.0 ** self.rng.integers(-4, 3)).astype(np.float32)
            self.steps.append((f"{op}_{number}", op, operand))
        self.x = (self.rng.standard_normal((5, 8)) * 10.0 ** self.rng.integers(-2, 3)).astype(np.float32)

    def proto(self):
        nodes, weights, here = [], [], "x"
        for name, op, operand in self.steps:
            inputs = [here]
            if operand is not None:
                weights.append(weight(f"w_{name}", operand))
                inputs.append(f"w_{name}")
            if op == "Sqrt":
                nodes.append(node("Abs", [here], [f"abs_{name}"], f"abs_{name}"))
                inputs = [f"abs_{name}"]
            nodes.append(node(op, inputs, [name], f"layer_{name}"))
            here = name
        return model(nodes, [value("x", ["batch", 8])], [value(here, ["batch", 8])], weights)

    def apply(self, op, here, operand, *, low):
        store = (lambda a: rounded(a, self.format)) if low else np.float32
        with np.errstate(**QUIET):
            here = store(here)
            if op == "Sqrt":
                return store(np.sqrt(store(np.abs(here))))  # the two layers have the same format
            arguments = (here,) if operand is None else (here, store(operand))
            return store(ELEMENTWISE[op](*arguments).astype(np.float32))

    def values(self, x, low_layers=()):
        """Every layer's result, by name."""
        found, here = {}, x
        for name, op, operand in self.steps:
            here = found[name] = self.apply(op, here, operand, low=f"layer_{name}" in low_layers)
        return found


def sums(exact, low):
    """The definitions, in float64: where the exact value is finite."""
    r, y = exact.astype(np.float64).ravel(), low.astype(np.float64).ravel()
    kept = np.isfinite(r)
    r, y = r[kept], y[kept]
    with np.errstate(**QUIET):
        error = y - r
        return {
            "error_squares": (error**2).sum(),
            "exact_squares": (r**2).sum(),
            "max_error": np.abs(error).max(),
            "elements": exact.size,
        }


def assert_sums(found, wanted):
    for name, number in wanted.items():
        assert found[name] == pytest.approx(number, rel=SUM_TOLERANCE, nan_ok=True), name


@FEW
@given(st.integers(0, 2**32 - 1), st.sampled_from(FORMATS), st.data())
def test_a_chain_equals_numpy(seed, low_format, data):
    """Output, accumulated sums and local sums of a chain under a random plan, against numpy."""
    chain = NumpyChain(seed, low_format)
    # The Abs before a Sqrt is a layer of its own: it is blocked together with it.
    names = [name for name, _, _ in chain.steps]
    chosen = set(data.draw(st.lists(st.sampled_from(names), unique=True)))
    blocked = {f"layer_{name}" for name in chosen}
    overrides = dict.fromkeys(blocked | {f"abs_{name}" for name in chosen}, "fp32")
    batch = data.draw(st.integers(1, 5))
    bench = Bench.of(chain.proto(), {"x": chain.x}, Plan(format=low_format), batch_size=batch)
    overrides = {layer: fmt for layer, fmt in overrides.items() if layer in bench.model}
    plan = Plan(format=low_format).set(overrides)
    found = bench.accumulated(plan)
    exact, planned = chain.values(chain.x), chain.values(chain.x, bench.decisions(plan).low_layers)
    assert same(found.plan_outputs[names[-1]] + np.float32(0), planned[names[-1]] + np.float32(0))
    accumulated, local = entries(found), entries(bench.emulator.local())
    for name, op, operand in chain.steps:
        assert_sums(accumulated[name], sums(exact[name], planned[name]))
        if op != "Sqrt":  # its input is the exact Abs, rounded: the same numbers, seen from one layer later
            before = chain.x if name == names[0] else exact[names[names.index(name) - 1]]
            assert_sums(local[name], sums(exact[name], chain.apply(op, before, operand, low=True)))


@pytest.mark.parametrize("low_format", FORMATS)
def test_ranges_equal_numpy(low_format):
    """Counts of what overflows, loses bits or becomes zero, maximum and sum of squares of the exact values."""
    x = np.clip(numbers(7, (8, 64)), -1e15, 1e15)
    proto = model([node("Neg", ["x"], ["y"], "layer")], [value("x", x.shape)], [value("y", x.shape)])
    found = entries(Bench.of(proto, {"x": x}, Plan(format=low_format)).emulator.ranges())["y"]
    low, fmt = rounded(x, low_format), get_format(low_format)
    assert found["overflow"] == np.isinf(low).sum()
    assert found["flushed"] == ((low == 0) & (x != 0)).sum()
    assert found["subnormal"] == ((low != 0) & (np.abs(low) < fmt.min_normal)).sum()
    assert found["max_abs"] == np.abs(x).max()
    assert found["squares"] == pytest.approx((x.astype(np.float64) ** 2).sum(), rel=SUM_TOLERANCE)
    assert found["elements"] == x.size
    assert found["nonfinite"] == 0


@pytest.mark.parametrize("low_format", FORMATS)
def test_local_error_of_a_matmul_equals_numpy(low_format):
    x, w = np.random.default_rng(0).standard_normal((2, 6, 12)).astype(np.float32)
    proto = model(
        [node("MatMul", ["x", "w"], ["y"], "mm")], [value("x", x.shape)], [value("y", (6, 6))], [weight("w", w.T)]
    )
    found = entries(Bench.of(proto, {"x": x}, Plan(format=low_format)).emulator.local())["y"]
    exact = (x @ w.T).astype(np.float32)
    low = rounded(rounded(x, low_format) @ rounded(w.T, low_format), low_format)
    assert found["error_squares"] == pytest.approx(sums(exact, low)["error_squares"], rel=1e-2)
    assert found["max_error"] == pytest.approx(sums(exact, low)["max_error"], rel=1e-2)


# -- law 1: never hide an error ------------------------------------------------------------------------------------


def add_then_subtract():
    nodes = [node("Add", ["x", "big"], ["a"], "add"), node("Sub", ["a", "big"], ["y"], "sub")]
    return model(nodes, [value("x", (1, 4))], [value("y", (1, 4))], [weight("big", 65504.0)])


def test_the_trap_a_native_fp16_graph_on_the_cpu_shows_no_error():
    """ONNX Runtime's CPU provider drops its own casts: the converted model looks perfect there, and is not."""
    x = np.float32([[1.0, 2.0, 3.0, 5.0]])
    bench = Bench.of(add_then_subtract(), {"x": x})
    (native,) = run(bench.converted(), {"x": x})
    assert np.abs(native - x).max() == 0.0, "the trap is gone: this runtime rounds; law 1 may be reconsidered"
    found = bench.accumulated()
    assert same(found.plan_outputs["y"], np.zeros_like(x))  # the truth: everything is lost
    sums_of = found.output_sums
    assert sums_of.rel_l2 == 1.0
    assert sums_of.sqnr_db == 0.0
    assert sums_of.max_error == 5.0


def test_the_trap_with_overflow():
    """64 and 65504 give 65568, which fp16 does not have: infinite, and the difference stays infinite."""
    x = np.float32([[64.0, 0.0, 16.0, 128.0]])
    bench = Bench.of(add_then_subtract(), {"x": x})
    (native,) = run(bench.converted(), {"x": x})
    assert np.isfinite(native).all()
    found = bench.planned()["y"]
    assert same(found, np.float32([[np.inf, 0, np.inf, np.inf]]))  # 16 is half a step: a tie, and it goes to infinity


@pytest.mark.parametrize("optimize", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_explicit_casts_are_honoured_at_every_level(optimize):
    """What the emulator rests on: a pair of Casts in an fp32 graph rounds, whatever ONNX Runtime optimizes."""
    nodes = [
        node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        node("Cast", ["h"], ["u"], to=FLOAT),
        node("Neg", ["u"], ["y"]),
    ]
    proto = model(nodes, [value("x", (6, 26))], [value("y", (6, 26))])
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, optimize)
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = numbers(0)
    assert same(session.run(None, {"x": x})[0], -rounded(x))


def test_matmul_overflow():
    """A sum beyond 65504 is infinite when stored, although every factor is small; bf16 has the range for it."""
    x, w = np.full((1, 512), 16.0, np.float32), np.full((512, 4), 16.0, np.float32)
    nodes = [node("MatMul", ["x", "w"], ["a"], "mm"), node("Mul", ["a", "s"], ["y"], "scale")]
    weights = [weight("w", w), weight("s", 1 / 1024)]
    proto = model(nodes, [value("x", x.shape)], [value("y", (1, 4))], weights)
    bench = Bench.of(proto, {"x": x})
    assert same(run(bench.converted(), {"x": x})[0], np.full((1, 4), 128.0, np.float32)), "the native graph hides it"
    assert np.isinf(bench.planned()["y"]).all()
    assert entries(bench.emulator.ranges())["a"]["overflow"] == 4
    assert entries(bench.emulator.local())["a"]["infinite"] == 4
    assert same(bench.planned(Plan().block(op_types=["MatMul", "Mul"]))["y"], np.full((1, 4), 128.0, np.float32))
    in_bf16 = Bench.of(proto, {"x": x}, Plan(format="bf16"))
    assert same(in_bf16.planned()["y"], np.full((1, 4), 128.0, np.float32))


@pytest.mark.parametrize("low_format", FORMATS)
def test_fill_values_are_stored_low(low_format):
    """A layer that makes values from an attribute stores them in the format."""
    nodes = [
        node("Shape", ["x"], ["s"], "shape"),
        node("ConstantOfShape", ["s"], ["y"], "fill", value=numpy_helper.from_array(np.float32([0.1]))),
    ]
    proto = model(nodes, [value("x")], [value("y")], opset=20)
    bench = Bench.of(proto, {"x": np.ones((2, 4), np.float32)}, Plan(format=low_format))
    assert same(bench.planned()["y"], np.full((2, 4), rounded(0.1, low_format), np.float32))


def test_a_condition_needs_no_rounding():
    """Bools and integers pass a low Where untouched."""
    x = np.float32([[0.1, 0.2, 0.3, 0.4]])
    proto = model(
        [node("Where", ["c", "x", "w"], ["y"], "pick")],
        [value("x", x.shape), value("c", x.shape, BOOL)],
        [value("y", x.shape)],
        [weight("w", 7.7)],
    )
    c = np.array([[True, False, True, False]])
    plan = Plan().set({"pick": "fp16"})  # by itself it would take the widest: the fp32 input
    assert same(Bench.of(proto, {"x": x, "c": c}, plan).planned()["y"], where(c, rounded(x), rounded(7.7)))
