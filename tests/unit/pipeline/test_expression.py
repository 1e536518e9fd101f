"""Expressions and small functions compute what Python computes."""

from __future__ import annotations

import calendar
import copy
import datetime as dt
import itertools
import math
import random
import re
from pathlib import Path

import pytest

from resilient_exporters.pipeline import ExpressionError, InvalidExpression
from resilient_exporters.pipeline.expression import (
    Expression,
    check_data,
    compile_expression,
    compile_function,
    methods,
)
from resilient_exporters.pipeline.expression.names import BUILTINS, MODULES

RECORD = {
    "n": 3, "x": 1.5, "name": "Joe Doe", "accent": "città", "list": [3, 1, 2], "map": {"k": [1, 2], "m": {"d": 1}},
    "none": None, "yes": True, "when": dt.datetime(2024, 2, 29, 12, 30, 5), "tags": ["a", "b", "a"], "s": "7",
}  # fmt: skip
NAMES = {
    "datetime": dt, "re": re, "itertools": itertools, "calendar": calendar, "math": math, "random": random,
}  # fmt: skip

EXPRESSIONS = [
    "item['n'] + 1",
    "item['n'] - 1.5",
    "item['n'] * 2",
    "item['n'] / 2",
    "item['n'] // 2",
    "item['n'] % 2",
    "-item['n']",
    "item['n'] ** 2",
    "2 ** -1",
    "item['n'] << 2",
    "item['n'] >> 1",
    "item['n'] & 1",
    "item['n'] | 4",
    "item['n'] ^ 1",
    "~item['n']",
    "not item['n']",
    "+item['x']",
    "item['name'] + '!'",
    "item['name'] * 2",
    "3 * [0]",
    "item['list'] + [4]",
    "item['n'] == 3",
    "item['n'] != 3",
    "item['n'] < 4",
    "item['n'] <= 3",
    "item['n'] > 4",
    "item['n'] >= 3",
    "1 < item['n'] < 5",
    "1 < item['n'] > 5",
    "item['none'] is None",
    "item['none'] is not None",
    "item['none'] == None",
    "item['name'] in ('Joe Doe', 'x')",
    "item['name'] not in ['x']",
    "'k' in item['map']",
    "'Doe' in item['name']",
    "3 in item['list']",
    "[1] in [[1]]",
    "5 in range(10)",
    "item['n'] in {1, 2, 3}",
    "item['none'] in (None, 1)",
    "item['yes'] and item['n']",
    "item['none'] or 'default'",
    "item['none'] and item['n']",
    "'a' or 1 / item['x']",
    "'big' if item['n'] > 2 else 'small'",
    "item['map']['m']['d']",
    "item['list'][-1]",
    "item['list'][1:]",
    "item['list'][::-1]",
    "item['name'][0:3]",
    "item['name'][:-1]",
    "item.get('none', 5)",
    "item.get('absent')",
    "item.get('absent', 5)",
    "item['map'].get('k')[0]",
    "[x * 2 for x in item['list']]",
    "{x for x in item['list']}",
    "{k: len(str(v)) for k, v in item.items() if k != 'when'}",
    "sum(x for x in item['list'] if x > 1)",
    "[(x, y) for x in item['list'] for y in range(x) if y]",
    "[[y for y in range(x)] for x in item['list']]",
    "[a + b for a, (b, c) in [(1, (2, 3))]]",
    "(1, 'a', None)",
    "{'a': 1, **item['map']}",
    "[*item['list'], 9]",
    "{*item['list']}",
    "f\"{item['name']:>10}|{item['n']:03d}|{item['x']!r}\"",
    'f\'{item["x"]:.{item["n"]}f}\'',
    "f\"{item['when']:%Y-%m-%d}\"",
    "'%s is %d' % (item['name'], item['n'])",
    "'%(name)s' % item",
    "'%5.2f%%' % item['x']",
    "'{0[n]} {name} {0[list][1]}'.format(item, name=1)",
    "'{:>5}|{:<5}|{!r}'.format(1, 'a', 'b')",
    "item['name'].upper().replace('JOE', 'x').split()",
    "', '.join(item['tags'])",
    "item['name'].startswith(('x', 'Joe'))",
    "item['accent'].encode('utf-8')",
    "b'caf\\xc3\\xa9'.decode('utf-8')",
    "item['s'].zfill(4)",
    "item['name'].rsplit(' ', 1)",
    "item['name'].partition(' ')",
    "int(item['s']) + 1",
    "float('1.5')",
    "str(item['list'])",
    "repr(item['name'])",
    "bool(item['list'])",
    "len(item['list'])",
    "max(item['list'])",
    "min(1, 2, 0)",
    "sorted(item['list'], reverse=True)",
    "abs(-item['n'])",
    "round(item['x'] * 1.37, 2)",
    "round(2.5)",
    "divmod(7, 2)",
    "any(x > 2 for x in item['list'])",
    "all(item['list'])",
    "list(zip(item['list'], item['tags']))",
    "set(item['tags'])",
    "list(enumerate(item['tags']))",
    "list(reversed(item['list']))",
    "dict([('a', 1)])",
    "dict(a=1)",
    "tuple(item['list'])",
    "isinstance(item['n'], int)",
    "isinstance(item['n'], (str, float))",
    "isinstance(item['when'], datetime.datetime)",
    "chr(65)",
    "ord('A')",
    "hex(255)",
    "pow(2, 5)",
    "pow(2, 5, 7)",
    "next(enumerate('ab'))",
    "frozenset([1, 2])",
    "item['when'].year",
    "item['when'].strftime('%d/%m')",
    "item['when'].isoformat()",
    "item['when'].date()",
    "(item['when'] - datetime.datetime(2024, 1, 1)).days",
    "item['when'] + datetime.timedelta(days=1)",
    "datetime.datetime.strptime('2024-01-02', '%Y-%m-%d').weekday()",
    "datetime.date(2024, 1, 1).isocalendar()[1]",
    "datetime.datetime.fromtimestamp(0, datetime.timezone.utc).isoformat()",
    "(item['when'].replace(hour=0)).hour",
    "datetime.timedelta(hours=5).total_seconds()",
    "calendar.isleap(2024)",
    "calendar.monthrange(2024, 2)[1]",
    "calendar.day_name[0]",
    "calendar.timegm(item['when'].timetuple())",
    "math.sqrt(16)",
    "math.pi",
    "math.floor(-1.5)",
    "math.isnan(item['x'])",
    "math.factorial(5)",
    "math.gcd(12, 18)",
    "math.prod([2, 3])",
    "math.hypot(3, 4)",
    "re.match(r'(\\w+) (\\w+)', item['name']).group(2)",
    "re.search('(?P<last>D.e)', item['name'])['last']",
    "re.sub('[aeiou]', '_', item['name'])",
    "re.sub(r'(\\w)o', r'\\1\\1', item['name'], count=1)",
    "re.split('[ ,]+', 'a, b c')",
    "re.split('( )', 'a b c', maxsplit=1)",
    "re.findall('o', item['name'])",
    "re.findall('(J)(o)', item['name'])",
    "re.compile('joe', re.IGNORECASE).match(item['name']).group()",
    "re.match('JOE', item['name'], re.I) is None",
    "re.fullmatch('.*', item['name']).span()",
    "[m.start() for m in re.finditer('o', item['name'])]",
    "re.escape('a.b')",
    "re.sub('x*', '-', 'abxd')",
    "re.match('x', 'y')",
    "list(itertools.chain([1], (2, 3)))",
    "list(itertools.islice(itertools.count(5), 3))",
    "list(itertools.product('ab', [1, 2]))",
    "list(itertools.accumulate([1, 2]))",
    "list(itertools.combinations([1, 2, 3], 2))",
    "list(itertools.permutations([1, 2]))",
    "list(itertools.repeat('a', 2))",
    "list(itertools.zip_longest([1], [2, 3], fillvalue=0))",
    "list(itertools.chain.from_iterable([[1], [2]]))",
    "[list(g) for k, g in itertools.groupby('aab')]",
    "list(itertools.pairwise([1, 2, 3]))",
    "list(itertools.compress('ab', [0, 1]))",
    "list(itertools.product([0, 1], repeat=2))",
    "list(item['map'].keys())",
    "sorted(item['map'].items(), reverse=True)",
    "item['list'].index(1)",
    "item['tags'].count('a')",
    "item['list'].copy()",
    "set(item['tags']) | {'z'}",
    "{1} & {1, 2}",
    "{'a': 1} | {'b': 2}",
    "set(item['tags']).union(['q'])",
    "(5).bit_length()",
    "(1.0).is_integer()",
    "item['x'].is_integer()",
]
CHANGES = [
    "item.update(n=5)",
    "item.update({'a': item['n']})",
    "item['list'].append(9)",
    "item['list'].sort()",
    "item.pop('n')",
    "item.setdefault('new', []).append(1)",
    "item['map']['k'].extend([5, 6])",
    "item.clear()",
    "item.update([('a', 1)])",
    "item.update(dict(a=1))",
    "[item.pop(k) for k in ('n', 'x')]",
    "item['list'].insert(0, 7)",
    "item.update(name=item['name'].upper()) if item['n'] else None",
    "item['tags'].remove('a')",
    "item['list'].reverse()",
]


