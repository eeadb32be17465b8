use super::*;

fn routes() -> Routes {
    let none = BTreeMap::new();
    let renames = [("/invoke", "/run"), ("/list", "/v1/list?all=1")];
    let coding: BTreeMap<String, String> =
        renames.iter().map(|(from, to)| ((*from).into(), (*to).into())).collect();
    Routes::new([("coding", &coding), ("qa", &none), ("search-agent", &none)]).unwrap()
}

fn ask(method: &str, uri: &str, types: &[&str]) -> Result<Route, RouteError> {
    let fields: Fields = types.iter().map(|name| (config::names::AGENT_TYPE, *name)).collect();
    routes().route(&method.parse().unwrap(), &uri.parse().unwrap(), &fields)
}

/// The agent, its path and the way there.
#[track_caller]
fn goes(method: &str, uri: &str, types: &[&str], index: u32, path: &str, door: Door) {
    let path = path.into();
    assert_eq!(ask(method, uri, types), Ok(Route::Agent(Target { index, path, door })), "{uri}");
}

#[track_caller]
fn fails(method: &str, uri: &str, types: &[&str], expected: &str) {
    let error = ask(method, uri, types).expect_err(uri);
    assert_eq!(error.to_string(), expected, "{uri}");
}

const ALL: &str = "there are: coding, qa, search-agent";

#[test]
fn the_mount_is_cut_off_and_the_rest_passes_byte_for_byte() {
    for (uri, path) in [
        ("/agents/qa/invoke", "/invoke"),
        ("/agents/qa/", "/"),
        ("/agents/qa/?a=1", "/?a=1"),
        ("/agents/qa/a/b/c?x=%2e%2e&agent=coding#f", "/a/b/c?x=%2e%2e&agent=coding"),
        ("/agents/qa/models/org%2Fmodel", "/models/org%2Fmodel"),
        ("/agents/qa//x//y/", "//x//y/"),
        ("/agents/qa/%7Euser;v=1/caf%e9?", "/%7Euser;v=1/caf%e9?"),
        ("/agents/qa/agents/coding/x", "/agents/coding/x"),
        ("/agents/qa/x?a/../b", "/x?a/../b"),
        ("http://host:80/agents/qa/x?y", "/x?y"),
    ] {
        for method in ["GET", "POST", "DELETE", "OPTIONS", "PURGE"] {
            goes(method, uri, &[], 1, path, Door::Mount);
        }
    }
}

#[test]
fn a_mount_without_its_slash_is_the_agents_root() {
    goes("GET", "/agents/qa", &[], 1, "/", Door::BareMount);
    goes("GET", "/agents/qa?a=1&b", &[], 1, "/?a=1&b", Door::BareMount);
    goes("GET", "/agents/qa?/", &[], 1, "/?/", Door::BareMount);
}

#[test]
fn on_the_mount_a_header_may_agree_but_not_differ() {
    goes("POST", "/agents/qa/invoke", &["qa"], 1, "/invoke", Door::Mount);
    goes("POST", "/agents/qa/invoke", &["qa", "qa, qa"], 1, "/invoke", Door::Mount);
    goes("POST", "/agents/qa/invoke", &[""], 1, "/invoke", Door::Mount);
    goes("POST", "/agents/qa/invoke?agent=coding", &[], 1, "/invoke?agent=coding", Door::Mount);
    let differ = "the path names \"qa\", the header x-agent-type names \"coding\"";
    fails("POST", "/agents/qa/invoke", &["coding"], differ);
    fails("POST", "/agents/qa/invoke", &["qa", "coding"], differ);
    fails("POST", "/agents/qa/invoke", &["qa,coding"], differ);
    let case = "the path names \"qa\", the header x-agent-type names \"QA\"";
    fails("POST", "/agents/qa/invoke", &["QA"], case);
}

