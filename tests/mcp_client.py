"""Uses `quota mcp` through the client of the protocol's Python SDK, against `quota sim`. scripts/mcp-client runs it."""

import asyncio
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from mcp import Client, MCPError, StdioServerParameters

warnings.simplefilter("ignore")
QUOTA = sys.argv[1]
SCRIPT = """
[[accounts]]
name = "main"
[[accounts.windows]]
id = "five_hour"
used = 100.0
[[accounts]]
name = "work"
[[accounts.windows]]
id = "five_hour"
used = 40.0
growth_per_hour = 3000
"""


async def use(client, configuration, environment):
    """Uses each tool and resource once."""

    def printed(command):
        words = [QUOTA, *command, "--config", str(configuration)]
        return subprocess.run(words, env=environment, capture_output=True, text=True).stdout

    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert sorted(tools) == ["quota_explain", "quota_pick", "quota_status", "quota_wait"], tools
    status = await client.call_tool("quota_status", {})
    assert [one["account"] for one in status.structured_content["accounts"]] == ["anthropic/main", "anthropic/work"]
    pick = await client.call_tool("quota_pick", {"model": "claude-opus-4-5", "session": "one"})
    assert pick.structured_content["account"] == "anthropic/work", pick
    explain = await client.call_tool("quota_explain", {})
    assert explain.structured_content["accounts"][0]["reason"] == "exhausted", explain

    progress = []

    async def on_progress(done, total, message):
        progress.append((done, total, message))

    waited = await client.call_tool("quota_wait", {"max_wait_seconds": 1}, progress_callback=on_progress)
    assert waited.structured_content["outcome"] == "picked" and not progress, waited
    failed = await client.call_tool("quota_status", {"accounts": ["absent"]})
    assert failed.is_error and "absent" in failed.content[0].text, failed
    for name, arguments in [("quota_pick", {"model": 5}), ("quota_delete", {})]:
        try:
            await client.call_tool(name, arguments)
        except MCPError:
            continue
        raise AssertionError(f"{name} {arguments} was accepted")

    uris = [str(one.uri) for one in (await client.list_resources()).resources]
    assert "quota://events/anthropic/work" in uris, uris
    events = await client.read_resource("quota://events", cache_mode="bypass")
    assert events.contents[0].text == printed(["events", "--json"])


async def waiting(client, configuration, environment):
    """Waits until the only account of a configuration is joined by another one."""
    text = configuration.read_text()
    main, work = text.split("[[accounts]]")[1:3]
    start = text.split("[[accounts]]")[0]
    configuration.write_text(f"{start}[[accounts]]{main}")
    is_waiting = asyncio.Event()

    async def on_progress(done, total, message):
        assert message.startswith("waiting: ") and total == 60.0, message
        is_waiting.set()

    call = client.call_tool("quota_wait", {"max_wait_seconds": 60}, progress_callback=on_progress)
    call = asyncio.create_task(call)
    await asyncio.wait_for(is_waiting.wait(), 30)
    configuration.write_text(text)
    result = (await asyncio.wait_for(call, 60)).structured_content
    assert result["outcome"] == "picked" and result["account"] == "anthropic/work", result
    assert result["waited_seconds"] > 0, result


async def run(directory):
    script = directory / "script.toml"
    script.write_text(SCRIPT)
    simulator = subprocess.Popen([QUOTA, "sim", "--script", str(script)], stdout=subprocess.PIPE, text=True)
    try:
        lines = []
        for line in simulator.stdout:
            lines.append(line)
            if line.count("token_env") and sum(one.count("token_env") for one in lines) == 2:
                break
        configuration = directory / "config.toml"
        configuration.write_text("".join(lines))
        exports = [line.lstrip("# ").removeprefix("export ") for line in lines if "export " in line]
        variables = dict(line.strip().split("=", 1) for line in exports)
        environment = {"HOME": str(directory), "PATH": os.environ["PATH"], **variables}
        server = StdioServerParameters(
            command=QUOTA, args=["mcp", "--config", str(configuration)], env=environment
        )
        for mode in ["auto", "legacy"]:
            async with Client(server, mode=mode) as client:
                await use(client, configuration, environment)
                if mode == "auto":
                    await waiting(client, configuration, environment)
            print(f"the client of the Python SDK uses the tools ({mode})")
    finally:
        simulator.terminate()
        simulator.wait()


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(asyncio.wait_for(run(Path(folder)), 120))
