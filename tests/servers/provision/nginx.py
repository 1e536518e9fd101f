"""A gate in front of an HTTP server: credentials, TLS, 429 and 413."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from tests.servers.provision.cache import Cache
from tests.servers.provision.server import HOST, Instance, Server

CONFIGURATION = """\
daemon off;
worker_processes 1;
pid pid;
error_log stderr warn;
%(user)s
events {}
http {
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_max_body_size %(max_body)s;
    limit_req_zone $server_port zone=all:1m rate=%(rate)s;
    limit_req_status 429;
    map $http_authorization $stranger { default %(strangers)s; %(known)s }
    server { listen %(sink)s; return 200 '{}'; }  # upstream where none is given
    server {
        listen %(listen)s;
        %(certificate)s
        default_type application/json;
        location / {
            error_page 401 = @stranger;
            error_page 403 = @forbidden;
            error_page 429 = @slower;
            %(forbidden)s
            if ($stranger) { return 401; }
            %(limit)s
            proxy_pass http://%(upstream)s;
            proxy_set_header Authorization "";
        }
        location @stranger {
            add_header WWW-Authenticate 'Basic realm="security"' always;
            add_header X-elastic-product Elasticsearch always;
            return 401 '{"error":{"type":"security_exception","reason":"unable to authenticate"},"status":401}';
        }
        location @forbidden {
            add_header X-elastic-product Elasticsearch always;
            return 403 '{"error":{"type":"security_exception","reason":"action is unauthorized"},"status":403}';
        }
        location @slower {
            add_header Retry-After 1 always;
            add_header X-elastic-product Elasticsearch always;
            return 429 '{"error":{"type":"too_many_requests","reason":"slower"},"status":429}';
        }
    }
}
"""


class Nginx(Server):
    """nginx in front of `upstream`; without one it takes everything and answers 200 with ``{}``.

    Asks for user and password, or for ``ApiKey`` with the setting api_key, in the words of Elasticsearch. Settings:
    api_key; forbidden (anything), then it answers 403; rate (such as "5r/s"), above which it answers 429 with
    Retry-After; max_body (such as "10k"), above which 413. An upstream that is down is a 502 with HTML.
    """

    name = "nginx"
    version = "debian"
    source = "apt"
    ports = 2

    def installed(self, cache: Cache) -> bool:
        return Path("/usr/sbin/nginx").exists()

    def fetch(self, cache: Cache, folder: Path) -> None:
        cache.apt("nginx-light")

    def command(self, instance: Instance) -> list[object]:
        known = []
        if instance.user:
            pair = base64.b64encode(f"{instance.user}:{instance.password}".encode()).decode()
            known.append(f'"Basic {pair}" 0;')
        if "api_key" in instance.settings:
            known.append(f'"ApiKey {instance.settings["api_key"]}" 0;')
        certificate = f"ssl_certificate {instance.certificate}; ssl_certificate_key {instance.data / 'server.key'};"
        sink = f"{HOST}:{instance.port + 1}"
        text = CONFIGURATION % {
            "certificate": certificate if instance.tls else "",
            "forbidden": "return 403;" if "forbidden" in instance.settings else "",
            "known": " ".join(known),
            "limit": "limit_req zone=all;" if "rate" in instance.settings else "",
            "listen": f"{HOST}:{instance.port}{' ssl' if instance.tls else ''}",
            "max_body": instance.settings.get("max_body", "200m"),
            "rate": instance.settings.get("rate", "1000r/s"),
            "sink": sink,
            "strangers": int(bool(known)),
            "upstream": f"{HOST}:{instance.upstream}" if instance.upstream else sink,
            "user": "" if os.geteuid() else "user root;",
        }
        configuration = instance.data / "nginx.conf"
        configuration.write_text(text)
        return ["/usr/sbin/nginx", "-p", instance.data, "-c", configuration]
