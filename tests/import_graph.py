"""Which modules of pneumo a module imports, read from the source without running it."""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "pneumo"


def find_room(path: Path) -> str:
    """Return the room that a file of pneumo lies in, or its own name where it lies in none."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def module_path(name: str) -> Path | None:
    """Return the file of a dotted module name, or None where it is no module of pneumo."""
    path = ROOT / "src" / Path(*name.split("."))
    if path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").is_file() else None


@functools.cache
def imported_names(path: Path) -> frozenset[str]:
    """Return every dotted name that a file imports, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"Expected absolute imports. Received: a relative one in {path}"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms whose modules a file imports itself."""
    names = {name for name in imported_names(path) if name.startswith("pneumo.")}
    return {find_room(module) for name in names if (module := module_path(name)) is not None}


def project_modules(path: Path) -> set[Path]:
    """Return the files of pneumo that a file imports, transitively, with itself."""
    found: set[Path] = set()
    todo = [path]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        paths = {module_path(name) for name in imported_names(path) if name.startswith("pneumo.")}
        todo += [each for each in paths if each and imported_names(each) | {each.name} != {"__init__.py"}]
    return found
