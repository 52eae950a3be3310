"""The entry of the command `coherd` and of `python -m coherd`; says what to install if it must."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. The base install is the client alone and lacks what this needs."""
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
