"""The MCP server over stdio, with the SDK's own client and with raw lines."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import mcp_types as types
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError

from memoturn_core.registry import OPERATIONS
from surfaces.stdio_server import COMMAND, environment, exchange, started, tool_call, with_client, with_process

DEFAULT_TOOLS = [
    "memory_recall",
    "memory_ingest",
    "memory_get",
    "memory_forget",
    "memory_append",
    "memory_window",
    "kv_put",
    "kv_get",
    "branch_create",
    "branch_checkpoint",
    "branch_rewind",
    "health_check",
]
LISBON = {"type": "fact", "topic_key": "user.city", "summary": "The user lives in Lisbon"}


def test_a_client_lists_ingests_and_recalls_without_any_configuration(tmp_path):
    async def use(client: Client):
        assert client.server_info.name == "memoturn"
        assert "memory_recall" in (client.instructions or "")
        assert [tool.name for tool in (await client.list_tools()).tools] == DEFAULT_TOOLS
        kept = await client.call_tool("memory_ingest", {"memories": [LISBON]})
        assert kept.structured_content["result"]["results"][0]["status"] == "created"
        found = await client.call_tool("memory_recall", {"query": "where does the user live?"})
        assert [hit["summary"] for hit in found.structured_content["result"]["memories"]] == [LISBON["summary"]]
        assert json.loads(found.content[0].text) == found.structured_content

    with_process(tmp_path, use)


def test_what_one_server_keeps_the_next_one_finds(tmp_path):
    async def keep(client: Client):
        await client.call_tool("memory_ingest", {"memories": [LISBON]})

    async def find(client: Client):
        return (await client.call_tool("memory_recall", {"topic_key": "user.city"})).structured_content["result"]

    with_client(tmp_path, keep)
    assert [hit["summary"] for hit in with_client(tmp_path, find)["memories"]] == [LISBON["summary"]]


def test_the_entry_in_mcp_json_starts_a_server(tmp_path, monkeypatch):
    entry = json.loads((Path(__file__).parents[2] / "mcp.json").read_text())["mcpServers"]["memoturn"]
    scripts = Path(COMMAND[0]).parent
    command = shutil.which(entry["command"], path=str(scripts))
    assert command, f"{entry['command']} is not installed in {scripts}"

    async def main():
        parameters = StdioServerParameters(command=command, args=entry.get("args", []), env=environment(tmp_path))
        async with Client(stdio_client(parameters)) as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    import anyio

    assert anyio.run(main) == DEFAULT_TOOLS


def test_every_tool_is_described_annotated_and_closed_to_unknown_arguments(tmp_path):
    async def use(client: Client):
        return (await client.list_tools()).tools

    tools = with_client(tmp_path, use, "--toolsets", "all")
    assert len(tools) > len(DEFAULT_TOOLS)
    for tool in tools:
        assert tool.title and tool.description and tool.annotations and tool.output_schema
        assert tool.input_schema["additionalProperties"] is False
        schemas = json.dumps([tool.input_schema, tool.output_schema])
        assert [name for name in ("$ref", "$defs", "discriminator") if f'"{name}"' in schemas] == []
        assert tool.annotations.read_only_hint is not None


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--toolsets", "transcript"], {"memory_append", "memory_window", "memory_search"}),
        (["--tools", "memory_recall,health_check"], {"memory_recall", "health_check"}),
        (["--exclude-tools", "memory_forget,memory_append"], set(DEFAULT_TOOLS) - {"memory_forget", "memory_append"}),
        (["--read-only"], {"memory_recall", "memory_get", "memory_window", "kv_get", "health_check"}),
        (["--toolsets", "transcript", "--read-only"], {"memory_window", "memory_search"}),
    ],
)
def test_flags_choose_the_tools(tmp_path, flags, expected):
    async def use(client: Client):
        return {tool.name for tool in (await client.list_tools()).tools}

    assert with_client(tmp_path, use, *flags) == expected


def test_the_instructions_name_the_tools_that_are_listed_and_no_others(tmp_path):
    async def use(client: Client):
        return client.instructions or "", {tool.name for tool in (await client.list_tools()).tools}

    for flags, said in (
        ([], {"memory_recall", "memory_window", "memory_forget"}),
        (["--exclude-tools", "memory_forget"], {"memory_recall", "memory_window"}),
        (["--toolsets", "episodes"], {"query_memory", "create_episode", "add_step", "record_feedback"}),
        (["--toolsets", "episodes", "--read-only"], set()),
    ):
        instructions, listed = with_client(tmp_path, use, *flags)
        named = set(re.findall(r"\w+", instructions)) & OPERATIONS.keys()
        assert said <= named <= listed


def test_an_agent_records_a_task_and_finds_it_before_the_next_one(tmp_path):
    async def use(client: Client):
        async def call(name: str, **arguments: object) -> dict:
            answer = await client.call_tool(name, arguments)
            assert not answer.is_error, answer.content
            return answer.structured_content["result"]

        begun = {"episode_id": (await call("create_episode", task_description="mend the login test"))["episode_id"]}
        await call("add_step", **begun, tool="pytest", action="run", result={"type": "error", "message": "401"})
        await call("add_step", **begun, tool="edit", action="freeze time", result={"type": "success", "output": "ok"})
        done = await call("complete_episode", **begun, outcome={"type": "success", "verdict": "it passes"})
        found = await call("query_memory", query="the login test fails", fields=["episode_id", "reward.total"])
        assert found["episodes"] == [{**begun, "reward": {"total": done["reward"]["total"]}}]
        assert [pattern["pattern_id"] for pattern in found["patterns"]] == done["pattern_ids"]
        offered = await call("recommend_patterns", task_description="a login test is red")
        assert offered["recommended"][0].keys() == {"pattern_id", "text", "score", "reasons"}
        wrong = await client.call_tool("complete_episode", {**begun, "outcome": {"type": "done"}})
        assert wrong.is_error
        assert json.loads(wrong.content[0].text)["error"].startswith("outcome: ")

    with_client(tmp_path, use, "--toolsets", "episodes,code")


def test_a_tool_that_is_not_listed_cannot_be_called(tmp_path):
    async def use(client: Client):
        with pytest.raises(MCPError, match="there is no tool 'memory_ingest' here"):
            await client.call_tool("memory_ingest", {"memories": [LISBON]})
        found = await client.call_tool("memory_recall", {"query": "Lisbon"})
        assert found.structured_content == {"txid": 0, "result": {"memories": []}}

    with_client(tmp_path, use, "--read-only")


def test_an_unknown_toolset_is_refused_at_the_start(tmp_path):
    done = started(tmp_path, "--toolsets", "memroy")
    assert done.code == 2
    toolsets = ", ".join(sorted({"all", "default", *(operation.toolset for operation in OPERATIONS.values())}))
    assert f"there is no toolset 'memroy'; there are {toolsets}" in done.err
    assert done.out == ""


def test_source_is_filled_from_the_environment_and_an_explicit_one_wins(tmp_path):
    async def use(client: Client):
        explicit = {"type": "event", "summary": "told by another", "source": "planner"}
        await client.call_tool("memory_ingest", {"memories": [LISBON, explicit]})
        arguments = {"query": "lives told", "response_format": "detailed"}
        found = (await client.call_tool("memory_recall", arguments)).structured_content["result"]["memories"]
        return {hit["summary"]: hit["source"] for hit in found}

    sources = with_client(tmp_path, use, variables={"MEMOTURN_SOURCE": "desktop"})
    assert sources == {LISBON["summary"]: "desktop", "told by another": "planner"}


def test_two_events_without_content_are_two_memories(tmp_path):
    async def use(client: Client):
        events = [{"type": "event", "summary": "met Ana"}, {"type": "event", "summary": "met Rui"}]
        return (await client.call_tool("memory_ingest", {"memories": events})).structured_content["result"]["results"]

    assert [result["status"] for result in with_client(tmp_path, use)] == ["created", "created"]


def test_the_environment_fixes_the_address_and_arguments_may_name_another(tmp_path):
    async def use(client: Client):
        await client.call_tool("memory_ingest", {"memories": [LISBON]})
        elsewhere = {"namespace": "acme", "profile": "bob", "memories": [LISBON]}
        await client.call_tool("memory_ingest", elsewhere)
        listed = await client.call_tool("memory_profiles_list", {})
        return listed.structured_content["result"]

    variables = {"MEMOTURN_NAMESPACE": "acme", "MEMOTURN_PROFILE": "alice"}
    listed = with_client(tmp_path, use, "--toolsets", "all", variables=variables)
    assert [profile["profile"] for profile in listed["profiles"]] == ["alice", "bob"]


def test_a_failure_is_an_error_result_with_the_envelope_as_text_and_in_meta(tmp_path):
    async def use(client: Client):
        failed = await client.call_tool("memory_recall", {"quer": "Lisbon"})
        assert failed.is_error
        assert failed.structured_content is None
        assert json.loads(failed.content[0].text) == {"error": "quer: unknown field", "code": "invalid_request"}
        assert {key: failed.meta[key] for key in ("error", "code")} == json.loads(failed.content[0].text)

    with_client(tmp_path, use)


def test_getting_or_forgetting_what_is_not_there_is_an_answer_not_an_error(tmp_path):
    async def use(client: Client):
        missing = {"id": "mem_" + "0" * 32}
        for name, flag in (("memory_get", "found"), ("memory_forget", "forgotten")):
            answer = await client.call_tool(name, missing)
            assert not answer.is_error
            assert answer.structured_content["result"] == {flag: False}
        kept = await client.call_tool("memory_ingest", {"memories": [LISBON]})
        known = {"id": kept.structured_content["result"]["results"][0]["id"]}
        got = (await client.call_tool("memory_get", known)).structured_content["result"]
        assert got["found"] is True
        assert got["summary"] == LISBON["summary"]
        assert (await client.call_tool("memory_forget", known)).structured_content["result"] == {"forgotten": True}

    with_client(tmp_path, use)


def test_recall_is_concise_unless_details_are_asked_for(tmp_path):
    async def use(client: Client):
        events = [{"type": "event", "summary": f"Lisbon, day {day}"} for day in range(10)]
        await client.call_tool("memory_ingest", {"memories": events})
        short = await client.call_tool("memory_recall", {"query": "Lisbon", "k": 10})
        assert len(short.structured_content["result"]["memories"]) == 10
        assert all(set(hit) == {"id", "summary"} for hit in short.structured_content["result"]["memories"])
        assert len(short.content[0].text) <= 900
        full = await client.call_tool("memory_recall", {"query": "Lisbon", "k": 1, "response_format": "detailed"})
        assert {"score", "channels", "created_at"} <= set(full.structured_content["result"]["memories"][0])
        wrong = await client.call_tool("memory_recall", {"query": "Lisbon", "response_format": "long"})
        assert wrong.is_error

    with_client(tmp_path, use)


def test_memories_and_sessions_are_resources(tmp_path):
    async def use(client: Client):
        kept = await client.call_tool("memory_ingest", {"memories": [LISBON]})
        id_ = kept.structured_content["result"]["results"][0]["id"]
        await client.call_tool("memory_append", {"session": "a/b ü", "role": "user", "content": "Olá"})
        templates = (await client.list_resource_templates()).resource_templates
        assert {template.name for template in templates} == {"memory", "session"}
        [session] = (await client.list_resources()).resources
        assert session.name == "a/b ü"
        turns = json.loads((await client.read_resource(session.uri)).contents[0].text)["result"]["turns"]
        assert [turn["content"] for turn in turns] == ["Olá"]
        memory = json.loads((await client.read_resource(f"memoturn://default/default/memories/{id_}")).contents[0].text)
        assert memory["result"]["summary"] == LISBON["summary"]
        for uri in ("memoturn://default/default/memories/mem_0", "memoturn://default/nobody/sessions/x", "file:///etc"):
            with pytest.raises(MCPError) as refused:
                await client.read_resource(uri)
            assert refused.value.code == -32602

    with_client(tmp_path, use)


def test_names_are_completed_as_far_as_they_are_known(tmp_path):
    async def use(client: Client):
        for profile in ("alice", "albert", "bob"):
            await client.call_tool(
                "memory_append", {"profile": profile, "session": "s-1", "role": "user", "content": "x"}
            )
        template = types.ResourceTemplateReference(uri="memoturn://{namespace}/{profile}/sessions/{session}")
        prompt = types.PromptReference(name="recall_context")

        async def values(ref, name: str, value: str, **known: str) -> list[str]:
            answer = await client.complete(ref, {"name": name, "value": value}, known or None)
            return answer.completion.values

        assert await values(template, "profile", "al") == ["albert", "alice"]
        assert await values(prompt, "profile", "") == ["albert", "alice", "bob"]
        assert await values(template, "namespace", "d") == ["default"]
        assert await values(template, "session", "s", namespace="default", profile="bob") == ["s-1"]
        assert await values(template, "session", "s", namespace="default", profile="nobody") == []
        assert await values(template, "profile", "al", namespace="Not A Name") == []
        assert await values(template, "id", "mem_") == []

    with_client(tmp_path, use)


def test_two_prompts_begin_and_end_a_conversation(tmp_path):
    async def use(client: Client):
        await client.call_tool("memory_ingest", {"memories": [LISBON]})
        assert {prompt.name for prompt in (await client.list_prompts()).prompts} == {"recall_context", "end_of_session"}
        context = await client.get_prompt("recall_context", {"about": "where the user lives"})
        assert LISBON["summary"] in context.messages[0].content.text
        nothing = await client.get_prompt("recall_context", {"about": "zebra"})
        assert "nothing about: zebra" in nothing.messages[0].content.text
        ending = await client.get_prompt("end_of_session", {"session": "s1"})
        assert "memory_ingest" in ending.messages[0].content.text
        with pytest.raises(MCPError, match="about: is required"):
            await client.get_prompt("recall_context", {})
        with pytest.raises(MCPError, match="there is no prompt 'other'"):
            await client.get_prompt("other", {})

    with_client(tmp_path, use)


def test_stdout_carries_the_protocol_only_and_every_request_sent_before_the_end_is_answered(tmp_path):
    calls = [
        tool_call(id_, "memory_ingest", {"memories": [{"type": "event", "summary": f"n {id_}"}]})
        for id_ in range(1, 31)
    ]
    answers, stderr, code = exchange(tmp_path, *calls, process=True)
    assert {answer["id"] for answer in answers} == set(range(1, 31))
    assert all(answer["jsonrpc"] == "2.0" and not answer["result"]["isError"] for answer in answers)
    assert (stderr, code) == ("", 0)


@pytest.mark.parametrize(
    ("line", "id_", "says"),
    [
        (b"{broken", None, "is not valid JSON"),
        (
            b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"memory_ingest","arguments":'
            b'{"memories":[{"type":"event","summary":"caf\xe9"}]}}}',
            7,
            "is not valid UTF-8",
        ),
        (
            b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"memory_ingest","arguments":'
            b'{"memories":[{"type":"event","summary":"\\ud800"}]}}}',
            "x",
            "is not valid JSON",
        ),
        (
            b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"memory_ingest","arguments":'
            b'{"memories":[{"type":"event","summary":"deep","content":' + b"[" * 5_000 + b"]" * 5_000 + b"}]}}}",
            9,
            "recursion limit",
        ),
        (b'{"hello":"world"}', None, "is not a JSON-RPC 2.0 message"),
    ],
    ids=["broken", "not utf-8", "lone surrogate", "too deep", "no message"],
)
def test_a_line_that_is_no_message_is_refused_changes_nothing_and_the_server_goes_on(tmp_path, line, id_, says):
    answers, _, code = exchange(tmp_path, line, tool_call(50, "memory_recall", {"query": "caf deep"}))
    refused, after = answers
    assert refused["id"] == id_
    assert says in refused["error"]["message"]
    assert after["result"]["structuredContent"] == {"txid": 0, "result": {"memories": []}}
    assert code == 0


def test_a_call_without_arguments_is_told_what_is_missing(tmp_path):
    answers, _, _ = exchange(tmp_path, tool_call(1, "memory_ingest"), tool_call(2, "health_check"))
    assert json.loads(answers[0]["result"]["content"][0]["text"]) == {
        "error": "memories: is required",
        "code": "invalid_request",
    }
    assert answers[1]["result"]["structuredContent"]["result"]["status"] == "ok"


def test_a_setting_that_cannot_be_honoured_stops_the_server_before_it_serves(tmp_path):
    for variable, value, says in (
        ("MEMOTURN_DATADIR", "x", "did you mean MEMOTURN_DATA_DIR?"),
        ("MEMOTURN_AUTH", "on", "MEMOTURN_PLATFORM_KEY: must be set"),
        ("MEMOTURN_HOT_CAP", "many", "must be a whole number"),
    ):
        done = started(tmp_path, **{variable: value})
        assert done.code == 2
        assert variable in done.err
        assert says in done.err
        assert "Traceback" not in done.err


def test_a_data_directory_that_cannot_be_used_is_said_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = started(tmp_path / "file")
    assert done.code == 6
    assert "data directory" in done.err
    assert "Traceback" not in done.err
