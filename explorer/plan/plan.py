"""The plan: an immutable map from layers to formats, made of a preset, rules and single overrides."""

from __future__ import annotations

import fnmatch
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from explorer.errors import PlanError, nearest
from explorer.formats import FORMATS
from explorer.plan.presets import PRESETS, SAFE_BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

    from explorer.model import Layer, Model

__all__ = ["Plan", "Rule", "Wish"]

_KINDS = ("op", "layer", "scope")
_JSON_VERSION = 1
_HIGH = "fp32"
_MIXED = ("fp16", "bf16")  # low formats of plans that may run layers in int8 besides
_INT8 = "int8"


@dataclass(frozen=True, slots=True)
class Rule:
    """Layers that match ``pattern`` run in ``format``.

    Attributes:
        kind: ``op`` (operator type), ``layer`` (glob over id, name, and scope with them) or ``scope`` (the scope and
            all below it).
        pattern: what to match; ``*`` and ``?`` as in file names, ``/`` is an ordinary letter. The id of a layer means
            that layer alone, whatever it is made of.
        format: the format to run in.
    """

    kind: str
    pattern: str
    format: str

    def matcher(self, ids: Container[str] = ()) -> Callable[[Layer], bool]:
        """Return a predicate on layers, compiled once.

        Args:
            ids: of the layers that there are: a pattern that is one of them, letter for letter, means that layer alone.
        """
        pattern = self.pattern.strip("/") if self.kind == "scope" else self.pattern
        if self.kind == "layer" and pattern in ids:
            return lambda layer: layer.id == pattern
        if self.kind == "op":
            return lambda layer: fnmatch.fnmatchcase(layer.qualified_op, pattern)
        glob = re.compile(fnmatch.translate(pattern))
        if self.kind == "scope":
            inside = re.compile(fnmatch.translate(f"{pattern}/*"))
            return lambda layer: bool(glob.match(layer.scope) or inside.match(layer.scope))
        return lambda layer: any(name == pattern or glob.match(name) for name in _names(layer))

    def __str__(self) -> str:
        subject = {"op": "operator", "layer": "layers", "scope": "scope"}[self.kind]
        return f"{subject} {self.pattern} in {self.format}"


