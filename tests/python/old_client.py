"""An old client: the official SDK before 2.0 (`mcp<2`), against the same swarm.

Usage: old_client.py URL; prints `ok CASE` per case, exit code 1 when one does not hold.
"""

import asyncio
import json
import sys

from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client
from mcp.shared.exceptions import McpError

URL = sys.argv[1]


async def on_elicit(_context, params):
    assert params.message == "Which flavour?", params
    return types.ElicitResult(action="accept", content={"flavour": "lemon"})


async def main() -> None:
    async with streamablehttp_client(URL) as (read, write, session_id):
        async with ClientSession(read, write, elicitation_callback=on_elicit) as client:
            opened = await client.initialize()
            assert opened.serverInfo.name == "swarm", opened
            assert session_id(), "no Mcp-Session-Id"
            print("ok initialize", flush=True)

            names = [tool.name for tool in (await client.list_tools()).tools]
            assert "time_get_current_time" in names and "sdk_add" in names, names
            print("ok list", flush=True)

            result = await client.call_tool("time_get_current_time", {"timezone": "UTC"})
            assert json.loads(result.content[0].text)["timezone"] == "UTC", result
            result = await client.call_tool("sdk_add", {"a": 2, "b": 40})
            assert result.structuredContent == {"result": 42}, result
            print("ok call", flush=True)

            result = await client.call_tool("sdk_fail", {"reason": "on purpose"})
            assert result.isError, result
            print("ok tool_error", flush=True)

            try:
                await client.call_tool("nobody_knows_me", {})
            except McpError as error:
                assert error.error.code == -32602, error
            else:
                raise AssertionError("an unknown tool was called")
            print("ok unknown_tool", flush=True)

            seen: list[float] = []

            async def on_progress(progress, _total, _message):
                seen.append(progress)

            await client.call_tool("sdk_count", {"to": 5}, progress_callback=on_progress)
            assert seen == [1, 2, 3, 4, 5], seen
            print("ok progress", flush=True)

            result = await client.call_tool("sdk_order", {})
            assert result.content[0].text == "one lemon ice", result
            print("ok elicitation", flush=True)

            await client.send_ping()
            print("ok ping", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
