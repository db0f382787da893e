"""Counts visits in redis and says how many there were. Standard library only."""

import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST, PORT = os.environ["REDIS"].rsplit(":", 1)


def increment(name: str) -> int:
    """INCR by hand: `*2 $4 INCR $N NAME`, answered by `:NUMBER`."""
    with socket.create_connection((HOST, int(PORT)), timeout=2) as connection:
        connection.sendall(f"*2\r\n$4\r\nINCR\r\n${len(name)}\r\n{name}\r\n".encode())
        return int(connection.makefile("rb").readline()[1:])


class Handler(BaseHTTPRequestHandler):
    """`/healthz` says ok, everything else counts."""

    def do_GET(self) -> None:
        """Answer."""
        body = b"ok\n" if self.path == "/healthz" else f"visit {increment('visits')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()
