"""The table of the fault matrix: ``python -m tests.servers.matrix`` draws it from what the last runs left in build/."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tests.servers.story import Verdict

ROWS = Path(__file__).parents[2] / "build" / "fault-matrix"
HEAD = (
    "| cell | accepted | lost | doubled | out of order | longest send ms | recovery s |\n|---|--:|--:|--:|--:|--:|--:|"
)


class Row(msgspec.Struct, frozen=True):
    """One cell.

    Attributes:
        cell: what happened to which destination.
        verdict: what became of the records.
        ordered: whether order is promised here.
    """

    cell: str
    verdict: Verdict
    ordered: bool

    def keep(self) -> None:
        """Leave it for the table."""
        ROWS.mkdir(parents=True, exist_ok=True)
        (ROWS / f"{self.cell.replace(' ', '_')}.json").write_bytes(msgspec.json.encode(self))

    def __str__(self) -> str:
        it = self.verdict
        cells = (
            self.cell, f"{it.accepted:,}", it.lost, it.doubled, it.disordered if self.ordered else "–",
            f"{it.longest_send * 1000:.1f}", f"{it.recovery:.2f}",
        )  # fmt: skip
        return "| " + " | ".join(map(str, cells)) + " |"


def table(rows: Iterable[Row]) -> str:
    """Markdown, with the sums and the worst in the last line."""
    rows = list(rows)
    every = [row.verdict for row in rows]
    total = Verdict(
        accepted=sum(it.accepted for it in every),
        lost=sum(it.lost for it in every),
        doubled=sum(it.doubled for it in every),
        strange=sum(it.strange for it in every),
        disordered=sum(row.verdict.disordered for row in rows if row.ordered),
        longest_send=max((it.longest_send for it in every), default=0.0),
        recovery=max((it.recovery for it in every), default=0.0),
    )
    return "\n".join([HEAD, *map(str, rows), str(Row(f"**{len(rows)} cells**", total, ordered=True))])


def main() -> int:
    found = [msgspec.json.decode(path.read_bytes(), type=Row) for path in sorted(ROWS.glob("*.json"))]
    print(table(found))
    return int(any(row.verdict.lost or row.verdict.doubled for row in found) or not found)


if __name__ == "__main__":
    sys.exit(main())
