"""Files whose samples are texts, or may be: what windows are cut from."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from onnxq.data.source import Reader


class DocumentReader(Reader):
    """A reader that also gives the text behind a sample.

    Attributes:
        continuous: Whether its texts are parts of one running text, else each is a document.
    """

    continuous: ClassVar[bool] = False

    @abstractmethod
    def document(self, index: int) -> str | None:
        """The text at ``index``, as it stands there; None where the sample is no text.

        Raises:
            DataError: It cannot be read.
        """

    @abstractmethod
    def place(self, index: int) -> str:
        """What a message calls the text: ``a.txt, line 3``."""