@pytest.mark.parametrize("source", EXPRESSIONS)
def test_computes_what_python_computes(source):
    # Given what the interpreter makes of it
    expected = eval(source, {**NAMES, "item": copy.deepcopy(RECORD)})

    # When it is computed here
    found = compile_expression(source)(copy.deepcopy(RECORD))

    # Then it is the same, of the same type
    if isinstance(expected, re.Match):
        assert found.span() == expected.span()
    else:
        assert found == expected
        assert type(found) is type(expected)


@pytest.mark.parametrize("source", CHANGES)
def test_changes_the_record_as_python_does(source):
    expected, item = copy.deepcopy(RECORD), copy.deepcopy(RECORD)
    eval(source, {**NAMES, "item": expected})
    expression = compile_expression(source)

    expression(item)

    assert item == expected
    assert expression.changes


def test_names_of_the_old_python_are_there():
    assert compile_expression("item.has_key('n') and unicode(item['n']) == '3'")(RECORD) is True
    assert compile_expression("[k for k, v in item.iteritems() if isinstance(v, basestring)]")({"a": "x", "b": 1}) == [
        "a"
    ]
    assert compile_expression("item.keys()[0]")({"a": 1}) == "a"
    assert compile_expression("list(xrange(long('3')))")({}) == [0, 1, 2]


