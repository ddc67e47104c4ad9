"""Against other people's programs, which need a Go toolchain: `make interop` runs these, plain pytest does not."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("MEMOTURN_INTEROP") == "1" else ["test_*.py"]
