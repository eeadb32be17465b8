"""One scenario for httpx: see README.md.  httpx_client.py URL 1|2"""

import os
import sys

import httpx


def expect(good, what):
    if not good:
        sys.exit(f"httpx: {what}")


def main(url, version):
    two = version == "2"
    with httpx.Client(http1=not two, http2=two, timeout=60) as client:
        spoken = "HTTP/2" if two else "HTTP/1.1"

        body = {"input": "Grüße"}
        answer = client.post(f"{url}/json", json=body)
        expect(answer.status_code == 200 and answer.json() == body, f"json: {answer.text}")
        expect(answer.http_version == spoken, f"json: over {answer.http_version}")
        print("json")

        n = 0
        with client.stream("POST", f"{url}/sse", json={"stream": True}) as stream:
            expect(stream.headers["content-type"] == "text/event-stream", "sse: its type")
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    expect(line == f"data: {n}", f"sse: {line} instead of {n}")
                    n += 1
                    client.post(f"{url}/seen").raise_for_status()
        expect(n == 20, f"sse: {n} events")
        print("sse")

        up = os.urandom(8 << 20)
        down = client.post(f"{url}/echo", content=up)
        expect(down.status_code == 200 and down.content == up, "echo: not the same bytes")
        pieces = (up[i : i + 65536] for i in range(0, len(up), 65536))
        down = client.post(f"{url}/echo", content=pieces)
        expect(down.content == up, "echo without a length: not the same bytes")
        print("echo")

        nobody = url.rsplit("/agents/", 1)[0] + "/agents/nobody/invoke"
        problem = client.post(nobody, json={})
        expect(problem.status_code == 404, f"problem: {problem.status_code}")
        expect(problem.headers["content-type"] == "application/problem+json", "problem: its type")
        expect(problem.json()["code"] == "unknown-agent", f"problem: {problem.text}")
        expect(problem.headers["x-switchyard-error"] == "unknown-agent", "problem: no header")
        print("problem")

        n = 0
        with client.stream("POST", f"{url}/endless", json={}) as stream:
            for line in stream.iter_lines():
                n += line.startswith("data:")
                if n == 2:
                    break
        expect(n == 2, f"endless: {n} events")
        # Over HTTP/2 the connection lives on: it is the stream that was left.
        client.post(f"{url}/left").raise_for_status()
        print("left")


main(*sys.argv[1:])
