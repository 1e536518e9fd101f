"""What a hostile configuration may try, and does not get: attributes, files, modules, time, memory."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import time
from decimal import Decimal

import pytest

from resilient_exporters.pipeline import ExpressionError, InvalidExpression, LimitExceeded, pattern
from resilient_exporters.pipeline.expression import compile_expression, compile_function

RECORD = {
    "n": 3, "text": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "list": [1, 2, 3], "map": {"k": [1]}, "none": None, "x": 1.5,
    "pattern": "(a|a)*$", "big": 10**6, "template": "{0.__class__}", "long": "ab" * 5_000,
    "huge": Decimal("1E+999999"),
}  # fmt: skip

# None of these is an expression here, whatever the record.
REFUSED = [
    # attributes that lead out
    "item.__class__",
    "item.__class__.__mro__[1].__subclasses__()",
    "().__class__.__bases__[0].__subclasses__()",
    "''.__class__.__mro__",
    "(1).__class__",
    "[].__len__()",
    "item.__init__.__globals__",
    "item.__dict__",
    "item._secret",
    "item['text']._x()",
    "item.get.__self__",
    "item.update.__func__",
    "(lambda: 0).__globals__",
    "(x for x in [1]).gi_frame",
    "[x for x in [1]].append.__self__",
    "math.__loader__",
    "math.__spec__.loader.load_module('os')",
    "re.sys",
    "re._compiler",
    "re.compile('a').__class__",
    "random._os",
    "random.SystemRandom()",
    "random._inst.seed(1)",
    "datetime.sys",
    "datetime.datetime.__subclasses__()",
    "calendar.sys.modules",
    "itertools.__builtins__",
    "datetime.datetime.now().__reduce__()",
    "item['text'].format_map(item)",
    "item['text'].translate({})",
    "re.match('a', 'a').re",
    "item['list'].__class__",
    "str.mro()",
    "dict.fromkeys(range(3))",
    "int.from_bytes(b'a', 'big')",
    # names and calls
    "__import__('os').system('id')",
    "__builtins__",
    "__builtins__['eval']",
    "__name__",
    "__file__",
    "eval('1')",
    "exec('1')",
    "compile('1', '', 'eval')",
    "open('/etc/passwd').read()",
    "input()",
    "print(item)",
    "breakpoint()",
    "help()",
    "quit()",
    "exit()",
    "globals()",
    "locals()",
    "vars(item)",
    "dir(item)",
    "type(item)",
    "type('X', (), {})",
    "getattr(item, '__class__')",
    "setattr(item, 'a', 1)",
    "delattr(item, 'a')",
    "hasattr(item, '__class__')",
    "object()",
    "super()",
    "callable(item)",
    "id(item)",
    "hash(item)",
    "memoryview(b'a')",
    "bytearray(10**10)",
    "bytes(10**10)",
    "classmethod(len)",
    "map(eval, ['1'])",
    "filter(None, [1])",
    "iter(int, 1)",
    "os.system('id')",
    "sys.exit()",
    "subprocess.run('id')",
    "len",
    "math",
    "[len, str]",
    "(len)",
    "sorted([1], key=eval)",
    "sorted([1], key=len)",
    "item()",
    "item['text']()",
    "(1)(2)",
    "'a'()",
    "(item.get)('n')('x')",
    "item.get",
    "math.sqrt",
    "item.nothing",
    # syntax that is not there
    "import os",
    "lambda: 1",
    "(lambda x: x)(1)",
    "[lambda: 0]",
    "(y := 5)",
    "[(y := x) for x in [1]]",
    "await item",
    "(yield 1)",
    "(yield from [1])",
    "[x async for x in item]",
    "a = 1",
    "del item['n']",
    "item['n'] = 1",
    "1; 2",
    "...",
    "1j",
    "item @ item",
    "[item.x for item.x in [1]]",
    "[__x for __x in [1]]",
    "print",
    "for x in [1]: pass",
    "def f(): pass",
    "",
    "   ",
    "(",
    "'unterminated",
    "item['n'",
    "\x00",
    # too large, or too deep, to be read
    "(" * 500 + "1" + ")" * 500,
    "-" * 15_000 + "1",
    "not " * 4_000 + "1",
    "1" + "+1" * 8_000,
    "[" * 150 + "]" * 150,
    "x" * 30_000,
    "item" + ".a" * 500,
    "item" + "[0]" * 2_000,
    "f(" * 100 + ")" * 100,
    # constants that would take time or memory
    "10**10**10",
    "9**9**9**9",
    "2**100000000",
    "(2**16000)**2",
    "1 << 10**9",
    "1 << (1 << 60)",
    "'a' * 10**9",
    "10**9 * 'a'",
    "b'a' * 10**10",
    "('a' * 1000000) * 1000",
    "'a' * 600000 + 'a' * 600000",
    "[0] * 10**9",
    "(0,) * 10**9",
    "list(range(10**12))",
    "tuple(range(10**12))",
    "set(range(10**9))",
    "sum(range(10**12))",
    "max(range(10**12))",
    "sorted(range(10**9))",
    "str(list(range(10**9)))",
    "str([3**8000] * 200000)",
    "'%s' % ([3**8000] * 200000,)",
    "sorted([3**8000] * 200000)",
    "math.factorial(10**6)",
    "math.comb(10**6, 5 * 10**5)",
    "math.perm(10**6)",
    "math.prod(range(1, 10**6))",
    "math.lcm(*range(1, 100000))",
    "pow(10, 10**10)",
    "pow(3, 2**20000, 2**20000 - 1)",
    "round(5, -10**10)",
    "int('9' * 1000000)",
    "'a'.ljust(10**10)",
    "'a'.center(10**10)",
    "'a'.zfill(10**10)",
    "'\\t'.expandtabs(10**10)",
    "'a'.replace('', 'x' * 10000 * 100)",
    "('x' * 1000).replace('x', 'y' * 10000)",
    "('x' * 1000).join(['y'] * 10000)",
    "'{:1000000000}'.format(1)",
    "'{:.1000000000f}'.format(1.5)",
    "f'{1:1000000000}'",
    "f'{1:{10**9}}'",
    "f'{1.5:.{10**9}f}'",
    "format(1, '1000000000')",
    "'%1000000000d' % 1",
    "'%.1000000000f' % 1.5",
    "'%*d' % (10**9, 1)",
    "'%(a)1000000000d' % 1",
    "'{0.__class__}'.format(1)",
    "'{0.__class__.__mro__}'.format('x')",
    "'{a.__init__.__globals__}'.format(a=1)",
    "'{0[__class__]}'.format('x')",
    "'{!x}'.format(1)",
    "'{:{}}'.format(1, 10**9)",
    "'a'.encode('idna_not_there')",
    "'a'.encode('zlib')",
    "'a'.encode('rot13')",
    "b'a'.decode('unicode_escape_os')",
    "datetime.datetime(2020, 1, 1).strftime('%1000000000Y')",
    "datetime.datetime(2020, 1, 1).strftime('%Y' * 100000)",
    "datetime.datetime.strptime('1' * 1000, '%d' * 200)",
    "f'{datetime.datetime(2020, 1, 1):%99999999d}'",
    "re.sub('', 'x' * 10000, 'y' * 100000)",
    "re.sub('(.*)', '\\\\1' * 1000, 'y' * 10000)",
    "re.match('(', 'a')",
    "re.compile('a' * 5000)",
    "list(itertools.count())",
    "sum(itertools.count())",
    "list(itertools.repeat(1))",
    "list(itertools.cycle([1]))",
    "list(itertools.product(range(1000), range(1000), range(1000)))",
    "list(itertools.product([1, 2], repeat=10**9))",
    "list(itertools.permutations(range(1000)))",
    "list(itertools.combinations(range(100), 50))",
    "list(itertools.combinations([1], 10**9))",
    "list(itertools.islice(itertools.count(), 10**12, None))",
    "list(itertools.chain.from_iterable(itertools.repeat([1])))",
    "list(zip(itertools.count(), itertools.count()))",
    "list(enumerate(itertools.count()))",
    "any(itertools.repeat(0))",
    "all(itertools.repeat(1))",
    "5 in itertools.repeat(1)",
    "next(itertools.compress(itertools.count(), itertools.repeat(0)))",
    "max(itertools.count())",
    "''.join(itertools.repeat('a'))",
    "calendar.no_such_thing(1)",
    "1 / 0",
]

# These take a backtracking matcher years; with the package regex some are answered.
SOON = [
    "re.match('(a+)+$', 'a' * 40 + 'b')",
    "re.match('(a|a)*$', 'a' * 40 + 'b')",
    "re.match('(a|aa)+$', 'a' * 60 + 'b')",
    "re.match('(.*a){25}c', 'a' * 60)",
    "re.match('a?' * 30 + 'a' * 30 + 'b', 'a' * 30)",
    "re.search('(x+x+)+y', 'x' * 60)",
    "re.sub('(a*)*b', '', 'a' * 60)",
    "re.findall('(([a-z])+.)+[A-Z]([a-z])+$', 'a' * 60)",
    "re.split('(a+)+c', 'a' * 60)",
    "re.fullmatch('([a-zA-Z]+)*', 'a' * 60 + '1')",
    "re.compile('(a+)+$').match('a' * 60 + 'b')",
    "re.match('(?:a{0,50}){0,50}b', 'a' * 60)",
    "re.match('.*.*.*.*.*x', 'a' * 10000)",
    "re.search('a*a*a*a*a*b', 'a' * 10000)",
]

# These are read, because they depend on the record; computing them fails, soon.
FAILING = [
    "item['n'] ** item['big'] ** item['big']",
    "2 ** item['big']",
    "1 << item['big']",
    "item['text'] * item['big']",
    "item['list'] * item['big']",
    "[0] * item['big'] * item['big']",
    "'x'.ljust(item['big'] * 10)",
    "'{:{w}}'.format(1, w=item['big'])",
    "f\"{item['n']:{item['big']}}\"",
    "item['template'].format(item)",
    "item['template'].format(*[item])",
    "('{0.' + '__class__}').format(item)",
    "('{a.' + 'b}').format(a=item)",
    "('%' + str(item['big']) + 'd') % 1",
    "re.match('(a|a)*$', item['text'])",
    "re.compile(item['pattern']).search(item['text'] * 3)",
    "re.match('(' * item['n'], 'a')",
    "[re.search('(a|b|ab)*c', item['long']) for x in range(100000)]",
    "[x for x in itertools.count(item['n'])]",
    "[y for x in range(item['big']) for y in range(item['big'])]",
    "{x: x for x in itertools.count(item['n'])}",
    "[[0] * 1000 for x in range(item['big'])]",
    "['a' * 100000 for x in range(item['big'])]",
    "[item['list'].append(x) for x in item['list']]",
    "[item.update(a=[item.get('a'), item.get('a')]) for x in range(60)] and item['a'] == [item['a']]",
    "[item.update(a=(item.get('a'), item.get('a'))) for x in range(60)] and {item['a']: 1}",
    "[item.update(a=[item.get('a'), item.get('a')]) for x in range(60)] and str(item)",
    "[item.update(a=[item.get('a'), item.get('a')]) for x in range(60)] and '%s' % item",
    "[item.update(a=[item.get('a'), item.get('a')]) for x in range(60)] and f'{item}'",
    "[item.update(a=[item.get('a'), item.get('a')]) for x in range(60)] and sorted([item['a'], [item['a']]])",
    "[item.update(b=item['b'] + item['b']) for x in [item.update(b='ab')] + [0] * 100]",
    "[item.update(b=item['b'] * item['b']) for x in [item.update(b=3)] + [0] * 100]",
    "[item.update(b=item['b'] + item['b']) for x in [item.update(b=[1])] + [0] * 100]",
    "[item['long'].replace('a', item['long']) for x in range(100)]",
    "[item['long'].rfind('a' * 5000 + 'c') for x in range(100000)]",
    "item.update(me=item) or sorted([item, item])",
    "[sorted(range(1000)) for x in range(item['big'])]",
    "[math.factorial(1000) for x in range(item['big'])]",
    "[(3 ** 8000 + x) // 7 ** 2000 for x in range(item['big'])]",
    "[str(3 ** 8000 + x) for x in range(item['big'])]",
    "[item['text'].encode('utf-16') for x in range(item['big'])]",
    "[datetime.datetime.strptime('1111111111111111x' + item['text'], '%d%m%H%M%S%j%f') for x in range(1000)]",
    "int(item['huge'])",
    "round(item['huge'])",
    "math.floor(item['huge'])",
    "'%d' % item['huge']",
    "f\"{item['huge']:f}\"",
    "'%d' % [item['huge']][0]",
    "random.choices([1], k=item['big'] * 10)",
    "random.getrandbits(item['big'])",
    "random.sample(range(10**12), 5)",
    "item['none'].lower()",
    "item['n'].append(1)",
    "item['list'].keys()",
    "item['no such']",
    "item['list'][10]",
    "item['n'] / 0",
    "item['n'] + item['text']",
    "(-item['n']) ** 0.5",
    "next(zip(item['list'])).pop()",
    "sum(item['list'], [])",
    "sum([item['text'], item['text']])",
    "list(itertools.accumulate([[1], item['list']]))",
    "int('9' * item['n'] * 2000)",
    "item['text'].encode(item['text'])",
    "re.sub('a', item['list'], 'a')",
    "item.update(item['text'])",
]


@pytest.fixture(autouse=True)
def _no_collection():
    """The heap of a whole run of tests takes a second to be looked through: that is not the expression's."""
    gc.disable()
    yield
    gc.enable()


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("source", REFUSED, ids=lambda source: repr(source[:60]))
def test_refused_before_any_record_comes(source):
    # When a configuration holds it
    begin = _seconds()
    with pytest.raises(InvalidExpression) as caught:
        compile_expression(source)

    # Then it is refused, at once, with a text of some length at most
    assert _seconds() - begin < 1
    assert len(str(caught.value)) < 1_500


