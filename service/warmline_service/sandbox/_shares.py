"""Directories that appear in a sandbox which is running already."""

from __future__ import annotations

from pathlib import Path

from warmline_service.sandbox._arguments import Shared
from warmline_service.sandbox._mounts import bind, clear, share


class Shares:
    """A place for each box, whose mounts the box sees, and no other box does. Its methods block.

    `root` is made and removed by this; what is shown has to be below `common`, where each box has it too.
    """

    def __init__(self, root: Path, common: Path) -> None:
        self.common = common
        # As the kernel names it where it lists mounts.
        self._root = root.parent.resolve() / root.name
        self._shown: dict[str, set[Path]] = {}

    def open(self) -> None:
        """Get the place ready, and take away what a killed service left. Raises OSError."""
        self.close()
        self._root.mkdir(mode=0o700, parents=True)
        share(self._root)

    def make(self, box_id: str) -> Shared:
        """A place for a box. Raises OSError."""
        place = self._root / box_id
        _make(place)
        self._shown[box_id] = set()
        return Shared(place, self.common)

    def show(self, box_id: str, path: Path) -> None:
        """Have a box see a directory from now on. Raises OSError; ValueError for one from elsewhere."""
        target = self._root / box_id
        if path in self._shown[box_id]:
            return
        for name in path.relative_to(self.common).parts:
            target /= name
            _make(target)
        bind(path, target)
        self._shown[box_id].add(path)

    def remove(self, box_id: str) -> None:
        """Take all from a box that it was shown. Raises OSError."""
        self._shown.pop(box_id, None)
        clear(self._root / box_id)

    def close(self) -> None:
        """Take away all there is. Raises OSError."""
        if self._root.exists():
            clear(self._root)


def _make(place: Path) -> None:
    """A directory that the process of a box, which is another user's, can go through but not change."""
    place.mkdir(exist_ok=True)
    place.chmod(0o711)
