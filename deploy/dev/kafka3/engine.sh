# shellcheck shell=bash
# The third broker of three (CARILLON_BROKERS=3).
node=3 conf=$dev/kafka
# shellcheck source=/dev/null
source "$conf/engine.sh"
