#!/usr/bin/env bash
# Gets, once, what the tests use from the package registries, into target/prepared:
#   bin/python with mcp 2.x, mcp-server-time, mcp-server-git, nats-server    (a venv)
#   old/bin/python with mcp<2                                               (a venv)
# What cannot be had is named loudly with the tests it leaves out; with SWARM_REQUIRE_ALL=1
# that is a failure.
set -u
cd "$(dirname "$0")/.."
prepared=${SWARM_PREPARED:-target/prepared}
missing=0

lacks() { # what, which tests, why
  missing=1
  printf '\n!!! NOT AVAILABLE: %s\n!!!   left out: %s\n!!!   because:  %s\n\n' "$1" "$2" "$3" >&2
}

venv() { # folder, requirements file, what, which tests
  local stamp="$1/.installed" want
  want=$(cat "$2")
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && return
  if ! command -v python3 >/dev/null; then
    lacks "$3" "$4" "no python3 on this machine"
    return
  fi
  rm -rf "$1"
  if python3 -m venv "$1" && "$1/bin/pip" -q --disable-pip-version-check install -r "$2"; then
    printf '%s\n' "$want" >"$stamp"
  else
    lacks "$3" "$4" "python3 -m venv or pip install -r $2 failed (see above)"
  fi
}

mkdir -p "$prepared"
venv "$prepared" tests/python/requirements.txt \
  "mcp 2.x, mcp-server-time, mcp-server-git, nats-server" "the SDK end-to-end suite, the NATS bus tests, compose"
venv "$prepared/old" tests/python/requirements-old.txt "mcp<2" "the old client's end-to-end test"

for tool in python mcp-server-time mcp-server-git nats-server old/bin/python; do
  case $tool in old/*) path=$prepared/$tool ;; *) path=$prepared/bin/$tool ;; esac
  [ -x "$path" ] && echo "prepared: $path"
done

docker info >/dev/null 2>&1 || lacks "Docker" "the compose suite (make test-containers)" "docker info failed"

if [ "$missing" = 1 ] && [ "${SWARM_REQUIRE_ALL:-0}" = 1 ]; then
  echo "SWARM_REQUIRE_ALL=1: a part is missing, see above" >&2
  exit 1
fi
