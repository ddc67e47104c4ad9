"""Running a snippet of Python that an agent wrote. What it may do and what it is told is in docs/code.md."""

from __future__ import annotations

from memoturn_core.code.limits import PRESETS
from memoturn_core.node import Node
from memoturn_core.operations import Reply, Rest, Scope, Target, operation
from memoturn_schemas.code import ExecuteRequest, ExecuteResponse
from memoturn_schemas.errors import Unconfigured


def _is_available(node: Node) -> bool:
    return node.sandbox is not None and node.sandbox.offered()


@operation(
    name="execute_code",
    title="Run a snippet of Python",
    target=Target.NODE,
    scope=Scope.WRITE,
    toolset="code",
    request=ExecuteRequest,
    response=ExecuteResponse,
    rest=Rest("POST", "/code/execute"),
    queued=True,
    available=_is_available,
)
async def execute(node: Node, request: ExecuteRequest) -> Reply:
    """Run Python in a sandbox without files, network or packages; call it to compute or check something exactly.

    The result is the value of the last line, as JSON. What it prints is told, too.
    """
    if node.sandbox is None:
        raise Unconfigured("this node runs no snippets; MEMOTURN_CODE says whether it does")
    return Reply(await node.sandbox.run(request.code, request.input, PRESETS[request.preset]))
