"""All laws on the whole engine: a machine that sends, breaks, kills, restarts and steps clocks, on a stage.

The engine is the real one, with its threads, its ring and its database; see ``stage`` and ``world``.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from resilient_exporters import EncodingError, TransformError
from tests.laws.sites import MOODS, TIMEOUT, VALUES
from tests.laws.stage import Killed
from tests.laws.world import DISKS, World

NAMES = ("a", "b", "c")
names = st.sampled_from(NAMES)
crashes = st.one_of(st.none(), st.none(), st.none(), st.integers(1, 60))


def picky(data: Any) -> Any:
    """A transform that does not take everything."""
    if data["n"] < 0:
        raise ValueError("what is this?")
    return data


class Model(RuleBasedStateMachine):
    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        draw = data.draw
        alone = draw(st.booleans(), "alone")
        policy = draw(st.sampled_from(["drop_oldest", "drop_newest", "block", "raise"]), "on_full")
        options: dict[str, Any] = {
            "loss_window": draw(st.sampled_from([None, 0, 1.0, 30.0]), "loss_window"),
            "batch_records": draw(st.sampled_from([500, 4, 1]), "batch_records"),
            "max_records": draw(st.sampled_from([None, None, None, 12]), "max_records"),
            "max_age": draw(st.sampled_from([None, None, 100.0]), "max_age"),
            "max_disk": draw(st.sampled_from(["512 MB", "512 MB", 300_000]), "max_disk"),
            "max_dead": draw(st.sampled_from([10_000, 10_000, 2, 0]), "max_dead"),
            "linger": draw(st.sampled_from([0, 0, 0.5]), "linger"),
            "drain": draw(st.sampled_from(["fifo", "fifo", "newest_first", "balanced"]), "drain"),
            "save_unsent_data": draw(st.sampled_from([True, True, True, False]), "save_unsent_data"),
            "manual_reexport": draw(st.sampled_from([False, False, False, True]), "manual_reexport"),
            "transform": draw(st.sampled_from([None, picky]), "transform"),
            "on_full": policy,
            "full_timeout": 2.0,
        }
        members = {name: {"concurrency": draw(st.sampled_from([1, 1, 3, "auto"]), "concurrency")} for name in NAMES}
        if alone:
            options |= members["a"]
        self.world = World(
            draw(st.integers(0, 2**32), "seed"), draw(st.sampled_from([0.0, 0.05, 0.3]), "restless"),
            alone=alone, names=NAMES, options=options,
        )  # fmt: skip
        self.world.member_options = members
        self.count = 0
        self.world.start(["a"] if alone else ["a", "b"])

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            if sys.exc_info()[1] is None:  # else a law is broken already
                self.world.drain()
        finally:
            self.world.close()

    @invariant()
    def laws(self) -> None:
        if hasattr(self, "world"):
            self.world.judge()

    # -- the program -------------------------------------------------------------------------------------------------

    def record(self, value: Any, size: int) -> int:
        self.count += 1
        self.world.sent[self.count] = {"n": self.count, "value": value, "pad": "x" * size}
        return self.count

    @rule(value=st.sampled_from(VALUES), size=st.sampled_from([0, 0, 0, 3000, 12_000, 20_000]), crash=crashes)
    def send(self, value: Any, size: int, crash: int | None) -> None:
        self.during(crash, lambda: self.world.send([self.record(value, size)]))

    @rule(number=st.integers(2, 30), size=st.sampled_from([0, 0, 1000]), crash=crashes)
    def send_many(self, number: int, size: int, crash: int | None) -> None:
        self.during(crash, lambda: self.world.send([self.record(1, size) for _ in range(number)]))

    @rule()
    def send_what_cannot_be_kept(self) -> None:
        before = self.world.exporter.stats()
        try:
            self.world.exporter.send([{"n": 1}, {"n": 1, "what": object()}])
        except EncodingError:
            assert self.world.exporter.stats().accepted == before.accepted
        else:
            raise AssertionError("an object was accepted")

    @rule()
    def send_what_the_transform_does_not_take(self) -> None:
        if self.world.options["transform"] is None:
            return
        before = self.world.exporter.stats()
        with pytest.raises(TransformError):
            self.world.exporter.send([{"n": 1}, {"n": -1}])
        assert self.world.exporter.stats().accepted == before.accepted

    @rule(name=names)
    def a_target_joins(self, name: str) -> None:
        self.world.join(name)

    @rule(timeout=st.sampled_from([0.0, 1.0, 25.0]), most=st.sampled_from([None, None, 3]), crash=crashes)
    def flush(self, timeout: float, most: int | None, crash: int | None) -> None:
        self.during(crash, lambda: self.world.flush(timeout, most))

    @rule(timeout=st.sampled_from([0.0, 1.0, 25.0]), crash=crashes)
    def save(self, timeout: float, crash: int | None) -> None:
        self.during(crash, lambda: self.world.save(timeout))

    @rule(which=st.integers(0, 5), crash=crashes)
    def replay(self, which: int, crash: int | None) -> None:
        self.during(crash, lambda: self.world.replay(which))

    @rule(which=st.integers(0, 5))
    def discard(self, which: int) -> None:
        self.world.discard(which)

    @rule(timeout=st.sampled_from([0.0, 3.0]), present=st.sets(names, min_size=1), crash=crashes)
    def close_and_start_again(self, timeout: float, present: set[str], crash: int | None) -> None:
        if not self.during(crash, lambda: self.world.shut(timeout), present):
            self.world.start_again(present)

    @rule(present=st.sets(names, min_size=1))
    def kill(self, present: set[str]) -> None:
        self.world.end()
        self.world.start_again(present)

    @rule(present=st.sets(names, min_size=1))
    def cut_the_power(self, present: set[str]) -> None:
        if self.world.disk == "failing":
            self.world.disk = "ok"  # see test_model_findings
        self.world.end(power=True)
        self.world.start_again(present)

    def during(self, crash: int | None, act: Any, present: set[str] | None = None) -> bool:
        """Do something, and perhaps be killed in it."""
        # While one record is in doubt, no second one: which of them waits could not be told.
        self.world.stage.crash_in = crash if self.world.maybe is None else None
        try:
            act()
        except Killed:
            self.world.bury()
            self.world.start_again(self.world.present if present is None else present)
            return True
        finally:
            self.world.stage.crash_in = None
        return False

    # -- the world ---------------------------------------------------------------------------------------------------

    @rule(name=names, mood=st.sampled_from(MOODS))
    def target_changes(self, name: str, mood: str) -> None:
        self.world.sites[name].mood = mood

    @rule(name=names)
    def target_answers_again(self, name: str) -> None:
        self.world.sites[name].released += 1

    @rule(mood=st.sampled_from(DISKS))
    def disk_changes(self, mood: str) -> None:
        self.world.disk = mood

    @rule(seconds=st.sampled_from([0.3, 1.0, TIMEOUT / 2, TIMEOUT + 1, 75.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.stage.advance(seconds)

    @rule(seconds=st.sampled_from([-1e9, -60.0, 60.0, 1e9]))
    def wall_clock_steps(self, seconds: float) -> None:
        self.world.clock.wall += seconds

    @rule(low=st.booleans())
    def memory_changes(self, low: bool) -> None:
        self.world.memory_low = low

    @rule(up=st.booleans())
    def link_changes(self, up: bool) -> None:
        self.world.links = frozenset({"lo", "wlan0"} if up else {"lo"})


def profile(examples: int, steps: int, *, derandomize: bool) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=derandomize,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


Model.TestCase.settings = profile(150, 30, derandomize=True)
TestModel = Model.TestCase


@pytest.mark.soak
def test_for_an_hour() -> None:
    """Rounds with a seed each. ``MODEL_MINUTES`` and ``MODEL_SEED`` say otherwise how long, and from which seed on."""
    end = time.monotonic() + 60 * float(os.environ.get("MODEL_MINUTES", "60"))
    first = int(os.environ.get("MODEL_SEED", "0")) or secrets.randbits(32)
    rounds = 0
    while not rounds or time.monotonic() < end:
        number = first + rounds
        print(f"MODEL_SEED={number}", flush=True)
        machine = seed(number)(type("Model", (Model,), {}))
        run_state_machine_as_test(machine, settings=profile(200, 60, derandomize=False))
        rounds += 1
    print(f"{rounds} rounds of 200 runs")