def _names(layer: Layer) -> tuple[str, ...]:
    """Return every name under which a user may know the layer."""
    own = [layer.id, layer.id.strip("/"), layer.name, layer.scope]
    if layer.scope:
        own.append(f"{layer.scope}/{layer.id}")
        # `norm/Add_1` is no `norm/Add`, which is another layer's id; only a name that tells no operator is given one.
        if not re.fullmatch(rf"{re.escape(layer.op)}(_\d+)?", layer.id.rpartition("/")[2]):
            own.append(f"{layer.scope}/{layer.op}")
    return tuple(own)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a plan asks of one layer.

    Attributes:
        format: the format.
        reason: why, in words.
        by: what asks for it: ``default`` (the plan's base), ``rule``, or ``override`` (the user named this very layer).
    """

    format: str
    reason: str
    by: str = "default"


@dataclass(frozen=True)
class Plan:
    """Which layer runs in which format; immutable, every method returns a new plan.

    >>> plan = Plan().block(op_types=["Softmax"]).set({"conv1": "fp32"})
    >>> Plan.from_json(plan.to_json()) == plan
    True

    Attributes:
        format: the low format of the plan, any but ``fp32``. A plan of ``fp16`` or ``bf16`` may ask for ``int8`` too.
        base: what layers run in that no rule names: the low format, or ``fp32``.
        keep_io: graph inputs and outputs keep their types; only in plans of ``fp16`` and ``bf16`` they may not.
        rules: later ones win over earlier ones.
        overrides: layer id to format; they win over all rules.
    """

    format: str = "fp16"
    base: str = ""
    keep_io: bool = True
    rules: tuple[Rule, ...] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.format == _HIGH or self.format not in FORMATS:
            raise PlanError(
                f"'{self.format}' is no low format of a plan.",
                fix=nearest(self.format, FORMATS)
                or f"Use one of: {', '.join(name for name in FORMATS if name != _HIGH)}.",
            )
        object.__setattr__(self, "base", self.base or self.format)
        object.__setattr__(self, "overrides", MappingProxyType(dict(self.overrides)))
        if not self.keep_io and self.format not in _MIXED:
            raise PlanError(
                f"The model's inputs and outputs cannot be {self.format}.",
                why="Only fp16 and bf16 are types that operators take and give; other formats stand inside of a model.",
                fix="Use keep_io=True.",
            )
        allowed = (_HIGH, self.format, *((_INT8,) if self.format in _MIXED else ()))
        for name in (self.base, *(rule.format for rule in self.rules), *self.overrides.values()):
            if name not in allowed:
                raise PlanError(
                    f"The plan is of {self.format} and asks for '{name}'.",
                    why="A plan has one low format; only one of fp16 or bf16 may name int8 besides.",
                    fix=f"Use {' or '.join(repr(each) for each in allowed)}.",
                )

    def __hash__(self) -> int:
        return hash((self.format, self.base, self.keep_io, self.rules, tuple(sorted(self.overrides.items()))))

    @classmethod
    def preset(cls, name: str, *, format: str = "fp16", keep_io: bool = True) -> Plan:  # noqa: A002 - the field's word
        """Return the named preset: ``full``, ``safe`` or ``fp32``.

        Raises:
            PlanError: there is no preset of this name.
        """
        if name not in PRESETS:
            raise PlanError(
                f"There is no preset '{name}'.", fix=nearest(name, PRESETS) or f"Known: {', '.join(PRESETS)}."
            )
        rules = tuple(Rule("op", op, _HIGH) for op in SAFE_BLOCK) if name == "safe" else ()
        return cls(format=format, base=_HIGH if name == "fp32" else format, keep_io=keep_io, rules=rules)

    def block(self, *, op_types: Iterable[str] = (), layers: Iterable[str] = (), scopes: Iterable[str] = ()) -> Plan:
        """Return the plan with these layers on the blacklist: they stay in fp32.

        Args:
            op_types: operator types.
            layers: layer ids, names or glob patterns over them.
            scopes: scopes, or glob patterns over them; everything below is meant too.
        """
        return self._with(_HIGH, op_types, layers, scopes)

    def allow(self, *, op_types: Iterable[str] = (), layers: Iterable[str] = (), scopes: Iterable[str] = ()) -> Plan:
        """Return the plan with these layers in the low format again; arguments as for :meth:`block`."""
        return self._with(self.format, op_types, layers, scopes)

    def use(
        self,
        format: str,  # noqa: A002 - the field's word
        *,
        op_types: Iterable[str] = (),
        layers: Iterable[str] = (),
        scopes: Iterable[str] = (),
    ) -> Plan:
        """Return the plan with these layers in a format; arguments as for :meth:`block`.

        >>> Plan().use("int8", op_types=["Conv"]).formats
        ('fp16', 'int8')

        Raises:
            PlanError: the plan cannot have this format.
        """
        return self._with(format, op_types, layers, scopes)

    @property
    def formats(self) -> tuple[str, ...]:
        """The low formats that the plan names, its own first."""
        named = (self.base, *(rule.format for rule in self.rules), *self.overrides.values())
        return tuple(dict.fromkeys((self.format, *(name for name in named if name != _HIGH))))

    def _with(self, wanted: str, ops: Iterable[str], layers: Iterable[str], scopes: Iterable[str]) -> Plan:
        added = self._rules(wanted, ops, layers, scopes)
        kept = [
            rule for rule in self.rules if all((rule.kind, rule.pattern) != (new.kind, new.pattern) for new in added)
        ]
        return replace(self, rules=(*kept, *added))

    @staticmethod
    def _rules(wanted: str, ops: Iterable[str], layers: Iterable[str], scopes: Iterable[str]) -> list[Rule]:
        for name, given in (("op_types", ops), ("layers", layers), ("scopes", scopes)):
            if isinstance(given, str):
                raise PlanError(f"{name} is the single string '{given}'.", fix=f"Give a list: {name}=['{given}'].")
        return [Rule(kind, p, wanted) for kind, ps in zip(_KINDS, (ops, layers, scopes), strict=True) for p in ps]

    def set(self, formats: Mapping[str, str | None]) -> Plan:
        """Return the plan with single layers overridden; None takes an override away."""
        merged: dict[str, str | None] = {**self.overrides, **formats}
        return replace(self, overrides={key: value for key, value in merged.items() if value is not None})

    def drop(self, *, op_types: Iterable[str] = (), layers: Iterable[str] = (), scopes: Iterable[str] = ()) -> Plan:
        """Return the plan without the rules that name exactly these, whether they block or allow.

        Unlike :meth:`allow` it adds nothing: what the rule named is again what the other rules and the base make of it.

        >>> plan = Plan().block(op_types=["Softmax", "Exp"])
        >>> plan.drop(op_types=["Exp"]) == Plan().block(op_types=["Softmax"])
        True

        Args:
            op_types: patterns of operator rules, letter for letter.
            layers: likewise of layer rules.
            scopes: likewise of scope rules.
        """
        gone = {(rule.kind, rule.pattern) for rule in self._rules(_HIGH, op_types, layers, scopes)}
        return replace(self, rules=tuple(rule for rule in self.rules if (rule.kind, rule.pattern) not in gone))

    def unset(self, layers: Iterable[str] | None = None) -> Plan:
        """Return the plan without the overrides of these layers.

        >>> Plan().set({"conv1": "fp32"}).unset(["conv1"]) == Plan()
        True

        Args:
            layers: layer ids; None takes all overrides away.
        """
        if isinstance(layers, str):
            raise PlanError(f"layers is the single string '{layers}'.", fix=f"Give a list: layers=['{layers}'].")
        gone = set(self.overrides if layers is None else layers)
        return replace(self, overrides={key: value for key, value in self.overrides.items() if key not in gone})

    @property
    def preset_name(self) -> str:
        """Name of the preset that this plan equals; empty when it is none.

        >>> Plan.preset("safe").preset_name, Plan().block(op_types=["Exp"]).preset_name
        ('safe', '')
        """
        made = (name for name in PRESETS if self == Plan.preset(name, format=self.format, keep_io=self.keep_io))
        return next(made, "")

    def check(self, model: Model) -> None:
        """Check that every rule and override names something in ``model``; presets' own rules are exempt.

        Raises:
            PlanError: one names nothing; the nearest names are told.
        """
        preset = {Rule("op", op, _HIGH) for op in SAFE_BLOCK}
        for rule in self.rules:
            if rule in preset or any(map(rule.matcher(), model.layers)):
                continue
            known = {
                "op": {layer.qualified_op for layer in model.layers},
                "layer": {name for layer in model.layers for name in (layer.id, layer.name) if name},
                "scope": {layer.scope for layer in model.layers if layer.scope},
            }[rule.kind]
            what = {"op": "operator type", "layer": "layer", "scope": "scope"}[rule.kind]
            raise PlanError(
                f"The plan names the {what} '{rule.pattern}', and the model has none that matches.",
                why="A blacklist that names nothing protects nothing.",
                fix=nearest(rule.pattern, known) or f"`precision-explorer inspect` lists them ({len(known)} known).",
            )
        for layer_id in self.overrides:
            if layer_id not in model:
                raise PlanError(
                    f"The plan overrides the layer '{layer_id}', and the model has none of this id.",
                    fix=nearest(layer_id, (layer.id for layer in model.layers)) or "See `precision-explorer inspect`.",
                )

    def wishes(self, model: Model) -> dict[str, Wish]:
        """Return what the plan asks of each layer, by layer id."""
        start = Wish(self.base, f"the plan runs layers in {self.base} by default")
        found = dict.fromkeys((layer.id for layer in model.layers), start)
        by_op: dict[str, list[Layer]] = {}
        for layer in model.layers:
            by_op.setdefault(layer.qualified_op, []).append(layer)
        for rule in self.rules:
            candidates = by_op.get(rule.pattern, ()) if rule.kind == "op" and "*" not in rule.pattern else model.layers
            wish, matches = Wish(rule.format, _because(rule), "rule"), rule.matcher(model)
            for layer in candidates:
                if matches(layer):
                    found[layer.id] = wish
        for layer_id, wanted in self.overrides.items():
            found[layer_id] = Wish(wanted, f"set to {wanted} by the user", "override")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "version": _JSON_VERSION,
            "format": self.format,
            "base": self.base,
            "keep_io": self.keep_io,
            "rules": [{"kind": r.kind, "pattern": r.pattern, "format": r.format} for r in self.rules],
            "layers": dict(self.overrides),
        }

    def to_json(self) -> str:
        """Return the plan as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan that :meth:`to_json` wrote.

        Raises:
            PlanError: the text is no such plan.
        """
        try:
            data = json.loads(text)
            if data["version"] != _JSON_VERSION:
                raise PlanError(
                    f"The plan is of version {data['version']}; this package reads version {_JSON_VERSION}.",
                    fix="Upgrade the package.",
                )
            rules = tuple(Rule(str(r["kind"]), str(r["pattern"]), str(r["format"])) for r in data["rules"])
            if unknown := [rule.kind for rule in rules if rule.kind not in _KINDS]:
                raise PlanError(f"The plan has a rule of kind '{unknown[0]}'.", fix=f"Known: {', '.join(_KINDS)}.")
            return cls(str(data["format"]), str(data["base"]), bool(data["keep_io"]), rules, dict(data["layers"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(
                f"This is no plan: {type(error).__name__}: {error}.", fix="Give the plan.json that `explore` wrote."
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Return the plan in a file; raises PlanError when it cannot be read."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(f"The plan '{path}' cannot be read: {error}.", fix="Check the path.") from error

    def __str__(self) -> str:
        parts = [f"base {self.base}", "I/O kept" if self.keep_io else f"I/O in {self.format}"]
        parts += [str(rule) for rule in self.rules]
        parts += [f"{layer_id} in {wanted}" for layer_id, wanted in self.overrides.items()]
        return f"{self.format} plan: " + "; ".join(parts)


def _because(rule: Rule) -> str:
    if rule.format == _HIGH:
        return {
            "op": f"operator type {rule.pattern} is on the blacklist",
            "layer": f"on the blacklist by the pattern '{rule.pattern}'",
            "scope": f"the scope '{rule.pattern}' is on the blacklist",
        }[rule.kind]
    return f"allowed in {rule.format}: {rule.kind} '{rule.pattern}'"
