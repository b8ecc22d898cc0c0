"""The official SDK (2.x) as a client of `swarm`, one case per function.

Usage: sdk_client.py URL MODE [CASE ...]; MODE is legacy, auto or 2026-07-28. Prints `ok CASE`
per case that held; a case that did not hold raises, and the exit code is 1.
The swarm under test serves mcp-server-time as `time`, mcp-server-git as `git` and
tests/python/sdk_server.py as `sdk`.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp.types import CreateMessageResult, ElicitResult, TextContent

URL, MODE = sys.argv[1], sys.argv[2]
MODERN = "2026-07-28"


async def on_elicit(_context, params):
    assert params.message == "Which flavour?", params
    return ElicitResult(action="accept", content={"flavour": "lemon"})


async def on_sample(_context, params):
    assert params.messages[0].content.text == "Say hello", params
    content = TextContent(type="text", text="hello")
    return CreateMessageResult(role="assistant", content=content, model="test")


def connect(url: str = URL, **options) -> Client:
    return Client(url, mode=MODE, read_timeout_seconds=30, **options)


def text_of(result) -> str:
    return result.content[0].text


async def opens_in_the_right_era() -> None:
    async with connect() as client:
        modern = client.protocol_version == MODERN
        assert modern == (MODE != "legacy"), client.protocol_version
        if MODE != MODERN:  # a pinned version is adopted without asking for the capabilities
            assert client.server_info is not None and client.server_info.name == "swarm"
            assert client.server_capabilities.tools is not None


async def lists_the_tools_of_every_backend() -> None:
    async with connect() as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert names == sorted(names), names
        for name in ("time_get_current_time", "git_git_status", "sdk_add"):
            assert name in names, (name, names)


async def calls_a_tool_over_stdio() -> None:
    async with connect() as client:
        result = await client.call_tool("time_get_current_time", {"timezone": "UTC"})
        assert not result.is_error, result
        assert json.loads(text_of(result))["timezone"] == "UTC"


async def calls_a_tool_over_http() -> None:
    async with connect() as client:
        result = await client.call_tool("sdk_add", {"a": 2, "b": 40})
        assert result.structured_content == {"result": 42}, result


async def a_tool_error_is_a_result() -> None:
    async with connect() as client:
        result = await client.call_tool("sdk_fail", {"reason": "on purpose"})
        assert result.is_error and "refused: on purpose" in text_of(result), result
        result = await client.call_tool("time_get_current_time", {"timezone": "No/Where"})
        assert result.is_error, result


async def an_unknown_tool_is_a_protocol_error() -> None:
    async with connect() as client:
        try:
            await client.call_tool("nobody_knows_me", {})
        except MCPError as error:
            assert error.code == -32602, error
            assert "nobody_knows_me" in error.message, error
        else:
            raise AssertionError("an unknown tool was called")


async def progress_arrives_in_order() -> None:
    seen: list[float] = []

    async def on_progress(progress, _total, _message):
        seen.append(progress)

    async with connect() as client:
        result = await client.call_tool("sdk_count", {"to": 5}, progress_callback=on_progress)
        assert text_of(result) == "counted to 5", result
        assert seen == [1, 2, 3, 4, 5], seen


async def the_user_is_asked() -> None:
    """Elicitation: a server-to-client request in the legacy era, MRTR in the modern one."""
    async with connect(elicitation_callback=on_elicit) as client:
        result = await client.call_tool("sdk_order", {})
        assert text_of(result) == "one lemon ice", result


async def the_clients_model_is_asked() -> None:
    async with connect(sampling_callback=on_sample) as client:
        result = await client.call_tool("sdk_think", {})
        assert text_of(result) == "the model said hello", result


async def cancelling_reaches_the_backend() -> None:
    key = f"cancel-{MODE}"
    async with connect() as client:

        async def journal() -> list[str]:
            return (await client.call_tool("sdk_journal", {})).structured_content["result"]

        async def journal_has(line: str) -> None:
            async with asyncio.timeout(15):
                while line not in await journal():
                    await asyncio.sleep(0.02)

        call = asyncio.create_task(client.call_tool("sdk_hold", {"key": key}))
        await journal_has(f"started {key}")
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            pass
        await journal_has(f"cancelled {key}")


async def prompts_and_resources_are_aggregated() -> None:
    async with connect() as client:
        prompts = [prompt.name for prompt in (await client.list_prompts()).prompts]
        assert "sdk_greet" in prompts, prompts
        prompt = await client.get_prompt("sdk_greet", {"name": "Ada"})
        assert "Ada" in prompt.messages[0].content.text, prompt
        resources = [str(resource.uri) for resource in (await client.list_resources()).resources]
        assert "sdk://motto" in resources, resources
        read = await client.read_resource("sdk://motto")
        assert read.contents[0].text == "one endpoint in front of a fleet", read
        templates = (await client.list_resource_templates()).resource_templates
        assert "sdk://square/{n}" in [template.uri_template for template in templates], templates
        assert (await client.read_resource("sdk://square/12")).contents[0].text == "144"


async def one_backend_is_served_transparently() -> None:
    async with connect(f"{URL}/time") as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {"get_current_time", "convert_time"}, names
        result = await client.call_tool("get_current_time", {"timezone": "UTC"})
        assert json.loads(text_of(result))["timezone"] == "UTC"


async def many_clients_do_not_mix_up_answers() -> None:
    async def one(number: int) -> None:
        async with connect() as client:
            for step in range(5):
                result = await client.call_tool("sdk_add", {"a": number * 1000, "b": step})
                assert result.structured_content == {"result": number * 1000 + step}, (number, result)

    await asyncio.gather(*(one(number) for number in range(20)))


CASES: list[Callable[[], Awaitable[None]]] = [
    opens_in_the_right_era,
    lists_the_tools_of_every_backend,
    calls_a_tool_over_stdio,
    calls_a_tool_over_http,
    a_tool_error_is_a_result,
    an_unknown_tool_is_a_protocol_error,
    progress_arrives_in_order,
    the_user_is_asked,
    the_clients_model_is_asked,
    cancelling_reaches_the_backend,
    prompts_and_resources_are_aggregated,
    one_backend_is_served_transparently,
    many_clients_do_not_mix_up_answers,
]


async def main() -> int:
    chosen = sys.argv[3:]
    failed = 0
    for case in CASES:
        if chosen and case.__name__ not in chosen:
            continue
        try:
            async with asyncio.timeout(60):
                await case()
            print(f"ok {case.__name__}", flush=True)
        except BaseException as error:  # noqa: BLE001 - every case is reported
            failed += 1
            print(f"FAILED {case.__name__}: {describe(error)}", flush=True)
    return 1 if failed else 0


def describe(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
