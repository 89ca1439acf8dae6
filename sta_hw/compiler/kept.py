"""Which windows stay on chip between products, as hardware has it: what may be taken is what was kept before."""

from __future__ import annotations

from ..spec.config import Config

__all__ = ["KeptWindows"]


class KeptWindows:
    """The windows on chip: those of the addresses from `start` to `end`, in bus words.

    What is kept next to them, or of them once more, joins them if there is room for all; else it alone is there.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.start = self.end = 0

    def _words(self, address: int, beats: int) -> tuple[int, int]:
        first = address // self.config.bus_bytes
        return first, first + beats

    def keep(self, address: int, beats: int) -> bool:
        """Keep `beats` bus words at a byte address; False, and nothing changes, if there is no room for so many."""
        first, behind = self._words(address, beats)
        if beats > self.config.window_words:
            return False
        if self.start <= first <= self.end and max(behind, self.end) - self.start <= self.config.window_words:
            self.end = max(behind, self.end)
        else:
            self.start, self.end = first, behind
        return True

    def there(self, address: int, beats: int) -> bool:
        """Whether the `beats` bus words at a byte address are all on chip."""
        first, behind = self._words(address, beats)
        return address % self.config.bus_bytes == 0 and self.start <= first <= self.end and behind <= self.end
