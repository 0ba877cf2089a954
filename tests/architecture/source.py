"""The product's source, read as a tree: which module imports what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHIMS = ("wsgi.py", "celeryconfig.py")


@cache
def modules() -> dict[str, ast.Module]:
    """Return every module of the product by its dotted name."""
    files = [
        *(ROOT / "chat_backend").rglob("*.py"),
        *(ROOT / "workers").rglob("*.py"),
        *(ROOT / name for name in SHIMS),
    ]
    return {_name(path): ast.parse(path.read_text(), str(path)) for path in files}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(name: str) -> Iterator[str]:
    """Yield what a module imports, wherever in it, as dotted names; not what only a type checker sees."""
    for node in _running(modules()[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not _for_type_checkers(child):
            yield child
            yield from _running(child)


def _for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def room(name: str) -> str:
    """Return the room of a module: `workers`, `web`, `services`, ... or the module's own name at the top."""
    parts = name.split(".")
    return parts[0] if parts[0] != "chat_backend" or len(parts) == 1 else parts[1]


def uses(library: str) -> set[str]:
    """Return the modules that import a library."""
    return {name for name in modules() if any(found.split(".")[0] == library for found in imports(name))}
