# shellcheck shell=bash
# Debian packages: installed when we are root, named with their command when not.

# missing_packages COMMAND:PACKAGE…: the packages of the commands that are not there, each once
missing_packages() {
  local tool
  for tool in "$@"; do
    command -v "${tool%%:*}" >/dev/null || printf '%s\n' "${tool#*:}"
  done | sort -u
}

# install_packages PACKAGE…
install_packages() {
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    fail missing "$* (on Debian: sudo apt-get update && sudo apt-get install -y $*)" 69
  fi
  local log
  log=$(mktemp)
  say apt-get "installing $*"
  # A server package starts its service when installed; run level 1 is Debian's way to be spared that.
  if ! {
    apt-get update || true # an old list may do; the install will tell
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
      install -y --no-install-recommends "$@"
  } </dev/null &>"$log"; then
    { say apt-get "could not install $*; the end of $log:" && quote "$log"; } >&2
    exit 69
  fi
  rm -f "$log"
}

# require ENGINE…: everything that the named engines need from the machine
require() {
  local tools packages
  mapfile -t tools < <(for name in "$@"; do on "$name" list_tools; done)
  mapfile -t packages < <(missing_packages "${tools[@]}")
  if ((${#packages[@]})); then install_packages "${packages[@]}"; fi
  in_turn check "$@" || exit 69
}

list_tools() { printf '%s\n' setsid:util-linux "${tools[@]}"; }
