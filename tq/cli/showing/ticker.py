"""One line on a terminal's stderr that is drawn again and again and leaves nothing behind."""

import os
import sys

from tq.cli.frame import context


class Ticker:
    """Where progress is shown; nothing where stderr is not a terminal, is told to be quiet, or cannot go back."""

    def __init__(self, *, is_quiet: bool) -> None:
        self.is_shown = not is_quiet and context.is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
        self.columns = context.columns(sys.stderr)
        self._is_drawn = False

    def draw(self, text: str) -> None:
        """Show `text` instead of what the line shows."""
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
        self._is_drawn = True

    def clear(self) -> None:
        """Leave the line empty."""
        if self._is_drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_drawn = False
