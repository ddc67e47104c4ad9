"""Exhaustion, of every kind there is: time, memory, stack and output. All that must time out do so together."""

from __future__ import annotations

import pytest

from sandbox.snippets import Snippets, kind

ENDLESS = {
    "a loop": "while True: pass",
    "a loop that catches everything": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "a generator": "def f():\n    while True: yield 1\nsum(f())",
    "an iterator in C": "import itertools\nsum(itertools.repeat(1))",
    "a regular expression": "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')",
    "a power": "3 ** (10 ** 9)",
    "a sort": "import random\nwhile True: sorted(range(200_000), key=lambda x: random.random())",
    "a finaliser": "class A:\n    def __del__(self):\n        while True: pass\nA()\n1",
    "a comparison": "class A:\n    def __eq__(self, other):\n        while True: pass\nA() == A()",
    "a string method": "s = 'a' * 200_000\nwhile True: (s + 'b').find('a' * 100_000 + 'b')",
    "a sleep": "import time\ntime.sleep(1_000)",
    "a loop after a line": "print('half')\nprint('a line', end='')\nwhile True: pass",
    "its own result": "class A:\n    def __repr__(self):\n        while True: pass\nA()",
}

EXHAUSTING = {
    "a list": "a = []\nwhile True: a.append(bytearray(1 << 20))",
    "a list that doubles": "a = [1]\nwhile True: a += a",
    "a string that doubles": "a = 'x'\nwhile True: a += a",
    "one block": "bytearray(1 << 30)",
    "a dictionary": "a = {}\nwhile True: a[len(a)] = 'x' * 1_000",
    "a huge integer": "1 << (1 << 30)",
    "a recursion": "def f(): f()\nf()",
    "a recursion without limit": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()",
    "a deep repr": "a = []\nfor _ in range(100_000): a = [a]\nrepr(a)",
    "a deep result": "a = []\nfor _ in range(100_000): a = [a]\na",
    "a deep expression": "(" * 5_000,
    "a deep negation": "-" * 90_000 + "1",
    "a flood of lines": "while True: print('x' * 100)",
    "a flood without lines": "while True: print('x' * 100, end='')",
    "a flood on stderr": "import sys\nwhile True: sys.stderr.write('x' * 1_000)",
    "a flood at once": "print('x' * 10_000_000)",
    "a huge result": "'x' * 5_000_000",
}


@pytest.fixture(scope="module")
def endless(snippets: Snippets):
    """How each of the endless ones ended, that were all run at once."""
    return dict(zip(ENDLESS, snippets.at_once(ENDLESS.values()), strict=True))


@pytest.mark.parametrize("name", ENDLESS)
def test_what_goes_on_for_ever_is_stopped_when_its_time_is_up(endless, name):
    assert kind(endless[name]) in ("timeout", "error resource"), endless[name]
    if name != "a power":  # which may also need too much
        assert 2_900 < endless[name]["elapsed_ms"] < 5_000


def test_what_was_printed_before_the_time_was_up_is_told(endless):
    assert endless["a loop after a line"]["partial_output"] == "half\na line"


@pytest.mark.parametrize("name", EXHAUSTING)
def test_what_needs_too_much_is_an_error_of_resources(snippets: Snippets, name):
    result = snippets.run(EXHAUSTING[name])
    assert kind(result) == "error resource", result
    assert len(result["message"]) < 500
    assert len(result["stdout"]) + len(result["stderr"]) <= 1 << 20


def test_presets_give_so_much_memory_and_no_more(snippets: Snippets):
    fits = {"restrictive": 16, "default": 64, "permissive": 160}
    for preset, megabytes in fits.items():
        assert snippets.output(f"len(bytearray({megabytes} << 20)) >> 20", preset=preset) == megabytes
        over = {"restrictive": 64, "default": 128, "permissive": 256}[preset]
        assert kind(snippets.run(f"bytearray({over} << 20)", preset=preset)) == "error resource"


def test_a_huge_message_is_told_as_far_as_it_says(snippets: Snippets):
    result = snippets.run("raise ValueError('x' * 1_000_000)")
    assert kind(result) == "error runtime"
    assert result["message"].endswith("characters more")
    assert len(result["message"]) < 5_000


def test_an_exception_that_cannot_be_shown_is_still_told(snippets: Snippets):
    code = "class E(Exception):\n    def __str__(self): return 1 / 0\nraise E"
    assert snippets.run(code)["message"] == "E (line 3)"
