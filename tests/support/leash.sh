#!/bin/sh
# Ties processes to the harness that started them, however the harness ends (SIGKILL included). See leash.rs.
#
#   leash.sh run DIR COMMAND...   started as the leader of a process group: registers the group in DIR, then becomes COMMAND
#   leash.sh guard DIR            waits for the end of standard input, whose other end only the harness holds; then ends every
#                                 registered group (TERM, after 5 s KILL) and removes DIR and what lies beside it, unless DIR/keep is there
set -u
what="$1" dir="$2"
shift 2

run() {
  : >"$dir/groups/$$"
  # The guard writes `over` before it reads the groups: either it sees this group, or this group sees that it is over.
  [ ! -e "$dir/over" ] || exit 143
  exec "$@"
}

guard() {
  trap '' INT TERM HUP
  while read -r _; do :; done
  : >"$dir/over"
  signal TERM
  tries=0
  while any_left && [ "$tries" -lt 50 ]; do
    sleep 0.1
    tries=$((tries + 1))
  done
  signal KILL
  [ -e "$dir/keep" ] || rm -rf "${dir%/*}"
}

signal() {
  for group in "$dir"/groups/*; do
    [ -e "$group" ] && kill -s "$1" -- "-${group##*/}" 2>/dev/null
  done
}

any_left() {
  for group in "$dir"/groups/*; do
    [ -e "$group" ] && kill -s 0 -- "-${group##*/}" 2>/dev/null && return 0
  done
  return 1
}

"$what" "$@"
