"""Regular expressions: what is cheap runs in ``re``, what may be dear within a time limit, the rest not at all."""

from __future__ import annotations

import random
import re
import time
import warnings

import pytest

from resilient_exporters.pipeline import LimitExceeded
from resilient_exporters.pipeline.pattern import Pattern
from resilient_exporters.pipeline.pattern_cost import Cost

CHEAP = [
    r"^\w+\s*=\s*(.*)$", r"(?:\d{1,3}\.){3}\d{1,3}", r"^[a-z]+@[a-z]+\.com$", r"(?:ab|cd)+e",
    r"^(?:,\w+)*$", r"\b\w+\b",
    r"([^,]*,){11}P", r"(?i)stra(?:ss|ß)e", r"\d{4}-\d\d-\d\d(?:T.*)?", r"[^\s]+\s[^\s]+", r"x*y*z*$", r"(?=.*a)b", "",
]  # fmt: skip
DEAR = [
    r"(a+)+$",
    r"(a|a)*b",
    r"(a|aa)+$",
    r"(.*a){25}",
    "a?" * 30 + "a" * 30,
    r"(\w+\s?)*$",
    r"(?:a{0,50}){0,50}b",
    r".*.*.*x",
]


@pytest.mark.parametrize("pattern", CHEAP)
def test_usual_patterns_are_cheap(pattern):
    assert Cost(pattern, 0).steps(500, anywhere=False) < 2_000_000


@pytest.mark.parametrize("pattern", DEAR)
def test_patterns_with_many_ways_are_dear(pattern):
    assert Cost(pattern, 0).steps(500, anywhere=False) > 2_000_000


def test_what_is_cheap_by_the_estimate_is_so_in_re():
    # Given patterns and texts that are made to try many ways
    draw = random.Random(5)
    atoms = ["a", "b", "[ab]", "[^a]", ".", r"\w", r"\s", r"\d", " ", "[a-z]", r"\W", "ß", "a", "[aA]", r"[^\w]"]
    repeats = ["", "", "*", "+", "?", "*?", "{2,5}", "{3}", "{2,}", "{0,40}", "??"]

    def made(depth: int) -> str:
        parts = []
        for _ in range(draw.randint(1, 4)):
            kind = draw.random() if depth else 0
            if kind < 0.55:
                parts.append(draw.choice(atoms) + draw.choice(repeats))
            elif kind < 0.8:
                parts.append(f"({draw.choice(['', '?:'])}{made(depth - 1)}){draw.choice(repeats)}")
            elif kind < 0.9:
                parts.append(f"(?:{made(depth - 1)}|{made(depth - 1)}){draw.choice(repeats)}")
            else:
                parts.append(draw.choice(["^", "$", r"\b", r"\Z", f"(?={made(depth - 1)})", f"(?!{made(depth - 1)})"]))
        return "".join(parts)

    tried = 0
    for _ in range(600):
        pattern = made(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled, cost = re.compile(pattern), Cost(pattern, 0)
        for anywhere, run in ((False, compiled.match), (True, compiled.findall)):
            sizes = (20_000, 2_000, 500, 100, 30)
            size = next((size for size in sizes if cost.steps(size, anywhere) <= 2_000_000), None)
            if size is not None:
                tried += 1
                text = draw.choice(["a", "ab", "a ", "aA", "1a"]) * (size // 2)
                begin = time.thread_time()
                run(text[: size - 1] + draw.choice("!b\nß"))
                # Then re takes no more than it should: two millions of its steps are some hundredths of a second
                assert time.thread_time() - begin < 0.5, pattern
    assert tried > 300


def test_what_is_dear_is_answered_by_the_package_regex_or_not_at_all():
    assert Pattern(r"(\w+\s?)*$").match("a b c d e f g " * 3) is not None
    with pytest.raises(LimitExceeded, match="takes too long on a text of 61 characters"):
        Pattern("(a|a)*$").match("a" * 60 + "b")


def test_counted_repetitions_within_each_other_do_not_fill_the_memory():
    # regex writes them out when it compiles: thousand times thousand of them take all memory there is
    pattern = Pattern("(?:(?:a{0,100}){0,100}){0,10}b")
    with pytest.raises(LimitExceeded, match="too many ways"):
        pattern.match("a" * 200)


@pytest.mark.parametrize("pattern", ["(", "a" * 2_001, "[b-a]", "(?P<1>a)", "*", 5, None, "a{5,2}"])
def test_what_is_no_pattern_is_said(pattern):
    with pytest.raises(ValueError, match="regular expression"):
        Pattern(pattern)
