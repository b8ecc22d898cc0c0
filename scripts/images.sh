#!/usr/bin/env bash
# Builds the swarm image from a static binary, without pulling anything, and, where the prepared
# nats-server is there, a NATS image beside it.  Usage: images.sh [swarm image] [nats image]
set -euo pipefail
cd "$(dirname "$0")/.."
image=${1:-swarm:dev}
nats_image=${2:-swarm-nats:dev}
triple=x86_64-unknown-linux-gnu
prepared=${SWARM_PREPARED:-target/prepared}
target=${CARGO_TARGET_DIR:-target}

# The target is named, or crt-static would break the proc-macros.
RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$triple" -p swarm

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir "$context/empty"
cp "$target/$triple/release/swarm" "$context/swarm"
docker build -q -f compose/prebuilt.Dockerfile -t "$image" "$context"
echo "built $image"

if [ -x "$prepared/bin/nats-server" ]; then
  cp -L "$prepared/bin/nats-server" "$context/nats-server"
  docker build -q -f compose/nats.Dockerfile -t "$nats_image" "$context"
  echo "built $nats_image"
fi
