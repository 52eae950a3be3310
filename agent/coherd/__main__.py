"""The entry of the command `coherd` and of `python -m coherd`; says what to install if it must."""

from __future__ import annotations

import os
import sys


def have_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed: another file would get its number, and its text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w"))


def main() -> None:
    """Run the command line. The base install is the client alone and lacks what this needs."""
    have_standard_streams()
    try:
        from coherd.cli.main import cli
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        from coherd.cli.exit_codes import PARTS_MISSING, ExitCode

        print(PARTS_MISSING, file=sys.stderr)
        raise SystemExit(ExitCode.USAGE) from None
    cli(prog_name="coherd")


if __name__ == "__main__":
    main()
