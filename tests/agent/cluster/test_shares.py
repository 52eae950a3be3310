"""Receipts of callers whose rows went together with those of others."""

from __future__ import annotations

import gc

from coherd.cluster.batching import BatchReceipt, Share
from coherd.model import Lane, Origin, Stream
from coherd.net.peer import StreamRange

DOTS = [StreamRange(Stream("shop", Origin("a", 1), Lane.BULK), (1, 2))]


def test_who_has_applied_one_of_two_batches_has_not_applied_both() -> None:
    batches = [BatchReceipt("abc"), BatchReceipt("abc")]
    batches[0].add("a")
    both, first = Share(batches, DOTS, "abc", None), Share(batches[:1], DOTS, "abc", None)
    assert (both.applied, first.applied) == (set(), {"a"})
    batches[0].add("b")
    batches[1].add("bc")
    assert (both.applied, first.applied) == ({"b"}, {"a", "b"})
    assert both.missing == ["a", "c"]
    batches[1].add("a")
    batches[0].add("c")
    assert both.is_complete


def test_a_caller_may_wait_for_fewer_than_the_batch_is_asked_of() -> None:
    batch = BatchReceipt("abc")
    local, two = Share([batch], DOTS, "a", None), Share([batch], DOTS, "abc", 2)
    batch.add("bc")
    assert (local.is_complete, two.is_complete) == (False, True)
    local.add("a")  # who was asked directly
    assert local.is_complete


def test_callers_keep_a_batch_and_a_batch_keeps_no_caller() -> None:
    batch = BatchReceipt("a")
    share = Share([batch], DOTS, "a", None)
    assert set(batch.shares) == {share}
    del share
    gc.collect()
    assert not batch.shares
    batch.add("a")
