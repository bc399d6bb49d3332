"""Reads js/src/protocol.ts and holds values of Python to the types that are written there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

PROTOCOL = Path(__file__).resolve().parents[2] / "js" / "src" / "protocol.ts"
ARRAYS = {
    "Uint8Array": np.uint8, "Uint16Array": np.uint16, "Float32Array": np.float32, "Float64Array": np.float64,
}  # fmt: skip
TOKEN = re.compile(r'"[^"]*"|[A-Za-z_$][\w$]*|\d+|\[\]|[{}()\[\]<>|:;,?]')


class Types:
    """The exported types of protocol.ts: each a parsed type.

    A type is ("object", {name: (type, optional)}), ("array", type), ("union", types), ("tuple", types),
    ("record", type), ("literal", value) or ("name", name).
    """

    def __init__(self, text=None):
        source = PROTOCOL.read_text(encoding="utf-8") if text is None else text
        source = re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)
        self._tokens = TOKEN.findall(re.sub(r"//.*", "", source).replace("=", ":"))
        self.known = {}
        while self._tokens:
            self._declaration()

    def _next(self, *wanted):
        token = self._tokens.pop(0)
        assert not wanted or token in wanted, f"{token} is none of {wanted}; next: {self._tokens[:8]}"
        return token

    def _declaration(self):
        self._next("export")
        kind, name = self._next("interface", "type"), self._next()
        if kind == "type":
            self._next(":")
        self.known[name] = self._type()
        if self._tokens and self._tokens[0] == ";":
            self._next()

    def _type(self):
        if self._tokens[0] == "|":
            self._next()
        found = [self._postfix()]
        while self._tokens and self._tokens[0] == "|":
            self._next()
            found.append(self._postfix())
        return found[0] if len(found) == 1 else ("union", found)

    def _postfix(self):
        found = self._primary()
        while self._tokens and self._tokens[0] == "[]":
            self._next()
            found = ("array", found)
        return found

    def _primary(self):
        token = self._next()
        if token == "(":
            found = self._type()
            self._next(")")
            return found
        if token == "{":
            return self._members()
        if token == "[":
            found = [self._type()]
            while self._next(",", "]") == ",":
                if self._tokens[0] != "]":
                    found.append(self._type())
            return ("tuple", found)
        if token.startswith('"') or token.isdigit():
            return ("literal", token.strip('"') if token.startswith('"') else int(token))
        if token == "Record":
            self._next("<")
            self._type()
            self._next(",")
            found = self._type()
            self._next(">")
            return ("record", found)
        if token == "keyof":
            self._next()
            return ("name", "string")
        return ("name", token)

    def _members(self):
        members = {}
        while self._tokens[0] != "}":
            name, optional = self._next(), False
            if self._tokens[0] == "?":
                optional = bool(self._next())
            self._next(":")
            members[name] = (self._type(), optional)
            if self._tokens[0] in (";", ","):
                self._next()
        self._next("}")
        return ("object", members)

    # -- checks --------------------------------------------------------------------------------------------------------

    def check(self, value, wanted, where="value"):
        """Fails where a value is not of a type: a name of protocol.ts, or a parsed type."""
        why = self.complaint(value, ("name", wanted) if isinstance(wanted, str) else wanted, where)
        assert why is None, why

    def complaint(self, value, wanted, where):
        kind, inner = wanted
        if kind == "union":
            found = [self.complaint(value, each, where) for each in inner]
            return None if None in found else max(found, key=len)
        if kind == "array":
            if not isinstance(value, (list, tuple)):
                return f"{where} is no array: {value!r:.80}"
            return self._first((each, inner, f"{where}[{at}]") for at, each in enumerate(value))
        if kind == "record":
            if inner == ("name", "never"):
                return None if value == {} else f"{where} is not empty"
            if not isinstance(value, dict):
                return f"{where} is no object"
            return self._first((each, inner, f"{where}[{key!r}]") for key, each in value.items())
        if kind == "literal":
            return None if value == inner and type(value) is type(inner) else f"{where} is {value!r:.80}, not {inner!r}"
        if kind == "object":
            return self._object(value, inner, where)
        return self._named(value, inner, where)

    def _first(self, items):
        return next((why for item in items if (why := self.complaint(*item)) is not None), None)

    def _object(self, value, members, where):
        if not isinstance(value, dict):
            return f"{where} is no object: {value!r:.80}"
        needed = {name for name, (_, optional) in members.items() if not optional}
        if missing := needed - set(value):
            return f"{where} lacks {sorted(missing)}"
        if unknown := set(value) - set(members):
            return f"{where} has {sorted(unknown)}, of which protocol.ts knows nothing"
        return self._first((each, members[key][0], f"{where}.{key}") for key, each in value.items())

    def _named(self, value, name, where):
        if name in ARRAYS:
            if isinstance(value, dict):  # a typed array of an answer travels as a buffer
                return None if set(value) == {"$buffer", "dtype"} else f"{where} is no buffer"
            return None if getattr(value, "dtype", None) == ARRAYS[name] else f"{where} is no {name}"
        plain = {"string": str, "boolean": bool, "null": type(None)}
        if name in plain:
            return None if isinstance(value, plain[name]) else f"{where} is {value!r:.80}, no {name}"
        if name == "number":
            return None if type(value) in (int, float) else f"{where} is {value!r:.80}, no number"
        return self.complaint(value, self.known[name], where)