def test_samples_and_times_are_taken_anew_for_each_record():
    draw = compile_expression("random.random()")
    assert len({draw({}) for _ in range(10)}) > 1
    assert compile_expression("random.randint(1, 3)")({}) in {1, 2, 3}
    assert compile_expression("len(random.sample([1, 2, 3], 2))")({}) == 2
    now = compile_expression("datetime.datetime.utcnow()")
    first = now({})
    assert first.tzinfo is None
    assert now({}) >= first


def test_a_list_in_an_expression_is_a_new_one_each_time():
    expression = compile_expression("item.setdefault('seen', []).append(1) or item['seen']")
    assert expression({}) == [1]
    assert expression({}) == [1]


def test_other_names_for_modules():
    assert Expression("dt(2024, 1, 1).year", modules={"dt": "datetime.datetime"})({}) == 2024
    with pytest.raises(InvalidExpression, match=r"imports=\{'os': 'os'\}: only calendar, datetime"):
        Expression("os.getcwd()", modules={"os": "os"})


def test_an_error_says_which_expression_and_why():
    with pytest.raises(ExpressionError, match="\"item\\['no'\\]\": KeyError: 'no'"):
        compile_expression("item['no']")({})
    with pytest.raises(ExpressionError, match="a list has no method keys that is allowed; allowed: append"):
        compile_expression("item['list'].keys()")(RECORD)


REDUCE = '''
"""Counts by country."""
UNKNOWN = "none"

def key_of(item):
    return item.get("country") or UNKNOWN

def reduce_function(item, accumulator=None):
    if accumulator is None:
        accumulator = {"n": 0, "by": {}, "keys": [], "odd": 0}
    accumulator["n"] += 1
    key = key_of(item)
    accumulator["by"][key] = accumulator["by"].get(key, 0) + item["v"]
    accumulator["keys"] += [key]
    for number in range(item["v"]):
        if number % 2 == 0:
            continue
        elif number > 5:
            break
        accumulator["odd"] += 1
    else:
        accumulator["whole"] = True
    left, right = item["v"], 0
    while left:
        left -= 1
        right = right + 1
    accumulator["last"] = right
    if "gone" in accumulator:
        del accumulator["gone"]
    return accumulator
'''


def test_a_function_computes_what_python_computes():
    # Given the same code here and in the interpreter
    names: dict = {}
    exec(REDUCE, names)
    function = compile_function(REDUCE, "reduce_function")
    expected = found = None

    # When both reduce the same records
    for number, country in enumerate(["es", "uk", None, "es", "us"]):
        item = {"country": country, "v": number * 3, "gone": 1}
        expected = names["reduce_function"](item, expected)
        found = function(item, accumulator=found)

    # Then they come to the same
    assert found == expected
    assert found is not None
    check_data(found)


def test_a_function_is_called_as_any_other():
    function = compile_function("def f(a, b=2, c='x'):\n    return (a, b, c)", "f")
    assert function(1) == (1, 2, "x")
    assert function(1, 3) == (1, 3, "x")
    assert function(1, c=4) == (1, 2, 4)
    for args, kwargs in (((), {}), ((1, 2, 3, 4), {}), ((1,), {"a": 1}), ((1,), {"d": 1})):
        with pytest.raises(ExpressionError, match="f "):
            function(*args, **kwargs)
    assert compile_function("def f(item):\n    pass", "f")({}) is None


def test_a_function_that_is_not_there_is_named():
    with pytest.raises(InvalidExpression, match="no function reduce_function; it defines other"):
        compile_function("def other(item):\n    return 1", "reduce_function")


def test_a_variable_without_a_value_is_an_error_of_the_record():
    function = compile_function("def f(item):\n    if item:\n        x = 1\n    return x", "f")
    assert function({"a": 1}) == 1
    with pytest.raises(ExpressionError, match="x has no value yet"):
        function({})


def test_the_page_of_expressions_lists_all_there_is():
    # Given the page, and the tables
    page = (Path(__file__).parents[3] / "docs" / "pipeline" / "expressions.md").read_text(encoding="utf-8")
    functions, _, values = page.partition("## Methods and attributes")

    # Then each name stands in the row of its table
    assert all(f"`{name}`" in _row(functions, "the language") for name in BUILTINS)
    for name, table in MODULES.items():
        assert all(f"`{entry}`" in _row(functions, name) for entry in table.entries)
    for name in (*methods.KNOWN, *methods.attributes()):
        assert f"`{name}`" in values


def _row(page: str, name: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
