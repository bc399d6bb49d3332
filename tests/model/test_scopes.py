"""Where layers stand in the source model."""

from __future__ import annotations

import pytest
from support.graphs import model, node, value

from explorer.model import load_model
from explorer.model.scopes import code_of, scope_of, source_of

SCOPES = "pkg.torch.onnx.name_scopes"
TRACE = "pkg.torch.onnx.stack_trace"


@pytest.mark.parametrize(
    ("name", "scopes", "wanted"),
    [
        ("n", "['', 'encoder', 'encoder.layer.3', 'linear_1']", "encoder/layer.3"),
        ("n", "['', 'linear']", ""),
        ("n", "['', 'a', 'a.b', 'a.b.c', 'x']", "a/b/c"),
        ("n", "['', 'a', 'other', 'x']", "a/other"),
        ("/a/b/MatMul", "not a list", "a/b"),
        ("/a/b/MatMul", "[1, 2]", "a/b"),
        ("/a/b/MatMul", "[]", "a/b"),
        ("/a/b/MatMul", "__import__('os').system('true')", "a/b"),
        ("/a//b/MatMul", None, "a/b"),
        ("a.b.conv", None, "a/b"),
        ("conv", None, ""),
        ("", None, ""),
        ("/", None, ""),
    ],
)
def test_scope(name, scopes, wanted):
    assert scope_of(name, {} if scopes is None else {SCOPES: scopes}) == wanted


def test_source_is_the_innermost_frame():
    trace = 'File "/m/model.py", line 3, in forward\n  x\nFile "/m/block.py", line 12, in forward\n  y'
    assert source_of({TRACE: trace}) == "/m/block.py:12"
    assert source_of({}) == source_of({TRACE: "nothing"}) == ""


def test_code_is_the_line_of_the_innermost_frame():
    trace = 'File "/m/model.py", line 3, in f\n    x = f(y)\nFile "/m/block.py", line 12, in f\n    <b> = y\n    ^^^'
    assert code_of({TRACE: trace}) == "<b> = y"
    bare = 'File "/m/model.py", line 3, in forward\nFile "/m/block.py", line 12, in forward'
    assert code_of({TRACE: bare}) == code_of({}) == code_of({TRACE: "nothing"}) == ""


def test_layers_carry_scope_and_source_of_their_nodes():
    one = node("Relu", ["x"], ["a"], "node_relu")
    for key, text in ((SCOPES, "['', 'body', 'body.act', 'relu']"), (TRACE, 'File "m.py", line 7, in f')):
        entry = one.metadata_props.add()
        entry.key, entry.value = key, text
    source = model([one, node("Neg", ["a"], ["y"], "/head/Neg")], [value("x")], [value("y")])
    first, second = load_model(source).layers
    assert (first.scope, first.source) == ("body/act", "m.py:7")
    assert (second.scope, second.source) == ("head", "")
