"""Which positions are no padding."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.data.padding import unpadded, unpadded_tokens

MASK = np.asarray([[1, 1, 1, 0], [1, 1, 0, 0]])
TOKENS = np.zeros((2, 4), np.int64)
STATES = np.arange(2 * 4 * 3).reshape(2, 4, 3)


def test_padded_positions_are_left_out() -> None:
    kept = STATES[unpadded({"input_ids": TOKENS, "attention_mask": MASK}, (2, 4))]
    np.testing.assert_array_equal(kept, [*STATES[0, :3], *STATES[1, :2]])


def test_of_a_mask_that_covers_the_past_its_end_counts() -> None:
    longer = np.concatenate([np.ones((2, 5), int), MASK], axis=1)
    feeds = {"input_ids": TOKENS, "attention_mask": longer}
    np.testing.assert_array_equal(unpadded_tokens(feeds, (2, 4)), MASK.astype(bool))
    assert len(STATES[unpadded(feeds, (2, 4))]) == 5


@pytest.mark.parametrize("shape", [(2, 3), (4, 2), (2, 4, 4), (8,), ()])
def test_what_has_no_row_for_each_token_is_whole(shape: tuple[int, ...]) -> None:
    assert unpadded({"input_ids": TOKENS, "attention_mask": MASK}, shape) is ...


def test_a_mask_of_another_batch_tells_nothing() -> None:
    feeds = {"input_ids": TOKENS, "attention_mask": MASK[:1]}
    assert unpadded(feeds, (2, 4)) is ...
    assert unpadded_tokens(feeds, (2, 4)).all()


def test_without_padding_nothing_is_indexed() -> None:
    feeds = {"input_ids": TOKENS, "attention_mask": np.ones((2, 4), int)}
    assert unpadded(feeds, (2, 4)) is ...
    assert unpadded({"input_ids": TOKENS}, (2, 4)) is ...
