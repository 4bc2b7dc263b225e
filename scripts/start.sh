#!/bin/sh
# Starts and stops the node agent of a host without systemd, as the node agents before Drover were: the configuration is
# configs/application.yaml and the program bin/drover below APP_HOME, the log logs/drover.log, the process id sys.pid.
# Usage: start.sh [start|stop|restart|status|run]; run stays in the foreground.
set -eu

APP_HOME=${APP_HOME:-$(cd "$(dirname "$0")/.." && pwd)}
drover=${DROVER_BIN:-$APP_HOME/bin/drover}
config=$APP_HOME/configs/application.yaml
pidfile=$APP_HOME/sys.pid

running() { # the process of the file, if it is still ours
	[ -s "$pidfile" ] || return 1
	pid=$(cat "$pidfile")
	case $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) in
	*" node --config $config "*) return 0 ;;
	*) return 1 ;;
	esac
}

check() {
	[ -x "$drover" ] || { echo "start.sh: $drover is not there, or cannot be run" >&2; exit 1; }
	[ -r "$config" ] || { echo "start.sh: $config is not there" >&2; exit 1; }
}

start() {
	if running; then
		echo "start.sh: it runs already, as process $pid"
		return
	fi
	check
	mkdir -p "$APP_HOME/logs"
	nohup "$drover" node --config "$config" >>"$APP_HOME/logs/drover.log" 2>&1 </dev/null &
	echo $! >"$pidfile"
	sleep 1
	if ! running; then
		echo "start.sh: it ended at once; the end of $APP_HOME/logs/drover.log:" >&2
		tail -n 5 "$APP_HOME/logs/drover.log" >&2
		rm -f "$pidfile"
		exit 1
	fi
	echo "start.sh: started as process $pid"
}

stop() {
	if ! running; then
		echo "start.sh: it does not run"
		rm -f "$pidfile"
		return
	fi
	kill "$pid"
	left=30
	while running && [ "$left" -gt 0 ]; do
		sleep 1
		left=$((left - 1))
	done
	if running; then
		echo "start.sh: it did not end within 30 seconds and is killed" >&2
		kill -9 "$pid"
	fi
	rm -f "$pidfile"
	echo "start.sh: stopped"
}

case ${1:-start} in
start) start ;;
stop) stop ;;
restart) stop && start ;;
status) if running; then echo "start.sh: it runs as process $pid"; else echo "start.sh: it does not run"; exit 3; fi ;;
run) check && exec "$drover" node --config "$config" ;;
*) echo "usage: start.sh [start|stop|restart|status|run]" >&2; exit 2 ;;
esac
