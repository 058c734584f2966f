# shellcheck shell=bash
title="Kafka $(pom_version)"
default_port=29092
ports=2 # clients, controller
address=127.0.0.1:@PORT@
tools=(mvn:maven)

check() { need_java 17 openjdk-17-jdk-headless; }

fetch() { maven_fetch "54 MB" copy-dependencies -DincludeScope=runtime; }

configure() {
  local id
  mkdir -p "$place/data"
  render server.properties.tmpl "$place/server.properties" PORT="$port" CONTROLLER_PORT="$((port + 1))" DATA="$place/data"
  command=("$(java_home 17)/bin/java"
    -Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError
    -Djava.io.tmpdir="$place/tmp" -Dlog4j2.configurationFile="$conf/log4j2.yaml" -cp "$place/package/*")
  if [[ ! -f $place/data/meta.properties ]]; then
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
    "${command[@]}" kafka.tools.StorageTool format --cluster-id="$id" -c "$place/server.properties" &>"$place/log" ||
      explain "could not format its storage"
  fi
  command+=(kafka.Kafka "$place/server.properties")
}

# A Metadata request (version 1, no topics): the open port is not enough, the broker must list itself.
# The answer's bytes: size (4), correlation (4), number of brokers (4).
ready() {
  [[ $(ask "$port" '\0\0\0\016\0\003\0\001\0\0\0\001\377\377\0\0\0\0' 12) == *00000001 ]]
}
