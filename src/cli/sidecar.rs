//! What the admin says of every sidecar.

use crate::inject::sidecar::Settings;

/// What every sidecar is like, whatever a pod asks for.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[expect(clippy::struct_field_names, reason = "they are the names of flags")]
pub(super) struct Args {
    /// The image of the signing proxy, by digest: this program's own.
    #[arg(long, env = "PROXY_IMAGE", value_name = "IMAGE@sha256:DIGEST", value_parser = image)]
    proxy_image: String,
    /// A variable of every signing proxy, such as `AWS_STS_REGIONAL_ENDPOINTS=regional`; several, in
    /// the variable separated by `;`.
    #[arg(long, env = "PROXY_SETTING_ENV", value_name = "NAME=VALUE", value_parser = variable, value_delimiter = ';')]
    proxy_env: Vec<(String, String)>,
    /// An argument of every signing proxy, such as --request-timeout=600; several, in the variable
    /// separated by `;`.
    #[arg(
        long,
        env = "PROXY_SETTING_ARGUMENT",
        value_name = "ARGUMENT",
        allow_hyphen_values = true,
        value_delimiter = ';'
    )]
    proxy_argument: Vec<String>,
}

impl From<Args> for Settings {
    fn from(args: Args) -> Self {
        Self {
            image: args.proxy_image,
            environment: args.proxy_env.into_iter().collect(),
            arguments: args.proxy_argument,
        }
    }
}

fn image(text: &str) -> Result<String, String> {
    let digest = text.split_once("@sha256:").map(|(_, digest)| digest);
    let is_digest = digest.is_some_and(|it| {
        it.len() == 64
            && it
                .bytes()
                .all(|it| it.is_ascii_hexdigit() && !it.is_ascii_uppercase())
    });
    if is_digest && !text.starts_with('@') {
        return Ok(text.to_owned());
    }
    Err(
        "name the image by digest, IMAGE@sha256:…: a tag can be moved to another image, and every pod would run it"
            .to_owned(),
    )
}

fn variable(text: &str) -> Result<(String, String), String> {
    let split = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = split.ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_digest() {
        let digest = "0123456789abcdef".repeat(4);
        let named = format!("registry.example/x@sha256:{digest}");
        assert_eq!(image(&named), Ok(named.clone()));
        for text in [
            "registry.example/x:latest".to_owned(),
            "registry.example/x@sha256:0".to_owned(),
            format!("@sha256:{digest}"),
            named.to_uppercase(),
        ] {
            assert!(image(&text).is_err(), "{text}");
        }
    }
}
