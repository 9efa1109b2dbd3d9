//! From the bytes of a review to the bytes of its answer.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use jiff::Timestamp;
use kube::Resource;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use super::metrics::Metrics;
use super::stores::Stores;
use super::{pods, resources};
use crate::inject::sidecar::Settings;

/// Where pods are reviewed.
pub(super) const PODS: &str = "/mutate-pods";

/// Where our own objects are reviewed.
pub(super) const RESOURCES: &str = "/validate";

/// The one version of reviews that is spoken.
const VERSION: &str = "admission.k8s.io/v1";

/// What came of a review.
pub(super) struct Answer {
    response: AdmissionResponse,
    /// In a word, for metrics.
    result: &'static str,
}

impl Answer {
    pub(super) fn new(response: AdmissionResponse, result: &'static str) -> Self {
        Self { response, result }
    }

    /// An answer that lets the object pass, and says something about it.
    pub(super) fn warning(
        mut response: AdmissionResponse,
        text: String,
        result: &'static str,
    ) -> Self {
        response.warnings = Some(vec![text]);
        Self::new(response, result)
    }
}

/// What it takes to answer.
pub(super) struct Reviewer {
    pub(super) stores: Stores,
    pub(super) settings: Settings,
    pub(super) metrics: Arc<Metrics>,
}

/// A request that is no review, with what it is told.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

impl Reviewer {
    /// Answers a review.
    ///
    /// # Errors
    ///
    /// Refuses what is no review.
    pub(super) async fn answer(&self, path: &str, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let began = Instant::now();
        let (path, answer) = match path {
            PODS => {
                let request = read(body)?;
                (PODS, pods::review(&request, &self.stores, &self.settings))
            }
            RESOURCES => {
                let request: AdmissionRequest<DynamicObject> = read(body)?;
                let now = Timestamp::now();
                let answer = resources::review(&request, &self.stores, now).await;
                (RESOURCES, answer)
            }
            _ => {
                let told = format!("there are {PODS} and {RESOURCES}");
                return Err(Refusal(StatusCode::NOT_FOUND, told));
            }
        };
        self.metrics.reviewed(path, answer.result, began.elapsed());
        debug!(path, result = answer.result, "a review is answered");
        serde_json::to_vec(&answer.response.into_review()).map_err(|error| {
            warn!(%error, "an answer cannot be written");
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        })
    }
}

fn read<K: Resource<DynamicType = D> + DeserializeOwned, D>(
    body: &[u8],
) -> Result<AdmissionRequest<K>, Refusal> {
    let bad = |told: String| Refusal(StatusCode::BAD_REQUEST, told);
    let review: AdmissionReview<K> = serde_json::from_slice(body)
        .map_err(|error| bad(format!("this is no AdmissionReview: {error}")))?;
    if review.types.api_version != VERSION || review.types.kind != "AdmissionReview" {
        return Err(bad(format!(
            "{} {:?} is not spoken: send an AdmissionReview of {VERSION}",
            review.types.kind, review.types.api_version
        )));
    }
    let request: AdmissionRequest<K> = review
        .try_into()
        .map_err(|_| bad("the review has no request".to_owned()))?;
    if request.uid.is_empty() {
        return Err(bad("the review's request has no uid".to_owned()));
    }
    Ok(request)
}
