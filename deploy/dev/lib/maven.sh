# shellcheck shell=bash
# Fetching an engine's packages through Maven, which knows the machine's registries and keeps a cache.

# maven_fetch SIZE GOAL [ARGUMENT…]: runs a goal of maven-dependency-plugin on the engine's pom.xml,
# which puts its files in $place/package. Again only when the pom has changed.
maven_fetch() {
  local size=$1 since=$EPOCHREALTIME fresh=$place/package.new cache=~/.m2 turn
  shift
  cmp -s "$conf/pom.xml" "$place/package/pom.xml" && return
  say "$name" "fetching $title through Maven ($size unless Maven has it)"
  mkdir -p "$cache"
  exec {turn}>"$cache/carillon-engines.lock"
  flock "$turn" # two Mavens may not fill one cache at once
  rm -rf -- "$place/package" "$fresh"
  mkdir -p "$fresh"
  cp "$conf/pom.xml" "$fresh/pom.xml" # Maven leaves its marks beside the pom: not in our sources
  if ! (cd "$fresh" && mvn --batch-mode --quiet --no-transfer-progress -Dstyle.color=never "dependency:$1" \
    -DoutputDirectory="$fresh" "${@:2}") </dev/null &>"$place/fetch.log"; then
    { say "$name" "Maven could not fetch $title; the end of $place/fetch.log:" && quote "$place/fetch.log"; } >&2
    exit 69
  fi
  exec {turn}>&-
  rm -rf -- "$fresh/target"
  mv "$fresh" "$place/package"
  say "$name" "fetched after $(since "$since") s"
}

# pom_version: the version of the engine that its pom names
pom_version() { sed -n 's:.*<engine.version>\(.*\)</engine.version>.*:\1:p' "$conf/pom.xml"; }

# render TEMPLATE FILE KEY=VALUE…: a copy of the engine's template in which every @KEY@ is replaced
render() {
  local text pair
  text=$(<"$conf/$1")
  for pair in "${@:3}"; do text=${text//"@${pair%%=*}@"/"${pair#*=}"}; done
  printf '%s\n' "$text" >"$2"
}
