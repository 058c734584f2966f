# shellcheck shell=bash
# What a person reads: one line for each thing that happened, under the name of what it happened to.

say() { printf '%-14s %s\n' "$1" "$2"; }

# fail WHO WHAT [EXIT CODE]
fail() {
  say "$1" "$2" >&2
  exit "${3:-1}"
}

# since START: the seconds since an earlier $EPOCHREALTIME, with a tenth
since() {
  local tenths=$(((${EPOCHREALTIME//[.,]/} - ${1//[.,]/}) / 100000))
  printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

# quote FILE: the end of a log, marked as a quotation, without colours and the frames of stack traces
quote() { sed -e 's/\x1b\[[0-9;]*m//g' -e '/^[[:space:]]*at /d' "$1" | tail -n 20 | sed 's/^/    | /'; }

# explain WHAT: the loaded engine's failure, with the end of its log; does not return
explain() {
  { say "$name" "$1; the end of $place/log:" && quote "$place/log"; } >&2
  exit 1
}

# shown PATH: as one would type it here
shown() {
  local short=${1#"$PWD/"}
  if [[ $short == */* ]]; then printf '%q' "$short"; else printf './%q' "$short"; fi
}
