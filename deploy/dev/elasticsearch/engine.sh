# shellcheck shell=bash
title="Elasticsearch $(pom_version)"
default_port=29200
ports=2 # HTTP, other nodes
address=http://127.0.0.1:@PORT@
tools=(mvn:maven curl:curl setpriv:util-linux)
niceness=10 # what is indexed can wait, what is delivered beside it cannot
as=() # Elasticsearch refuses to run as root
if ((EUID == 0)); then as=(setpriv --reuid=65534 --regid=65534 --clear-groups); fi

check() { need_java 25 openjdk-25-jdk-headless; }

# settle: a place that the engine's user can reach. The home may be under a folder that only root may
# enter (a clone in /root or in mktemp -d); then the place is in /tmp, and a link stands for it here.
settle() {
  if [[ ! -d $place ]]; then
    place=$home/$name
    if "${as[@]}" test -x "$home"; then
      rm -f "$place"
      mkdir "$place"
    else
      place=$(reachable_folder) || fail "$name" "user 65534 can enter neither $home nor a temporary folder"
      ln -sfn "$place" "$home/$name"
    fi
  fi
  chmod 755 "$place"
}

reachable_folder() {
  local parent folder
  for parent in "${TMPDIR:-/tmp}" /tmp /var/tmp; do
    folder=$(mktemp -d "$parent/carillon-elasticsearch.XXXXXX") || continue
    chmod 755 "$folder"
    if "${as[@]}" test -x "$folder"; then
      printf '%s' "$folder"
      return
    fi
    rmdir "$folder"
  done
  return 1
}

fetch() { maven_fetch "132 MB" unpack-dependencies -DexcludeTransitive=true; }

configure() {
  local folder
  for folder in config data logs; do mkdir -p "$place/$folder"; done
  render elasticsearch.yml.tmpl "$place/config/elasticsearch.yml" PORT="$port" TRANSPORT_PORT="$((port + 1))" PLACE="$place"
  cp "$conf/jvm.options" "$conf/log4j2.properties" "$place/config"
  printf '%s\n' "${jit[@]}" >>"$place/config/jvm.options"
  if ((EUID == 0)); then chown -R 65534:65534 "$place"/{config,data,logs,tmp}; fi
  command=(ES_JAVA_HOME="$(java_home 25)" ES_PATH_CONF="$place/config" ES_TMPDIR="$place/tmp"
    CLI_JAVA_OPTS=-Djava.io.tmpdir=../../tmp # the launcher's: from its folder, as no option may have a space
    "${as[@]}" "$place/package/elasticsearch-$(pom_version)/bin/elasticsearch")
}

# there is no GET / in this build of the server
ready() { curl -sf --max-time 5 --noproxy '*' "http://127.0.0.1:$port/_cluster/health?wait_for_status=yellow&timeout=1s"; }
