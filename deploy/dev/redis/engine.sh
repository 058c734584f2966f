# shellcheck shell=bash
title="Redis"
default_port=29379
address=redis://127.0.0.1:@PORT@
tools=(redis-server:redis-server redis-cli:redis-tools)

configure() {
  mkdir -p "$place/data"
  render redis.conf.tmpl "$place/redis.conf" PORT="$port" DATA="$place/data"
  command=(redis-server "$place/redis.conf")
}

# LOADING is an answer too, but not this one
ready() { [[ $(timeout 5 redis-cli -h 127.0.0.1 -p "$port" ping) == PONG ]]; }
