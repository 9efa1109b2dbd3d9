//! A second opinion on the fake AWS: the same SDK calls against a real `ministack`, answer by
//! answer.
//!
//! ministack knows the shapes of AWS well and hardly any of its rules, so every difference is one
//! of two things: a rule that we play and it does not, or our mistake. The table below says which
//! differences are meant and why; the test fails when one of them goes away as well as when another
//! one appears.

#![allow(
    clippy::expect_used,
    reason = "an expectation that fails here is a failed test"
)]

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_opensearch::config::{Credentials, SharedCredentialsProvider};

use crate::common::fake_aws::FakeAws;
use crate::common::parts::part;
use crate::common::process::Process;

mod calls;

/// How long ministack may take to start; it takes about a second.
const PATIENCE: Duration = Duration::from_mins(1);

/// A difference that is meant.
struct Difference {
    call: &'static str,
    ours: &'static str,
    theirs: &'static str,
    /// What the service does there, and ministack does not.
    because: &'static str,
}

/// All other calls must leave the same line with both.
const DIFFERENCES: &[Difference] = &[
    Difference {
        call: "assume an unknown role",
        ours: "AccessDenied 403",
        theirs: "accepted",
        because: "sts hides whether a role exists; ministack assumes anything",
    },
    Difference {
        call: "describe an unknown domain",
        ours: "ResourceNotFoundException 409",
        theirs: "ResourceNotFoundException 404",
        because: "409 in the API model",
    },
    Difference {
        call: "update an unknown domain",
        ours: "ResourceNotFoundException 409",
        theirs: "ResourceNotFoundException 404",
        because: "409 in the API model",
    },
    Difference {
        call: "describe six domains",
        ours: "ValidationException 400",
        theirs: "accepted",
        because: "five names at most",
    },
    Difference {
        call: "the version of the policy after one write",
        ours: "2",
        theirs: "1",
        because: "ministack's UpdateVersion is always 1",
    },
    Difference {
        call: "read a statement that had a Sid",
        ours: "no Sid",
        theirs: "the Sid is there",
        because: "Sid is not stored",
    },
    Difference {
        call: "read the policy after the dry run",
        ours: "the policy",
        theirs: "nothing",
        because: "ministack applies dry runs",
    },
    Difference {
        call: "put an unknown principal",
        ours: "InvalidTypeException 409",
        theirs: "accepted",
        because: "principals must exist",
    },
    Difference {
        call: "put an open policy",
        ours: "ValidationException 400",
        theirs: "accepted",
        because: "the open policy check",
    },
    Difference {
        call: "put a newline",
        ours: "ValidationException 400",
        theirs: "accepted",
        because: "the pattern .* has no newline",
    },
    Difference {
        call: "put no statements",
        ours: "InvalidTypeException 409",
        theirs: "accepted",
        because: "blank policies are not allowed",
    },
    Difference {
        call: "put what is not JSON",
        ours: "InvalidTypeException 409",
        theirs: "accepted",
        because: "the answer to malformed policies",
    },
    Difference {
        call: "put 102401 characters",
        ours: "ValidationException 400",
        theirs: "accepted",
        because: "102400 at most",
    },
    Difference {
        call: "put an inline policy with a principal",
        ours: "MalformedPolicyDocument 400",
        theirs: "accepted",
        because: "identity policies must not contain Principal",
    },
    Difference {
        call: "put an inline policy that is too large",
        ours: "LimitExceeded 409",
        theirs: "accepted",
        because: "10,240 characters per role",
    },
    Difference {
        call: "put an inline policy under no name",
        ours: "ValidationError 400",
        theirs: "accepted",
        because: "the pattern of PolicyName",
    },
    Difference {
        call: "list the associations in pages",
        ours: "true",
        theirs: "false",
        because: "the rest of a list is behind a token; ministack drops it",
    },
    Difference {
        call: "read a policy whose principal is gone",
        ours: "a unique id",
        theirs: "the ARN",
        because: "the unique id shows after deletion",
    },
    Difference {
        call: "describe a deleted domain",
        ours: "ResourceNotFoundException 409",
        theirs: "ResourceNotFoundException 404",
        because: "409 in the API model",
    },
];

/// A ministack of its own, gone when it is dropped.
struct Ministack {
    url: String,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Ministack {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .expect("some port is free")
            .port();
        let log = folder.path().join("log");
        let mut command = Command::new(part("ministack"));
        command
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("SERVICES", "opensearch,iam,sts,eks")
            .env("IOT_MTLS_ENABLED", "0")
            .env("TMPDIR", folder.path());
        let mut process = Process::spawn("ministack", &command, &log).expect("it is installed");
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .is_err()
        {
            let ended = process.try_wait().expect("it is our child");
            let late = Instant::now() > deadline;
            assert!(
                ended.is_none() && !late,
                "ministack is not there: {}",
                process.log_tail(20)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self {
            url: format!("http://127.0.0.1:{port}"),
            _process: process,
            _folder: folder,
        }
    }
}

fn sdk_config(url: &str, credentials: Credentials) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(url)
        .region(Region::new("eu-west-1"))
        .retry_config(RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

#[tokio::test]
async fn ministack_differs_from_the_fake_only_where_it_does_not_know_awss_rules() {
    let (aws, ministack) = (FakeAws::start().await, Ministack::start().await);
    let (access_key_id, secret) = aws.credentials(calls::ACCOUNT);
    let ours = Credentials::new(access_key_id, secret, None, None, "test");
    // To ministack an access key that looks like an account id is that account.
    let theirs = Credentials::new(calls::ACCOUNT, "test", None, None, "test");
    let ours = calls::make(&sdk_config(aws.url(), ours)).await;
    let theirs = calls::make(&sdk_config(&ministack.url, theirs)).await;

    let mut wrong = Vec::new();
    for ((call, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        let meant = DIFFERENCES
            .iter()
            .find(|difference| difference.call == *call);
        let expected = meant.map_or((ours.as_str(), ours.as_str()), |meant| {
            (meant.ours, meant.theirs)
        });
        if (ours.as_str(), theirs.as_str()) != expected {
            let because = meant.map_or("no difference is expected", |meant| meant.because);
            wrong.push(format!(
                "{call}\n  ours:   {ours}\n  theirs: {theirs}\n  table:  {because}"
            ));
        }
    }
    for difference in DIFFERENCES {
        if !ours.iter().any(|(call, _)| *call == difference.call) {
            wrong.push(format!(
                "{}\n  in the table, but not called",
                difference.call
            ));
        }
    }
    assert_eq!(ours.len(), theirs.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
