"""Uses an edge until its stdin closes: calls in both eras, and names registered, listed and freed.

Usage: load_client.py MCP_URL ADMIN_URL; prints `ops N` as it goes and a JSON object at the end.
Exit code 1 when a single request failed.
"""

import asyncio
import json
import sys
import urllib.request

from mcp import Client

URL, ADMIN = sys.argv[1:3]
done = asyncio.Event()
failed: list[str] = []
counts = {"calls": 0, "lists": 0, "writes": 0}


def count(what: str) -> None:
    counts[what] += 1
    if sum(counts.values()) % 20 == 0:
        print("ops", sum(counts.values()), flush=True)


async def calls(mode: str, worker: int) -> None:
    async with Client(URL, mode=mode, read_timeout_seconds=30) as client:
        while not done.is_set():
            text = f"{worker} {counts['calls']}"
            for backend in ["local", "remote"]:
                result = await client.call_tool(f"{backend}_echo", {"text": text})
                assert not result.is_error and result.content[0].text == text, result
                count("calls")


def admin(method: str, path: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{ADMIN}/api/v1/{path}", data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def names() -> list[str]:
    return [one["name"] for one in admin("GET", "registry")["registrations"]]


async def lists() -> None:
    while not done.is_set():
        listed = await asyncio.to_thread(names)
        assert listed == sorted(set(listed)) and {"local", "remote"} <= set(listed), listed
        count("lists")


async def writes(worker: int) -> None:
    number = 0
    while not done.is_set():
        number += 1
        name = f"load-{worker}-{number % 5}"
        server = {"name": name, "transport": "http", "url": "http://example:9000/mcp"}
        report = await asyncio.to_thread(admin, "POST", "registry/import", {"servers": [server]})
        assert report["added"] == [name], report
        assert (await asyncio.to_thread(names)).count(name) == 1, name
        removed = await asyncio.to_thread(admin, "DELETE", f"registry/{name}")
        assert removed["removed"] == name and name not in await asyncio.to_thread(names), name
        count("writes")


async def guarded(work) -> None:
    try:
        await work
    except BaseException as error:  # noqa: BLE001: whatever it is, it is a failed request
        failed.append(f"{type(error).__name__}: {error}")


async def main() -> None:
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, lambda: (sys.stdin.read(), loop.call_soon_threadsafe(done.set)))
    work = [calls("legacy", 1), calls("2026-07-28", 2), lists(), writes(1), writes(2)]
    await asyncio.gather(*(guarded(one) for one in work))
    print(json.dumps(counts | {"failed": failed}), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    asyncio.run(main())
