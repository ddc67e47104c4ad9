"""What runs inside the sandbox, on a CPython of its own; `memoturn_core.code.build` makes a component of it."""
