# shellcheck shell=bash
# The second broker of three (CARILLON_BROKERS=3).
node=2 conf=$dev/kafka
# shellcheck source=/dev/null
source "$conf/engine.sh"