@pytest.mark.parametrize("source", SOON, ids=lambda source: repr(source[:60]))
@pytest.mark.parametrize("package", [True, False])
def test_answered_soon_or_refused(source, package, monkeypatch):
    if not package:
        monkeypatch.setitem(sys.modules, "regex", None)
        pattern.kept.cache_clear()
    begin = _seconds()
    if package:
        with contextlib.suppress(InvalidExpression, LimitExceeded):  # by the clock: either time
            compile_expression(source)({})
    else:
        with pytest.raises(InvalidExpression, match=r"resilient-exporters\[expressions\]"):
            compile_expression(source)
    pattern.kept.cache_clear()
    assert _seconds() - begin < 1


@pytest.mark.parametrize("source", FAILING, ids=lambda source: repr(source[:60]))
def test_fails_soon_for_the_record(source):
    expression = compile_expression(source)
    record = {**RECORD, "list": [1, 2, 3]}

    # When it is computed
    begin = _seconds()
    with pytest.raises(ExpressionError):
        expression(record)

    # Then it has not taken long
    assert _seconds() - begin < 1


def test_what_is_not_allowed_is_named_with_what_is():
    with pytest.raises(InvalidExpression, match=r"the attribute __class__ is not allowed.*allowed are item\["):
        compile_expression("item.__class__")
    with pytest.raises(InvalidExpression, match="a lambda is not allowed"):
        compile_expression("lambda: 1")
    with pytest.raises(InvalidExpression, match=r"math.nothing; math has acos, .* is not allowed"):
        compile_expression("math.nothing(1)")