#[test]
fn invoke_goes_where_header_or_query_say() {
    goes("POST", "/invoke", &["qa"], 1, "/invoke", Door::Invoke);
    goes("POST", "/invoke?agent=qa&x=1", &[], 1, "/invoke?agent=qa&x=1", Door::Invoke);
    goes("POST", "/invoke?x=agent&agent=%71a", &[], 1, "/invoke?x=agent&agent=%71a", Door::Invoke);
    goes("POST", "/invoke?%61gent=qa", &[], 1, "/invoke?%61gent=qa", Door::Invoke);
    goes(
        "POST",
        "/invoke?agent=qa&agent=qa",
        &["qa"],
        1,
        "/invoke?agent=qa&agent=qa",
        Door::Invoke,
    );
    goes("POST", "/invoke?agent=", &["qa"], 1, "/invoke?agent=", Door::Invoke);
    goes("POST", "http://h/invoke", &["qa"], 1, "/invoke", Door::Invoke);
}

#[test]
fn names_for_invoke_that_differ_are_ambiguous() {
    let header_query = "the header x-agent-type names \"qa\", the query's agent names \"coding\"";
    fails("POST", "/invoke?agent=coding", &["qa"], header_query);
    fails("POST", "/invoke?agent=qa&agent=coding", &["qa"], header_query);
    let headers = "the header x-agent-type names \"qa\", the header x-agent-type names \"coding\"";
    fails("POST", "/invoke", &["qa", "coding"], headers);
    let queries = "the query's agent names \"qa\", the query's agent names \"coding\"";
    fails("POST", "/invoke?agent=qa&agent=coding", &[], queries);
}

#[test]
fn invoke_without_a_name_needs_its_body() {
    for (uri, types) in [
        ("/invoke", &[][..]),
        ("/invoke?agents=qa", &[]),
        ("/invoke?agent", &[]),
        ("/invoke?agent=", &[""]),
        ("/invoke?xagent=qa&Agent=qa", &[" , "]),
    ] {
        assert_eq!(ask("POST", uri, types), Ok(Route::NeedsBody), "{uri}");
    }
}

#[test]
fn a_name_from_the_body_leads_to_the_same_place() {
    let uri: Uri = "/invoke?x=1".parse().unwrap();
    let Ok(Route::Agent(target)) = routes().named("qa", &uri) else { panic!("no route") };
    assert_eq!((target.index, &*target.path, target.door), (1, "/invoke?x=1", Door::Invoke));
    let error = routes().named("quality", &uri).unwrap_err();
    assert_eq!(error.to_string(), format!("there is no agent \"quality\"; {ALL}"));
}

#[test]
fn the_table_renames_exact_paths_and_keeps_the_query() {
    goes("POST", "/agents/coding/invoke", &[], 0, "/run", Door::Mount);
    goes("POST", "/agents/coding/invoke?a=1", &[], 0, "/run?a=1", Door::Mount);
    goes("POST", "/invoke?a=1", &["coding"], 0, "/run?a=1", Door::Invoke);
    goes("GET", "/agents/coding/list", &[], 0, "/v1/list?all=1", Door::Mount);
    goes("GET", "/agents/coding/list?n=2", &[], 0, "/v1/list?all=1&n=2", Door::Mount);
    goes("POST", "/agents/coding/invoke/", &[], 0, "/invoke/", Door::Mount);
    goes("POST", "/agents/coding/invoke/x", &[], 0, "/invoke/x", Door::Mount);
    goes("POST", "/agents/coding/%69nvoke", &[], 0, "/%69nvoke", Door::Mount);
    goes("POST", "/agents/qa/invoke", &[], 1, "/invoke", Door::Mount);
}

#[test]
fn a_rename_that_makes_a_target_too_long_is_refused() {
    let long: BTreeMap<String, String> =
        [("/a".to_owned(), format!("/{}", "b".repeat(100)))].into();
    let routes = Routes::new([("qa", &long)]).unwrap();
    let uri: Uri = format!("/agents/qa/a?{}", "x".repeat(65_500)).parse().unwrap();
    let error = routes.route(&Method::GET, &uri, &Fields::default()).unwrap_err();
    assert_eq!(error.to_string(), "the path is too long once it is renamed");
}

#[test]
fn a_rename_to_what_is_no_path_is_refused_when_the_table_is_built() {
    let bad: BTreeMap<String, String> = [("/a".to_owned(), "/b c".to_owned())].into();
    let error = Routes::new([("qa", &bad)]).unwrap_err();
    assert_eq!(error.to_string(), "agent qa: /b c is no path to rename to");
}

