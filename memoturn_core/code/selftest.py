"""What the sandbox must refuse, tried out: before a node runs anybody's snippet, and by the tests.

Every attempt is hidden from the static check, so that what holds is the sandbox itself. Called by `sandbox`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from memoturn_core.code.limits import Limits
from memoturn_core.code.pool import Pool
from memoturn_schemas.code import ExecuteResponse

Run = Callable[[str, Limits], Awaitable[ExecuteResponse]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A snippet that assigns what it got to `got`, and the only ways in which it may end."""

    name: str
    code: str
    endings: tuple[str, ...]
    seconds: float = 10.0


_UNASKED = "import sys; sys.modules['memoturn_core.code.guest.world']._REFUSED_EVENTS = ('none',)\n"
"""Takes the audit hook away, so that what is met is what stands in the place of the system call."""
_OS = "import sys; os = sys.modules['os']; "
_BUILTIN = """
import sys
imp, types = sys.modules['_imp'], sys.modules['types']
def builtin(name):
    spec = types.SimpleNamespace(name=name, origin=None, parent='')
    module = imp.create_builtin(spec); imp.exec_builtin(module)
    return module
"""

_REFUSED = ("error permission",)
_STOPPED = ("security_violation system_call",)
_TOO_MUCH = ("error resource",)

ATTEMPTS = (
    Attempt("it computes", "got = 6 * 7", ("success 42",)),
    Attempt("it opens no file", "got = open('/etc/passwd').read()", _REFUSED),
    Attempt("it reads no file", _OS + "got = os.open('/etc/passwd', os.O_RDONLY)", _REFUSED),
    Attempt("it writes no file", _OS + "got = os.open('/tmp/x', os.O_CREAT | os.O_WRONLY, 511)", _REFUSED),
    Attempt("it lists no directory", _OS + "got = os.listdir('/')", _REFUSED),
    Attempt("it finds no file", "import sys; got = sys.modules['posix'].stat('/').st_size", _STOPPED),
    Attempt("it reads no file unasked", _UNASKED + _OS + "got = os.open('/etc/passwd', os.O_RDONLY)", _STOPPED),
    Attempt("it lists no directory unasked", _UNASKED + _OS + "got = os.listdir('/')", _STOPPED),
    Attempt("it has no sockets unasked", _UNASKED + _BUILTIN + "got = builtin('_socket').socket().fileno()", _STOPPED),
    Attempt("it sees no variables", _OS + "got = dict(os.environ)", ("success {}",)),
    Attempt("it starts no program", _OS + "got = [name for name in dir(os) if 'spawn' in name]", ("success []",)),
    Attempt("it starts no shell", _OS + "got = os.system('true')", ("error runtime",)),
    Attempt("it does not fork", _OS + "got = os.fork()", ("error runtime",)),
    Attempt("it has no sockets", _BUILTIN + "got = builtin('_socket').socket().fileno()", _REFUSED),
    Attempt("it has no names of hosts", _BUILTIN + "got = builtin('_socket').gethostname()", _REFUSED),
    Attempt("it has no threads", "import sys; got = sys.modules['_thread'].start_new_thread(print, ())", _REFUSED),
    Attempt("it calls no native code", "import ctypes; got = ctypes.CDLL(None)", _REFUSED),
    Attempt("it does not go on for ever", "while True: pass", ("timeout",), 0.2),
    Attempt("it takes no more memory", "got = []\nwhile True: got.append(bytearray(1 << 20))", _TOO_MUCH),
    Attempt("it prints no more", "while True: print('x' * 1_000)", _TOO_MUCH),
    Attempt("it changes what the next one finds", "import sys, math; math.pi = sys.left = 3; got = 3", ("success 3",)),
    Attempt(
        "it finds nothing changed",
        "import sys, math; got = math.pi == 3, hasattr(sys, 'left')",
        ("success [false, false]",),
    ),
)
_MEMORY = 64 << 20
_LIMITS = {"CORE": 0, "FSIZE": 0}
"""Of the kernel's, those that every system has."""


def hidden(code: str) -> str:
    """The same snippet so that the static check sees nothing of it; its `got` is the output."""
    return f"exec(bytes.fromhex('{code.encode().hex()}').decode(), globals())\ngot"


def ending(result: ExecuteResponse) -> str:
    """A result in two words."""
    match result:
        case {"type": "success", "output": output}:
            return f"success {json.dumps(output)}"
        case {"type": "error", "error_type": kind}:
            return f"error {kind}"
        case {"type": "security_violation", "violation_type": kind}:
            return f"security_violation {kind}"
    return result["type"]


async def breaches(run: Run, pool: Pool) -> list[str]:
    """The attempts that did not end as they must, none where the sandbox holds."""
    found = []
    for attempt in ATTEMPTS:
        came = ending(await run(hidden(attempt.code), Limits(attempt.seconds, _MEMORY)))
        if came not in attempt.endings:
            found.append(f"{attempt.name}: {came}")
    for worker in pool.workers():
        held = [(name, worker.limits.get(name)) for name, value in _LIMITS.items() if worker.limits.get(name) != value]
        found += [f"the kernel's limit {name} is {value}" for name, value in held]
    return found
