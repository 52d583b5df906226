#!/usr/bin/env bash
# tests/requirements.sh build|run|run-three|test|test-apps|bench|bench-shop|bench-faults|load|siege: makes sure that the programs a make target needs are here.
# Debian and its kin: installs the packages as root or with passwordless sudo. Elsewhere: says what to install and fails.
set -euo pipefail

# need | how to see that it is here | Debian packages | Homebrew formula
compiler='a C compiler|command -v cc|gcc libc6-dev|(run: xcode-select --install)'
redis='Redis server, or Valkey under its name|command -v redis-server|redis-server|redis'
postgres='PostgreSQL server|postgres_binaries|postgresql|postgresql@17'
curl='curl|command -v curl|curl|curl'
nghttp2='nghttp2 clients|command -v nghttp && command -v h2load|nghttp2-client|nghttp2'
ab='ApacheBench|command -v ab|apache2-utils|httpd'
browser='Chromium|command -v chromium || command -v google-chrome || command -v chromium-browser|chromium|--cask chromium'
git='git|command -v git|git|git'
node='Node.js with npm|command -v node && command -v npm|nodejs npm|node'
python='Python 3.10 or newer with venv|python3 -c "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))"|python3 python3-venv|python@3'
php='PHP|command -v php|php-cli|php'
fpm='PHP-FPM|command -v php-fpm || compgen -G "/usr/sbin/php-fpm*"|php-fpm|php'
mariadb='MariaDB server and client|command -v mariadbd && command -v mariadb && command -v mariadb-install-db|mariadb-server mariadb-client|mariadb'
php_mysql='mysqli for PHP|php -r "exit((int) !extension_loaded(\"mysqli\"));"|php-mysql|php'
php_sqlite='pdo_sqlite for PHP|php -r "exit((int) !extension_loaded(\"pdo_sqlite\"));"|php-sqlite3|php'
wordpress='WordPress with a theme in /usr/share/wordpress|test -e /usr/share/wordpress/wp-load.php && compgen -G "/usr/share/wordpress/wp-content/themes/*/style.css"|wordpress wordpress-theme-twentytwentythree|(none: Debian has it)'
mediawiki='MediaWiki in /usr/share/mediawiki|test -e /usr/share/mediawiki/index.php|mediawiki|(none: Debian has it)'
valgrind='valgrind|command -v valgrind|valgrind|valgrind'
wrk='wrk|command -v wrk|wrk|wrk'
haproxy='HAProxy|command -v haproxy || test -x /usr/sbin/haproxy|haproxy|haproxy'
prometheus='Prometheus|command -v prometheus && command -v promtool|prometheus|prometheus'
caddy='Caddy|command -v caddy|caddy|caddy'
pebble='Pebble|command -v pebble && command -v pebble-challtestsrv|pebble|(see https://github.com/letsencrypt/pebble)'
openssl='OpenSSL|command -v openssl|openssl|openssl@3'
nginx='nginx|command -v nginx || test -x /usr/sbin/nginx|nginx-light|nginx'

case "${1:-}" in
  build) needs=("$compiler") ;;
  run)   needs=("$compiler" "$postgres") ;;
  run-three) needs=("$compiler" "$postgres" "$redis") ;;
  test)  needs=("$compiler" "$postgres" "$curl" "$nghttp2" "$ab" "$browser" "$git" "$node" "$python" "$php" "$fpm" "$nginx" "$valgrind" "$haproxy" "$prometheus" "$caddy" "$pebble" "$redis" "$openssl") ;;
  test-apps) needs=("$compiler" "$curl" "$browser" "$node" "$php" "$fpm" "$nginx" "$mariadb" "$php_mysql" "$php_sqlite" "$wordpress" "$mediawiki") ;;
  bench) needs=("$compiler" "$nghttp2" "$wrk" "$nginx" "$haproxy") ;;
  bench-shop) needs=("$compiler" "$postgres" "$curl" "$wrk") ;;
  load) needs=("$compiler" "$postgres" "$redis" "$curl" "$ab" "$browser" "$node") ;;
  bench-faults|siege) needs=("$compiler" "$haproxy" "$nginx") ;;
  *) echo "usage: $0 build|run|run-three|test|test-apps|bench|bench-shop|bench-faults|load|siege" >&2; exit 2 ;;
esac

# Where the origin looks too: pg_config, PATH, Debian's and Homebrew's folders.
postgres_binaries() {
  local folder
  for folder in "$(pg_config --bindir 2>/dev/null)" "$(dirname "$(command -v postgres || echo /none/x)")" \
    /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin; do
    [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ] && return 0
  done
  return 1
}

install_debian() {
  local as_root=() policy=/usr/sbin/policy-rc.d made_policy=
  if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
  # Packages of servers start them when installed; the project runs its own, so none is wanted.
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
    made_policy=yes
  fi
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=300)
  local install=("${apt[@]}" install --no-install-recommends "$@") result=0
  # The lists may be missing or too old for the mirror: the first failure refreshes them.
  "${install[@]}" || { "${apt[@]}" update && "${install[@]}"; } || result=$?
  if [ "$made_policy" ]; then "${as_root[@]}" rm -f "$policy"; fi
  return "$result"
}

find_missing() {
  missing=() packages=() formulas=()
  local need name probe debian brew
  for need in "${needs[@]}"; do
    IFS='|' read -r name _ <<<"$need"
    brew=${need##*|}; need=${need%|*}
    debian=${need##*|}; need=${need%|*}
    probe=${need#*|}
    if ! eval "$probe" >/dev/null 2>&1; then
      missing+=("$name"); formulas+=("$brew")
      read -ra words <<<"$debian"; packages+=("${words[@]}")
    fi
  done
}

if ! command -v cargo >/dev/null 2>&1; then
  echo 'Rust is missing. Install it from https://rustup.rs, open a new shell, and run this again.' >&2
  exit 1
fi

find_missing
[ ${#missing[@]} -gt 0 ] || exit 0
all_missing=$(IFS=,; echo "${missing[*]}")
echo "Missing: ${all_missing//,/, }" >&2

if command -v apt-get >/dev/null 2>&1 && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then
  install_debian "${packages[@]}" >&2 || true
  find_missing
  [ ${#missing[@]} -gt 0 ] || exit 0
fi

all_missing=$(IFS=,; echo "${missing[*]}")
{
  echo "Please install: ${all_missing//,/, }"
  echo "  Debian, Ubuntu:  sudo apt-get update && sudo apt-get install ${packages[*]}"
  echo "  macOS:           brew install ${formulas[*]}"
} >&2
exit 1
