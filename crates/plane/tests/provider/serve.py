"""Canaille on a free port of 127.0.0.1, its state in memory: accounts and clients are the argument.

It says where it is in one line. Each line of its standard input is an address to which browsers may be sent
back from then on, and is answered by a line; it serves until that input ends.
"""

import json
import os
import sys
import threading
import uuid
from wsgiref.simple_server import WSGIRequestHandler, make_server

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # The loopback address is no network.

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from joserfc.jwk import JWKRegistry

asked = json.loads(sys.argv[1])


class Quiet(WSGIRequestHandler):
    def log_request(self, *_):
        pass


server = make_server("127.0.0.1", 0, None, handler_class=Quiet)
place = f"127.0.0.1:{server.server_port}"
key = JWKRegistry.generate_key("RSA", 2048)
key.ensure_kid()
app = create_app(
    config={
        "SECRET_KEY": str(uuid.uuid4()),
        "PREFERRED_URL_SCHEME": "http",
        "SERVER_NAME": place,
        "SESSION_COOKIE_SECURE": False,
        "CANAILLE": {
            "DATABASE": "memory",
            "JAVASCRIPT": False,
            "ACL": {"DEFAULT": {"PERMISSIONS": ["use_oidc"]}},
        },
        "CANAILLE_OIDC": {"ACTIVE_JWKS": [key.as_dict(private=True)]},
    },
    env_file=None,
)
with app.app_context():
    backend = Backend.instance
    accounts = {}
    for name in asked["accounts"]:
        accounts[name] = models.User(
            user_name=name,
            formatted_name=name,
            family_name=name,
            display_name=name,
            emails=[f"{name}@example.org"],
            password=asked["password"],
        )
        backend.save(accounts[name])
    for group in sorted({group for groups in asked["accounts"].values() for group in groups}):
        members = [accounts[name] for name, groups in asked["accounts"].items() if group in groups]
        backend.save(models.Group(display_name=group, members=members))
    clients = {}
    for name, about in asked["clients"].items():
        clients[name] = models.Client(
            client_id=name,
            client_secret=about["secret"],
            client_name=name,
            redirect_uris=["http://127.0.0.1/none"],
            scope=["openid", "email", "profile", "groups"],
            grant_types=["authorization_code"],
            response_types=["code"],
            token_endpoint_auth_method="client_secret_basic" if about["secret"] else "none",
        )
        backend.save(clients[name])
    for name, about in asked["clients"].items():
        clients[name].audience = [clients[about["audience"]]]
        backend.save(clients[name])
server.set_app(app)
print(json.dumps({"issuer": f"http://{place}"}), flush=True)


def listen():
    for line in sys.stdin:
        with app.app_context():
            for client in clients.values():
                client.redirect_uris = [line.strip()]
                Backend.instance.save(client)
        print(flush=True)
    os._exit(0)


threading.Thread(target=listen, daemon=True).start()
server.serve_forever()
