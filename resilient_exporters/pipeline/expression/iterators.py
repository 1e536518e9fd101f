"""The functions of itertools, each element paid for as it is taken."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from resilient_exporters.pipeline.errors import LimitExceeded
from resilient_exporters.pipeline.expression.budget import Frame, Table, charge, charged, weigh
from resilient_exporters.pipeline.expression.operations import BINARY

__all__ = ["ITERTOOLS", "lazy"]

_WIDTH: Final = 1_000


def lazy(function: Callable[..., Iterable[Any]]) -> Any:
    """Gives elements one after the other, each paid for."""

    def run(frame: Frame, *args: Any, **kwargs: Any) -> Any:
        return charged(frame, function(*args, **kwargs), len(args) + 2)

    return run


def _chosen(function: Callable[..., Iterable[Any]]) -> Any:
    """Permutations and the like: how many are taken for each is bounded, and each is paid for by that."""

    def run(frame: Frame, values: Any, number: int | None = None) -> Any:
        pool = list(charged(frame, values))
        count = len(pool) if number is None else number
        if count > _WIDTH:
            raise LimitExceeded(None, f"itertools: groups of more than {_WIDTH:,}")
        return charged(frame, function(pool, count), count + 1)

    return run


def _product(frame: Frame, *values: Any, repeat: int = 1) -> Iterator[Any]:
    pools = [list(charged(frame, one)) for one in values]
    if repeat * len(pools) > _WIDTH:
        raise LimitExceeded(None, f"itertools.product of more than {_WIDTH:,}")
    charge(frame, sum(map(len, pools)) * max(repeat, 0))
    return charged(frame, itertools.product(*pools, repeat=repeat), len(pools) * max(repeat, 0) + 1)


def _accumulate(frame: Frame, values: Any) -> Iterator[Any]:
    given = list(charged(frame, values))
    if any(isinstance(one, (str, bytes, list, tuple)) for one in given):
        raise TypeError("itertools.accumulate is for numbers")
    totals: list[Any] = []
    for one in given:
        totals.append(BINARY["Add"](frame, totals[-1], one) if totals else one)
    return charged(frame, totals)


def _groupby(frame: Frame, values: Any) -> list[tuple[Any, list[Any]]]:
    given = list(charged(frame, values))
    weigh(frame, given)
    return [(key, list(group)) for key, group in itertools.groupby(given)]


ITERTOOLS: Final = Table(
    "itertools",
    {
        "accumulate": _accumulate,
        "chain": Table(
            "itertools.chain",
            {"from_iterable": lambda frame, values: charged(frame, itertools.chain.from_iterable(values))},
            lazy(itertools.chain),
        ),
        "combinations": _chosen(itertools.combinations),
        "combinations_with_replacement": _chosen(itertools.combinations_with_replacement),
        "compress": lazy(itertools.compress),
        "count": lazy(itertools.count),
        "cycle": lazy(itertools.cycle),
        "groupby": _groupby,
        "islice": lambda frame, values, *args: charged(frame, itertools.islice(charged(frame, values), *args)),
        "pairwise": lazy(itertools.pairwise),
        "permutations": _chosen(itertools.permutations),
        "product": _product,
        "repeat": lazy(itertools.repeat),
        "zip_longest": lazy(itertools.zip_longest),
    },
)
