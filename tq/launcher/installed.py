"""The tq that lies on the disk now: after an upgrade it is another one than the one that runs.

A launcher, and a process that calls functions, is started from there. Parts of two versions would not understand each
other, so whoever starts one looks first.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import tq

_FILE: Final = Path(tq.__file__)
_MARK: Final = "__version__ = "


def libraries() -> list[str]:
    """Return where the libraries are that what is started from there needs before it is told where else to look."""
    modules = (sys.modules[name] for name in ("tq", "msgspec", "cbor2"))
    return list(dict.fromkeys(str(Path(module.__file__ or "").parents[1]) for module in modules))


def another() -> str:
    """Return what to say of another version that has been installed under this one, "" if there is none to be seen."""
    with suppress(OSError, UnicodeDecodeError):  # whoever starts something from there finds out what is wrong
        for line in _FILE.read_text(encoding="utf-8").splitlines():
            version = line.removeprefix(_MARK).strip("\"'")
            if line.startswith(_MARK) and version != tq.__version__:
                return f"tq {version} has been installed under this worker, which is {tq.__version__}"
    return ""
