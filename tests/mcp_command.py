"""An MCP server that is a command: run by a CLI in a test."""

import os

from mcp.server import MCPServer

made = MCPServer("command", log_level="CRITICAL")


@made.tool()
def word() -> str:
    """Tell what is in the environment."""
    return os.environ["WORD"]


if __name__ == "__main__":
    made.run()
