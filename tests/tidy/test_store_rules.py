"""Rules of the store whose breach loses data silently, so that no other test would notice (docs/adr)."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.tidy import tree

ROCKS: Final = tree.ROOT / "tq/store/rocks.py"
# Plain dicts of the core that rocks.py walks; everything else with these methods is taken for a rocksdict.
DICTS: Final = {"changes", "rows", "families", "os.environ"}
BANNED: Final = {
    "set_iterate_lower_bound": "in rocksdict it sets the upper bound: wrong keys, silently",
    "set_sync": "a synchronous write holds the GIL for the whole fsync",
    "pickle": "opening a data directory would run code",
}


def breaches(code: ast.Module) -> Iterator[str]:
    """Yield every use of rocksdict that is banned."""
    for node in ast.walk(code):
        match node:
            case ast.Call(func=ast.Attribute(value=on, attr="keys" | "items" | "values" as method)):
                if ast.unparse(on) not in DICTS:
                    yield f"{node.lineno}: {ast.unparse(on)}.{method}() stops early on a damaged file, without an error"
            case ast.keyword(arg="sync", value=ast.Constant(value=True)):
                yield f"{node.value.lineno}: sync=True holds the GIL for the whole fsync"
            case ast.keyword(arg="raw_mode", value=ast.Constant(value=False)):
                yield f"{node.value.lineno}: without raw mode, opening a data directory runs pickles"
            case ast.Attribute(attr=name) | ast.Name(id=name) if name in BANNED:
                yield f"{node.lineno}: {name}: {BANNED[name]}"


def test_the_store_uses_nothing_that_loses_data_silently() -> None:
    assert list(breaches(tree.syntax(ROCKS))) == []


def test_the_store_is_opened_in_raw_mode() -> None:
    raw = [node for node in ast.walk(tree.syntax(ROCKS)) if isinstance(node, ast.keyword | ast.Call)]

    assert "raw_mode=True" in ROCKS.read_text() or any("Options(True" in ast.unparse(node) for node in raw)


@pytest.mark.parametrize(
    "code",
    ["self._db.items()", "db.write(batch, sync=True)", "options.set_iterate_lower_bound(b'')", "f(raw_mode=False)"],
)
def test_a_breach_is_found(code: str) -> None:
    assert len(list(breaches(ast.parse(code)))) == 1


def test_nothing_opens_the_lock_file_of_rocksdb() -> None:
    """It is a POSIX lock: any open and close of the file drops it, and a second server would open the same store."""
    wrong = [tree.relative(path) for path in tree.python("tq") if has_lock(path)]

    assert wrong == []


def has_lock(path: Path) -> bool:
    """Whether a file has the bare name of RocksDB's lock file as a string."""
    return any(isinstance(node, ast.Constant) and node.value == "LOCK" for node in ast.walk(tree.syntax(path)))
