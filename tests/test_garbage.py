"""The collector is held back for a while, and then as it was."""

from __future__ import annotations

import gc

from onnxq.garbage import no_collection, paced_collection


def test_no_collection_and_then_as_before() -> None:
    with no_collection():
        assert not gc.isenabled()
        with no_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_pace_follows_the_graph_and_is_never_faster_than_before() -> None:
    before = gc.get_threshold()
    with paced_collection(1_000_000):
        assert gc.get_threshold() == (20_000_000, *before[1:])
        with paced_collection(1):
            assert gc.get_threshold() == (20_000_000, *before[1:])
    assert gc.get_threshold() == before
