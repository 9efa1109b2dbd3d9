//! Uses a domain as an application does, with an ordinary client that knows nothing of signatures.
//!
//! Usage: use-domain URL PREFIX     (PREFIX: of the indexes that it may use)

use std::collections::BTreeSet;
use std::error::Error;

use opensearch::http::request::JsonBody;
use opensearch::http::response::Response;
use opensearch::http::transport::Transport;
use opensearch::indices::{IndicesCreateParts, IndicesDeleteParts, IndicesExistsParts};
use opensearch::params::Refresh;
use opensearch::{
    BulkParts, ClearScrollParts, CountParts, DeleteParts, ExistsParts, GetParts, IndexParts,
    OpenSearch, ScrollParts, SearchParts,
};
use serde_json::{Value, json};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A client, and what it may use.
struct Application {
    client: OpenSearch,
    prefix: String,
    index: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(prefix), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: use-domain URL PREFIX".into());
    };
    let application = Application {
        client: OpenSearch::new(Transport::single_node(&url)?),
        index: format!("{prefix}-opensearch-rs"),
        prefix,
    };
    application.start_over().await?;
    application.write_and_read().await?;
    application.search().await?;
    application.write_to_todays().await?;
    application.fill().await?;
    application.read_all().await?;
    application.is_refused().await?;
    application.delete().await?;
    println!("ok");
    Ok(())
}

async fn json_of(response: Response) -> Outcome<Value> {
    Ok(response.error_for_status_code()?.json().await?)
}

fn matching() -> Value {
    json!({"query": {"match": {"text": "東京"}}})
}

impl Application {
    async fn start_over(&self) -> Outcome {
        let names = [self.index.as_str()];
        let indices = self.client.indices();
        let gone = indices.delete(IndicesDeleteParts::Index(&names));
        let gone = gone.ignore_unavailable(true).send().await?;
        gone.error_for_status_code()?;
        let parts = IndicesCreateParts::Index(&self.index);
        let made = json_of(indices.create(parts).send().await?).await?;
        assert_eq!(made["acknowledged"], true, "{made}");
        let exists = indices.exists(IndicesExistsParts::Index(&names));
        assert_eq!(exists.send().await?.status_code(), 200);
        Ok(())
    }

    /// Ids that have to be encoded, and text that is not ASCII.
    async fn write_and_read(&self) -> Outcome {
        for id in ["1", "a/b c+d", "日本", "x=y&z?#%"] {
            let text = format!("東京 {id}");
            let parts = IndexParts::IndexId(&self.index, id);
            let write = self.client.index(parts).body(json!({"text": text}));
            let written = json_of(write.refresh(Refresh::True).send().await?).await?;
            assert_eq!(written["_id"], id, "{written}");
            let read = self.client.get(GetParts::IndexId(&self.index, id));
            let read = json_of(read.send().await?).await?;
            assert_eq!(read["_source"]["text"], text, "{read}");
            let exists = self.client.exists(ExistsParts::IndexId(&self.index, id));
            assert_eq!(exists.send().await?.status_code(), 200, "{id}");
        }
        let nothing = ExistsParts::IndexId(&self.index, "nothing");
        let exists = self.client.exists(nothing).send().await?;
        assert_eq!(exists.status_code(), 404);
        Ok(())
    }

    async fn search(&self) -> Outcome {
        let names = [self.index.as_str()];
        let search = self.client.search(SearchParts::Index(&names));
        let search = search.q("text:東京").size(2);
        let search = search.filter_path(&["hits.total.value"]);
        let found = json_of(search.send().await?).await?;
        assert_eq!(found, json!({"hits": {"total": {"value": 4}}}));
        let pattern = format!("{}-*", self.prefix);
        let pattern = [pattern.as_str()];
        let search = self.client.search(SearchParts::Index(&pattern));
        let found = json_of(search.body(matching()).send().await?).await?;
        assert!(
            found["hits"]["total"]["value"].as_u64() >= Some(4),
            "{found}"
        );
        let count = self.client.count(CountParts::Index(&names));
        let counted = json_of(count.body(matching()).send().await?).await?;
        assert_eq!(counted["count"], 4, "{counted}");
        Ok(())
    }

