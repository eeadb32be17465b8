// One scenario for net/http: see ../README.md.  gohttp URL 1|2
package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

func expect(good bool, what string, args ...any) {
	if !good {
		fmt.Fprintf(os.Stderr, "net/http: "+what+"\n", args...)
		os.Exit(1)
	}
}

type scenario struct {
	client *http.Client
	url    string
}

func (s scenario) post(path string, body io.Reader) *http.Response {
	reply, err := s.client.Post(s.url+path, "application/json", body)
	expect(err == nil, "%s: %v", path, err)
	return reply
}

func (s scenario) whole(path string, body io.Reader) (*http.Response, []byte) {
	reply := s.post(path, body)
	defer reply.Body.Close()
	all, err := io.ReadAll(reply.Body)
	expect(err == nil, "%s: %v", path, err)
	return reply, all
}

// events calls each with the data of every event, until the stream ends or each says that it is enough.
func events(body io.Reader, each func(data string) bool) {
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		data, is := strings.CutPrefix(lines.Text(), "data: ")
		if is && !each(data) {
			return
		}
	}
	expect(lines.Err() == nil, "events: %v", lines.Err())
}

func main() {
	url, version := os.Args[1], os.Args[2]
	protocols := new(http.Protocols)
	protocols.SetHTTP1(version == "1")
	protocols.SetUnencryptedHTTP2(version == "2")
	transport := &http.Transport{Protocols: protocols}
	s := scenario{&http.Client{Transport: transport, Timeout: time.Minute}, url}

	body := `{"input":"Grüße"}`
	reply, all := s.whole("/json", strings.NewReader(body))
	expect(reply.StatusCode == 200 && string(all) == body, "json: %s", all)
	expect(fmt.Sprint(reply.ProtoMajor) == version, "json: over %s", reply.Proto)
	fmt.Println("json")

	n := 0
	reply = s.post("/sse", strings.NewReader(`{"stream":true}`))
	events(reply.Body, func(data string) bool {
		expect(data == fmt.Sprint(n), "sse: %s instead of %d", data, n)
		n++
		s.whole("/seen", nil)
		return true
	})
	expect(n == 20, "sse: %d events", n)
	reply.Body.Close()
	fmt.Println("sse")

	up := make([]byte, 8<<20)
	_, _ = rand.Read(up)
	_, all = s.whole("/echo", bytes.NewReader(up))
	expect(bytes.Equal(up, all), "echo: not the same bytes")
	_, all = s.whole("/echo", struct{ io.Reader }{bytes.NewReader(up)})
	expect(bytes.Equal(up, all), "echo without a length: not the same bytes")
	fmt.Println("echo")

	mount := s.url
	s.url = url[:strings.LastIndex(url, "/agents/")]
	reply, all = s.whole("/agents/nobody/invoke", strings.NewReader("{}"))
	var problem struct{ Code string }
	expect(json.Unmarshal(all, &problem) == nil, "problem: %s", all)
	expect(reply.StatusCode == 404 && problem.Code == "unknown-agent", "problem: %s", all)
	expect(reply.Header.Get("Content-Type") == "application/problem+json", "problem: its type")
	expect(reply.Header.Get("X-Switchyard-Error") == "unknown-agent", "problem: no header")
	s.url = mount
	fmt.Println("problem")

	n = 0
	reply = s.post("/endless", strings.NewReader("{}"))
	events(reply.Body, func(string) bool { n++; return n < 2 })
	expect(n == 2, "endless: %d events", n)
	reply.Body.Close()
	// Over HTTP/2 the connection lives on: it is the stream that was left.
	s.whole("/left", nil)
	fmt.Println("left")
}
