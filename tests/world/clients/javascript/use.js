// Uses a domain as an application does, with an ordinary client that knows nothing of signatures.
//
// Usage: use.js URL PREFIX     (PREFIX: of the indexes that it may use)

const assert = require("node:assert/strict");
const { randomBytes } = require("node:crypto");
const { Client, errors } = require("@opensearch-project/opensearch");

const [url, prefix] = process.argv.slice(2);
const index = `${prefix}-opensearch-js`;
const dated = `<${prefix}-js-{now/d}>`;

async function use(options) {
  const client = new Client({ node: url, requestTimeout: 60000, ...options });
  await client.indices.delete({ index: [index, dated], ignore_unavailable: true });
  await client.indices.create({ index });
  assert((await client.indices.exists({ index })).body);

  // Ids that have to be encoded, and text that is not ASCII.
  for (const id of ["1", "a/b c+d", "日本", "x=y&z?#%"]) {
    const text = `東京 ${id}`;
    await client.index({ index, id, body: { text }, refresh: true });
    assert.equal((await client.get({ index, id })).body._source.text, text);
    assert((await client.exists({ index, id })).body, id);
  }
  assert(!(await client.exists({ index, id: "nothing" })).body);

  const found = await client.search({ index, q: "text:東京", size: 2, filter_path: "hits.total.value" });
  assert.deepEqual(found.body, { hits: { total: { value: 4 } } });
  const body = { query: { match: { text: "東京" } } };
  assert((await client.search({ index: `${prefix}-*`, body })).body.hits.total.value >= 4);
  assert.equal((await client.count({ index, body })).body.count, 4);

  // An index of today's.
  await client.index({ index: dated, id: "1", body: { text: "today" }, refresh: true });
  assert.equal((await client.count({ index: dated })).body.count, 1);
  await client.indices.delete({ index: dated });

  await fill(client);
  await readAll(client);

  // What nobody may is told in the client's own words.
  await assert.rejects(client.search({ index: "of-others", body }), (refused) => {
    assert(refused instanceof errors.ResponseError, refused);
    assert.equal(refused.statusCode, 403);
    assert.match(refused.message, /security_exception/);
    return true;
  });

  await client.delete({ index, id: "a/b c+d" });
  await client.indices.delete({ index });
  assert(!(await client.indices.exists({ index })).body);
  await client.close();
}

// Some ten megabytes, five at a time; compressed, half of it.
async function fill(client) {
  const text = () => randomBytes(1000).toString("hex");
  const datasource = Array.from({ length: 5000 }, (_, number) => ({ number, text: text() }));
  const done = await client.helpers.bulk({
    datasource,
    flushBytes: 5 << 20,
    concurrency: 1,
    refreshOnCompletion: index,
    onDocument: ({ number }) => ({ index: { _index: index, _id: String(number) } }),
    onDrop: (dropped) => assert.fail(JSON.stringify(dropped)),
  });
  assert.deepEqual([done.successful, done.failed], [5000, 0]);
}

async function readAll(client) {
  const seen = new Set();
  const size = 1000;
  let page = await client.search({ index, scroll: "1m", size, _source: false });
  while (page.body.hits.hits.length > 0) {
    page.body.hits.hits.forEach((hit) => seen.add(hit._id));
    page = await client.scroll({ body: { scroll: "1m", scroll_id: page.body._scroll_id } });
  }
  assert.equal(seen.size, 5003); // The document of id 1 was replaced.
  const cleared = await client.clearScroll({ body: { scroll_id: [page.body._scroll_id] } });
  assert.equal(cleared.body.num_freed, 1);
}

(async () => {
  await use({});
  await use({ compression: "gzip", suggestCompression: true });
  console.log("ok");
})();
