"""Files of settings: TOML, versioned, checked by a pydantic model, refused in one or two lines.

An unknown key is an error that names the key that was probably meant.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from onnxq.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from onnxq.errors import InputError

Settings = TypeVar("Settings", bound=BaseModel)

_MOST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class SettingsFile(Generic[Settings]):
    """One kind of file.

    Attributes:
        model: What it says, as a pydantic model; extra keys are forbidden by it.
        noun: What messages call it, e.g. ``recipe``.
        code: What error codes begin with.
        error: The class of the errors.
        tables: How tables are written, for a file that is no TOML.
        version: The version of the format that is read.
    """

    model: type[Settings]
    noun: str
    code: str
    error: type[InputError]
    tables: str
    version: int = 1

    def load(self, path: str | Path) -> Settings:
        """Read a file.

        Raises:
            InputError: Of the class ``error``: there is no such file, it is not TOML, or it does
                not say what such a file says.
        """
        path = Path(path)
        remedy = "Name a TOML file."
        try:
            document = tomllib.loads(read_regular(path, _MOST_BYTES).decode("utf-8"))
        except OSError as error:
            code, text = "unreadable", f"the {self.noun} cannot be read ({error.strerror})"
            raise self._refusal(code, text, path, remedy) from error
        except UnicodeDecodeError as error:
            code, text = "syntax", f"the {self.noun} is not UTF-8 text"
            raise self._refusal(code, text, path, remedy) from error
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            code, text = "syntax", f"the {self.noun} is not TOML: {error}"
            remedy = f"Strings stand in quotes, tables as {self.tables}."
            raise self._refusal(code, text, path, remedy) from error
        return self.parse(document, where=str(path))

    def parse(self, document: Mapping[str, Any], *, where: str) -> Settings:
        """Check what was read as a mapping; ``version`` must be among its keys.

        Raises:
            InputError: Of the class ``error``: an unknown key, a missing one, or a value that is
                not allowed.
        """
        version = document.get("version")
        if version is None:
            code, text = "version", f"the {self.noun} does not say its version"
            raise self._refusal(code, text, where, f"Begin it with: version = {self.version}")
        if isinstance(version, bool) or version != self.version:
            code, text = "version", f"version {version!r}; this onnxq reads version {self.version}"
            raise self._refusal(code, text, where, "Write it for that version.")
        try:
            return self.model.model_validate(dict(document))
        except ValidationError as error:
            # One error at a time: an unknown key first, for a misspelt one makes others follow.
            details = error.errors(include_url=False)
            chosen = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
            raise self._translated(chosen, where) from error

    def _refusal(self, code: str, text: str, where: str | Path, remedy: str = "") -> InputError:
        return self.error(f"{self.code}.{code}", text, where=str(where), remedy=remedy)

    def _translated(self, detail: ErrorDetails, where: str) -> InputError:
        kind = detail["type"]
        if kind == "extra_forbidden":
            return self._unknown_key(detail["loc"], where)
        if kind == "missing":
            text = f"the key {_key(detail['loc'])} is missing"
            return self._refusal("missing_key", text, where, "Add it.")
        reason = str(detail["msg"]).removeprefix("Value error, ")
        reason = reason[:1].lower() + reason[1:]
        if kind == "value_error":
            # The model's own sentences already say what they are about.
            place = f"{_key(detail['loc'])}: " if detail["loc"] else ""
            return self._refusal("value", f"{place}{reason}", where)
        text = f"{_key(detail['loc'])} = {_shown(detail['input'])}: {reason}"
        allowed = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
        close = difflib.get_close_matches(str(detail["input"]), allowed, n=1)
        return self._refusal("value", text, where, f"Did you mean {close[0]!r}?" if close else "")

    def _unknown_key(self, loc: tuple[int | str, ...], where: str) -> InputError:
        known = list(_table(self.model, loc[:-1]).model_fields)
        close = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        remedy = f"{hint}The keys here: {', '.join(known)}."
        return self._refusal("unknown_key", f"unknown key {_key(loc)}", where, remedy)


def _table(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The model of the table at ``loc``."""
    for part in loc:
        field = model.model_fields.get(str(part))
        found = None if field is None else _model_in(field.annotation)
        model = found or model
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)


def _key(loc: tuple[int | str, ...]) -> str:
    """``rules[2].match``, rules counted from 1 as people do."""
    parts = [f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in loc]
    return "".join(parts).removeprefix(".")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
