"""The codes of errors and their statuses, as the contract has them; nothing here is taken from the program."""

from __future__ import annotations

STATUSES = {
    "unauthorized": {401},
    "forbidden": {403},
    "not_found": {404},
    "database_not_found": {404},
    "branch_not_found": {404},
    "already_exists": {409},
    "conflict": {409},
    "invalid_request": {400, 405},
    "payload_too_large": {413},
    "request_timeout": {408},
    "overloaded": {429},
    "unconfigured": {503},
    "unavailable": {503},
    "internal": {500, 502},
}
"""The statuses that each code of an error may come with."""
