//! The signing proxy's own program: on raw sockets before an upstream that does as it is told, and
//! before a real OpenSearch.
//!
//! Where each fault that a proxy can have is shown not to be; `src` stands for the unit tests of
//! `src/proxy`.
//!
//! | fault | shown by |
//! |---|---|
//! | P1 bind | `limits::only_this_machine_can_connect`, `limits::what_every_pod_of_a_node_could_reach_is_refused_at_the_start`, `life::what_would_let_others_in_is_refused_at_the_start` |
//! | P2 hosts | `hosts`, `wire::only_what_is_meant_for_this_proxy_is_forwarded` |
//! | P3 upgrades | `wire::only_what_is_meant_for_this_proxy_is_forwarded`, `framing::what_begins_as_http_2_is_cut_off`, `domain::curl_works_unsigned` |
//! | P4 framing | `desync`, `framing::no_body_becomes_a_request`; src `guard`, and `fuzz/` |
//! | P5 unread bodies | `framing::a_refused_request_takes_its_body_with_it`, `framing::requests_behind_each_other_are_answered_in_order`; src `serve::a_head_that_is_cut_while_an_answer_is_under_way_is_read_once_that_is_out` |
//! | P6 others' signatures | `wire::a_request_is_signed_and_carries_nothing_that_could_decide_for_whom`; src `head` |
//! | P7 hop-by-hop | the same, and `replies::answers_are_passed_on_whatever_they_are` |
//! | P8 paths | `canonical`, `wire::paths_are_sent_in_the_one_form_that_is_signed`, `tests/sigv4`, `fuzz/` |
//! | P9 read-only | src `allow`, `wire::what_the_admin_does_not_allow_is_not_forwarded` |
//! | P10 metadata | `limits::a_name_that_leads_to_credentials_is_not_followed`; src `upstream`; redirects: `replies::answers_are_passed_on_whatever_they_are` |
//! | P11 TLS | src `tls`, `domain::a_domain_whose_certificate_nobody_vouches_for_is_not_spoken_to`; older than 1.2 is not built in |
//! | P12 utility port | `limits::the_utility_port_shows_nothing_but_what_it_is_for`, `wire::no_secret_is_logged_or_shown` |
//! | P13 bodies | `framing::what_is_too_large_is_refused_and_what_is_broken_too`; src `body` |
//! | P14 slow clients | `framing::slow_heads_are_cut_off_and_keep_nobody_waiting`; src `pace`, `serve`, `body` |
//! | P15 strange bytes | `desync::no_byte_breaks_anything`, `framing::what_is_too_large_is_refused_and_what_is_broken_too`, `fuzz/` |
//! | P16 drain | `life::proxies_are_stopped_a_hundred_times_under_load_and_no_request_fails`, `life::a_proxy_that_is_asked_to_stop_finishes_what_it_began`, `limits::who_never_asked_anything_does_not_hold_up_the_end` |
//! | P17 rotation | `life::credentials_change_fifty_times_under_load_and_no_request_fails`; src `identity` |
//! | P18 no credentials | `life::without_credentials_nothing_is_sent_until_there_are_some`, `identities`; src `identity` |
//! | P19 refused credentials | `replies::credentials_that_are_refused_are_asked_for_anew_once`, `replies::refusals_are_explained_and_passed_on_as_they_are`, `mended` |
//! | P20 changed files | `life::without_credentials_nothing_is_sent_until_there_are_some`: each refresh reads anew; `identities` |
//! | P21 clocks | `replies::a_clock_that_is_off_costs_one_more_try_and_no_client_an_error`, `replies::a_date_that_is_not_the_domains_own_is_not_believed`, `mended`; src `clock` |
//! | P22 tries | `faults::wherever_an_upstream_breaks_off_nothing_is_done_twice`, `faults::what_was_sent_on_a_connection_that_breaks_is_not_sent_on_another`, `replies::what_only_reads_is_tried_again_and_nothing_else_is` |
//! | P23 HTTP/2 | not spoken, to either side: `limits::clients_by_tls_are_offered_no_http_2`, `framing::what_begins_as_http_2_is_cut_off` |
//! | P24 loops | `limits::a_loop_is_ended_where_it_begins` |
//! | P25 browsers, others | `wire::only_what_is_meant_for_this_proxy_is_forwarded`, `life::each_upstream_has_a_port_and_clients_may_be_asked_for_a_secret` |
//! | P26 strange answers | `faults`, `replies::an_answer_is_passed_on_as_it_comes_and_one_that_breaks_off_is_seen_to` |
//! | P27 exhaustion | `limits::who_takes_all_connections_keeps_others_out_only_until_they_are_idle`; a panic ends its connection's task alone: src `serve::a_connection_that_ends_in_a_panic_is_counted_no_more` |
//! | P28 logs | `secrets`, `wire::no_secret_is_logged_or_shown` |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an expectation that fails here is a failed test"
)]

#[path = "../common"]
mod common {
    pub(crate) mod cluster;
    pub(crate) mod connection;
    pub(crate) mod fake_aws;
    pub(crate) mod gateway;
    pub(crate) mod opensearch;
    pub(crate) mod parts;
    pub(crate) mod process;
    pub(crate) mod tripwire;
}

mod canonical;
mod clients;
mod desync;
mod domain;
mod faults;
mod framing;
mod hosts;
mod identities;
mod life;
mod limits;
mod mended;
mod program;
mod replies;
mod secrets;
mod signatures;
mod upstream;
mod wire;
