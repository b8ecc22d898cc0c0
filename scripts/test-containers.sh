#!/usr/bin/env bash
# Builds the images and runs the container suite; says loudly when there is no Docker.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/space.sh

if ! docker info >/dev/null 2>&1; then
  echo '!!! SKIPPED: no Docker: the container suite (tests/containers) is left out' >&2
  [ "${SWARM_REQUIRE_ALL:-0}" = 1 ] && exit 1
  exit 0
fi

target=${CARGO_TARGET_DIR:-target}
export SWARM_IMAGE=swarm:test NATS_IMAGE=swarm-nats:test
give_back "$target/debug" "$target/doc"
stage images 1500
bash scripts/images.sh "$SWARM_IMAGE" "$NATS_IMAGE"
docker image inspect "$NATS_IMAGE" >/dev/null 2>&1 || unset NATS_IMAGE
# The images hold the binary.
give_back "$target/x86_64-unknown-linux-gnu" "$target/release"
stage containers 1000
cargo test --locked --manifest-path tests/containers/Cargo.toml --target-dir "$target/containers" -- --test-threads=1
