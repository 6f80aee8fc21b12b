//! Where the two APIs are, in the grammars of their own programs: `CONSUL_HTTP_ADDR` and `DOCKER_HOST`.

use std::path::PathBuf;

use url::Url;

use crate::http::Endpoint;

const CONSUL: &str = "expected something like http://127.0.0.1:8500";
const DOCKER: &str = "expected something like unix:///var/run/docker.sock or tcp://proxy:2375";

/// Docker's usual ports, without TLS and with it.
const DOCKER_PORTS: (u16, u16) = (2375, 2376);

/// Reads where Consul's HTTP API is: `http://`, `https://`, `unix://`, or `HOST:PORT`.
pub(super) fn consul(text: &str) -> Result<Endpoint, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return match is_host_and_port(text) {
            true => url(&format!("http://{text}"), CONSUL).map(Endpoint::Http),
            false => Err(format!("not a URL: {CONSUL}, got {text:?}")),
        };
    };
    match scheme {
        "unix" if rest.starts_with('/') => Ok(Endpoint::Unix(PathBuf::from(rest))),
        "unix" => Err(
            "the path of a Unix socket starts with a slash, as in unix:///run/consul.sock"
                .to_owned(),
        ),
        "http" | "https" => url(text, CONSUL).map(Endpoint::Http),
        _ => Err(format!(
            "{scheme:?} is not a scheme of Consul's API: {CONSUL}"
        )),
    }
}

/// Reads where Docker's API is. The `tcp` of `DOCKER_HOST` becomes `http`.
pub(super) fn docker(text: &str) -> Result<Endpoint, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("{DOCKER}, got {text:?}"));
    };
    match scheme {
        "unix" if rest.starts_with('/') => Ok(Endpoint::Unix(PathBuf::from(rest))),
        "unix" => Err(format!(
            "the path of a Unix socket starts with a slash: {DOCKER}"
        )),
        "tcp" | "http" => docker_url("http", rest, DOCKER_PORTS.0).map(Endpoint::Http),
        "https" => docker_url("https", rest, DOCKER_PORTS.1).map(Endpoint::Http),
        "ssh" => Err(format!(
            "Docker over SSH is not supported; forward its socket instead: {DOCKER}"
        )),
        _ => Err(format!(
            "{scheme:?} is not a scheme of Docker's API: {DOCKER}"
        )),
    }
}

fn url(text: &str, example: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL ({error}): {example}"))?;
    // A password here would end up in logs and error messages. Do not repeat it in ours.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "leave user and password out of the address: use a token or a certificate".to_owned(),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("nothing may follow `?` or `#`: {example}"));
    }
    if url.port() == Some(0) {
        return Err(format!("port 0 cannot be connected to: {example}"));
    }
    Ok(url)
}

/// Without a port it is Docker's, not that of the web.
fn docker_url(scheme: &str, rest: &str, port: u16) -> Result<Url, String> {
    let mut url = url(&format!("{scheme}://{rest}"), DOCKER)?;
    let has_port = rest.split('/').next().is_some_and(has_port);
    if !has_port && url.set_port(Some(port)).is_err() {
        return Err(format!("not a URL: {DOCKER}"));
    }
    Ok(url)
}

/// The library forgets a port that is the scheme's own, such as 80.
fn has_port(authority: &str) -> bool {
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether the text is `HOST:PORT` and nothing else. Without a port it may be any word, and more
/// often a mistake than an address.
fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_is_plain = host.starts_with('[') || !host.contains(':');
        !host.is_empty()
            && host_is_plain
            && !host.contains(['/', '@', ' '])
            && port.parse::<u16>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(endpoint: Result<Endpoint, String>) -> Result<String, String> {
        endpoint.map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn consul_is_found() {
        for (text, expected) in [
            ("http://127.0.0.1:8500", "http://127.0.0.1:8500"),
            (
                "https://consul.example:8501/",
                "https://consul.example:8501",
            ),
            ("http://[::1]:8500", "http://[::1]:8500"),
            (
                "https://proxy.example/consul",
                "https://proxy.example/consul",
            ),
            ("unix:///run/consul.sock", "unix:///run/consul.sock"),
            ("127.0.0.1:8500", "http://127.0.0.1:8500"),
            ("[::1]:8500", "http://[::1]:8500"),
            ("consul.local:80", "http://consul.local"),
        ] {
            assert_eq!(shown(consul(text)).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_not_consul_is_refused_with_the_reason() {
        for (text, reason) in [
            (
                "",
                "not a URL: expected something like http://127.0.0.1:8500",
            ),
            ("not a url", "not a URL"),
            ("consul", "not a URL"),
            ("::1:8500", "not a URL"),
            (":8500", "not a URL"),
            ("a/b:80", "not a URL"),
            ("http:/127.0.0.1", "not a URL"),
            ("http://", "not a URL"),
            ("http://host:99999", "not a URL"),
            ("http://host:0", "port 0"),
            ("ftp://host:21", "not a scheme"),
            ("http://host/?dc=dc1", "nothing may follow"),
            ("unix://run/consul.sock", "starts with a slash"),
        ] {
            let error = consul(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn docker_is_found() {
        for (text, expected) in [
            ("unix:///run/docker.sock", "unix:///run/docker.sock"),
            ("tcp://proxy:2375", "http://proxy:2375"),
            ("tcp://proxy", "http://proxy:2375"),
            ("tcp://[::1]", "http://[::1]:2375"),
            ("http://proxy:80", "http://proxy"),
            ("https://proxy/docker", "https://proxy:2376/docker"),
        ] {
            assert_eq!(shown(docker(text)).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_not_docker_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "expected something like unix://"),
            ("/var/run/docker.sock", "expected something like unix://"),
            ("unix://run/docker.sock", "starts with a slash"),
            ("ssh://me@host", "not supported"),
            ("npipe:////./pipe/docker_engine", "not a scheme"),
            ("tcp://", "not a URL"),
            ("tcp://host:0", "port 0"),
            ("tcp://host:1?x", "nothing may follow"),
        ] {
            let error = docker(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        let consul = consul("http://me:s3cret@host:8500");
        let docker = docker("tcp://me:s3cret@host:1");
        for error in [
            consul.expect_err("a password"),
            docker.expect_err("a password"),
        ] {
            assert!(
                error.contains("token") && !error.contains("s3cret"),
                "{error}"
            );
        }
    }
}
