"""Which starts are clean: after a loss of power, a crash, a stop in order, under either durability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from journal_twins import row, store

from coherd.journal import Durability

if TYPE_CHECKING:
    from journal_twins import Twin


@pytest.mark.parametrize(
    ("durability", "boot_id", "clean"),
    [
        (Durability.OS, "a boot", True),
        (Durability.OS, "another boot", False),
        (Durability.OS, "", False),
        (Durability.DISK, "a boot", True),
        (Durability.DISK, "another boot", True),
        (Durability.DISK, "", True),
    ],
)
async def test_after_a_crash(twin: Twin, durability: Durability, boot_id: str, clean: bool) -> None:
    journal = twin.open(durability=durability)
    assert journal.durability is durability
    await store(journal, row(1))
    twin.crash(journal)
    await journal.aclose()
    journal = twin.open(durability=Durability.DISK, boot_id=boot_id)
    assert journal.contents.clean is clean
    await journal.aclose()


async def test_after_a_stop_in_order_a_new_boot_is_clean(twin: Twin) -> None:
    journal = twin.open()
    await store(journal, row(1))
    await journal.aclose()
    assert twin.open(boot_id="another boot").contents.clean


async def test_two_unknown_boots_are_different_ones(twin: Twin) -> None:
    journal = twin.open(boot_id="")
    twin.crash(journal)
    await journal.aclose()
    assert not twin.open(boot_id="").contents.clean


async def test_a_loss_is_remembered_until_it_was_made_good(twin: Twin) -> None:
    journal = twin.open()
    twin.crash(journal)
    await journal.aclose()
    for _ in range(2):
        twin.boot_id = "another boot"
        journal = twin.open()
        assert not journal.contents.clean, "neither a crash nor a stop in order heals it"
        await store(journal, row(journal.contents.position + 1))
        twin.crash(journal)
        await journal.aclose()
        journal = twin.open()
        assert not journal.contents.clean
        await journal.aclose()
    journal = twin.open()
    assert not journal.contents.clean
    await store(journal, healed=True)
    twin.crash(journal)
    await journal.aclose()
    assert twin.open().contents.clean
