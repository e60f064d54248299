"""Imports only go down the layers of docs/architecture.md."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from passivx._core import types

ROOT = Path(__file__).parents[1] / "passivx"

# From the bottom up; siblings share a set and must not import each other.
LAYERS = [
    {"_core", "errors"},
    {"files", "documents", "breaks"},
    {"models", "clock"},
    {"config"},
    {"candidates", "workspace", "planner", "venue"},
    {"exchanges"},
    {"data"},
    {"report", "simulator"},
    {"backtesting"},
    {"optimizer", "live"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# The package's own face and `python -m passivx` stand outside the picture.
OUTSIDE = {"__init__", "__main__"}


def imported_parts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports name the package: a relative one would not be checked"
            names = (
                [f"passivx.{alias.name}" for alias in node.names]
                if node.module == "passivx"
                else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "passivx" and len(parts) > 1:
                yield parts[1]


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


PYTHON_FILES = sorted(p for p in ROOT.rglob("*.py") if part_of(p) not in OUTSIDE)


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path):
    part = part_of(path)
    assert part in RANK, f"{part} has no layer: add it to LAYERS and docs/architecture.md"
    for target in set(imported_parts(ast.parse(path.read_text()))) - {part}:
        assert RANK[target] < RANK[part], f"{part} must not import {target}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("_core/*.p[xy][dx]")), ids=lambda p: p.name)
def test_the_core_imports_only_itself(path):
    for module in re.findall(r"(?:from|import|cimport)\s+(passivx[\w.]*)", path.read_text()):
        assert module.startswith("passivx._core")


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_evaluated_or_unpickled(path):
    text = path.read_text()
    assert not re.search(r"\b(eval|exec)\(", text)
    assert "pickle" not in text or "allow_pickle=False" in text


def test_every_folder_of_the_package_is_installed():
    declared = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {".".join(path.parent.relative_to(ROOT.parent).parts)
               for path in ROOT.rglob("__init__.py")}  # fmt: skip
    assert set(declared["packages"]) == folders | {"passivx.configs"}


def test_structs_and_their_dtypes_name_the_same_fields_in_the_same_order():
    text = (ROOT / "_core" / "types.pxd").read_text()
    structs = re.findall(r"cdef struct (\w+):.*?\n(.*?)\n\n", text, re.DOTALL)
    assert len(structs) == 9
    for name, body in structs:
        fields = re.findall(r"^    \w+ (\w+)", body, re.MULTILINE)
        assert list(getattr(types, f"{name.upper()}_DTYPE").names) == fields


def test_every_compiled_module_has_a_stub_and_no_directives_of_its_own():
    for path in ROOT.glob("_core/*.pyx"):
        assert path.with_suffix(".pyi").exists(), f"{path.name} has no stub"
        assert "# cython:" not in path.read_text(), f"{path.name}: directives live in setup.py"
