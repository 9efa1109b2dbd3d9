// Uses a domain as an application does, with an ordinary client that knows nothing of signatures.
//
// Usage: use URL PREFIX     (PREFIX: of the indexes that it may use)
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/opensearch-project/opensearch-go/v4"
	"github.com/opensearch-project/opensearch-go/v4/opensearchapi"
	"github.com/opensearch-project/opensearch-go/v4/opensearchutil"
)

type document struct {
	Text string `json:"text"`
}

type application struct {
	client *opensearchapi.Client
	prefix string
	index  string
	dated  string
}

var (
	ctx      = context.Background()
	matching = `{"query": {"match": {"text": "東京"}}}`
)

func main() {
	if len(os.Args) != 3 {
		fail("usage: use URL PREFIX")
	}
	url, prefix := os.Args[1], os.Args[2]
	for _, compress := range []bool{false, true} {
		client, err := opensearchapi.NewClient(opensearchapi.Config{Client: opensearch.Config{
			Addresses:           []string{url},
			CompressRequestBody: compress,
			RequestTimeout:      time.Minute,
		}})
		need(err, "client")
		application := application{client, prefix, prefix + "-opensearch-go", "<" + prefix + "-go-{now/d}>"}
		application.startOver()
		application.writeAndRead()
		application.search()
		application.writeToTodays()
		application.fill()
		application.readAll()
		application.isRefused()
		application.delete()
	}
	fmt.Println("ok")
}

func (a application) startOver() {
	_, err := a.client.Indices.Delete(ctx, opensearchapi.IndicesDeleteReq{
		Indices: []string{a.index, a.dated},
		Params:  opensearchapi.IndicesDeleteParams{IgnoreUnavailable: opensearchapi.ToPointer(true)},
	})
	need(err, "delete what was left")
	made, err := a.client.Indices.Create(ctx, opensearchapi.IndicesCreateReq{Index: a.index})
	need(err, "create")
	same(made.Acknowledged, true, "created")
	same(a.exists(), true, "the index exists")
}

func (a application) exists() bool {
	found, err := a.client.Indices.Exists(ctx, opensearchapi.IndicesExistsReq{Indices: []string{a.index}})
	return is(found, err, "does the index exist?")
}

// Ids that have to be encoded, and text that is not ASCII.
func (a application) writeAndRead() {
	for _, id := range []string{"1", "a/b c+d", "日本", "x=y&z?#%"} {
		written := document{"東京 " + id}
		body, err := json.Marshal(written)
		need(err, id)
		_, err = a.client.Index(ctx, opensearchapi.IndexReq{
			Index: a.index, DocumentID: id, Body: bytes.NewReader(body),
			Params: opensearchapi.IndexParams{Refresh: "true"},
		})
		need(err, "index "+id)
		got, err := a.client.Document.Get(ctx, opensearchapi.DocumentGetReq{Index: a.index, DocumentID: id})
		need(err, "get "+id)
		var read document
		need(json.Unmarshal(got.Source, &read), "the document "+id)
		same(read, written, "the document "+id)
		same(a.has(id), true, "exists "+id)
	}
	same(a.has("nothing"), false, "exists nothing")
}

func (a application) has(id string) bool {
	found, err := a.client.Document.Exists(ctx, opensearchapi.DocumentExistsReq{Index: a.index, DocumentID: id})
	return is(found, err, "does it exist? "+id)
}

func (a application) search() {
	found, err := a.client.Search(ctx, &opensearchapi.SearchReq{
		Indices: []string{a.index},
		Params: opensearchapi.SearchParams{
			Query: "text:東京", Size: opensearchapi.ToPointer(2), FilterPath: []string{"hits.total.value"},
		},
	})
	need(err, "search by q")
	same(found.Hits.Total.Value, 4, "found by q")
	same(len(found.Hits.Hits), 0, "what is filtered")
	found, err = a.client.Search(ctx, &opensearchapi.SearchReq{
		Indices: []string{a.prefix + "-*"}, Body: strings.NewReader(matching),
	})
	need(err, "search by a body")
	same(found.Hits.Total.Value >= 4, true, "found by a body")
	same(a.count(a.index, strings.NewReader(matching)), 4, "counted")
}

func (a application) count(index string, body *strings.Reader) int {
	request := opensearchapi.IndicesCountReq{Indices: []string{index}}
	if body != nil {
		request.Body = body
	}
	counted, err := a.client.Indices.Count(ctx, &request)
	need(err, "count")
	return counted.Count
}

