"""What a snippet gets and gives, by REST and by MCP, and what of a request is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.live_node import Live, RawMcp, serve
from memoturn_core.code.guest.library import MODULES
from memoturn_core.code.results import result
from memoturn_core.code.worker import Ended
from memoturn_schemas.code import ExecuteRequest
from sandbox.snippets import SHAPES, Snippets, hidden, kind

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_the_output_is_the_value_of_the_last_line(snippets: Snippets):
    assert snippets.output("x = 20\nx * 2 + 2") == 42
    assert snippets.output("x = 42") is None
    assert snippets.output("if True:\n    42") is None


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("(1, [2, {'three': None}])", [1, [2, {"three": None}]]),
        ("{1}", "{1}"),
        ("float('inf')", "inf"),
        ("2 ** 100", 2**100),
        ("'é\\U0001f600'", "é😀"),
        ("import decimal\n[decimal.Decimal('0.1')]", ["Decimal('0.1')"]),
        ("import datetime\nstr(datetime.datetime.fromtimestamp(0))", "1970-01-01 00:00:00"),
        ("import sys\nsys.exit()", None),
        ("match [1, 2]:\n    case [a, b]: c = a + b\nc", 3),
        ("def f[T](x: T) -> T: return x\nf(1)", 1),
    ],
)
def test_what_json_has_no_form_for_is_told_as_python_shows_it(snippets: Snippets, code, output):
    assert snippets.output(code) == output


@given(value=VALUES)
@settings(max_examples=60, deadline=None)
def test_any_json_goes_in_and_comes_out(snippets: Snippets, value):
    assert snippets.output("input_data", input=value) == value


def test_stdout_and_stderr_are_told_apart(snippets: Snippets):
    told = snippets.run("import sys\nprint('one')\nprint('two', file=sys.stderr)\nprint('three', end='')")
    assert (told["stdout"], told["stderr"]) == ("one\nthree", "two\n")


@pytest.mark.parametrize(
    ("code", "expected", "message"),
    [
        ("def f(:", "error syntax", "SyntaxError: invalid syntax (line 1)"),
        ("1\0", "error syntax", "SyntaxError: source code string cannot contain null bytes"),
        ("return 1", "error syntax", "SyntaxError: 'return' outside function (line 1)"),
        ("x = 1\n1 / 0", "error runtime", "ZeroDivisionError: division by zero (line 2)"),
        ("import numpy", "error runtime", "ModuleNotFoundError: No module named 'numpy' (line 1)"),
        ("raise SystemExit(3)", "error runtime", "SystemExit: the snippet exited with status 3"),
        ("raise KeyboardInterrupt", "error runtime", "KeyboardInterrupt (line 1)"),
        ("input()", "error permission", "PermissionError: stdin is not available in the sandbox (line 1)"),
        ("'\\ud800'", "error runtime", "the output cannot be given as JSON: must be valid Unicode"),
    ],
)
def test_an_error_says_what_and_where(snippets: Snippets, code, expected, message):
    told = snippets.run(code)
    assert (kind(told), told["message"]) == (expected, message)


def test_an_error_shows_the_line_as_python_does(snippets: Snippets):
    told = snippets.run("def half(x):\n    return x / 0\nhalf(1)")
    assert "line 2, in half\n    return x / 0" in told["stderr"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "code"),
        ({"code": ""}, "code"),
        ({"code": 1}, "code"),
        ({"code": "é" * 50_001}, "code"),
        ({"code": "1", "preset": "unlimited"}, "preset"),
        ({"code": "1", "input": "x" * 1_000_001}, "input"),
        ({"code": "1", "timeout": 99}, "timeout"),
    ],
)
def test_a_request_that_is_wrong_names_the_field(live: Live, body, field):
    response = live.http.post("/v1/code/execute", json=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith(f"{field}: ")


def test_a_snippet_that_is_no_unicode_is_refused():
    """REST refuses such a body as a whole; other surfaces may hand one on."""
    with pytest.raises(ValidationError):
        ExecuteRequest(code="'\ud800'")


def test_a_snippet_of_the_largest_size_is_run(snippets: Snippets):
    assert snippets.output("#" * 99_990 + "\n42") == 42


def test_agents_have_it_as_a_tool(live: Live):
    mcp = RawMcp(live.http)
    answer = mcp.call("execute_code", code="print('hi')\nsum(input_data)", input=[1, 2])
    told = answer["structuredContent"]["result"]
    assert (told["type"], told["output"], told["stdout"]) == ("success", 3, "hi\n")


def test_a_node_without_a_sandbox_says_so_and_does_not_list_it(tmp_path):
    with serve(tmp_path, toolsets="code") as live:
        response = Snippets(live.http).post("1")
        assert (response.status_code, response.json()["code"]) == (503, "unconfigured")
        assert "MEMOTURN_CODE" in response.json()["error"]
        mcp = RawMcp(live.http)
        assert '"tools":[]' in mcp.post('{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}').text.replace(" ", "")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[]",
        "null",
        '{"type": "success"}',
        '{"type": "success", "output": NaN}',
        '{"type": "success", "output": "\\ud800"}',
        '{"type": "error", "message": 1, "error_type": "runtime"}',
        '{"type": "error", "message": "x", "error_type": "fatal"}',
        '{"type": "timeout", "elapsed_ms": 1, "partial_output": "x"}',
        '{"type": "security_violation", "reason": "x", "violation_type": "of mine"}',
        '{"type": "success", "output": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"type": "success", "output": 1' + "0" * 5_000 + "}",
    ],
)
def test_an_answer_that_is_forged_badly_is_an_error_and_nothing_more(answer):
    told = result(Ended("answered", answer, "out", "err", 1.0))
    assert told["type"] == "error"
    json.dumps(told, allow_nan=False).encode()


def test_a_snippet_that_forges_its_answer_deceives_only_its_sender(snippets: Snippets):
    code = """
