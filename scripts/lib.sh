# Shared by the scripts here; sourced, never run. Nothing is installed: the
# servers and clients are Debian's packages, unpacked into target/servers.

set -euo pipefail
umask 022

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SCRIPTS=$REPO/scripts
UNPACKED=$REPO/target/servers
USERS_WITH_MAIL=(alice bob carol dave)

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Servers refuse to run as root, or drop to another user. Started by root, all
# of it runs as nobody, so that root and any other user see the same thing.
AS=()
RUN_USER=$(id -un 2>/dev/null) || die "the user id $(id -u) has no name; the servers need one"
RUN_GROUP=$(id -gn 2>/dev/null) || die "the group id $(id -g) has no name; the servers need one"
if [ "$(id -u)" = 0 ]; then
  RUN_USER=nobody
  RUN_GROUP=$(id -gn nobody)
  AS=(setpriv "--reuid=$RUN_USER" "--regid=$RUN_GROUP" --clear-groups)
fi

# Runs a command as the servers run.
as_server() {
  ${AS[@]+"${AS[@]}"} "$@"
}

# Sets ROOT to where the servers' files are, reachable by RUN_USER. A clone
# below a folder closed to others (/root), or with a space or a colon in its
# path, which the servers' own settings cannot hold, gets a copy in the temporary
# folder, of hard links where that can be.
find_root() {
  [ -f "$UNPACKED/stamp" ] || die "the servers are not there yet: run scripts/fetch-servers"
  ROOT=$UNPACKED
  if [[ $ROOT == *[[:space:]:]* ]] || ! as_server test -x "$ROOT/usr/sbin/dovecot"; then
    local tmp=${TMPDIR:-/tmp} copy
    ROOT=$tmp/popgate-servers-$(id -u)-$(sha256sum <"$UNPACKED/stamp" | cut -c1-16)
    if [ ! -e "$ROOT" ]; then
      exec 8>"$REPO/target/.servers-copy.lock"
      flock 8
      if [ ! -e "$ROOT" ]; then
        copy=$(mktemp -d "$tmp/popgate-servers-XXXXXXXX")
        cp -al "$UNPACKED/." "$copy/" 2>/dev/null || cp -a "$UNPACKED/." "$copy/"
        chmod 755 "$copy"
        mv -T "$copy" "$ROOT"
      fi
      exec 8>&-
    fi
    # Nobody else may have put it there, or may change it.
    [ "$(stat -c '%u %a' "$ROOT")" = "$(id -u) 755" ] || die "$ROOT is somebody else's: remove it"
    as_server test -x "$ROOT/usr/sbin/dovecot" || die "$RUN_USER cannot reach $tmp: set TMPDIR"
  fi
  local folder=("$ROOT"/usr/lib/*-linux-gnu)
  LIBRARIES=${folder[0]}:$ROOT/lib/${folder[0]##*/}:$ROOT/usr/lib
  LIBRARIES+=:$ROOT/usr/lib/dovecot:$ROOT/usr/lib/dovecot/modules/old-stats
  SASL_PLUGINS=${folder[0]}/sasl2
}

# Runs one of the unpacked programs (a path below the root) with its libraries.
unpacked() {
  local program=$1
  shift
  LD_LIBRARY_PATH=$LIBRARIES "$ROOT/$program" "$@"
}

# Makes DIR and gives it to the user that the servers run as.
prepare_dir() {
  mkdir -p "$1"
  DIR=$(cd "$1" && pwd)
  [ ! -e "$DIR/pid" ] || die "$DIR is in use: stop what runs there first"
  if [ "$(id -u)" = 0 ]; then
    chown "$RUN_USER:$RUN_GROUP" "$DIR"
    as_server test -x "$DIR" || die "$RUN_USER cannot reach $DIR: take one below /tmp"
  fi
}

own_dir() {
  [ "$(id -u)" != 0 ] || chown -R "$RUN_USER:$RUN_GROUP" "$DIR"
}

# Sets PORTS to COUNT ports on which nothing listens: below the ephemeral range,
# and in a block chosen by process id, so that two starts at once do not meet.
free_ports() {
  local count=$1 attempt=${2:-0} used port
  used=" $(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '{ sub(/.*:/, "", $2); print $2 }' | tr '\n' ' ')"
  PORTS=()
  port=$((10240 + (BASHPID % 2700) * 8 + attempt * 2003))
  while [ "${#PORTS[@]}" -lt "$count" ]; do
    port=$((10240 + (port - 10240 + 1) % 21600))
    [[ $used == *" $(printf %04X "$port") "* ]] || PORTS+=("$port")
  done
}

# True once something that talks first, or answers a line, is at PORT.
answers() {
  local port=$1 line
  (
    exec 9<>"/dev/tcp/127.0.0.1/$port" || exit 1
    [ -z "${2:-}" ] || printf '%s\r\n\r\n' "$2" >&9
    IFS= read -r -t 5 -n 3 line <&9 && [ -n "$line" ]
  ) 2>/dev/null
}

start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  set -- $stat
  echo "${20}"
}

# Starts a command in its own session as the servers' user; its pid, which is
# also its process group, goes to DIR/pid with the time it started at, so that
# no later process of the same number is ever taken for it.
launch() {
  setsid ${AS[@]+"${AS[@]}"} "$@" >>"$DIR/output" 2>&1 </dev/null &
  PID=$!
  echo "$PID $(start_time "$PID")" >"$DIR/pid"
}

alive() {
  local pid time
  [ -f "$1/pid" ] || return 1
  read -r pid time <"$1/pid"
  [ "$(start_time "$pid")" = "$time" ]
}

# Whether any process of a group still runs. One that has ended and that nobody
# waits for (there may be no init here) does not count.
group_runs() {
  local stat fields
  for stat in /proc/[0-9]*/stat; do
    read -r fields <"$stat" || continue
    fields=(${fields##*) })
    [ "${fields[2]}" != "$1" ] || [ "${fields[0]}" = Z ] || return 0
  done 2>/dev/null
  return 1
}

# With OWNER set, the server ends soon after that process, however it ended.
follow_owner() {
  [ -n "${OWNER:-}" ] || return 0
  setsid bash -c '
    while kill -0 "$1" && [ -e "$2/pid" ]; do sleep 1; done
    [ ! -e "$2/pid" ] || exec "$3/stop-server" "$2"
  ' follow-owner "$OWNER" "$DIR" "$SCRIPTS" >/dev/null 2>&1 </dev/null &
}
