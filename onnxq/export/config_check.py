"""What a ``config.json`` may not ask for: other files, code, another model, something to fetch.

Libraries follow such entries wherever they stand, also in the configurations of a model's parts:

==========================  ==================================================================
``auto_map``                code: of the folder, or of another place (``repository--file.Class``)
``quantization_config``     weights that are quantized already, by code of other packages
``transformers_weights``    another file of weights, which may be a pickle or lie elsewhere
``configuration_files``     another configuration, which is read instead of this one
``backbone``                a model by its name, looked up in the working directory and the Hub
``architecture``            timm's name of a model; ``hf-hub:`` and ``local-dir:`` lead elsewhere
``model_args``              what timm makes it with, a ``checkpoint_path`` say
==========================  ==================================================================
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from onnxq.errors import UsageError, listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnxq.export.options import Code

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]+")
"""A model of timm's own, ``resnet18.a1_in1k`` say: no path, no address."""

_LOADS: Final = re.compile(r"checkpoint_path|pretrained.*|.*cache_dir")
"""What timm's ``create_model`` loads weights by."""

_FORGOTTEN: Final = re.compile(
    r"_?name_or_path|_commit_hash|auto_map|.*_implementation(_internal)?|use_kernels|.*kernel_config"
)
"""Where a checkpoint came from, since a library might look there again; an empty list of code; and
kernels, which may be native code of the Hub: attention is computed as plain products anyway."""

_MOST_DEPTH: Final = 64


def check_config(config: Mapping[str, Any], code: Code, where: str) -> None:
    """Refuse a configuration that leads out of its folder or to code.

    Args:
        config: What ``config.json`` holds.
        code: Whether Python files of the checkpoint may be executed.
        where: The file, for messages.

    Raises:
        UsageError: With the entry, and what to do instead.
    """
    for place, part in _parts(config, "", where):
        _check_code(part, code, where, place)
        _check_weights(part, where, place)
        _check_names(part, where, place)


def without_origins(config: Any) -> Any:
    """A copy that says nothing of origins and kernels, and asks for no pretrained parts."""
    if isinstance(config, list):
        return [without_origins(part) for part in config]
    if not isinstance(config, dict):
        return config
    kept = {key: without_origins(v) for key, v in config.items() if not _FORGOTTEN.fullmatch(key)}
    if "use_pretrained_backbone" in kept:
        kept["use_pretrained_backbone"] = False
    return kept


def _parts(
    given: object, place: str, where: str, depth: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object in it, with what its keys begin with."""
    if depth > _MOST_DEPTH:
        code, text = "export.no_config", "it is nested too deeply"
        raise UsageError(code, text, where=where, remedy="this is no model's configuration")
    if isinstance(given, list):
        for part in given:
            yield from _parts(part, place, where, depth + 1)
    if isinstance(given, dict):
        yield place, given
        for key, part in given.items():
            yield from _parts(part, f"{place}{key}.", where, depth + 1)


def _check_code(part: Mapping[str, Any], code: Code, where: str, place: str) -> None:
    named = part.get("auto_map")
    if code == "checkpoint" or not named:
        return
    wanted = list(map(str, named.values() if isinstance(named, dict) else [named]))
    text = f"the checkpoint brings code of its own ({place}auto_map: {listed(wanted, 3)})"
    remedy = "read that code; --trust-remote-code executes it"
    raise UsageError(code="export.remote_code", message=text, where=where, remedy=remedy)


def _check_weights(part: Mapping[str, Any], where: str, place: str) -> None:
    for key in ("quantization_config", "compression_config"):
        method = part.get(key)
        if method is not None:
            name = str(method.get("quant_method") or "") if isinstance(method, dict) else ""
            text = f"the weights are quantized already ({place}{key}{f': {name}' if name else ''})"
            remedy = "export the float checkpoint that they were made from"
            raise UsageError(code="export.quantized", message=text, where=where, remedy=remedy)
    for key, code, what in (
        ("transformers_weights", "export.other_weights", "another file of weights"),
        ("configuration_files", "export.other_config", "another configuration"),
    ):
        if part.get(key):
            text = f"it names {what} ({place}{key}), which is not followed"
            remedy = "give that file its usual name, and take the entry out"
            raise UsageError(code=code, message=text, where=where, remedy=remedy)


def _check_names(part: Mapping[str, Any], where: str, place: str) -> None:
    for key in ("backbone", "architecture"):
        name = part.get(key)
        if name is None or (isinstance(name, str) and _is_of_timm(name, key, part)):
            continue
        text = f"it names another model ({place}{key}: {name!r}), which is not followed"
        raise _another_model(text, where)
    for key in ("model_args", "backbone_kwargs"):
        given = part.get(key)
        for name in given if isinstance(given, dict) else ():
            if _LOADS.fullmatch(name):
                text = f"it names other weights ({place}{key}.{name}), which are not followed"
                raise _another_model(text, where)


def _is_of_timm(name: str, key: str, part: Mapping[str, Any]) -> bool:
    looked_up = part.get("use_timm_backbone") is False and part.get("backbone_config") is None
    return bool(_PLAIN.fullmatch(name)) and not (key == "backbone" and looked_up)


def _another_model(text: str, where: str) -> UsageError:
    remedy = "save the whole model with save_pretrained, or export it by a factory"
    return UsageError(code="export.other_model", message=text, where=where, remedy=remedy)
