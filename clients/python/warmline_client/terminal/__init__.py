"""The client's commands of `warmline`: to converse, to look, and for operators."""

import typer

from warmline_client.terminal._converse import ask, chat, models
from warmline_client.terminal._credentials import app as credentials
from warmline_client.terminal._keys import app as keys
from warmline_client.terminal._render import receipt
from warmline_client.terminal._sessions import app as sessions
from warmline_client.terminal._tenants import app as tenants
from warmline_client.terminal._usage import usage

__all__ = ["app", "receipt"]

app = typer.Typer(no_args_is_help=True)
app.command()(chat)
app.command()(ask)
app.command()(models)
app.command()(usage)
app.add_typer(sessions, name="sessions")
app.add_typer(tenants, name="tenants")
app.add_typer(keys, name="keys")
app.add_typer(credentials, name="credentials")
