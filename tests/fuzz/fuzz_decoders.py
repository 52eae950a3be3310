"""Feed decoders with whatever makes them go new ways; a process of its own, run by test_fuzz_smoke.

The first byte says which decoder the rest is for. It ends with an error when one raises what it must not,
or takes more than 50 ms of CPU or 8 MiB.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["coherd", "coherd_membership"]):
    from decoders import DECODERS, Decoder

SECONDS_MAX = 0.05
BYTES_MAX = 8 * 1024 * 1024
PLANTED = "--planted"


def planted(data: bytes) -> None:
    """A decoder with a bug that only some inputs meet."""
    if len(data) > 2 and data[0] == 0xC0 and data[1] == 0xDE:
        raise IndexError("the planted bug")


def chosen(data: bytes) -> tuple[Decoder, bytes]:
    """Tell which decoder gets what."""
    names = sorted(DECODERS)
    return DECODERS[names[data[0] % len(names)]], data[1:]


def run(decoder: Decoder, data: bytes) -> float:
    """Decode; give the seconds of CPU it took."""
    began = time.thread_time()
    with suppress(*decoder.raises):
        decoder.decode(data)
    return time.thread_time() - began


def one_input(data: bytes) -> None:
    if not data:
        return
    decoder, rest = chosen(data)
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    spent = run(decoder, rest)
    _, peak = tracemalloc.get_traced_memory()
    if peak - before > BYTES_MAX:
        raise MemoryError(f"{peak - before} bytes")
    if spent > SECONDS_MAX and min(run(decoder, rest) for _ in range(3)) > SECONDS_MAX:
        raise TimeoutError(f"{spent:.3f} s")


def main() -> None:
    """Write valid inputs into the corpus, which is the first argument, and fuzz."""
    arguments = [argument for argument in sys.argv if argument != PLANTED]
    if PLANTED in sys.argv:
        DECODERS.clear()
        DECODERS["planted"] = Decoder(atheris.instrument_func(planted), (ValueError,), (b"valid",))
    for number, (_, decoder) in enumerate(sorted(DECODERS.items())):
        for index, data in enumerate(decoder.valid):
            (Path(arguments[1]) / f"{number}-{index}").write_bytes(bytes([number]) + data)
    tracemalloc.start()
    atheris.Setup(arguments, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
