"""The static check: what a snippet evidently must not do is said before any of it runs.

It is there to give a clear answer early, and keeps nobody in: whatever passes it meets the walls of the sandbox,
which do not depend on it. Called by `run`, in the sandbox, as its parser is the one that matters.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

_REFUSED_MODULES = {
    "file_system": """
        os posix posixpath ntpath pathlib shutil glob tempfile fileinput filecmp mmap sqlite3 dbm shelve zipfile
        tarfile gzip bz2 lzma linecache
    """,
    "network": """
        socket ssl select selectors asyncio http urllib.request urllib.error ftplib smtplib poplib imaplib telnetlib
        socketserver xmlrpc wsgiref webbrowser requests httpx aiohttp urllib3 websockets
    """,
    "process": """
        subprocess multiprocessing threading concurrent signal pty tty fcntl resource pwd grp syslog faulthandler
        ctypes cffi atexit
    """,
    "introspection": """
        builtins importlib imp runpy pkgutil zipimport gc marshal code codeop pdb bdb tracemalloc wit_world
        componentize_py_runtime componentize_py_types componentize_py_async_support memoturn_core
    """,
}
REFUSED_MODULES = {name: kind for kind, names in _REFUSED_MODULES.items() for name in names.split()}
"""What no snippet may import, and the kind of violation that it is. A module covers those below it."""

_OF_ALLOWED = {
    "file_system": {"io": {"open", "open_code", "FileIO"}, "codecs": {"open"}},
    "introspection": {"sys": {"modules", "meta_path", "path_hooks", "_getframe", "_getframemodulename", "settrace"}},
}
_ATTRIBUTES = frozenset(
    """
    __subclasses__ __bases__ __base__ __mro__ __globals__ __code__ __closure__ __builtins__ __loader__ __spec__
    __import__ f_back f_builtins f_globals f_locals f_code gi_frame gi_code cr_frame cr_code ag_frame ag_code tb_frame
    """.split()
)
_NAMES = {"open": "file_system", "breakpoint": "process"} | dict.fromkeys(
    ("__import__", "__builtins__", "__loader__", "__spec__"), "introspection"
)


@dataclass(frozen=True)
class Violation:
    """What a snippet must not do: why, for who wrote it, and of which kind it is."""

    reason: str
    violation_type: str


def refused_module(name: str) -> str | None:
    """The kind of violation that importing it is, or None."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        kind = REFUSED_MODULES.get(".".join(parts[:end]))
        if kind is not None:
            return kind
    return None


def violation(tree: ast.Module) -> Violation | None:
    """The first thing in a snippet that it must not do."""
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        found: tuple[str, str] | None = None
        match node:
            case ast.Import(names=names):
                found = _imported([each.name for each in names])
            case ast.ImportFrom(module=module, names=names) if module is not None:
                found = _imported([module, *(f"{module}.{each.name}" for each in names)])
                found = found or _of_module(module, [each.name for each in names])
            case ast.Attribute(attr=name) if name in _ATTRIBUTES:
                found = name, "introspection"
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                found = _of_module(module, [name])
            case ast.Name(id=name) if name in _NAMES and name not in own:
                found = name, _NAMES[name]
        if found is not None:
            what, kind = found
            line = getattr(node, "lineno", 0)
            return Violation(f"line {line}: {what} is not available in the sandbox ({kind.replace('_', ' ')})", kind)
    return None


def _imported(names: list[str]) -> tuple[str, str] | None:
    for name in names:
        private = name.startswith("_") and not name.startswith("__future__")
        kind = "introspection" if private else refused_module(name)
        if kind is not None:
            return name, kind
    return None


def _of_module(module: str, names: list[str]) -> tuple[str, str] | None:
    for kind, modules in _OF_ALLOWED.items():
        for name in names:
            if name in modules.get(module, ()):
                return f"{module}.{name}", kind
    return None
