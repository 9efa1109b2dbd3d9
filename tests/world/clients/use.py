"""Uses a domain as an application does, with an ordinary client that knows nothing of signatures.

Usage: use.py opensearch-py|elasticsearch-py URL PREFIX     (PREFIX: of the indexes that it may use)
"""

import sys

which, url, prefix = sys.argv[1:]
if which == "opensearch-py":
    from opensearchpy import OpenSearch as Client
    from opensearchpy import helpers
    from opensearchpy.exceptions import AuthorizationException
else:
    from elasticsearch import Elasticsearch as Client
    from elasticsearch import helpers
    from elasticsearch.exceptions import AuthorizationException

index = f"{prefix}-{which}"
for compress in (False, True):
    client = Client([url], http_compress=compress, timeout=60)
    if client.indices.exists(index=index):
        client.indices.delete(index=index)
    client.indices.create(index=index)

    # Ids that have to be encoded, and text that is not ASCII.
    for id in ("1", "a/b c+d", "日本", "x=y&z?#%"):
        client.index(index=index, id=id, body={"text": f"東京 {id}"}, refresh=True)
        assert client.get(index=index, id=id)["_source"]["text"] == f"東京 {id}", id
        assert client.exists(index=index, id=id), id
    found = client.search(index=index, q="text:東京", size=2, filter_path="hits.total.value")
    assert found["hits"]["total"]["value"] == 4, found
    body = {"query": {"match": {"text": "東京"}}}
    assert client.search(index=f"{prefix}-*", body=body)["hits"]["total"]["value"] >= 4
    assert client.count(index=index, body=body)["count"] == 4

    # Some twenty megabytes, streamed, and read back page by page.
    many = ({"_index": index, "_id": str(number), "text": "x" * 2000} for number in range(10000))
    done, failed = helpers.bulk(client, many, chunk_size=2500, max_chunk_bytes=90 << 20, refresh=True)
    assert (done, failed) == (10000, []), failed
    pages = helpers.scan(client, index=index, size=1000, query={"_source": False})
    assert sum(1 for _ in pages) == 10003, "documents"  # the one of id 1 was replaced

    # What nobody may is told in the client's own words.
    try:
        client.search(index="of-others", body=body)
        sys.exit("it may read what is of others")
    except AuthorizationException as refused:
        assert refused.status_code == 403, refused

    client.delete(index=index, id="a/b c+d")
    client.indices.delete(index=index)
print("ok")
