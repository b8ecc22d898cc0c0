"""A Streamable HTTP server written with the official SDK; speaks both eras.

Usage: sdk_server.py [--json] [--stdio] -> prints `ready http://127.0.0.1:PORT/mcp` on stdout.
What a test needs to see from outside (cancellations) is asked through the tool `journal`.
"""

import argparse
import asyncio
import contextlib
import socket
from typing import Annotated

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, Resolve, Sample
from mcp.types import CreateMessageResult, SamplingMessage, TextContent, ToolAnnotations
from pydantic import BaseModel

server = MCPServer("sdk", version="1.0")
journal: list[str] = []
waiting: dict[str, asyncio.Event] = {}


class Flavour(BaseModel):
    flavour: str


async def ask_flavour() -> Elicit[Flavour]:
    return Elicit("Which flavour?", Flavour)


async def ask_model() -> Sample:
    message = SamplingMessage(role="user", content=TextContent(type="text", text="Say hello"))
    return Sample([message], max_tokens=16)


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def fail(reason: str) -> str:
    """Fail as a tool fails."""
    raise ToolError(f"refused: {reason}")


@server.tool()
async def count(to: int, ctx: Context) -> str:
    """Report progress at every step."""
    for step in range(1, to + 1):
        await ctx.report_progress(step, to, f"step {step}")
    return f"counted to {to}"


@server.tool()
async def order(flavour: Annotated[Flavour, Resolve(ask_flavour)]) -> str:
    """Ask the user before answering."""
    return f"one {flavour.flavour} ice"


@server.tool()
async def think(answer: Annotated[CreateMessageResult, Resolve(ask_model)]) -> str:
    """Ask the client's model before answering."""
    return f"the model said {answer.content.text}"


@server.tool()
async def hold(key: str) -> str:
    """Wait until released or cancelled; the journal tells which."""
    event = waiting.setdefault(key, asyncio.Event())
    journal.append(f"started {key}")
    try:
        await event.wait()
        journal.append(f"released {key}")
        return f"released {key}"
    except asyncio.CancelledError:
        journal.append(f"cancelled {key}")
        raise


@server.tool()
def release(key: str) -> str:
    """Release a held call."""
    waiting.setdefault(key, asyncio.Event()).set()
    return key


@server.tool(name="journal")
def read_journal() -> list[str]:
    """What the held calls went through."""
    return list(journal)


@server.prompt()
def greet(name: str) -> str:
    """A greeting."""
    return f"Please greet {name}."


@server.resource("sdk://motto")
def motto() -> str:
    """The motto."""
    return "one endpoint in front of a fleet"


@server.resource("sdk://square/{n}")
def square(n: int) -> str:
    """A square."""
    return str(int(n) ** 2)


async def serve_http(json_response: bool) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = server.streamable_http_app(json_response=json_response)
    http = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    print(f"ready http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    await http.serve(sockets=[listener])


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--stdio", action="store_true")
    chosen = arguments.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if chosen.stdio:
            server.run("stdio")
        else:
            asyncio.run(serve_http(chosen.json))


if __name__ == "__main__":
    main()
