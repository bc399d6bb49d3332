"""The house: rooms import downwards, the package is light to import, and files and metadata keep their promises."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import explorer

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "explorer"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))

ROOMS = (
    "errors", "_optional", "formats", "model", "plan", "backends", "calibrate", "convert", "measure", "probe", "search",
    "results", "export", "advise", "scene", "report", "reporting", "view", "session", "opening", "cli",
)  # fmt: skip
TYPES_ONLY = {("reporting", "session"), ("view", "session")}  # annotations name a class of a later room; no import
HEAVY = (
    "anywidget", "ipywidgets", "jinja2", "onnx", "onnx_ir", "onnxruntime", "pandas", "plotly", "rich", "scipy",
    "tensorrt", "torch", "typer",
)  # fmt: skip
IMPORT_SECONDS = 1.0  # of CPU; measured 0.05 s; the bound only catches a heavy package that is not listed
SOURCES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """Returns the room of a source file; empty for the package's own entry points."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first in ("__init__", "__main__") else first


def is_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree: ast.AST, *, types_only: bool = False):
    """Yields (name of an imported module, whether it is for annotations only), lazy imports included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, types_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import: {ast.unparse(node)}"
            yield from ((f"{node.module}.{alias.name}", types_only) for alias in node.names)
        if is_types_only(node):
            for inner in node.body:
                yield from imports(ast.Module([inner], []), types_only=True)
            yield from imports(ast.Module(node.orelse, []), types_only=types_only)
        else:
            yield from imports(node, types_only=types_only)


def room_imports(path: Path):
    for name, types_only in imports(ast.parse(path.read_text(encoding="utf-8"))):
        package, _, rest = name.partition(".")
        room = rest.partition(".")[0]
        if package == "explorer" and room in ROOMS:
            yield room, types_only


def test_every_source_is_in_a_room():
    assert {room_of(path) for path in SOURCES} - {""} <= set(ROOMS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_downwards_only(path):
    """A room imports itself and rooms before it; lazily too, and for annotations too, but for the listed ones."""
    here = room_of(path)
    if not here:
        return
    wrong = {
        room
        for room, types_only in room_imports(path)
        if ROOMS.index(room) > ROOMS.index(here) and not (types_only and (here, room) in TYPES_ONLY)
    }
    assert not wrong, f"{here} imports {sorted(wrong)}, which come after it"


def test_exceptions_from_the_order_are_in_use():
    used = {(room_of(path), room) for path in SOURCES for room, types_only in room_imports(path) if types_only}
    assert used >= TYPES_ONLY


def test_import_is_light():
    """`import explorer` loads no heavy package, and is fast."""
    code = (
        "import sys, time; start = time.process_time(); import explorer; print(time.process_time() - start)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *modules = done.stdout.split()
    assert not set(modules) & set(HEAVY)
    assert float(seconds) < IMPORT_SECONDS


def test_command_line_imports_no_runtime_for_help():
    code = (
        "import sys; sys.argv = ['precision-explorer', '--help']; from explorer.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stderr.split()) & {"onnxruntime", "pandas", "plotly", "scipy", "torch"}


def test_all_is_the_namespace():
    """`__all__` is what `dir()` shows, every name in it exists, and nothing else public lies about."""
    assert sorted(explorer.__all__) == list(explorer.__all__)
    assert dir(explorer) == sorted(explorer.__all__)
    for name in explorer.__all__:
        assert getattr(explorer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        explorer.nothing  # noqa: B018 - the access is what is tested


def test_every_room_names_what_it_offers():
    for room in ROOMS:
        if not (PACKAGE / room / "__init__.py").exists():
            continue
        module = importlib.import_module(f"explorer.{room}")
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"explorer.{room}.__all__ names {name}"


def public_things():
    for name in explorer.__all__:
        thing = getattr(explorer, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        yield name, thing
        for member, value in vars(thing).items() if inspect.isclass(thing) else ():
            if not member.startswith("_") and (callable(value) or isinstance(value, (property, classmethod))):
                yield f"{name}.{member}", value


PUBLIC = dict(public_things())


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_docstrings(name):
    text = inspect.getdoc(PUBLIC[name])
    assert text, name
    assert text.splitlines()[0].strip().endswith((".", "?", ":"))


def test_version_has_one_home():
    assert "version" in PROJECT["project"]["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", explorer.__version__)


def test_extras_are_valid_and_told():
    """Every extra parses, every one that code asks for exists, and the two runtimes never meet in one."""
    requirements = pytest.importorskip("packaging.requirements", reason="packaging reads requirements")
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(extras) == {"cpu", "gpu", "tensorrt", "lab", "training", "docs", "dev"}
    names = {extra: {requirements.Requirement(line).name for line in lines} for extra, lines in extras.items()}
    base = {requirements.Requirement(line).name for line in PROJECT["project"]["dependencies"]}
    owners = {extra for extra, found in names.items() if found & {"onnxruntime", "onnxruntime-gpu"}}
    assert owners == {"cpu", "gpu"}
    assert not base & {"onnxruntime", "onnxruntime-gpu"}
    asked = set()
    for path in SOURCES:
        asked |= set(re.findall(r'extra="(\w+)"', path.read_text(encoding="utf-8")))
    assert asked <= set(extras)
    told = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")
    assert not [extra for extra in extras if f"`{extra}`" not in told]


def targets() -> set[str]:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs"])
def test_make_commands_exist(page):
    """Every `make X` that a page shows is a target; the README shows the two that matter."""
    place = REPOSITORY / page
    text = "".join(each.read_text(encoding="utf-8") for each in ([place] if place.is_file() else place.glob("*.md")))
    shown = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text, re.MULTILINE))
    assert shown <= targets()
    if page == "README.md":
        assert {"explore", "test"} <= shown


def test_every_target_is_told_by_help():
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"^([a-z][a-z-]*):.*## ", text, re.MULTILINE)) == targets()


def test_pages_link_to_files_that_exist():
    pages = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), REPOSITORY / "sample_models" / "README.md"]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def tracked() -> list[Path]:
    """Returns the files that git would take; all but the ignored ones, where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    return [REPOSITORY / line for line in done.stdout.splitlines() if (REPOSITORY / line).is_file()]


def test_files_name_no_machine():
    """No tracked text names a folder of the machine that it was written on."""
    private = re.compile(r"(?<![\w.*}\"'$)])/(?:work|root|home|Users|farm)/\w|\." + "library/")
    for path in tracked():
        if path.suffix in (".onnx", ".npz", ".png") or path.name.endswith(".min.js"):
            continue
        found = private.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.relative_to(REPOSITORY)}: {found and found.group()}"


def test_tracked_files_are_small():
    assert not [path.name for path in tracked() if path.stat().st_size > 3_000_000]
    assert not [path.name for path in tracked() if path.suffix == ".png" and path.stat().st_size > 300_000]


@pytest.mark.slow
def test_wheel_holds_the_data_files(tmp_path):
    """The wheel carries the report's templates and scripts, the kernel snapshots and py.typed; and no tests."""
    pytest.importorskip("build", reason="needs build: pip install .[dev]")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    data = {path for path in tracked() if path.is_relative_to(PACKAGE) and path.name != "README.md"}
    assert {str(path.relative_to(REPOSITORY)) for path in data} <= held
    assert {"explorer/py.typed", "explorer/report/templates/report.html.j2"} <= held
    assert not [name for name in held if not name.startswith(("explorer/", "precision_explorer-"))]
