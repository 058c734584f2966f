# shellcheck shell=bash
# Finding a JDK of one major version.

# java_home VERSION: from JAVA<VERSION>_HOME, /usr/lib/jvm, JAVA_HOME or the java on the PATH
java_home() {
  local given=JAVA$1_HOME found folder
  found=$(readlink -f "$(command -v java || true)" || true)
  for folder in "${!given:-}" /usr/lib/jvm/*"$1"* "${JAVA_HOME:-}" "${found%/bin/java}"; do
    if [[ -x $folder/bin/java ]] && grep -qsE "^JAVA_VERSION=\"$1[.\"]" "$folder/release"; then
      printf '%s' "$folder"
      return
    fi
  done
  return 1
}

# need_java VERSION PACKAGE: installs the Debian package when there is no such JDK
need_java() {
  java_home "$1" >/dev/null && return
  (install_packages "$2") && java_home "$1" >/dev/null && return
  fail "$name" "needs a JDK $1 (Debian: $2) under /usr/lib/jvm or where JAVA$1_HOME says" 69
}
