"""A terminal: the command runs on it, and a test reads what is written there."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time

PATIENCE = 20.0


class Terminal:
    """A process on a terminal, and what it has written there."""

    def __init__(self, *arguments: str, columns: int) -> None:
        self._master, slave = pty.openpty()
        env = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": "40"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "coherd", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
        )
        os.close(slave)
        self.text = ""

    def read(self, expected: str) -> str:
        """Give what is written up to and with the expected."""
        deadline = time.monotonic() + PATIENCE
        while expected not in self.text:
            left = deadline - time.monotonic()
            assert left > 0, self.text
            if select.select([self._master], [], [], left)[0]:
                self.text += os.read(self._master, 65_536).decode()
        found, _, self.text = self.text.partition(expected)
        return found + expected

    def end(self) -> int:
        """Press Ctrl-C; gives the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; gives the exit code."""
        code = self.process.wait(PATIENCE)
        os.close(self._master)
        return code