def test_a_record_cannot_be_made_a_bomb():
    # Given an expression that doubles a list again and again, each time by reference only
    expression = compile_expression("[item.update(a=[item.get('a'), item.get('a')]) for x in range(60)]")

    # When it changes a record that goes on to a formatter
    begin = time.thread_time()
    with pytest.raises(LimitExceeded):
        expression({"a": 1})

    # Then it is found out before that, and soon
    assert time.thread_time() - begin < 1


@pytest.mark.parametrize(
    "source", ["item.update(me=item)", "item.update(x=itertools.count())", "item.update(x=re.compile('a'))"]
)
def test_a_record_stays_data(source):
    with pytest.raises(ExpressionError):
        compile_expression(source)({"a": 1})


CODE = {
    "import": "import os\ndef f(item): return os.getcwd()",
    "import inside": "def f(item):\n    import os\n    return 1",
    "from": "from os import path\ndef f(item): return 1",
    "class": "class X: pass\ndef f(item): return 1",
    "decorator": "@eval\ndef f(item): return 1",
    "default": "def f(item=open('/etc/passwd')): return 1",
    "star": "def f(*item): return 1",
    "attribute": "def f(item):\n    item.x = 1",
    "dunder": "def f(item):\n    return item.__class__",
    "dunder name": "def f(item):\n    __x = 1\n    return __x",
    "global": "def f(item):\n    global x\n    x = 1",
    "try": "def f(item):\n    try:\n        return 1\n    except Exception: pass",
    "with": "def f(item):\n    with open('x') as y: return 1",
    "lambda": "def f(item):\n    g = lambda: 1\n    return g()",
    "yield": "def f(item):\n    yield 1",
    "async": "async def f(item): return 1",
    "nested": "def f(item):\n    def g(): return 1\n    return g()",
    "outside": "print(1)\ndef f(item): return 1",
    "state": "seen = []\ndef f(item): return 1",
    "none": "x = 1",
    "del name": "def f(item):\n    del item",
    "slice": "def f(item):\n    item['l'][0:10] = [1] * 10\n    while item.__len__(): pass",
}


