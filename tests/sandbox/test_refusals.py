"""Ways out of the sandbox, each tried: in plain sight of the static check, and hidden from it.

The static check is courtesy. What the hidden attempts meet is the sandbox: an exception where the interpreter was
told to ask first, and the end of the run where it reached for the operating system all the same.
"""

from __future__ import annotations

import ast

import pytest

from memoturn_core.code.guest.check import violation
from sandbox.snippets import Snippets, hidden, kind

PLAIN = {
    "open('/etc/passwd').read()": "file_system",
    "import os": "file_system",
    "import os.path": "file_system",
    "from os import path": "file_system",
    "from pathlib import Path": "file_system",
    "import io; io.open('/etc/passwd')": "file_system",
    "from io import FileIO": "file_system",
    "def f():\n    import shutil": "file_system",
    "import socket": "network",
    "import urllib.request": "network",
    "from urllib import request": "network",
    "import http.client": "network",
    "import asyncio": "network",
    "import subprocess": "process",
    "import multiprocessing": "process",
    "import threading": "process",
    "import signal": "process",
    "import ctypes": "process",
    "breakpoint()": "process",
    "import importlib": "introspection",
    "import gc": "introspection",
    "import builtins": "introspection",
    "import wit_world": "introspection",
    "import _socket": "introspection",
    "__import__('os')": "introspection",
    "().__class__.__base__.__subclasses__()": "introspection",
    "(lambda: 0).__globals__": "introspection",
    "(lambda: 0).__code__": "introspection",
    "(i for i in ()).gi_frame.f_back": "introspection",
    "import sys; sys.modules['os']": "introspection",
    "import sys; sys._getframe()": "introspection",
}

_OS = "import sys; os = sys.modules['os']; posix = sys.modules['posix']\n"
_BUILTIN = """
import sys, types
imp = sys.modules['_imp']
def builtin(name):
    module = imp.create_builtin(types.SimpleNamespace(name=name, origin=None, parent=''))
    imp.exec_builtin(module)
    return module
"""
_WORLD = "import sys; world = sys.modules['wit_world']\n"

_UNASKED = "import sys; sys.modules['memoturn_core.code.guest.world']._REFUSED_EVENTS = ('none',)\n"

DENIED, STOPPED = "error permission", "security_violation system_call"

HIDDEN = {
    # Files.
    "got = open('/etc/passwd').read()": DENIED,
    "import io; got = io.FileIO('/etc/passwd')": DENIED,
    "import sys; got = sys.modules['_io'].open_code('/etc/passwd')": DENIED,
    _OS + "got = os.open('/proc/self/environ', os.O_RDONLY)": DENIED,
    _OS + "got = posix.open('/etc/passwd', 0)": DENIED,
    _OS + "got = posix.open('/tmp/memoturn-escaped', os.O_CREAT | os.O_WRONLY)": DENIED,
    _OS + "got = posix.listdir('/')": DENIED,
    _OS + "got = posix.scandir('/')": DENIED,
    _OS + "got = posix.mkdir('/tmp/memoturn-escaped')": DENIED,
    _OS + "got = posix.unlink('/tmp/x')": DENIED,
    _OS + "got = posix.rename('/tmp/x', '/tmp/y')": DENIED,
    _OS + "got = posix.stat('/')": STOPPED,
    _OS + "got = posix.access('/', 0)": STOPPED,
    _OS + "got = posix.readlink('/proc/self/exe')": STOPPED,
    "import importlib": DENIED,
    "import zipfile; got = zipfile.ZipFile('/tmp/x.zip')": DENIED,
    _BUILTIN + "got = builtin('_sqlite3').connect('/tmp/x.db')": DENIED,
    # The network.
    "import socket; got = socket.create_connection(('127.0.0.1', 80))": DENIED,
    _BUILTIN + "got = builtin('_socket').socket()": DENIED,
    _BUILTIN + "got = builtin('_socket').getaddrinfo(b'localhost', 80)": DENIED,
    "import urllib.request; got = urllib.request.urlopen('http://127.0.0.1')": DENIED,
    # Other processes, native code, signals, threads.
    "import subprocess; got = subprocess.run(['true'])": DENIED,
    _OS + "got = os.system('true')": "error runtime",
    _OS + "got = os.fork()": "error runtime",
    _OS + "got = os.kill(1, 9)": "error runtime",
    "import ctypes; got = ctypes.CDLL(None)": DENIED,
    "import sys; got = sys.modules['_thread'].start_new_thread(print, ())": DENIED,
    _BUILTIN + "got = builtin('_signal').alarm(1)": "error runtime",
    # Ends of the interpreter itself.
    _OS + "os.abort()": "error unknown",
    _OS + "os._exit(0)": STOPPED,
    # What stands behind the functions that were replaced.
    _OS + "got = posix.urandom(8)": STOPPED,
    _BUILTIN + "got = builtin('time').time()": STOPPED,
    _WORLD + "world.write(1, 'x' * 2_000_000)": "error resource",
    _WORLD + "world.pause(float('nan'))\nwhile True: world.pause(1e9)": "timeout",
    _WORLD + "world.pause('now')": "error unknown",
    # And with the audit hook disarmed, nothing but the walls.
    _UNASKED + _OS + "got = posix.open('/etc/passwd', 0)": STOPPED,
    _UNASKED + _OS + "got = posix.open('/tmp/memoturn-escaped', os.O_CREAT | os.O_WRONLY)": STOPPED,
    _UNASKED + _OS + "got = posix.listdir('/')": STOPPED,
    _UNASKED + _OS + "got = posix.mkdir('/tmp/memoturn-escaped')": STOPPED,
    _UNASKED + _OS + "got = posix.unlink('/tmp/x')": STOPPED,
    _UNASKED + _OS + "got = posix.chdir('/')": STOPPED,
    _UNASKED + _OS + "got = posix.pipe()": "error runtime",
    _UNASKED + _OS + "got = posix.read(0, 1)": STOPPED,
    _UNASKED + _OS + "got = posix.write(1, b'x')": STOPPED,
    _UNASKED + _BUILTIN + "got = builtin('_socket').socket()": STOPPED,
    _UNASKED + _BUILTIN + "got = builtin('_socket').getaddrinfo(b'localhost', 80)": STOPPED,
    _UNASKED + "import sys; got = sys.modules['_thread'].start_new_thread(print, ())": "error runtime",
    "import sys; sys.addaudithook(lambda *_: None); got = open('/etc/passwd')": DENIED,
}


