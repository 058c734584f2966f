# shellcheck shell=bash
title="Kafka $(pom_version)"
node=${node:-1} # kafka2 and kafka3 are the same on the ports behind
default_port=$((${CARILLON_ENGINES_KAFKA_PORT:-29092} + 2 * (node - 1)))
ports=2 # clients, controller
address=127.0.0.1:@PORT@
if ((brokers == 3)); then address+=,127.0.0.1:@PORT+2@,127.0.0.1:@PORT+4@; fi
if ((node > 1)); then address=; fi
tools=(mvn:maven)

check() { need_java 17 openjdk-17-jdk-headless; }

fetch() { maven_fetch "54 MB" copy-dependencies -DincludeScope=runtime; }

configure() {
  local id memory data=$place/data voters="" first=$((port - 2 * (node - 1))) i
  for ((i = 1; i <= brokers; i++)); do voters+=,$i@127.0.0.1:$((first + 2 * i - 1)); done
  # what was written alone does not become one of three
  if ((brokers > 1)); then data+=$brokers; fi
  mkdir -p "$data"
  render server.properties.tmpl "$place/server.properties" PORT="$port" CONTROLLER_PORT="$((port + 1))" DATA="$data" \
    NODE="$node" VOTERS="${voters#,}" COPIES="$brokers" MIN_ISR="$(((brokers + 1) / 2))"
  # small, but each collection stops everything, a full one for 100 to 200 ms; or what bin/kafka-server-start.sh gives it
  memory=(-Xms128m -Xmx512m -XX:+UseSerialGC)
  if [[ $jvm == production ]]; then
    memory=(-Xms1g -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent)
  fi
  command=("$(java_home 17)/bin/java" "${memory[@]}" "${jit[@]}" -XX:+ExitOnOutOfMemoryError
    -Djava.io.tmpdir="$place/tmp" -Dlog4j2.configurationFile="$conf/log4j2.yaml" -cp "$place/package/*")
  if [[ ! -f $data/meta.properties ]]; then
    # the same for all brokers of a home, without a word between them
    id=$(printf '%s' "$home" | md5sum | head -c 16 | base64 | tr '+/' '-_' | tr -d '=')
    "${command[@]}" kafka.tools.StorageTool format --cluster-id="$id" -c "$place/server.properties" &>"$place/log" ||
      explain "could not format its storage"
  fi
  command+=(kafka.Kafka "$place/server.properties")
}

# A Metadata request (version 1, no topics): the open port is not enough, the broker must list itself.
# The answer's bytes: size (4), correlation (4), number of brokers (4).
ready() {
  [[ $(ask "$port" '\0\0\0\016\0\003\0\001\0\0\0\001\377\377\0\0\0\0' 12) == *0000000[123] ]]
}