@pytest.mark.parametrize("source", CODE.values(), ids=CODE)
def test_code_is_refused(source):
    with pytest.raises(InvalidExpression):
        compile_function(source, "f")


LOOPS = {
    "while": "def f(item):\n    while True: pass",
    "while growing": "def f(item):\n    x = [1]\n    while True: x += x",
    "while appending": "def f(item):\n    x = []\n    while True: x.append(x)",
    "for": "def f(item):\n    for x in itertools.count(): pass",
    "for itself": "def f(item):\n    x = [1]\n    for y in x: x.append(y)",
    "recursion": "def f(item): return f(item)",
    "two": "def f(item): return g(item)\ndef g(item): return f(item)",
    "tree": "def f(item): return g(30)\ndef g(n):\n    if n == 0: return 0\n    return g(n - 1) + g(n - 1)",
    "number": "def f(item):\n    x = 3\n    while True: x *= x",
    "text": "def f(item):\n    x = 'a'\n    while True: x += x",
    "format": "def f(item):\n    x = 'a'\n    while True: x = f'{x}{x}'",
    "alias": "def f(item):\n    t = []\n    v = [[t] * 900] * 900\n    for i in range(1000): t.append(i)\n"
    "    w = [[t] * 900] * 900\n    return v == w",
    "deep": "def f(item):\n    x = []\n    for i in range(10000): x = [x]\n    return x == [x]",
}


@pytest.mark.parametrize("source", LOOPS.values(), ids=LOOPS)
def test_code_ends(source):
    function = compile_function(source, "f")
    begin = _seconds()
    with pytest.raises(ExpressionError):
        function({})
    assert _seconds() - begin < 1
