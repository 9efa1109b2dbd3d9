//! The program as kubectl's plugin: what it is then about, and what its help shows.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Command;
use clap::parser::ValueSource;

/// What one types.
const NAME: &str = "kubectl opensearch-access";

/// What is about the cluster unless it is told otherwise: that is what kubectl is about.
const OF_CLUSTER: [&str; 3] = ["explain", "lint", "plan"];

/// What runs in a cluster, and nobody types.
const SERVERS: [&str; 3] = ["controller", "run", "webhook"];

/// What says what a command is about, by clap's ids.
const SUBJECT: [&str; 5] = ["filenames", "cluster", "policy", "policies", "domain_name"];

/// Tells whether kubectl runs the program.
pub(super) fn is_plugin(program: &OsString) -> bool {
    let name = Path::new(program).file_name().map(OsStr::to_string_lossy);
    name.is_some_and(|it| it.starts_with("kubectl-"))
}

/// Has the help speak of the plugin.
pub(super) fn named(mut command: Command) -> Command {
    for name in OF_CLUSTER {
        command = command.mut_subcommand(name, |it| {
            it.mut_group("subject", |it| it.required(false))
                // An error would show what was put in for the user, too.
                .override_usage(format!("{NAME} {name} [OPTIONS]"))
                .mut_arg("cluster", |it| {
                    it.help(
                        "Take the objects of the cluster, as without any other source; manifests \
                         are laid over them, as if they were applied",
                    )
                    .long_help(None)
                })
        });
    }
    for name in SERVERS {
        command = command.mut_subcommand(name, |it| it.hide(true));
    }
    command.bin_name(NAME)
}

/// Says `--cluster` where a command that is about the cluster says nothing of what it is about.
pub(super) fn of_cluster(command: &Command, words: &mut Vec<OsString>) {
    // What is wrong with the words is told by who reads them in earnest.
    let lenient = command.clone().ignore_errors(true);
    let Ok(read) = lenient.try_get_matches_from(words.iter()) else {
        return;
    };
    let Some((name, said)) = read.subcommand() else {
        return;
    };
    let is_said = |id: &&str| {
        let known = said.try_contains_id(id).unwrap_or(false);
        known && said.value_source(id) == Some(ValueSource::CommandLine)
    };
    if !OF_CLUSTER.contains(&name) || SUBJECT.iter().any(is_said) {
        return;
    }
    if let Some(at) = words.iter().position(|it| it == name) {
        words.insert(at + 1, "--cluster".into());
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::Cli;
    use super::*;

    #[test]
    fn a_plugin_is_about_the_cluster_unless_told_otherwise() {
        let command = named(Cli::command());
        let words = |line: &str| {
            let mut words = line.split(' ').map(OsString::from).collect();
            of_cluster(&command, &mut words);
            words.join(OsStr::new(" "))
        };
        assert!(is_plugin(&"/usr/bin/kubectl-opensearch_access".into()));
        assert!(!is_plugin(&"opensearch-access".into()));
        for (line, expected) in [
            ("k explain", "k explain --cluster"),
            ("k lint -o json", "k lint --cluster -o json"),
            ("k plan --domain a", "k plan --cluster --domain a"),
            (
                "k --color never plan --domain plan",
                "k --color never plan --cluster --domain plan",
            ),
            ("k explain --no-such", "k explain --cluster --no-such"),
        ] {
            assert_eq!(words(line), expected);
        }
        for line in [
            "k plan -f a",
            "k plan -fa",
            "k plan --filename=a",
            "k plan --cluster --domain a",
            "k explain --policy=a",
            "k lint --policy a",
            "k lint --live --region a --domain-name a",
            "k grants -A",
            "k grants --domain plan",
            "k import --policy plan",
            "k",
        ] {
            assert_eq!(words(line), line);
        }
    }

    #[test]
    fn the_command_line_of_the_plugin_is_sound() {
        named(Cli::command()).debug_assert();
    }
}