#[test]
fn an_unknown_type_is_answered_with_those_there_are() {
    let error = |name: &str| format!("there is no agent \"{name}\"; {ALL}");
    for name in ["translate", "%71a", "qa;v=1", "qa%2Fx", ""] {
        fails("POST", &format!("/agents/{name}/invoke"), &[], &error(name));
    }
    fails("POST", "/invoke", &["q\u{e4}\u{f6}\u{fc}\u{df}x"], &error("qäöüßx"));
    let upper = format!("there is no agent \"QA\" (did you mean \"qa\"?); {ALL}");
    fails("POST", "/agents/QA/invoke", &[], &upper);
    let slip = format!("there is no agent \"codign\" (did you mean \"coding\"?); {ALL}");
    fails("POST", "/invoke?agent=codign", &[], &slip);
    fails("POST", "/invoke?agent=codi+gn", &[], &slip.replace("codign", "codi gn"));
}

#[test]
fn what_a_client_made_up_is_repeated_in_part() {
    let long = "x".repeat(5_000);
    let error = ask("GET", &format!("/agents/{long}/"), &[]).unwrap_err().to_string();
    assert!(error.contains(&format!("{}…", "x".repeat(80))) && error.len() < 300, "{error}");
}

#[test]
fn the_list_of_types_is_bounded() {
    let none = BTreeMap::new();
    let names: Vec<String> = (0..1_000).map(|i| format!("agent-{i:04}")).collect();
    let routes = Routes::new(names.iter().map(|name| (name.as_str(), &none))).unwrap();
    assert_eq!(routes.lookup("agent-0999"), Some(999));
    let error = routes.named("x", &Uri::from_static("/invoke")).unwrap_err();
    let RouteError::UnknownAgent(unknown) = &error else { panic!("{error:?}") };
    assert_eq!((unknown.known.len(), unknown.total), (KNOWN_LISTED, 1_000));
    assert!(error.to_string().ends_with("agent-0049 and 950 more"), "{error}");
    let empty = Routes::new([]).unwrap().named("x", &Uri::from_static("/invoke")).unwrap_err();
    assert_eq!(empty.to_string(), "there is no agent \"x\"; the table has none");
}

#[test]
fn the_gateways_own_paths_are_found() {
    for method in ["GET", "HEAD"] {
        assert_eq!(ask(method, "/agents", &[]), Ok(Route::ListAgents));
        assert_eq!(ask(method, "/agents/?x", &["qa"]), Ok(Route::ListAgents));
        assert_eq!(ask(method, "/health?x", &[]), Ok(Route::Health));
    }
    for uri in [
        "/",
        "/invoke/",
        "/invoke/x",
        "/agentsx",
        "/Agents/qa",
        "//agents/qa/x",
        "/health/",
        "http://h",
    ] {
        assert_eq!(ask("POST", uri, &["qa"]), Err(RouteError::NotFound), "{uri}");
    }
}

#[test]
fn other_methods_are_refused_with_those_that_are_allowed() {
    for (method, uri, allow) in [
        ("POST", "/agents", "GET, HEAD"),
        ("DELETE", "/agents/", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("GET", "/invoke?agent=qa", "POST"),
        ("HEAD", "/invoke", "POST"),
        ("OPTIONS", "/invoke", "POST"),
    ] {
        assert_eq!(ask(method, uri, &[]), Err(RouteError::MethodNotAllowed { allow }), "{uri}");
    }
}

#[test]
fn tunnels_and_targets_without_a_path_are_refused() {
    assert_eq!(ask("CONNECT", "host:80", &[]), Err(RouteError::NotImplemented));
    assert_eq!(ask("CONNECT", "/agents/qa/x", &[]), Err(RouteError::NotImplemented));
    for uri in ["*", "host:80"] {
        fails("OPTIONS", uri, &[], "the path does not begin with a slash");
    }
}

#[test]
fn an_unsafe_path_is_refused_before_anything_is_looked_up() {
    let dots = "the path has a dot segment (as written, or once it is decoded)";
    for uri in
        ["/agents/qa/../coding/invoke", "/agents/qa/%2e%2e/x", "/agents/..%2finvoke", "/..", "/x/."]
    {
        fails("POST", uri, &[], dots);
    }
    let control = "the path has a control character (as written, or once it is decoded)";
    fails("POST", "/agents/qa/x%00", &[], control);
    goes("POST", "/agents/qa/x?%00/../", &[], 1, "/x?%00/../", Door::Mount);
}
