# shellcheck shell=bash
# The processes of the loaded engine. An engine leads a process group of its own, whose number is in
# $place/pid; it is ours only while a process of that group has $place on its command line.

# launch COMMAND…: a session of its own that keeps nothing of ours open: no terminal, no pipe, no lock
launch() {
  local pid fd
  if [[ -f $place/log ]]; then mv -f "$place/log" "$place/log.1"; fi
  (
    cd "$place" || exit
    exec </dev/null &>"$place/log"
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      if ((fd > 2 && fd != 255)); then exec {fd}>&-; fi # 255 is bash's own and closed by exec
    done
    exec setsid nice -n "$niceness" env -i PATH="$PATH" HOME="$place" LANG=C.UTF-8 "$@"
  ) &
  pid=$!
  printf '%s\n' "$pid" >"$place/pid"
  until alive || ! kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
  # where sessions share the cores as groups, niceness counts within one only; this is the group's (sched(7), "autogroup")
  if ((niceness)); then printf '%s' "$niceness" 2>/dev/null >"/proc/$pid/autogroup" || true; fi
}

leader() { cat "$place/pid"; }

# members: the living processes of the engine's group
members() {
  local pgid file line
  [[ -s $place/pid ]] || return 0
  pgid=$(leader)
  for file in /proc/[0-9]*/stat; do
    { read -r line <"$file"; } 2>/dev/null || continue
    # after the name in brackets: state, parent, group
    # shellcheck disable=SC2086 # words are meant
    set -- ${line##*) }
    if [[ $3 == "$pgid" && $1 != Z ]]; then
      file=${file%/stat}
      printf '%s\n' "${file##*/}"
    fi
  done
}

alive() {
  local pid
  for pid in $(members); do
    if grep -qsF -- "$place/" "/proc/$pid/cmdline"; then return 0; fi
  done
  return 1
}

# gone_within SECONDS
gone_within() {
  local deadline=$((SECONDS + $1))
  while [[ -n $(members) ]]; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

# halt: asks the engine to stop; fails when it had to be killed
halt() {
  kill -TERM -- "-$(leader)"
  gone_within 10 && return
  crash
  return 1
}

# crash: SIGKILL to the whole group, so that Elasticsearch's server dies with its launcher
crash() {
  kill -KILL -- "-$(leader)" 2>/dev/null || true
  gone_within 10 || fail "$name" "is still there after SIGKILL: $(members | tr '\n' ' ')"
}

# memory: what the group has in memory, in MB
memory() {
  local pid
  for pid in $(members); do cat "/proc/$pid/status" 2>/dev/null; done |
    awk '/^VmRSS:/ { kb += $2 } END { printf "%d", kb / 1024 }'
}