import sys
sys.modules['memoturn_core.code.guest.run'].json.dumps = lambda *_, **__: '{"type": "timeout"}'
"""
    assert set(snippets.run(hidden(code))) == SHAPES["error"]


def test_the_modules_that_are_there_can_be_imported(snippets: Snippets):
    names = ", ".join(f"{name}.__name__" for name in MODULES)
    assert snippets.output(f"import {', '.join(MODULES)}\n[{names}]") == MODULES


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("import datetime\nstr(datetime.datetime.strptime('2026-01-02', '%Y-%m-%d'))", "2026-01-02 00:00:00"),
        ("import time\ntime.gmtime(0).tm_year, time.strptime('2026', '%Y').tm_year", [1970, 2026]),
        ("'\u20ac'.encode('cp1252').hex(), 'ä.de'.encode('idna').decode()", ["80", "xn--4ca.de"]),
        ("import logging\nlogging.warning('hi')\nlogging.getLogger().level", 30),
        ("import re, json, collections\ncollections.Counter(re.findall('a', 'banana'))['a']", 3),
        ("import statistics\nstatistics.NormalDist(0, 1).cdf(0)", 0.5),
        ("import zlib, base64\nzlib.decompress(base64.b64decode(base64.b64encode(zlib.compress(b'x')))).decode()", "x"),
        ("import time\nbegun = time.monotonic()\ntime.sleep(0.05)\n0.04 < time.monotonic() - begun < 2", True),
        ("import secrets\nlen(secrets.token_hex(8))", 16),
        (
            "import functools\n@functools.cache\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)\nf(60)",
            1548008755920,
        ),
    ],
)
def test_the_library_works_where_it_imports_or_asks_for_the_time_itself(snippets: Snippets, code, output):
    assert snippets.output(code) == output


def test_tests_can_be_run_in_it(snippets: Snippets):
    code = """
import unittest
class Tests(unittest.TestCase):
    def test_sum(self): self.assertEqual(1 + 1, 2)
unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(Tests)).wasSuccessful()
"""
    told = snippets.run(code)
    assert told["output"] is True
    assert "Ran 1 test" in told["stderr"]
