"""Python that makes a plan, or the whole state of an exploration, again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from explorer.calibrate.calibration import METHODS
from explorer.convert import DEFAULT_TARGET
from explorer.plan import PRESETS, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from explorer.calibrate import Calibration
    from explorer.model import Samples
    from explorer.plan import Rule

__all__ = ["RULE_ARGUMENTS", "calibration_lines", "plan_calls", "rule_runs", "session_code"]

WIDTH: Final = 100  # columns; a single longer name still stands on one line
RULE_ARGUMENTS: Final = {"op": "op_types", "layer": "layers", "scope": "scopes"}
_INDENT: Final = "    "
_CALIBRATION: Final = {"method": "percentile", "percentile": 99.99, "samples": 500}  # as Exploration.calibrate has it
_HIGH: Final = "fp32"
_INT8: Final = "int8"


@dataclass(frozen=True)
class _Call:
    """One method call: its name and its arguments, by keyword (an empty keyword is a positional argument)."""

    method: str
    arguments: tuple[tuple[str, Any], ...]

    def text(self) -> str:
        """Return the call on one line."""
        return f"{self.method}({', '.join(_argument(name, repr(value)) for name, value in self.arguments)})"

    def on(self, plan: Plan) -> Plan:
        """Return what the call makes of a plan."""
        given = [value for name, value in self.arguments if not name]
        made: Plan = getattr(plan, self.method)(*given, **{name: value for name, value in self.arguments if name})
        return made

    def wrapped(self, indent: str) -> str:
        """Return the call in as many lines as it takes; the first is not indented."""
        if len(indent) + 1 + len(self.text()) <= WIDTH:
            return self.text()
        inner = indent + _INDENT
        lines = [f"{inner}{_argument(name, _wrapped(value, inner))}," for name, value in self.arguments]
        return "\n".join([f"{self.method}(", *lines, f"{indent})"])


def plan_calls(plan: Plan, name: str = "explorer.Plan") -> str:
    """Return the shortest readable Python expression that makes the plan.

    Long ones are wrapped at about 100 columns, inside parentheses; evaluating the expression gives an equal plan.

    Args:
        plan: the plan.
        name: what stands for the class :class:`explorer.Plan`.

    >>> print(plan_calls(Plan.preset("safe").block(op_types=["Gelu"]).set({"conv1": "fp32"})))
    explorer.Plan.preset('safe').block(op_types=['Gelu']).set({'conv1': 'fp32'})
    """
    start, calls = _calls(plan)
    line = name + start.text() + "".join(f".{call.text()}" for call in calls)
    if len(line) <= WIDTH:
        return line
    steps = [f"{_INDENT}.{call.wrapped(_INDENT)}" for call in calls]
    return "\n".join(["(", f"{_INDENT}{name}{start.wrapped(_INDENT)}", *steps, ")"])


def session_code(
    model: str | Path | None,
    plan: Plan,
    *,
    inputs: Samples | None = None,
    target: str | None = DEFAULT_TARGET,
    gpu_model: str | None = None,
    export: str | Path | None = None,
    report: str | Path | None = None,
    clamp: bool = False,
    calibration: Calibration | None = None,
) -> str:
    """Return a script that opens the model, sets the plan, measures, and writes model and report.

    Args:
        model: path of the ONNX file; None for one in memory, which the script says how to save.
        plan: the plan.
        inputs: the samples; None and random ones are left out.
        target: the backend whose kernels decide what may run low.
        gpu_model: the GPU that the report predicts latency for.
        export: the ONNX file to write; None writes none.
        report: the HTML file to write; None writes none.
        clamp: as :meth:`Exploration.export` takes it.
        calibration: what the scales of int8 come from; told only where the plan asks for int8.

    >>> print(session_code("net.onnx", Plan(), export="net.fp16.onnx"))
    import explorer
    <BLANKLINE>
    x = explorer.open('net.onnx')
    x.errors()
    x.export('net.fp16.onnx')
    """
    missing = [] if model else ["# The model was in memory: save it as model.onnx, with onnx.save(...)."]
    opened = [("", str(model or "model.onnx"))]
    if inputs is not None and inputs.origin == "user":
        if not inputs.path:
            missing.append("# The inputs were in memory: save them as inputs.npz, with numpy.savez(...).")
        opened.append(("inputs", inputs.path or "inputs.npz"))
    more: list[tuple[str, Any]] = [] if target == DEFAULT_TARGET else [("target", target)]
    lines = [*missing, "import explorer", "", f"x = {_Call('explorer.open', (*opened, *more)).wrapped(_INDENT[:0])}"]
    if calibration is not None and _INT8 in plan.formats:
        lines += calibration_lines(calibration)
    if plan != Plan():
        lines.append(f"x.plan = {plan_calls(plan)}")
    lines.append("x.errors()")
    clamped: tuple[tuple[str, Any], ...] = (("clamp", True),) if clamp else ()
    if export is not None:
        lines.append(_Call("x.export", (("", str(export)), *clamped)).text())
    if report is not None:
        gpu: tuple[tuple[str, Any], ...] = (("gpu_model", gpu_model),) if gpu_model else ()
        lines.append(_Call("x.report", (("", str(report)), *gpu, *clamped)).text())
    return "\n".join(lines)


def calibration_lines(calibration: Calibration) -> list[str]:
    """Return the lines that make or read a calibration again; none for the one that comes by itself.

    >>> from explorer.calibrate import Calibration
    >>> calibration_lines(Calibration({}, "entropy", 32, asked={"data": "train.npz", "method": "entropy"}))
    ["x.calibrate('train.npz', method='entropy')"]
    >>> calibration_lines(Calibration({}, "percentile", 360, asked={"data": None, "percentile": 99.99}))
    []
    >>> calibration_lines(Calibration({}, "entropy", 32, found_in="net.calibration.json"))
    ["x.calibration = explorer.Calibration.load('net.calibration.json')"]
    """
    if not calibration.asked:
        if not calibration.found_in:
            return [f"# The scales of int8 ({calibration.description}) were in memory: set x.calibration to them."]
        if calibration.method in METHODS:
            return [f"x.calibration = explorer.Calibration.load({calibration.found_in!r})"]
        return [f"x.calibration = explorer.read_tensorrt_cache({calibration.found_in!r}, x.model)"]
    data = calibration.asked["data"]
    more = [(name, given) for name, given in calibration.asked.items() if given != _CALIBRATION.get(name, given)]
    if data is None:
        return [_Call("x.calibrate", tuple(more)).text()] if more else []
    known = [] if data else ["# The samples of the calibration were in memory: save them, with numpy.savez(...)."]
    return [*known, _Call("x.calibrate", (("", data or "calibration.npz"), *more)).text()]


def _calls(plan: Plan) -> tuple[_Call, list[_Call]]:
    """Return how the plan begins, and the calls that add the rest; the way with the fewest characters."""
    ways = []
    for preset in PRESETS:
        start = Plan.preset(preset, format=plan.format, keep_io=plan.keep_io)
        if start.base == plan.base and plan.rules[: len(start.rules)] == start.rules:
            ways.append((_start(preset, plan), start))
    found = []
    for begin, start in ways:
        made, calls = start, []
        for run in rule_runs(plan.rules[len(start.rules) :]):
            call = _rule_call(run, plan.format)
            made = call.on(made)
            calls.append(call)
        if plan.overrides:
            calls.append(_Call("set", (("", dict(plan.overrides)),)))
            made = made.set(plan.overrides)
        if made == plan:
            found.append((begin, calls))
    if not found:  # a rule that names the same twice, which only a plan that was read from a file can have
        return _Call(".from_json", (("", plan.to_json()),)), []
    return min(found, key=lambda way: len(way[0].text()) + sum(len(call.text()) for call in way[1]))


def _start(preset: str, plan: Plan) -> _Call:
    more: list[tuple[str, Any]] = [] if plan.format == Plan().format else [("format", plan.format)]
    if not plan.keep_io:
        more.append(("keep_io", False))
    return _Call("", tuple(more)) if preset == "full" else _Call(".preset", (("", preset), *more))


def rule_runs(rules: Iterable[Rule]) -> list[list[Rule]]:
    """Return the rules in stretches that one call adds in the same order."""
    order = list(RULE_ARGUMENTS)
    runs: list[list[Rule]] = []
    for rule in rules:
        last = runs[-1][-1] if runs else None
        if last and last.format == rule.format and order.index(last.kind) <= order.index(rule.kind):
            runs[-1].append(rule)
        else:
            runs.append([rule])
    return runs


def _rule_call(run: Sequence[Rule], low_format: str) -> _Call:
    named: dict[str, list[str]] = {}
    for rule in run:
        named.setdefault(RULE_ARGUMENTS[rule.kind], []).append(rule.pattern)
    first: tuple[tuple[str, Any], ...] = ()
    method = {_HIGH: "block", low_format: "allow"}.get(run[0].format, "use")
    if method == "use":
        first = (("", run[0].format),)
    return _Call(method, (*first, *named.items()))


def _argument(name: str, value: str) -> str:
    return f"{name}={value}" if name else value


def _wrapped(value: list[str] | Mapping[str, str] | object, indent: str) -> str:
    """Return a value as Python, one item a line where it is too long for one."""
    if isinstance(value, list):
        items = [repr(item) for item in value]
        brackets = "[]"
    elif isinstance(value, dict):
        items = [f"{key!r}: {item!r}" for key, item in value.items()]
        brackets = "{}"
    else:
        return repr(value)
    line = f"{brackets[0]}{', '.join(items)}{brackets[1]}"
    if len(indent) + len(line) <= WIDTH:
        return line
    inner = indent + _INDENT
    return "\n".join([brackets[0], *_filled(items, inner), f"{indent}{brackets[1]}"])


def _filled(items: Iterable[str], indent: str) -> list[str]:
    """Return items with commas, as many to a line as fit."""
    lines: list[str] = []
    for item in items:
        piece = f"{item},"
        if lines and len(lines[-1]) + 1 + len(piece) <= WIDTH:
            lines[-1] += f" {piece}"
        else:
            lines.append(indent + piece)
    return lines
