import java.io.IOException;
import java.net.URI;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.Set;
import org.apache.hc.core5.http.HttpHost;
import org.apache.hc.core5.util.Timeout;
import org.opensearch.client.opensearch.OpenSearchClient;
import org.opensearch.client.opensearch._types.FieldValue;
import org.opensearch.client.opensearch._types.Refresh;
import org.opensearch.client.opensearch._types.Result;
import org.opensearch.client.opensearch._types.query_dsl.Query;
import org.opensearch.client.opensearch.core.BulkRequest;
import org.opensearch.client.opensearch.core.search.Hit;
import org.opensearch.client.transport.TransportException;
import org.opensearch.client.transport.httpclient5.ApacheHttpClient5TransportBuilder;
import org.opensearch.client.transport.httpclient5.ResponseException;

/**
 * Uses a domain as an application does, with an ordinary client that knows nothing of signatures.
 *
 * <p>Usage: Use.java URL PREFIX (PREFIX: of the indexes that it may use)
 */
public final class Use {
    private static final Query MATCHING =
            Query.of(query -> query.match(match -> match.field("text").query(FieldValue.of("東京"))));

    private final OpenSearchClient client;
    private final String prefix;
    private final String index;
    private final String dated;

    private Use(OpenSearchClient client, String prefix) {
        this.client = client;
        this.prefix = prefix;
        index = prefix + "-opensearch-java";
        dated = "<" + prefix + "-java-{now/d}>";
    }

    /** Runs it with plain bodies of known length, then with compressed ones, then in chunks. */
    public static void main(String[] arguments) throws IOException {
        if (arguments.length != 2) {
            throw new IllegalArgumentException("usage: Use.java URL PREFIX");
        }
        var host = HttpHost.create(URI.create(arguments[0]));
        for (var way : List.of("plain", "compressed", "chunked")) {
            var transport = ApacheHttpClient5TransportBuilder.builder(host)
                    .setCompressionEnabled(way.equals("compressed"))
                    .setChunkedEnabled(way.equals("chunked"))
                    .setRequestConfigCallback(it -> it.setResponseTimeout(Timeout.ofMinutes(1)))
                    .build();
            try (transport) {
                new Use(new OpenSearchClient(transport), arguments[1]).all();
            }
        }
        System.out.println("ok");
    }

    private void all() throws IOException {
        startOver();
        writeAndRead();
        search();
        writeToTodays();
        fill();
        readAll();
        isRefused();
        delete();
    }

    private void startOver() throws IOException {
        client.indices().delete(it -> it.index(index, dated).ignoreUnavailable(true));
        same(client.indices().create(it -> it.index(index)).acknowledged(), true, "created");
        same(client.indices().exists(it -> it.index(index)).value(), true, "the index exists");
    }

    /** Ids that have to be encoded, and text that is not ASCII. */
    private void writeAndRead() throws IOException {
        for (var id : List.of("1", "a/b c+d", "日本", "x=y&z?#%")) {
            var document = Map.of("text", "東京 " + id);
            client.index(it -> it.index(index).id(id).document(document).refresh(Refresh.True));
            same(client.get(it -> it.index(index).id(id), Map.class).source(), document, id);
            same(client.exists(it -> it.index(index).id(id)).value(), true, id);
        }
        same(client.exists(it -> it.index(index).id("nothing")).value(), false, "nothing");
    }

    private void search() throws IOException {
        var found = client.search(it -> it.index(index).q("text:東京").size(2), Map.class);
        same(found.hits().total().value(), 4L, "found by q");
        same(found.hits().hits().size(), 2, "the page");
        var pattern = prefix + "-*";
        found = client.search(it -> it.index(pattern).query(MATCHING), Map.class);
        same(found.hits().total().value() >= 4, true, "found by a body");
        same(client.count(it -> it.index(index).query(MATCHING)).count(), 4L, "counted");
    }

    private void writeToTodays() throws IOException {
        var document = Map.of("text", "today");
        client.index(it -> it.index(dated).id("1").document(document).refresh(Refresh.True));
        same(client.count(it -> it.index(dated)).count(), 1L, "counted today's");
        client.indices().delete(it -> it.index(dated));
    }

    /** Some ten megabytes, five at a time; compressed, half of it. */
    private void fill() throws IOException {
        var random = new Random(1);
        for (var first = 0; first < 5000; first += 2500) {
            var bulk = new BulkRequest.Builder().index(index).refresh(Refresh.True);
            for (var number = first; number < first + 2500; number++) {
                var id = Integer.toString(number);
                var text = new StringBuilder();
                for (var at = 0; at < 250; at++) {
                    text.append(String.format("%08x", random.nextInt()));
                }
                var document = Map.of("text", text.toString());
                bulk.operations(it -> it.index(one -> one.id(id).document(document)));
            }
            var done = client.bulk(bulk.build());
            same(done.errors(), false, "errors");
            same(done.items().size(), 2500, "written in bulk");
        }
    }

    private void readAll() throws IOException {
        Set<String> seen = new HashSet<>();
        var page = client.search(
                it -> it.index(index)
                        .scroll(time -> time.time("1m"))
                        .size(1000)
                        .source(source -> source.fetch(false)),
                Map.class);
        var hits = page.hits().hits();
        var id = page.scrollId();
        while (!hits.isEmpty()) {
            hits.stream().map(Hit::id).forEach(seen::add);
            var last = id;
            var next = client.scroll(
                    it -> it.scrollId(last).scroll(time -> time.time("1m")), Map.class);
            hits = next.hits().hits();
            id = next.scrollId();
        }
        same(seen.size(), 5003, "documents read; the one of id 1 was replaced");
        var last = id;
        same(client.clearScroll(it -> it.scrollId(last)).numFreed(), 1, "scrolls cleared");
    }

    /** What nobody may is told in the client's own words, which for a 403 are those of its transport. */
    private void isRefused() throws IOException {
        try {
            client.search(it -> it.index("of-others").query(MATCHING), Map.class);
        } catch (IOException refused) {
            same(refused.getCause().getClass(), TransportException.class, "the refusal");
            same(refused.getMessage(), "Forbidden access", "the refusal's message");
            var answer = (ResponseException) refused.getCause().getCause();
            same(answer.status(), 403, "the refusal's status");
            same(answer.getMessage().contains("security_exception"), true, "the refusal's type");
            return;
        }
        throw new AssertionError("it may read what is of others");
    }

    private void delete() throws IOException {
        var deleted = client.delete(it -> it.index(index).id("a/b c+d"));
        same(deleted.result(), Result.Deleted, "deleted");
        client.indices().delete(it -> it.index(index));
        same(client.indices().exists(it -> it.index(index)).value(), false, "the index exists");
    }

    private static void same(Object got, Object wanted, String what) {
        if (!Objects.equals(got, wanted)) {
            throw new AssertionError(what + ": " + got + ", not " + wanted);
        }
    }
}
