# shellcheck shell=bash
title="Cassandra $(pom_version)"
default_port=29042
ports=2 # CQL, other nodes
address=127.0.0.1:@PORT@
tools=(mvn:maven)

check() { need_java 17 openjdk-17-jdk-headless; }

fetch() { maven_fetch "67 MB" copy-dependencies -DincludeScope=runtime; }

configure() {
  local agent
  mkdir -p "$place/data"
  render cassandra.yaml.tmpl "$place/cassandra.yaml" PORT="$port" STORAGE_PORT="$((port + 1))" DATA="$place/data"
  agent=("$place"/package/jamm-*.jar)
  command=("$(java_home 17)/bin/java" "@$conf/jvm.args" "${jit[@]}"
    -javaagent:"${agent[0]}"
    -Dcassandra.config="file://${place// /%20}/cassandra.yaml"
    -Dcassandra.storagedir="$place/data" -Dcassandra.logdir="$place"
    -Djava.io.tmpdir="$place/tmp" -Dlogback.configurationFile="$conf/logback.xml"
    -cp "$place/package/*" org.apache.cassandra.service.CassandraDaemon)
}

# A CQL frame (protocol 4, stream 0) OPTIONS, to be answered with SUPPORTED: opcode 06, the fifth byte.
ready() { [[ $(ask "$port" '\004\0\0\0\005\0\0\0\0' 5) == 8400000006 ]]; }
