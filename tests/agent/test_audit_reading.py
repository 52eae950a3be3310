"""Reading the audit log: rotated files in order, filters, damaged lines, and following it over rotations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coherd import audit_reading
from coherd.audit import AuditLog, Event, Kind, Wrote
from coherd.audit_lines import LINE_BYTES_MAX, encode
from coherd.audit_reading import Reading, read

CLUSTER = "spiffe://example.org/cluster/prod"


def event(n: int, kind: Kind = Kind.DENIED, who: str = "client/web-1") -> Event:
    return Event(n, kind, f"{CLUSTER}/{who}", "Invalidate", "shop")


SIZE = len(encode(event(10)))


def write(path: Path, *numbers: int) -> None:
    with path.open("ab") as file:
        file.write(b"".join(encode(event(n)) for n in numbers))


def rotate(path: Path, most: int = 20) -> None:
    for i in range(most, 0, -1):
        newer = path.with_name(f"{path.name}.{i - 1}") if i > 1 else path
        if newer.exists():
            newer.rename(path.with_name(f"{path.name}.{i}"))


def numbers(reading: Reading) -> list[int]:
    return [event.at_us for event in reading]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


@pytest.fixture
def followed(path: Path) -> Iterator[Reading]:
    reading = read(path, follow=True)
    yield reading
    reading.close()


def test_rotated_files_come_first_the_oldest_of_them_first_of_all(path: Path) -> None:
    log = AuditLog(path, bytes_max=2 * SIZE, files_max=12)
    for n in range(10, 35):
        log.note(event(n), 0.0)
    while log.write(0.0) is Wrote.PART:
        pass
    log.close()
    path.with_name("audit.log.gz").write_bytes(b"x\n")
    path.with_name("audit.log.1.old").write_bytes(b"x\n")
    path.with_name("other.log.1").write_bytes(b"x\n")
    reading = read(path)
    assert numbers(reading) == list(range(10, 35))
    assert reading.damaged == 0


def test_damaged_lines_are_counted_and_the_others_read(path: Path) -> None:
    whole = [encode(event(n)) for n in range(1, 6)]
    path.with_name("audit.log.1").write_bytes(whole[0] + whole[1][:20])
    path.write_bytes(
        b"\n"
        + whole[2]
        + b"\x00\xff\n"
        + b"x" * (2 * LINE_BYTES_MAX)
        + b"\n"
        + whole[3]
        + whole[4][:-1]
    )
    reading = read(path)
    assert numbers(reading) == [1, 3, 4, 5], "the last has no newline yet, and is whole"
    assert reading.damaged == 3


@pytest.mark.parametrize("chunk", [1, 7, SIZE, LINE_BYTES_MAX + 1])
def test_it_does_not_matter_how_it_is_read(
    path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_reading, "CHUNK_BYTES", chunk)
    path.write_bytes(
        encode(event(1)) + b"x" * (3 * LINE_BYTES_MAX) + b"\n" + encode(event(2)) + b"y" * 10
    )
    reading = read(path)
    assert numbers(reading) == [1, 2]
    assert reading.damaged == 2


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"since_us": 3}, [3, 4, 5]),
        ({"kinds": ["admin"]}, [3, 4]),
        ({"kinds": [Kind.ADMIN, Kind.WIDE]}, [2, 3, 4]),
        ({"who": "client/web-*"}, [1, 2, 4]),
        ({"who": "web-1"}, [1, 2, 4]),
        ({"who": "eb-1"}, [4]),
        ({"who": f"{CLUSTER}/operator/ann"}, [3, 4]),
        ({"who": "local*"}, [4, 5]),
        ({"who": "CLIENT/*"}, [4]),
        ({"who": "client/web-*", "kinds": ["wide"]}, [2, 4]),
    ],
)
def test_only_what_is_asked_for_is_given_and_what_was_suppressed(
    path: Path, filters: dict[str, object], found: list[int]
) -> None:
    events = [
        event(1),
        event(2, Kind.WIDE),
        event(3, Kind.ADMIN, "operator/ann"),
        Event(4, Kind.SUPPRESSED, count=7),
        Event(5, Kind.DENIED, "local unix:"),
    ]
    path.write_bytes(b"".join(map(encode, events)))
    read_back = list(read(path, **filters))  # type: ignore[arg-type]
    assert [e.at_us for e in read_back] == found
    assert all(e in events for e in read_back)


def test_what_cannot_be_read_is_an_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read(path))
    os.mkfifo(path)
    with pytest.raises(OSError, match="no regular file"):
        list(read(path))
    write(path.with_name("audit.log.1"), 1)
    path.unlink()
    assert numbers(read(path)) == [1], "the agent has just moved it, and not begun a new one"


def test_a_rotation_while_it_is_opened_hides_nothing_and_shows_nothing_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path.with_name("audit.log.2"), 1)
    write(path.with_name("audit.log.1"), 2)
    write(path, 3)
    opened = audit_reading._opened

    def interrupted(name: Path) -> object:
        file = opened(name)
        if name == path:
            rotate(path)
            write(path, 4)
        return file

    monkeypatch.setattr(audit_reading, "_opened", interrupted)
    assert numbers(read(path)) == [1, 2, 3]
    monkeypatch.undo()
    assert numbers(read(path)) == [1, 2, 3, 4]


def test_following_gives_what_has_come_since(path: Path, followed: Reading) -> None:
    write(path, 1, 2)
    assert numbers(followed) == [1, 2]
    assert numbers(followed) == []
    write(path, 3)
    with path.open("ab") as file:
        file.write(encode(event(4))[:10])
    assert numbers(followed) == [3]
    with path.open("ab") as file:
        file.write(encode(event(4))[10:])
    assert numbers(followed) == [4]
    assert followed.damaged == 0


@pytest.mark.parametrize("times", [1, 2, 5])
def test_following_goes_on_over_rotations(path: Path, followed: Reading, times: int) -> None:
    write(path, 1)
    rotate(path)
    write(path, 2)
    assert numbers(followed) == [1, 2]
    write(path, 3)
    for n in range(4, 4 + times):
        rotate(path)
        write(path, n)
    assert numbers(followed) == list(range(3, 4 + times))
    rotate(path)
    assert numbers(followed) == []
    write(path.with_name("audit.log.1"), 50)
    write(path, 51)
    assert numbers(followed) == [50, 51]


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    write(path, 9)


def removed(path: Path) -> None:
    path.unlink()
    write(path, 9)


def emptied(path: Path) -> None:
    os.truncate(path, 0)
    write(path, 9)


@pytest.mark.parametrize("change", [moved, removed, emptied])
def test_following_goes_on_when_the_file_is_taken_away(
    path: Path, followed: Reading, change: Callable[[Path], None]
) -> None:
    write(path.with_name("audit.log.1"), 1)
    write(path, 2, 3)
    assert numbers(followed) == [1, 2, 3]
    change(path)
    assert numbers(followed) == [9]
    assert followed.damaged == 0


def test_a_line_that_was_never_ended_is_damaged_once_there_is_a_newer_file(
    path: Path, followed: Reading
) -> None:
    path.write_bytes(encode(event(1)) + b'{"at_us":2')
    assert numbers(followed) == [1]
    assert followed.damaged == 0
    rotate(path)
    write(path, 3)
    assert numbers(followed) == [3]
    assert followed.damaged == 1


# ---------------------------------------------------------------- refusals, in files of their own


@pytest.fixture
def denied(path: Path) -> Path:
    return path.with_name("audit-denied.log")


def test_refusals_are_read_together_with_the_others_by_their_time(path: Path, denied: Path) -> None:
    write(path.with_name("audit.log.1"), 1, 4)
    write(path, 6, 7)
    write(denied.with_name("audit-denied.log.1"), 2, 3)
    write(denied, 5, 8)
    for file in (path, denied):
        with file.open("ab") as end:
            end.write(b"torn")
    reading = read(path)
    assert numbers(reading) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert reading.damaged == 2
    assert numbers(read(path, since_us=4)) == [4, 5, 6, 7, 8]
    assert numbers(read(denied)) == [2, 3, 5, 8], "alone"


@pytest.mark.parametrize("follow", [False, True])
def test_one_of_the_two_files_is_enough(path: Path, denied: Path, *, follow: bool) -> None:
    write(denied, 2)
    reading = read(path, follow=follow)
    assert numbers(reading) == [2]
    if follow:
        write(path, 1)
        write(denied, 3)
        assert numbers(reading) == [1, 3]
    reading.close()


def test_following_goes_on_over_rotations_of_either(
    path: Path, denied: Path, followed: Reading
) -> None:
    write(path, 1)
    assert numbers(followed) == [1]
    write(denied, 2)
    write(path, 3)
    assert numbers(followed) == [2, 3]
    for n in range(4, 7):
        rotate(denied)
        write(denied, n)
    assert numbers(followed) == [4, 5, 6]
    rotate(path)
    write(path, 8)
    write(denied, 7)
    assert numbers(followed) == [7, 8]
    assert numbers(followed) == []


def test_refusals_that_may_not_be_read_are_an_error(path: Path, denied: Path) -> None:
    write(path, 1)
    denied.mkdir()
    with pytest.raises(OSError, match=r"no regular file.*audit-denied"):
        list(read(path))
