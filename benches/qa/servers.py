"""A model server that takes its time, and an embedding server that doesn't: both say what the bench needs, over HTTP."""

import hashlib
import http.server
import json
import random
import sys
import threading
import time

FIRST_TOKEN = 0.3
TOKENS = 20
BETWEEN = 0.02
DIMENSIONS = 384
# Texts get one of so many vectors: what is measured is the memory and the search, not the meaning.
VECTORS = 500


def vectors():
    rng = random.Random(1)
    return ["[" + ",".join(f"{rng.gauss(0, 1):.4f}" for _ in range(DIMENSIONS)) + "]" for _ in range(VECTORS)]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    vectors = vectors()

    def do_GET(self):
        self.reply(b'{"data":[]}')

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/embeddings"):
            self.embed(body["input"])
        else:
            self.answer()

    def embed(self, texts):
        pick = lambda text: self.vectors[int.from_bytes(hashlib.md5(text.encode()).digest()[:4]) % VECTORS]
        rows = [f'{{"index":{index},"embedding":{pick(text)}}}' for index, text in enumerate(texts)]
        self.reply(f'{{"data":[{",".join(rows)}]}}'.encode())

    def answer(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        time.sleep(FIRST_TOKEN)
        for _ in range(TOKENS):
            self.event({"choices": [{"index": 0, "delta": {"content": "It is so [1]. "}}]})
            time.sleep(BETWEEN)
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.wfile.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def event(self, value):
        data = f"data: {json.dumps(value)}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def reply(self, body):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request, client_address):
        # Who leaves in the middle of an answer is no fault.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def start():
    """Serves both; the base URL."""
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"
