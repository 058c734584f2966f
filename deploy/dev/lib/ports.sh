# shellcheck shell=bash
# Which ports an engine takes, and who has them.

# choose_port: sets $port: where the engine runs, else CARILLON_ENGINES_<NAME>_PORT, else where it ran
# before its crash, else the default
choose_port() {
  local given=CARILLON_ENGINES_${name^^}_PORT
  port=${!given:-}
  if [[ -f $place/port ]] && { [[ -z $port ]] || alive; }; then port=$(<"$place/port"); fi
  port=${port:-$default_port}
  if ! [[ $port =~ ^[1-9][0-9]{0,4}$ ]] || ((port + ports > 65536)); then
    fail "$name" "$given: '$port' is no port" 64
  fi
  address=${address//@PORT@/$port}
  address=${address//@PORT+2@/$((port + 2))} address=${address//@PORT+4@/$((port + 4))}
}

# claim_ports: fails, and says who is in the way, unless all ports of the loaded engine are free. Whoever was killed just now
# may still have one for a moment, so it waits some seconds.
claim_ports() {
  local p holder deadline=$((SECONDS + 10)) move="set CARILLON_ENGINES_${name^^}_PORT"
  if ((ports > 1)); then move+=" (it takes $ports in a row)"; fi
  for ((p = port; p < port + ports; p++)); do
    until holder=$(port_holder "$p") && [[ -z $holder ]] || ((SECONDS >= deadline)); do sleep 0.2; done
    [[ -z $holder ]] || fail "$name" "port $p is taken by $holder; free it or $move"
  done
  printf '%s\n' "$port" >"$place/port"
}

# port_holder PORT: who listens there on an address that 127.0.0.1 meets; nothing when it is free.
# /proc tells, so no tool is needed that a small machine may lack.
port_holder() {
  local inode pid
  inode=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port="$(printf ':%04X' "$1")" '
    $4 == "0A" && $2 ~ port "$" && $2 ~ /^(0+|0100007F|0+FFFF00000100007F):/ { print $10; exit }')
  [[ -n $inode ]] || return 0
  pid=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" 2>/dev/null | head -n 1 | cut -d/ -f3) || true
  if [[ -n $pid ]]; then
    printf '%s (pid %s, in %s)' "$(cat "/proc/$pid/comm" 2>/dev/null)" "$pid" "$(readlink "/proc/$pid/cwd")"
  else
    printf "another user's process"
  fi
}

# ask PORT REQUEST COUNT: the first COUNT bytes of the answer in hex; REQUEST is written with printf escapes
ask() {
  # shellcheck disable=SC2016 # the inner shell expands
  timeout 5 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" && printf "$2" >&3 && head -c "$3" <&3 | od -An -v -tx1' \
    ask "$1" "$2" "$3" | tr -d ' \n'
}
