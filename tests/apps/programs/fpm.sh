#!/bin/sh
# PHP-FPM behind nginx as one program, on the port it is given: sh fpm.sh PORT PHP_FPM NGINX. SIGQUIT ends all of it.
set -eu
port=$1 fpm=$2 nginx=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap : QUIT
user=$(id -un)
cat > "$folder/fpm.conf" <<CONF
[global]
error_log = /dev/stderr
[www]
user = $user
listen = $folder/fpm.sock
pm = static
pm.max_children = 4
CONF
cat > "$folder/nginx.conf" <<CONF
user $user;
worker_processes 1;
pid $folder/nginx.pid;
error_log stderr warn;
events {}
http {
  access_log off;
  client_body_temp_path $folder/body;
  proxy_temp_path $folder/proxy;
  fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi;
  scgi_temp_path $folder/scgi;
  keepalive_requests 100000;
  server {
    listen 127.0.0.1:$port;
    location / {
      fastcgi_pass unix:$folder/fpm.sock;
      fastcgi_param SCRIPT_FILENAME $PWD/index.php;
      fastcgi_param SCRIPT_NAME \$uri;
      fastcgi_param REQUEST_URI \$request_uri;
      fastcgi_param REQUEST_METHOD \$request_method;
      fastcgi_param QUERY_STRING \$query_string;
      fastcgi_param CONTENT_TYPE \$content_type;
      fastcgi_param CONTENT_LENGTH \$content_length;
      fastcgi_param SERVER_PROTOCOL \$server_protocol;
    }
  }
}
CONF
allow=; [ "$(id -u)" != 0 ] || allow=--allow-to-run-as-root
"$fpm" --nodaemonize $allow --fpm-config "$folder/fpm.conf" &
fpm_id=$!
"$nginx" -p "$folder" -c "$folder/nginx.conf" -g 'daemon off;' &
# A signal ends a wait: then each is waited for again.
wait $! || wait $! || true
kill -QUIT $fpm_id 2>/dev/null || true
wait $fpm_id || true