@pytest.mark.parametrize("code", PLAIN)
def test_what_a_snippet_evidently_must_not_do_is_said_before_it_runs(snippets: Snippets, code):
    result = snippets.run("print('begun')\n" + code)
    assert kind(result) == f"security_violation {PLAIN[code]}"
    assert result["reason"].startswith(("line 2: ", "line 3: "))


@pytest.mark.parametrize("code", HIDDEN)
def test_what_the_static_check_does_not_see_meets_the_sandbox(snippets: Snippets, code):
    assert kind(snippets.run(hidden(code))) == HIDDEN[code]


def test_nothing_of_the_process_is_seen_from_inside(snippets: Snippets):
    assert snippets.output(hidden(_OS + "got = dict(os.environ)")) == {}
    assert snippets.output("import sys; sys.argv") in ([], [""])
    assert snippets.output(hidden("import sys; got = sys.path, sys.meta_path")) == [[], []]


def test_the_classes_that_are_reached_through_an_object_lead_nowhere(snippets: Snippets):
    """The classic way: find a class that holds `os`, and open something by it."""
    code = """
found = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close']
got = found[0].__init__.__globals__['open']('/etc/passwd', 0) if found else open('/etc/passwd')
"""
    assert kind(snippets.run(hidden(code))) == DENIED


def test_the_frames_of_who_called_lead_nowhere(snippets: Snippets):
    code = """
import sys
frame = sys._getframe()
while frame.f_back is not None: frame = frame.f_back
got = frame.f_builtins['__import__']('os').listdir('/')
"""
    assert kind(snippets.run(hidden(code))) == DENIED


def test_a_snippet_may_catch_a_denial_and_go_on(snippets: Snippets):
    code = "try:\n    open('/etc/passwd')\nexcept PermissionError as error:\n    got = str(error)"
    assert snippets.output(hidden(code)) == "files are not available in the sandbox"


def test_names_of_a_snippets_own_are_no_violation():
    for code in (
        "def open(x): return x\nopen(1)",
        "for open in range(3): open",
        "def f(open): return open",
        "class Door:\n    def open(self): pass\nDoor().open()",
        "import urllib.parse, collections.abc, xml.etree.ElementTree",
        "from __future__ import annotations",
    ):
        assert violation(ast.parse(code)) is None, code
