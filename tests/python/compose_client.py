"""Opens a session through one edge and uses it through another.

Usage: compose_client.py FIRST_URL SECOND_URL MODE [BACKEND ...]; exit code 1 when a step does
not hold. Backends are `swarm example-server`s; default: local and remote.
"""

import asyncio
import json
import sys
import urllib.request

from mcp import Client

FIRST, SECOND, MODE = sys.argv[1:4]
BACKENDS = sys.argv[4:] or ["local", "remote"]


async def use(url: str) -> None:
    async with Client(url, mode=MODE, read_timeout_seconds=30) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        for backend in BACKENDS:
            assert f"{backend}_echo" in names, names
            result = await client.call_tool(f"{backend}_echo", {"text": "through"})
            assert not result.is_error and result.content[0].text == "through", result


def post(url: str, message: dict, session: str | None = None) -> tuple[dict | None, str | None]:
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if session:
        headers |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
    request = urllib.request.Request(url, json.dumps(message).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        body = response.read()
        if response.headers.get("Content-Type", "").startswith("text/event-stream"):
            events = [line[5:] for line in body.decode().splitlines() if line.startswith("data:") and line[5:].strip()]
            answer = json.loads(events[-1])
        else:
            answer = json.loads(body) if body else None
        return answer, response.headers.get("Mcp-Session-Id")


def one_session_through_both_edges() -> None:
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "compose", "version": "1"}}
    opened, session = post(FIRST, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
    assert session and opened["result"]["serverInfo"]["name"] == "swarm", opened
    post(FIRST, {"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
    for number, url in enumerate([SECOND, FIRST, SECOND], start=2):
        call = {"name": f"{BACKENDS[0]}_echo", "arguments": {"text": f"call {number}"}}
        answer, _ = post(url, {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call}, session)
        assert answer["id"] == number and answer["result"]["content"][0]["text"] == f"call {number}", answer


async def main() -> None:
    await use(FIRST)
    await use(SECOND)
    if MODE == "legacy":
        await asyncio.to_thread(one_session_through_both_edges)
    print("ok")


if __name__ == "__main__":
    asyncio.run(main())