func (a application) writeToTodays() {
	_, err := a.client.Index(ctx, opensearchapi.IndexReq{
		Index: a.dated, DocumentID: "1", Body: strings.NewReader(`{"text": "today"}`),
		Params: opensearchapi.IndexParams{Refresh: "true"},
	})
	need(err, "index today's")
	same(a.count(a.dated, nil), 1, "counted today's")
	_, err = a.client.Indices.Delete(ctx, opensearchapi.IndicesDeleteReq{Indices: []string{a.dated}})
	need(err, "delete today's")
}

// Some ten megabytes, five at a time; compressed, half of it.
func (a application) fill() {
	indexer, err := opensearchutil.NewBulkIndexer(opensearchutil.BulkIndexerConfig{
		Client: a.client, Index: a.index, NumWorkers: 1, FlushBytes: 5 << 20, Refresh: "true",
	})
	need(err, "bulk")
	source := rand.New(rand.NewSource(1))
	random := make([]byte, 1000)
	for number := range 5000 {
		source.Read(random)
		body, err := json.Marshal(document{fmt.Sprintf("%x", random)})
		need(err, "a document")
		need(indexer.Add(ctx, opensearchutil.BulkIndexerItem{
			Action: "index", DocumentID: strconv.Itoa(number), Body: bytes.NewReader(body),
		}), "bulk")
	}
	need(indexer.Close(ctx), "bulk")
	same(indexer.Stats().NumFlushed, uint64(5000), "written in bulk")
	same(indexer.Stats().NumFailed, uint64(0), "failed in bulk")
}

func (a application) readAll() {
	seen := map[string]bool{}
	page, err := a.client.Search(ctx, &opensearchapi.SearchReq{
		Indices: []string{a.index},
		Params: opensearchapi.SearchParams{
			Scroll: time.Minute, Size: opensearchapi.ToPointer(1000), Source: "false",
		},
	})
	need(err, "scroll")
	id, hits := page.ScrollID, page.Hits.Hits
	for len(hits) > 0 {
		for _, hit := range hits {
			seen[hit.ID] = true
		}
		next, err := a.client.Scroll.Get(ctx, opensearchapi.ScrollGetReq{
			ScrollID: *id, Params: opensearchapi.ScrollGetParams{Scroll: time.Minute},
		})
		need(err, "scroll on")
		id, hits = next.ScrollID, next.Hits.Hits
	}
	same(len(seen), 5003, "documents read; the one of id 1 was replaced")
	cleared, err := a.client.Scroll.Delete(ctx, opensearchapi.ScrollDeleteReq{ScrollIDs: []string{*id}})
	need(err, "clear the scroll")
	same(cleared.NumFreed, 1, "scrolls cleared")
}

// What nobody may is told in the client's own words.
func (a application) isRefused() {
	_, err := a.client.Search(ctx, &opensearchapi.SearchReq{
		Indices: []string{"of-others"}, Body: strings.NewReader(matching),
	})
	var refused *opensearch.StructError
	if !errors.As(err, &refused) {
		fail("it may read what is of others, or is told so in other words: %v", err)
	}
	same(refused.Status, http.StatusForbidden, "the refusal's status")
	same(refused.Err.Type, "security_exception", "the refusal's type")
}

func (a application) delete() {
	deleted, err := a.client.Document.Delete(ctx, opensearchapi.DocumentDeleteReq{
		Index: a.index, DocumentID: "a/b c+d",
	})
	need(err, "delete")
	same(deleted.Result, "deleted", "deleted")
	_, err = a.client.Indices.Delete(ctx, opensearchapi.IndicesDeleteReq{Indices: []string{a.index}})
	need(err, "delete the index")
	same(a.exists(), false, "the index exists")
}

// The client tells of what is not there by an error beside the answer.
func is(found *opensearch.Response, err error, what string) bool {
	if found == nil {
		fail("%s: %v", what, err)
	}
	if found.StatusCode != http.StatusOK && found.StatusCode != http.StatusNotFound {
		fail("%s: %s", what, found.Status())
	}
	return found.StatusCode == http.StatusOK
}

func need(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func same[T comparable](got, wanted T, what string) {
	if got != wanted {
		fail("%s: %v, not %v", what, got, wanted)
	}
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}
