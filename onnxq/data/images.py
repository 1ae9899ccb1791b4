"""Reader of folders of images: a file is a sample.

Images may lie in the folder itself or one folder deeper (a folder for each class, say; the names
of folders are not used as labels). They come in the order of their paths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.data.fingerprint import feed_file, feed_part
from onnxq.data.lines import opened
from onnxq.data.sample import Sample
from onnxq.data.source import Reader

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Sequence
    from pathlib import Path

    from onnxq.data.steps import Steps


class ImageFiles(Reader):
    """Each file is an image."""

    def __init__(self, root: Path, files: Sequence[Path], steps: Steps) -> None:
        """Read these files, in this order, by the declared steps.

        Raises:
            DataError: No steps for images are declared, or they do not fit the model.
        """
        super().__init__(str(root))
        self._root = root
        self._files = tuple(files)
        self._steps = steps
        steps.check_image(self.name)

    def __len__(self) -> int:
        """The number of files."""
        return len(self._files)

    def read(self, index: int) -> Sample:
        """The inputs that an image becomes."""
        path = self._files[index]
        with opened(path) as stream:
            feeds = self._steps.image(stream, str(path))
        return Sample(str(path), feeds)

    def _feed(self, hasher: hashlib._Hash) -> None:
        feed_part(hasher, self._steps.image_digest())
        for path in self._files:
            name = path.relative_to(self._root).as_posix() if path != self._root else path.name
            feed_file(hasher, path, name)
