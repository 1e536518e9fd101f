"""The witness of the tests in real time: it has to see a machine that stands still, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.laws.witness import VAIN, Standstill, Witness, conclusive

BUSY = "import os; os.sched_setaffinity(0, [int(os.environ['CPU'])]); print(flush=True)\nwhile True: pass"
STILL, GOING = Standstill(0.0, 0.3, 0.0), Standstill(0.01, 0.0, 0.02)


def test_a_program_that_has_to_share_its_cpu_is_seen_to_wait() -> None:
    # Given two programs that need one CPU all the time
    environment = {**os.environ, "CPU": str(min(os.sched_getaffinity(0)))}
    both = [
        subprocess.Popen([sys.executable, "-c", BUSY], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for one in both:
            assert one.stdout is not None
            assert one.stdout.readline()

        # When one of them is looked at
        with Witness(both[0].pid, None) as witness:
            began = time.monotonic()
            with pytest.raises(subprocess.TimeoutExpired):
                both[0].wait(0.5)
            now = time.monotonic()
            still = witness.standstill(began, now)
    finally:
        for one in both:
            one.kill()
            one.communicate()

    # Then it waited for about half of the time, and for a fifth at least: nothing proves a promise of half a second
    assert still.cpu > (now - began) / 5
    assert not still.proves(0.5)


def test_gaps_and_syncs_are_counted_up_to_the_moment_in_question(tmp_path: Path) -> None:
    # Given what it may have seen
    witness = Witness(os.getpid(), tmp_path)
    witness._looks = [(1.0, 5.0, 0.0), (1.01, 5.0, 0.0), (1.3, 5.1, 0.0), (1.31, 5.1, 0.02)]
    witness._probes = [(1.0, 1.05), (1.1, 1.12)]
    witness._asked = 1.25

    # Then: the longest of each kind; what has not ended counts as long as it takes
    assert witness.standstill(1.005, 1.32) == pytest.approx((0.29, 0.12, 0.07))
    assert witness.standstill(1.305, 1.32) == pytest.approx((0.01, 0.02, 0.07))
    assert witness.standstill(1.0, 1.02) == pytest.approx((0.01, 0.0, 0.02))
    assert witness.standstill(1.31, 1.81) == pytest.approx((0.5, 0.02, 0.56))


def test_what_says_nothing_is_repeated_and_in_the_end_said() -> None:
    # Given / When / Then
    trials = iter([(GOING, 1), (STILL, 2), (GOING, 3), (STILL, 4)])
    assert list(conclusive(lambda: next(trials), 2, 1.0)) == [1, 3]
    many = iter([(GOING, 0)] + [(STILL, 1)] * (2 + VAIN))
    found: list[int] = []
    with pytest.raises(pytest.skip.Exception, match=r"1 of 2 cuts .* 6 are not; .* 0\.300 s without a CPU"):
        found.extend(conclusive(lambda: next(many), 2, 1.0))
    assert found == [0]
    assert next(many, None) is None
