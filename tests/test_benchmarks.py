"""Benchmarks take minutes, so no test runs them; this one notices a name that was moved away from them."""

import ast
import contextlib
import importlib
import importlib.util
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


def imports(code):
    """The statements of a script that import, those of scripts that it holds as text included."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "from avsc_e2e" in node.value:
            with contextlib.suppress(SyntaxError):  # a docstring about it
                yield from imports(node.value)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_names_that_a_benchmark_imports_exist(script):
    lost = []
    for node in imports(script.read_text(encoding="utf-8")):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("avsc_e2e"):
            continue
        module = importlib.import_module(node.module)
        for alias in node.names:
            if not hasattr(module, alias.name) and not importlib.util.find_spec(f"{node.module}.{alias.name}"):
                lost.append(f"{node.module}.{alias.name}")
    assert not lost
