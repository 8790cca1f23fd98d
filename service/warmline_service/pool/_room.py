"""Whether one more process fits: by count and by memory, now or once others have ended."""

from __future__ import annotations

from collections.abc import Sequence

from warmline_service.pool._books import Books, Member
from warmline_service.worker import ProcessState


class Room:
    """The caps. `budget` and `estimate` are bytes; a start is admitted at its estimate."""

    def __init__(self, books: Books, most: int, budget: int, estimate: int) -> None:
        self._books = books
        self.most = most
        self.estimate = estimate
        # A budget below one estimate must still let the service work, one process at a time.
        self.budget = max(budget, estimate)

    def fits(self, places: int) -> bool:
        """Whether so many more may be started now."""
        return self._fits(places, ended=0, freed=0)

    def fits_after(self, places: int, victims: Sequence[Member]) -> bool:
        """The same once all that are stopping, and these victims, have ended."""
        ending = (*self._books.all_in(ProcessState.STOPPING), *victims)
        return self._fits(places, len(ending), sum(member.bytes for member in ending))

    def overdrawn(self) -> bool:
        """Whether what runs and is not stopping outgrew the budget; one alone never does."""
        alone = len(self._books) - self._books.count(ProcessState.STOPPING) <= 1
        return not alone and not self.fits_after(0, ())

    def _fits(self, places: int, ended: int, freed: int) -> bool:
        count = len(self._books) - ended + places
        size = self._books.committed - freed + places * self.estimate
        return count <= self.most and size <= self.budget
