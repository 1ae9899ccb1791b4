"""Windows of a fixed number of tokens, cut from the texts of a file joined.

The lines of a ``.txt`` file are one running text. The texts of other files are documents: behind
each stands the token that the tokenizer ends a text with, if it has one. Windows do not overlap,
so no text is in two of them; what does not fill the last one is left out.

The file is tokenized once to count, and again as windows are read, in pieces of about 16,000
characters that end where a line or a document does. Held are 16 bytes for each piece and the tokens
of one piece.
"""

from __future__ import annotations

import bisect
from array import array
from typing import TYPE_CHECKING, Final

import numpy as np

from onnxq.data.fingerprint import feed_part
from onnxq.data.sample import Sample
from onnxq.data.source import Reader
from onnxq.errors import DataError

if TYPE_CHECKING:
    import hashlib

    from numpy.typing import NDArray

    from onnxq.data.documents import DocumentReader
    from onnxq.data.token_stream import TokenStream

    Tokens = NDArray[np.int64]

PIECE: Final = 1 << 14
"""Characters that are tokenized together, at least."""


class Windows(Reader):
    """Each window of tokens is a sample."""

    def __init__(self, documents: DocumentReader, stream: TokenStream) -> None:
        """Tokenize everything once.

        Args:
            documents: The texts.
            stream: Makes tokens of them, and knows how long a window is.

        Raises:
            DataError: A text cannot be read, or all of them do not fill a window.
        """
        super().__init__(documents.name)
        self._documents = documents
        self._stream = stream
        self._firsts = array("Q", [0])  # the first document of each piece, and the end
        self._starts = array("Q")  # how many tokens stand before a piece
        self._held: tuple[int, Tokens] | None = None
        self._total = self._count()
        self._window = self._fitting(stream.window)
        self._say()

    def _count(self) -> int:
        total = characters = 0
        texts: list[str] = []
        for index in range(len(self._documents)):
            texts.append(self._text(index))
            characters += len(texts[-1])
            if characters >= PIECE or index == len(self._documents) - 1:
                self._starts.append(total)
                total += len(self._tokens(texts, len(self._starts) - 1))
                self._firsts.append(index + 1)
                texts, characters = [], 0
        return total

    def _fitting(self, window: int) -> int:
        if not self._total:
            code, text = "data.empty_sample", "the text gives no token"
            raise DataError(code, text, where=self.name, remedy="Give a text.")
        if self._total >= window:
            return window
        if self._stream.declared:
            code, text = "data.window", f"{self._total} tokens do not fill a window of {window}"
            remedy = "Give more text, or a smaller window in the preprocessing file: [text] window."
            raise DataError(code, text, where=self.name, remedy=remedy)
        return self._total

    def _say(self) -> None:
        count, rest = len(self), self._total % self._window
        word = "one window" if count == 1 else f"{count:,} windows that do not overlap, each"
        end = f"; the last {rest} tokens are left out" if rest else ""
        self.note(f"{self.name}: the texts are joined and cut to {word} of {self._window}{end}")
        for text in self._stream.notes:
            self.note(text)

    def __len__(self) -> int:
        """How many windows there are."""
        return self._total // self._window

    def read(self, index: int) -> Sample:
        """The inputs of one window."""
        start = index * self._window
        tokens = np.empty(self._window, np.int64)
        filled, piece = 0, bisect.bisect_right(self._starts, start) - 1
        name = f"{self._documents.place(self._firsts[piece])}, window {index + 1}"
        while filled < self._window:
            found = self._piece(piece)[max(0, start - self._starts[piece]) :]
            part = found[: self._window - filled]
            tokens[filled : filled + len(part)] = part
            filled, piece = filled + len(part), piece + 1
        return Sample(name, self._stream.feeds(tokens), past=self._stream.past)

    def _piece(self, piece: int) -> Tokens:
        """The tokens of a piece; the last one that was asked for is held."""
        if self._held is None or self._held[0] != piece:
            self._held = None
            first, end = self._firsts[piece], self._firsts[piece + 1]
            texts = [self._text(index) for index in range(first, end)]
            self._held = piece, self._tokens(texts, piece)
        return self._held[1]

    def _tokens(self, texts: list[str], piece: int) -> Tokens:
        stream = self._stream
        if self._documents.continuous:
            opening = [] if piece else [stream.opening]
            return np.concatenate([*opening, stream.tokens("".join(texts))])
        parts = [(stream.opening, stream.tokens(text), stream.ending) for text in texts]
        return np.concatenate([part for parts_of_one in parts for part in parts_of_one])

    def _text(self, index: int) -> str:
        text = self._documents.document(index)
        if text is None:
            code, why = "data.column", "there is no text where others have one"
            where = self._documents.place(index)
            raise DataError(code, why, where=where, remedy="Leave it out, or give only texts.")
        return text

    def _feed(self, hasher: hashlib._Hash) -> None:
        feed_part(hasher, f"windows of {self._window}, {self._stream.past} past".encode())
        feed_part(hasher, self._documents.digest().encode())


def packed(reader: DocumentReader, stream: TokenStream | None) -> Reader:
    """Windows of the reader's texts; the reader itself where each text is to be a sample."""
    return reader if stream is None else Windows(reader, stream)
