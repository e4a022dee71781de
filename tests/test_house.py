"""The house keeps its own rules: imports go one way, and importing is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the ground up; a room may import from itself, its level and what lies below.
LEVELS = [
    {"mmcore.errors"},
    {"mmcore.records", "mmcore.progress"},
    {"mmcore.config"},
    {"mmcore.storage"},
    {"mmcore.parallel"},
    {"mmcore.training"},
    {"mmcore.modalities", "mmcore.samples"},
    {"mmcore.sources"},
    {"mmcore.shards"},
    {"mmcore.quality"},
    {"mmcore.features"},
    {"mmcore.fusion"},
    {"mmcore.evaluation"},
    {"mmcore.report"},
    {"mmcore.planning"},
    {"tasks"},
    {"flows"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
ONLY_IN = {
    "prefect": ("tasks", "flows"),
    "dask": ("mmcore.parallel",),
    "distributed": ("mmcore.parallel",),
    "typer": ("flows",),
    "espeakng_loader": ("mmcore.samples",),
    "num2words": ("mmcore.samples",),
}
NO_DRAWERS = {"utils", "util", "helpers", "common", "manager", "misc"}


def _sources() -> list[Path]:
    return sorted(file for top in ("mmcore", "tasks", "flows") for file in (ROOT / top).rglob("*.py"))


def _module(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


def _room(module: str) -> str | None:
    parts = module.split(".")
    return next((room for n in (2, 1) if (room := ".".join(parts[:n])) in LEVEL), None)


def test_all_sources_are_seen() -> None:
    assert len(_sources()) > 40
    unplaced = [_module(f) for f in _sources() if _room(_module(f)) is None and _module(f) != "mmcore"]
    assert unplaced == [], "give these rooms a level"


@pytest.mark.parametrize("file", _sources(), ids=_module)
def test_imports_go_one_way(file: Path) -> None:
    room = _room(_module(file))
    if room is None:
        return
    for imported in _imports(file):
        other = _room(imported)
        if other is not None:
            assert LEVEL[other] < LEVEL[room] or other == room, f"{_module(file)} imports {imported} from above"


@pytest.mark.parametrize("file", _sources(), ids=_module)
def test_libraries_stay_in_their_rooms(file: Path) -> None:
    for imported in _imports(file):
        allowed = ONLY_IN.get(imported.split(".")[0])
        if allowed is not None:
            assert _module(file).startswith(allowed), f"{_module(file)} imports {imported}"


def test_no_drawers_for_odds_and_ends() -> None:
    assert [f for f in _sources() if f.stem in NO_DRAWERS or f.parent.name in NO_DRAWERS] == []


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import mmcore", ("torch", "dask", "distributed", "prefect", "numpy", "pyarrow", "pydantic")),
        ("import mmcore.config", ("torch", "dask", "distributed", "prefect", "numpy", "pyarrow")),
        ("import mmcore.planning", ("torch", "dask", "distributed", "prefect", "sklearn", "scipy")),
        ("import mmcore.shards.write, mmcore.modalities.text", ("torch", "dask", "distributed", "PIL", "soundfile")),
        ("from mmcore.shards import open_dataset, open_tars", ("torch", "dask", "distributed", "prefect", "PIL")),
        ("import flows.pipeline", ("torch", "dask", "distributed", "sklearn", "scipy")),
    ],
)
def test_importing_is_cheap(statement: str, absent: tuple[str, ...]) -> None:
    code = f"{statement}\nimport sys\nprint([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
