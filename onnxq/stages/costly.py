"""Sites that stay float because they cost far more accuracy than time.

Of the sites that do a small part of the work, the few with the greatest error of their own output
are tried: the whole model's error is measured with each left float. One stays float where that
takes away at least a quarter of the error, and a share of it of at least four times the site's
share of the multiply-accumulates. All together do at most :data:`MOST_WORK` of the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

MOST_WORK = 0.1
"""The part of the multiply-accumulates that may stay float for accuracy's sake."""

_TRIED = 3
_LEAST_GAIN = 0.25
_GAIN_FOR_WORK = 4.0


def costly_sites(
    errors: Mapping[str, float],
    macs: Mapping[str, int],
    trial: Callable[[Collection[str]], float],
) -> dict[str, str]:
    """The sites to keep float, with the reason.

    Args:
        errors: Noise over signal of each quantized site's output, by name.
        macs: Multiply-accumulates of every site of the model, by name.
        trial: The whole model's noise over signal with these sites left float.
    """
    total = sum(macs.values())
    work = {name: macs[name] / total for name in errors if total and name in macs}
    light = [name for name in work if work[name] <= MOST_WORK and errors[name] > 0]
    tried = sorted(light, key=lambda name: -errors[name])[:_TRIED]
    if not tried or len(errors) < 2:
        return {}
    found: dict[str, str] = {}
    error, room = trial(()), MOST_WORK
    for name in tried:
        if error <= 0 or work[name] > room:
            continue
        without = trial((*found, name))
        gain = 1 - without / error
        if gain >= max(_LEAST_GAIN, _GAIN_FOR_WORK * work[name]):
            found[name] = (
                f"it makes {gain:.0%} of the model's error and does {work[name]:.2g} of its work"
            )
            error, room = without, room - work[name]
    return found
