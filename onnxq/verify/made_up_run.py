"""A run on made-up inputs: does a model run at all, from its first input to its last output?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxq.data.made_up import made_up
from onnxq.errors import DataError, ModelError

if TYPE_CHECKING:
    from onnxq.data import Signature
    from onnxq.runtime.session import Session


def run_made_up(session: Session, signature: Signature, where: str) -> None:
    """Run a model on what fits its inputs; nothing is done where nothing can be made up.

    Args:
        session: The model.
        signature: Its inputs.
        where: The model that it was made from, for messages.

    Raises:
        ModelError: It does not run, or gives NaN or Inf.
    """
    try:
        samples = list(made_up(signature))
    except DataError:
        return
    for sample in samples:
        try:
            found = session.run(sample.feeds)
        except ModelError as error:
            code, text = "verify.does_not_run", f"the result does not run: {error.message}"
            remedy = "check that what is put before and behind it fits the model"
            raise ModelError(code, text, where=where, remedy=remedy) from error
        for spec, value in zip(session.outputs, found, strict=True):
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                code, text = "verify.not_finite", f"the result gives NaN or Inf in {spec.name!r}"
                raise ModelError(code, text, where=where, remedy="check the steps and the model")