    async fn write_to_todays(&self) -> Outcome {
        let dated = format!("<{}-rs-{{now/d}}>", self.prefix);
        let names = [dated.as_str()];
        let write = self.client.index(IndexParts::IndexId(&dated, "1"));
        let write = write.body(json!({"text": "today"})).refresh(Refresh::True);
        json_of(write.send().await?).await?;
        let count = self.client.count(CountParts::Index(&names));
        let counted = json_of(count.send().await?).await?;
        assert_eq!(counted["count"], 1, "{counted}");
        let indices = self.client.indices();
        let gone = indices.delete(IndicesDeleteParts::Index(&names));
        json_of(gone.send().await?).await?;
        Ok(())
    }

    /// Some ten megabytes, five at a time.
    async fn fill(&self) -> Outcome {
        for half in [0..2500, 2500..5000] {
            let lines = half.flat_map(|number: u32| {
                let action = json!({"index": {"_id": number.to_string()}});
                let document = json!({"number": number, "text": "x".repeat(2000)});
                [JsonBody::new(action), JsonBody::new(document)]
            });
            let bulk = self.client.bulk(BulkParts::Index(&self.index));
            let bulk = bulk.body(lines.collect()).refresh(Refresh::True);
            let done = json_of(bulk.send().await?).await?;
            assert_eq!(done["errors"], false);
            assert_eq!(done["items"].as_array().map(Vec::len), Some(2500));
        }
        Ok(())
    }

    async fn read_all(&self) -> Outcome {
        let mut seen = BTreeSet::new();
        let names = [self.index.as_str()];
        let search = self.client.search(SearchParts::Index(&names));
        let search = search.scroll("1m").size(1000)._source(&["false"]);
        let mut page = json_of(search.send().await?).await?;
        let id = loop {
            let id = page["_scroll_id"].as_str().ok_or("no scroll")?.to_owned();
            let hits = page["hits"]["hits"].as_array().ok_or("no hits")?;
            if hits.is_empty() {
                break id;
            }
            seen.extend(hits.iter().map(|hit| hit["_id"].to_string()));
            let next = json!({"scroll": "1m", "scroll_id": id});
            let scroll = self.client.scroll(ScrollParts::None).body(next);
            page = json_of(scroll.send().await?).await?;
        };
        assert_eq!(seen.len(), 5003, "the document of id 1 was replaced");
        let clear = self.client.clear_scroll(ClearScrollParts::None);
        let cleared = clear.body(json!({"scroll_id": [id]})).send().await?;
        assert_eq!(json_of(cleared).await?["num_freed"], 1);
        Ok(())
    }

    /// What nobody may is told in the client's own words.
    async fn is_refused(&self) -> Outcome {
        let others = ["of-others"];
        let search = self.client.search(SearchParts::Index(&others));
        let refused = search.body(matching()).send().await?;
        let error = refused.error_for_status_code_ref().err();
        let error = error.ok_or("it may read what is of others")?;
        assert_eq!(error.status_code().map(|it| it.as_u16()), Some(403));
        let exception = refused.exception().await?.ok_or("no exception")?;
        let kind = exception.error().ty();
        assert_eq!(
            (exception.status(), kind),
            (Some(403), Some("security_exception"))
        );
        Ok(())
    }

    async fn delete(&self) -> Outcome {
        let parts = DeleteParts::IndexId(&self.index, "a/b c+d");
        let deleted = json_of(self.client.delete(parts).send().await?).await?;
        assert_eq!(deleted["result"], "deleted", "{deleted}");
        let names = [self.index.as_str()];
        let indices = self.client.indices();
        let gone = indices.delete(IndicesDeleteParts::Index(&names));
        json_of(gone.send().await?).await?;
        let exists = indices.exists(IndicesExistsParts::Index(&names));
        assert_eq!(exists.send().await?.status_code(), 404);
        Ok(())
    }
}
