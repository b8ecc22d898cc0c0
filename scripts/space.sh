# Sourced: how much room is left, and room made between the stages of CI.
#
# A whole run builds three times (tests, a static release, the container suite). With
# SWARM_FRUGAL=1, which only .ci/run sets, a stage that has ended gives back what it built; without
# it nothing is ever removed, so that `make test` keeps a user's target directory as it is.

# Begins a stage: says what is free, and ends the run early, with the reason, when the stage
# cannot fit into it.
stage() { # name, MiB that it needs at least
  df -h .
  local free
  free=$(df -Pm . | awk 'NR == 2 { print $4 }')
  echo "stage $1: $free MiB free, about $2 MiB needed"
  if [ "$free" -lt "$2" ]; then
    echo "not enough room for the stage \"$1\": $free MiB are free in $PWD, $2 MiB are needed" >&2
    exit 1
  fi
}

# Gives back what earlier stages built.
give_back() { # paths
  [ "${SWARM_FRUGAL:-0}" = 1 ] || return 0
  echo "giving back $*"
  rm -rf -- "$@"
}
