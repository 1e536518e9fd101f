"""Random records, for trying things out."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from typing import Any, Final

from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.units import parse_count

__all__ = ["RandomReader"]

_BLOCK: Final = 500  # records from one state of the generator: so many are made in vain at most, at a resume
_COUNTRIES: Final = ("es", "uk", "us")
_STATES: Final = ("Aragón", "Kent", "Oregon")
_CITIES: Final = ("Val", "Newton", "Salem")
_DISTRICTS: Final = ("north", "centre", "south")


class RandomReader(BaseReader):
    """Makes records up.

    They have ``key`` (0, 1, 2, …), ``country_code``, ``state``, ``city`` (``name`` and ``district``) and ``value``.
    The same ``seed`` gives the same records. Without one a seed is drawn and kept with the job, so that a resumed run
    goes on with the records that it would have had.

    Args:
        config, metadata: as of every module.
        **options: ``number_of_items``, ``batch_size``, ``seed``.
    """

    supported_options = {
        "number_of_items": Option(
            type=int, default=1000, help="Records in all.",
            check=lambda value: parse_count(value, "number_of_items", minimum=0),
        ),
        "batch_size": Option(
            type=int, default=100, check=lambda value: parse_count(value, "batch_size"), help="Records in a batch."
        ),
        "seed": Option(type=int, default=None, help="The same seed gives the same records; default: a random one."),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        seed = self.read_option("seed")
        self._seed: int = secrets.randbits(63) if seed is None else seed
        self._number: int = self.read_option("number_of_items")
        self._batch_size: int = self.read_option("batch_size")
        self._at = 0
        self._made: tuple[int, list[dict[str, Any]]] = (-1, [])

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The next records."""
        end = min(self._at + self._batch_size, self._number)
        while self._at < end:
            block, skip = divmod(self._at, _BLOCK)
            for record in self._block(block)[skip : skip + end - self._at]:
                self._at += 1
                yield record
        self.finished = self._at >= self._number

    def _block(self, number: int) -> list[dict[str, Any]]:
        if self._made[0] != number:
            self._made = (number, self._new(number))
        return self._made[1]

    def _new(self, number: int) -> list[dict[str, Any]]:
        source = random.Random(f"{self._seed}/{number}")  # noqa: S311 - nothing is kept secret by these
        choice, value = source.choice, source.randint
        return [
            {
                "key": key,
                "country_code": choice(_COUNTRIES),
                "state": choice(_STATES),
                "city": {"name": choice(_CITIES), "district": choice(_DISTRICTS)},
                "value": value(0, 10_000),
            }
            for key in range(number * _BLOCK, (number + 1) * _BLOCK)
        ]

    def get_last_position(self) -> Any:
        """How many were given."""
        return {"last_read": self._at}

    def set_last_position(self, position: Any) -> None:
        """Leave out as many."""
        self._at = position["last_read"] if position else 0

    def share_done(self) -> float | None:
        """Share of the records that were given."""
        return self._at / self._number if self._number else None

    def get_state(self) -> Any:
        """The seed."""
        return {"seed": self._seed}

    def set_state(self, state: Any) -> None:
        """Go on with this seed."""
        self._seed = state["seed"]
