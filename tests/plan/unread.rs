//! What is printed for a reader who has gone, as of `plan | head`.

use std::io::{PipeReader, Read as _, pipe};
use std::process::{Command, ExitStatus, Stdio};

use super::program::{DOMAIN, Folder, grant};

/// What a shell says of a program that `SIGPIPE` ended.
const UNREAD: i32 = 141;

/// Runs the program with its standard output, or its standard error, into a pipe that nobody reads;
/// gives what it said on the other of the two.
fn unread(args: &[&str], is_error: bool) -> (ExitStatus, String) {
    let (gone, into) = pipe().unwrap();
    drop(gone);
    let (mut other, kept): (PipeReader, _) = pipe().unwrap();
    let (output, errors) = if is_error { (kept, into) } else { (into, kept) };
    let mut program = Command::new(env!("CARGO_BIN_EXE_opensearch-access"));
    program
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    let mut running = program.spawn().unwrap();
    // Its ends of the pipes go with it; ours have to go now.
    drop(program);
    let mut said = String::new();
    other.read_to_string(&mut said).unwrap();
    (running.wait().unwrap(), said)
}

/// Returns a folder with a domain, a grant, one that is refused, and a policy document that is amiss.
fn folder() -> Folder {
    let folder = Folder::new([
        ("domain.yaml", DOMAIN),
        ("a.yaml", &grant("a", "  access: ReadWrite")),
        ("b.yaml", &grant("b", "  access: Admin")),
    ]);
    let statement = r#"{"Effect": "Allow", "Principal": "*", "Action": "es:*",
        "Resource": "arn:aws:es:eu-west-1:111122223333:domain/logs/*"}"#;
    folder.write(
        "policy.json",
        &format!(r#"{{"Statement": [{statement}, {statement}]}}"#),
    );
    folder
}

#[test]
fn a_reader_who_has_gone_ends_every_command_quietly() {
    let folder = folder();
    let manifests = ["domain.yaml", "a.yaml"].map(|it| folder.file(it).display().to_string());
    let files = format!("-f {} -f {}", manifests[0], manifests[1]);
    let policy = folder.file("policy.json").display().to_string();
    for line in [
        format!("plan {files}"),
        format!("plan -o json {files}"),
        format!("explain {files}"),
        format!("explain -o json {files}"),
        format!("explain -o html {files}"),
        format!("explain --action es:ESHttpGet {files}"),
        format!("explain --action es:ESHttpGet -o json {files}"),
        format!("lint --policy {policy}"),
        format!("lint -o json --policy {policy}"),
        format!(
            "import --policy {policy} --domain-name logs --account 111122223333 --region eu-west-1"
        ),
        "crds".to_owned(),
        "--help".to_owned(),
        "plan -h".to_owned(),
        "--version".to_owned(),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let (ended, errors) = unread(&words, false);
        let code = ended.code();
        assert_eq!((code, errors.as_str()), (Some(UNREAD), ""), "{line}");
    }
}

#[test]
fn what_is_amiss_may_go_unread_too() {
    let folder = folder();
    let files = folder.path().to_str().unwrap();
    // The plan is printed before, and whole.
    let (ended, said) = unread(&["plan", "-f", files], true);
    assert_eq!(ended.code(), Some(UNREAD), "{said}");
    assert!(said.contains("role/a"), "{said}");
    // What is wrong with the command itself is in its exit code.
    for wrong in [&["plan", "--no-such"][..], &["explain", "-f", "/nowhere"]] {
        let (ended, said) = unread(wrong, true);
        assert!(ended.code().is_some_and(|it| it != 0), "{wrong:?}");
        assert_eq!(said, "", "{wrong:?}");
    }
}
