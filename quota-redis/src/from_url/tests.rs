use super::*;

fn parse(url: &str) -> Result<RedisOptions, RedisOpenError> {
    url.parse()
}

fn error(url: &str) -> String {
    parse(url).unwrap_err().to_string()
}

#[test]
fn a_single_server_has_user_password_database_and_prefix() {
    let options = parse("redis://us%40er:p%2Fw%23d@host:7000/3?prefix=team-a&response_ms=50").unwrap();

    assert!(matches!(&options.servers, Servers::Single(at) if at.to_string() == "host:7000"));
    assert_eq!(options.settings.login.user.as_deref(), Some("us@er"));
    assert_eq!(options.settings.login.password.unwrap().expose(), "p/w#d");
    assert_eq!(options.settings.database, 3);
    assert_eq!(&*options.settings.prefix, "team-a");
    assert_eq!(options.settings.response_timeout, Duration::from_millis(50));
}

#[test]
fn a_missing_port_gets_its_default() {
    for (url, address) in
        [("redis://host", "host:6379"), ("redis://[::1]", "[::1]:6379"), ("redis://[::1]:7/", "[::1]:7")]
    {
        let options = parse(url).unwrap();
        assert!(
            matches!(&options.servers, Servers::Single(at) if at.to_string() == address),
            "{url}: {options:?}"
        );
    }
}

#[test]
fn a_unix_socket_is_a_path() {
    let options = parse("redis+unix:///run/my%20redis.sock?db=2").unwrap();

    assert!(matches!(&options.servers, Servers::Single(at) if at.to_string() == "/run/my redis.sock"));
    assert_eq!(options.settings.database, 2);
}

#[test]
fn a_cluster_url_lists_its_nodes() {
    let options = parse("redis+cluster://a:1?node=b&node=c:3").unwrap();

    let Servers::Cluster(nodes) = options.servers else { panic!("a cluster") };
    assert_eq!(nodes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:1", "b:6379", "c:3"]);
}

#[test]
fn a_sentinel_url_names_its_master() {
    let options = parse("redis+sentinel://a?master=mine&node=b:1/0").map(|options| options.servers);
    assert!(options.is_err());
    let options = parse("redis+sentinel://a/1?master=mine&node=b:1").unwrap();

    let Servers::Sentinel { sentinels, master } = options.servers else { panic!("sentinels") };
    assert_eq!(sentinels.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:26379", "b:1"]);
    assert_eq!((&*master, options.settings.database), ("mine", 1));
    assert!(error("redis+sentinel://a").contains("?master="));
}

#[test]
fn an_unknown_query_key_lists_the_known_ones() {
    assert_eq!(
        error("redis://host?perfix=x"),
        "unknown query key in a redis: URL (expected one of: prefix, connect_ms, response_ms)"
    );
    assert_eq!(
        error("redis+cluster://host?master=x"),
        "unknown query key in a redis+cluster: URL (expected one of: prefix, connect_ms, response_ms, node)"
    );
}

#[test]
fn an_unknown_scheme_lists_the_known_ones() {
    let message = error("http://host");

    assert!(
        message.starts_with("unknown redis scheme http: (expected one of: redis, rediss, redis+unix, "),
        "{message}"
    );
}

#[cfg(not(feature = "tls"))]
#[test]
fn tls_without_its_feature_names_it() {
    assert_eq!(error("rediss://host"), "rediss: needs the feature tls of quota-redis");
}

#[cfg(feature = "tls")]
#[test]
fn tls_has_an_authority_and_a_client() {
    let tls = parse("rediss+cluster://host?ca=/ca.pem&cert=/c.pem&key=/k.pem").unwrap().tls.unwrap();

    assert!(matches!(tls.authority, Some(Pem::File(path)) if path.ends_with("ca.pem")));
    assert!(tls.client.is_some());
    assert_eq!(error("rediss://host?cert=/c.pem"), "set both ?cert= and ?key=, or neither");
}

#[test]
fn invalid_urls_are_rejected() {
    for url in [
        "redis://",
        "redis:///0",
        "redis://host/one",
        "redis://host/1/2",
        "redis://host/-1",
        "redis://host?prefix=a&prefix=b",
        "redis://host?connect_ms=soon",
        "redis://host#insecure",
        "redis+unix://host/path",
        "redis+unix:path",
        "redis+cluster://host?node=",
        "redis+cluster://host?node=x:y",
        "redis://host?ca=/ca.pem",
        "host:6379",
        "nonsense",
    ] {
        assert!(parse(url).is_err(), "{url}");
    }
    for url in [
        "redis://host?prefix=a%7Bb",
        "redis://host?prefix=",
        "redis://host?connect_ms=0",
        "redis+cluster://host/1",
        "redis://user@host",
    ] {
        assert!(parse(url).unwrap().open().is_err(), "{url}");
    }
}

#[test]
fn a_duration_beyond_the_clock_is_rejected() {
    let never: [fn(RedisOptions) -> RedisOptions; 5] = [
        |options| options.connect_timeout(Duration::MAX),
        |options| options.response_timeout(Duration::MAX),
        |options| options.unsubscribe_after(Duration::MAX),
        |options| options.poll_interval(Duration::MAX),
        |options| options.keepalive_interval(Duration::MAX),
    ];

    for never in never {
        let error = never(RedisOptions::single("host", 6379)).open().unwrap_err();
        assert_eq!(error.to_string(), "a timeout or interval must be at most ten years");
    }
}

#[test]
fn no_error_or_debug_text_shows_the_password() {
    for url in [
        "redis://me:hunter2@host",
        "redis://me:hunter2@host/x",
        "redis://me:hunter2@host?x=hunter2",
        "redis://me:hunter2@host#hunter2",
        "redis+unix://me:hunter2@/path",
        "http://me:hunter2@host",
        "redis://me:hunter2%ff@host",
    ] {
        let shown = format!("{:?}", parse(url));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
