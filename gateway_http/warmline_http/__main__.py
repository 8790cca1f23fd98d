"""`python -m warmline_http`: the command `warmline http` by itself."""

from warmline_http.commands import app

if __name__ == "__main__":
    app()
