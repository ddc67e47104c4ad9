"""Branches that are asked for badly: a 4xx that names the field, nothing made, nothing changed, nobody harmed."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from contract.bad_input import names, refusal, refused, unharmed, where
from contract.branches import create, listed
from contract.live_node import Memory, event
from contract.test_bad_addresses import TRAVERSAL, ask_literally

TOOLSETS = "all"

BAD_NAMES = ["", " ", "a b", "a/b", "../x", "a.b", "a@b", "é", "a\0b", "a\n", "a" * 65, "x" * 10_000, "\u202ea", "٣"]
NOT_STRINGS = [None, True, 7, 1.5, ["x"], {"name": "x"}]
BAD_MOMENTS = [
    None, True, False, -1, 2**63, 10**40, 1.5, [1], {"txid": 1}, "", " ", "a b", "-1 ", "9" * 19, "9" * 64, "9" * 5_000,
    "a.b", "2024-01-01", "2024-01-01T00:00:00", "2024-13-01T00:00:00Z", "24:99", ":", "now:", "12:00:00Z",
    "2024-01-01T00:00:00+25:00", "yesterday at 10:00", "x" * 5_000 + ":",
]  # fmt: skip
BAD_TTLS = [True, -1, "60", 1.5, 10**11, 2**63, 10**40, [60], {}]
NOT_NUMBERS = ["NaN", "Infinity", "1e400"]


class Case(NamedTuple):
    """A tool, its arguments without the address, and the field that is wrong."""

    tool: str
    arguments: dict[str, Any]
    field: str


# "branch" is given by the address in the path, "2024-01-01" is a good checkpoint's name.
CASES = [
    *(Case("branch_create", {"name": bad}, "name") for bad in [*BAD_NAMES, *NOT_STRINGS]),
    *(Case("branch_create", {"name": "x", "from": bad}, "from") for bad in [*BAD_NAMES, *NOT_STRINGS]),
    *(Case("branch_create", {"name": "x", "checkpoint": bad}, "checkpoint") for bad in [*BAD_NAMES, *NOT_STRINGS[1:]]),
    *(Case("branch_create", {"name": "x", "ttl": bad}, "ttl") for bad in BAD_TTLS),
    *(Case("branch_create", {"name": "x", "at": bad}, "at") for bad in BAD_MOMENTS[1:] if bad != "2024-01-01"),
    *(Case("branch_rewind", {"to": bad}, "to") for bad in BAD_MOMENTS if bad != "2024-01-01"),
    *(Case("branch_checkpoint", {"name": bad}, "name") for bad in [*BAD_NAMES, *NOT_STRINGS]),
    *(Case("branch_promote", {"branch": "x", "keep_as": bad}, "keep_as") for bad in [*BAD_NAMES, *NOT_STRINGS[1:]]),
    Case("branch_create", {}, "name"),
    Case("branch_rewind", {}, "to"),
    Case("branch_checkpoint", {}, "name"),
    Case("branch_create", {"name": "x", "checkpoint": "c", "at": 1}, "checkpoint and at"),
    Case("branch_create", {"name": "x", "from_": "main"}, "from_"),
    Case("branch_create", {"name": "x", "parent": "main"}, "parent"),
    Case("branch_create", {"name": "x", "": "main"}, ""),
    Case("branch_rewind", {"to": 1, "at": 1}, "at"),
    Case("branch_rewind", {"to": 1, "force": True}, "force"),
    Case("branch_checkpoint", {"name": "c", "at": 1}, "at"),
    Case("branch_promote", {"branch": "x", "to": "main"}, "to"),
    Case("sync", {"branches": ["x"]}, "branches"),
]
ROUTES = {
    "branch_create": "/branches",
    "branch_checkpoint": "/branches/main/checkpoint",
    "branch_rewind": "/branches/main/rewind",
    "branch_promote": "/branches/x/promote",
    "sync": "/sync",
}


@pytest.fixture(scope="module")
def used(live) -> Memory:
    """A profile with a history and without branches, which no test here may change."""
    memory = live.memory()
    memory.keep(event("note 1"))
    memory.keep(event("note 2"))
    return memory


@pytest.fixture(autouse=True)
def _nothing_is_made_or_changed(live, used):
    epoch = epoch_of(used)
    yield
    assert live.http.get("/health").text == "ok"
    assert (listed(used), used.txid, epoch_of(used)) == ([], 2, epoch)


def epoch_of(memory: Memory) -> tuple[int, dict[str, int]]:
    inspected = memory.http.get(f"{memory.database}/storage").json()
    return inspected["epoch"], inspected["checkpoints"]


def label(case: Case) -> str:
    return f"{case.tool} {json.dumps(case.arguments)[:60]}"


@pytest.mark.parametrize("case", CASES, ids=label)
def test_bad_arguments_are_refused_over_rest_by_the_name_of_the_field(used, case):
    arguments = {name: value for name, value in case.arguments.items() if name != "branch"}
    refused(used.http.post(used.database + ROUTES[case.tool], json=arguments), case.field)


@pytest.mark.parametrize("case", CASES, ids=label)
def test_bad_arguments_are_refused_over_mcp_by_the_name_of_the_field(mcp, used, case):
    envelope = refusal({"result": mcp.call(case.tool, **where(used), **case.arguments)})
    assert envelope["code"] == "invalid_request"
    assert names(envelope["error"], case.field), envelope["error"]


@pytest.mark.parametrize("bad", BAD_NAMES[1:])
def test_a_bad_branch_is_refused_over_mcp_wherever_it_is_named(mcp, used, bad):
    for tool, arguments in (
        ("branch_checkpoint", {"name": "c"}),
        ("branch_rewind", {"to": 1}),
        ("branch_promote", {}),
        ("branch_delete", {}),
        ("sync", {}),
        ("storage_inspect", {}),
    ):
        envelope = refusal({"result": mcp.call(tool, **where(used), branch=bad, **arguments)})
        assert envelope["code"] == "invalid_request"
        assert names(envelope["error"], "branch"), envelope["error"]


@pytest.mark.parametrize("literal", NOT_NUMBERS)
def test_numbers_that_are_none_are_refused(used, literal):
    for route, field, text in (
        ("/branches", "ttl", f'{{"name": "x", "ttl": {literal}}}'),
        ("/branches", "at", f'{{"name": "x", "at": {literal}}}'),
        ("/branches/main/rewind", "to", f'{{"to": {literal}}}'),
    ):
        refused(used.http.post(used.database + route, content=text), field if literal == "1e400" else "")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"7", b"null", b'{"name": "\xff"}'])
def test_a_body_that_is_no_object_or_lacks_its_field_is_refused(used, body):
    for route, field in (
        ("/branches", "name"),
        ("/branches/main/checkpoint", "name"),
        ("/branches/main/rewind", "to"),
    ):
        refused(used.http.post(used.database + route, content=body), "" if body else field)


def test_what_the_path_says_is_not_said_again_in_the_body(used):
    for action, body in (("checkpoint", {"name": "c"}), ("rewind", {"to": 1}), ("promote", {})):
        for branch in ("main", "x"):
            route = f"{used.database}/branches/main/{action}"
            refused(used.http.post(route, json={**body, "branch": branch}), "branch")


@pytest.mark.parametrize("name", sorted({*TRAVERSAL} - {"Acme", "ACME", "a--b", "a-", "-a", "_a"}))
def test_a_bad_branch_in_a_path_is_refused(live, used, name):
    for method, path, field in (
        ("DELETE", f"{used.database}/branches/{name}", "branch"),
        ("POST", f"{used.database}/branches/{name}/checkpoint", "branch"),
        ("POST", f"{used.database}/branches/{name}/rewind", "branch"),
        ("POST", f"{used.database}/branches/{name}/promote", "branch"),
        ("POST", f"{used.database}@{name}/sync", "db"),
        ("GET", f"{used.database}@{name}/storage", "db"),
        ("GET", f"{used.database}@{name}/branches", "db"),
        ("POST", f"{used.database}%40{name}/sync", "db"),
    ):
        body = {"checkpoint": '{"name": "c"}', "rewind": '{"to": 1}'}.get(path.rpartition("/")[2])
        status, envelope = ask_literally(live, method, path, body)
        assert (status, envelope["code"]) == (400, "invalid_request"), f"{path} -> {envelope}"
        assert any(names(envelope["error"], each) for each in (field, "the path", "")), envelope["error"]


@pytest.mark.parametrize("name", ["", "/", "x/y", "../main"])
def test_slashes_in_a_branch_that_are_not_encoded_lead_to_no_route(live, used, name):
    for method, path in (
        ("DELETE", f"{used.database}/branches/{name}"),
        ("POST", f"{used.database}/branches/{name}/checkpoint"),
        ("POST", f"{used.database}@{name}/extra/sync"),
    ):
        status, envelope = ask_literally(live, method, path, '{"name": "c"}' if method == "POST" else None)
        assert (status, envelope["code"]) in [(404, "not_found"), (405, "invalid_request")], path


def test_a_branch_percent_encoded_in_a_path_is_that_branch(live, used):
    assert live.http.delete(f"{used.database}/branches/%78%5F1").status_code == 204
    assert live.http.delete(f"{used.database}/branches/%6D%61%69%6E").status_code == 400
    assert live.http.post(f"{used.database}%40%6Dain/sync").json() == {"txid": 2}
    assert live.http.post(f"{used.database}@%6Dain/sync").json() == {"txid": 2}


def test_branches_of_what_does_not_exist_are_404_and_make_nothing(live):
    with unharmed(live) as (_, unused):
        for method, route, body in (
            ("POST", "/branches", {"name": "x"}),
            ("GET", "/branches", None),
            ("DELETE", "/branches/x", None),
            ("POST", "/branches/main/checkpoint", {"name": "c"}),
            ("POST", "/branches/main/rewind", {"to": 1}),
            ("POST", "/branches/x/promote", {"keep_as": "y"}),
            ("POST", "/sync", None),
            ("GET", "/storage", None),
        ):
            response = live.http.request(method, unused.database + route, json=body)
            assert (response.status_code, response.json()["code"]) == (404, "database_not_found"), route
            plain = live.http.request(method, f"/v1/db/nobody{route}", json=body)
            assert (plain.status_code, plain.json()["code"]) == (404, "database_not_found"), route


def test_branches_of_what_does_not_exist_are_404_over_mcp(live, mcp):
    with unharmed(live) as (_, unused):
        for tool, arguments in (
            ("branch_create", {"name": "x"}), ("branch_list", {}), ("branch_delete", {"branch": "x"}),
            ("branch_checkpoint", {"name": "c"}), ("branch_rewind", {"to": 1}), ("branch_promote", {"branch": "x"}),
            ("sync", {}), ("storage_inspect", {}),
        ):  # fmt: skip
            envelope = refusal({"result": mcp.call(tool, **where(unused), **arguments)})
            assert envelope["code"] == "database_not_found", tool


def test_a_branch_that_does_not_exist_is_404_wherever_it_is_named(used):
    for response in (
        create(used, "x", **{"from": "nope"}),
        create(used, "x", checkpoint="nope"),
        create(used, "x", at="nope"),
        used.http.post(f"{used.database}/branches/nope/checkpoint", json={"name": "c"}),
        used.http.post(f"{used.database}/branches/nope/rewind", json={"to": 1}),
        used.http.post(f"{used.database}/branches/nope/promote", json={"keep_as": "x"}),
        used.http.post(f"{used.database}@nope/sync"),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "branch_not_found"), response.text


@pytest.mark.parametrize("route", ["/branches", "/branches/main/checkpoint", "/sync", "/storage", "/branches/main"])
def test_a_wrong_method_is_405_and_names_those_that_are_allowed(used, route):
    response = used.http.put(used.database + route, json={})
    assert (response.status_code, response.json()["code"]) == (405, "invalid_request")
    assert "allowed: " in response.json()["error"]


def test_query_parameters_that_mean_nothing_are_refused(used):
    for method, route in (("GET", "/branches"), ("GET", "/storage"), ("DELETE", "/branches/x")):
        refused(used.http.request(method, used.database + route, params={"limit": "1"}), "limit")
        refused(used.http.request(method, f"{used.database}{route}?branch=a&branch=b"), "branch")
    refused(used.http.get(f"{used.database}/storage", params={"branch": "a b"}), "branch")
    refused(used.http.post(f"{used.database}/branches?name=y", json={"name": "x"}), "name")
