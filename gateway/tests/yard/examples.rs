//! The agents of `agents/examples/`, unmodified behind the gateway: the contract as other people's agents keep it.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::contract::{check_problem, keeps};
use crate::harness::{Yard, soon, until, yard};
use crate::installed::{Example, examples};
use crate::load::Load;
use crate::model::{Completion, Model};
use crate::processes::{self, until_gone};
use crate::redis::Redis;
use crate::stream::{End, Stream};

/// Minutes of work, at 20 ms for a word: tests leave it, or look whether it still goes on.
const LONG_WORDS: usize = 10_000;

/// A table with this agent.
fn table(example: &Example, replicas: u32, env: &str) -> String {
    let Example { name, command } = example;
    format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
         [agents.{name}]\n\
         [agents.{name}.deployment]\ncommand = {command:?}\n\
         env = {{ PYTHONDONTWRITEBYTECODE = \"1\", {env} }}\n\
         [agents.{name}.scale]\nmin = {replicas}\n"
    )
}

/// A yard with so many replicas of it, all ready.
async fn started(example: &Example, replicas: u32, env: &str) -> Yard {
    let yard = yard(&table(example, replicas, env)).start().await;
    yard.until_replicas(example.name, replicas.into()).await;
    yard
}

fn long() -> String {
    "word ".repeat(LONG_WORDS)
}

/// Where its replicas listen.
async fn addresses(yard: &Yard, agent: &str) -> Vec<String> {
    let state = yard.api(&format!("agents/{agent}")).await;
    let endpoints = state["endpoints"].as_array().unwrap().iter();
    let address = |endpoint: &Value| endpoint["address"].as_str().unwrap().to_owned();
    let with_scheme = |address: String| match address.starts_with("http") {
        true => address,
        false => format!("http://{address}"),
    };
    endpoints.map(address).map(with_scheme).collect()
}

/// A figure of a replica's own metrics; 0 when there is none.
async fn metric(yard: &Yard, replica: &str, name: &str) -> f64 {
    let text = yard.http.get(format!("{replica}/metrics")).send().await.unwrap().text().await;
    let text = text.unwrap();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(0.0)
}

async fn until_metric(yard: &Yard, replica: &str, name: &str, value: f64) {
    until(&format!("{name} is {value}"), async || metric(yard, replica, name).await == value).await;
}

/// A stream at a replica itself, past the gateway, which so doesn't know that the replica is busy.
async fn occupied(yard: &Yard, replica: &str) -> Stream {
    let body = json!({"input": long(), "stream": true});
    let sent = yard.http.post(format!("{replica}/invoke")).json(&body).send();
    let reply = soon("the stream begins", sent).await.unwrap();
    assert_eq!(reply.status(), 200);
    let mut stream = Stream::new(reply);
    stream.until("token").await;
    stream
}

#[tokio::test]
async fn they_answer_as_json_and_in_events_that_come_while_they_work() {
    for example in examples().await {
        let name = example.name;
        let yard = started(&example, 1, "").await;
        assert_eq!(in_session(&yard, name, "s").await, ("off".to_owned(), 0));
        let reply = yard.ask(name, "Good morning").await;
        assert_eq!(reply["output"], "You said: Good morning");
        keeps("reply", &reply);
        let metadata = &reply["metadata"];
        assert_eq!((&metadata["agent"], &metadata["model"]), (&json!(name), &json!("none")));

        let events = yard.open(name, "Good morning").await.good(Vec::new()).await;
        for event in &events {
            keeps(&event.name, &json!({"event": event.name, "data": event.data}));
        }
        let names: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["step", "token", "token", "token", "token", "final"]);

        let mut stream = yard.open(name, &long()).await;
        stream.until("token").await;
        let replica = &addresses(&yard, name).await[0];
        assert_eq!(metric(&yard, replica, "agent_in_flight").await, 1.0, "the rest is to come");
        drop(stream);
        yard.end().await;
    }
}

#[tokio::test]
async fn what_they_refuse_reaches_the_client_as_they_said_it() {
    for example in examples().await {
        let name = example.name;
        let yard = started(&example, 1, "").await;
        check_problem(yard.post(name, &json!({"input": " "})).await, name, 400, "bad-request")
            .await;
        check_problem(yard.post(name, &json!([1])).await, name, 400, "bad-request").await;
        let session = json!({"input": "a", "session_id": "../a"});
        check_problem(yard.post(name, &session).await, name, 400, "bad-request").await;
        let large = json!({"input": "a".repeat(5 << 20)});
        check_problem(yard.post(name, &large).await, name, 413, "body-too-large").await;
        let url = format!("{}/agents/{name}/invoke", yard.url);
        let reply = yard.http.get(url).send().await.unwrap();
        check_problem(reply, name, 405, "method-not-allowed").await;
        yard.ask(name, "It still answers").await;
        yard.end().await;
    }
}

/// The agent's own view of its dependencies, through the gateway.
async fn health(yard: &Yard, agent: &str) -> (u16, Value) {
    let url = format!("{}/agents/{agent}/health", yard.url);
    let reply = yard.http.get(url).send().await.unwrap();
    (reply.status().as_u16(), reply.json().await.unwrap())
}

/// Asks within a session; gives what is said of the memory: which, and how much there was.
async fn in_session(yard: &Yard, agent: &str, session: &str) -> (String, u64) {
    let reply = yard.post(agent, &json!({"input": "a", "session_id": session})).await;
    assert_eq!(reply.status(), 200);
    let reply: Value = reply.json().await.unwrap();
    keeps("reply", &reply);
    let metadata = &reply["metadata"];
    assert_eq!(metadata["session_id"], session);
    (metadata["memory"].as_str().unwrap().to_owned(), metadata["remembered"].as_u64().unwrap())
}

#[tokio::test]
async fn without_redis_they_say_so_and_go_on() {
    for example in examples().await {
        let name = example.name;
        let mut redis = Redis::start().await;
        let yard = started(&example, 1, &format!("REDIS_URL = \"{}\"", redis.url())).await;
        let good = json!({"status": "ok", "checks": {"redis": "ok"}});
        let bad = json!({"status": "degraded", "checks": {"redis": "down"}});
        until("redis is seen", async || health(&yard, name).await == (200, good.clone())).await;
        assert_eq!(in_session(&yard, name, "s").await, ("redis".to_owned(), 0));

        redis.stop().await;
        until("it is missed", async || health(&yard, name).await == (503, bad.clone())).await;
        assert_eq!(in_session(&yard, name, "s").await, ("down".to_owned(), 0));
        let ready = yard.http.get(format!("{}/agents/{name}/readyz", yard.url)).send().await;
        assert_eq!(ready.unwrap().status(), 200, "it works without");

        redis.start_again().await;
        until("it is back", async || health(&yard, name).await == (200, good.clone())).await;
        assert_eq!(in_session(&yard, name, "s").await, ("redis".to_owned(), 0));
        yard.end().await;
    }
}

#[tokio::test]
async fn any_replica_goes_on_with_a_session() {
    for example in examples().await {
        let name = example.name;
        let redis = Redis::start().await;
        let yard = started(&example, 2, &format!("REDIS_URL = \"{}\"", redis.url())).await;
        let replicas = addresses(&yard, name).await;
        until("both have Redis", async || {
            let mut all = true;
            for replica in &replicas {
                let health = yard.http.get(format!("{replica}/health")).send().await.unwrap();
                all &= health.status() == 200;
            }
            all
        })
        .await;
        for (n, replica) in replicas.iter().cycle().take(4).enumerate() {
            let body = json!({"input": "a", "session_id": "s"});
            let reply = yard.http.post(format!("{replica}/invoke")).json(&body).send().await;
            let reply: Value = reply.unwrap().json().await.unwrap();
            assert_eq!(reply["metadata"]["memory"], "redis", "{reply}");
            assert_eq!(reply["metadata"]["remembered"], 2 * n, "question and answer: {reply}");
        }
        assert_eq!(in_session(&yard, name, "s").await, ("redis".to_owned(), 8));
        assert_eq!(in_session(&yard, name, "another").await, ("redis".to_owned(), 0));
        for _ in 0..9 {
            in_session(&yard, name, "s").await;
        }
        assert_eq!(in_session(&yard, name, "s").await, ("redis".to_owned(), 20), "and no more");
        yard.end().await;
    }
}

#[tokio::test]
async fn a_full_replica_refuses_and_another_one_answers() {
    for example in examples().await {
        let name = example.name;
        let yard = started(&example, 2, "AGENT_MAX_IN_FLIGHT = \"1\"").await;
        let replicas = addresses(&yard, name).await;
        let first = occupied(&yard, &replicas[0]).await;
        let refused = "agent_requests_total{outcome=\"at-limit\"}";
        until("it has refused one", async || {
            yard.ask(name, "Is there room?").await;
            metric(&yard, &replicas[0], refused).await >= 1.0
        })
        .await;

        let second = occupied(&yard, &replicas[1]).await;
        let reply = yard.post(name, &json!({"input": "And now?"})).await;
        assert_eq!(reply.headers()["retry-after"], "1");
        check_problem(reply, name, 503, "at-limit").await;
        drop((first, second));
        until("there is room again", async || {
            yard.post(name, &json!({"input": "And now?"})).await.status() == 200
        })
        .await;
        yard.end().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_their_work() {
    for example in examples().await {
        let name = example.name;
        let yard = started(&example, 1, "").await;
        let replica = &addresses(&yard, name).await[0];
        let gone = "agent_requests_total{outcome=\"client-gone\"}";

        let mut stream = yard.open(name, &long()).await;
        stream.until("token").await;
        drop(stream);
        until_metric(&yard, replica, gone, 1.0).await;
        until_metric(&yard, replica, "agent_in_flight", 0.0).await;

        let url = format!("{}/agents/{name}/invoke", yard.url);
        let asked = tokio::spawn(yard.http.post(url).json(&json!({"input": long()})).send());
        until_metric(&yard, replica, "agent_in_flight", 1.0).await;
        asked.abort();
        until_metric(&yard, replica, gone, 2.0).await;
        until_metric(&yard, replica, "agent_in_flight", 0.0).await;
        yard.end().await;
    }
}

/// Asks for events, and meets the agent's question to its model.
async fn asked(yard: &Yard, agent: &str, model: &mut Model) -> (Stream, Completion) {
    let body = json!({"input": "What is a replica?", "stream": true});
    let sent = yard.http.post(format!("{}/agents/{agent}/invoke", yard.url)).json(&body);
    let reply = tokio::spawn(sent.header("traceparent", TRACE).send());
    let completion = model.asked().await;
    let reply = soon("the reply begins", reply).await.unwrap().unwrap();
    assert_eq!(completion.header("x-request-id"), reply.headers()["x-request-id"].to_str().ok());
    assert_eq!(completion.header("traceparent"), Some(TRACE));
    (Stream::new(reply), completion)
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn with_a_model_they_pass_its_pieces_on_and_stop_it_for_who_has_left() {
    for example in examples().await {
        let name = example.name;
        let mut model = Model::start().await;
        let env = format!("OPENAI_BASE_URL = \"{}/v1\", AGENT_MODEL = \"small\"", model.url());
        let yard = started(&example, 1, &env).await;

        let (mut stream, mut completion) = asked(&yard, name, &mut model).await;
        assert_eq!(completion.asked["model"], "small");
        assert_eq!(completion.asked["messages"][0]["content"], "What is a replica?");
        completion.begin().await;
        let mut events = Vec::new();
        for text in ["One ", "of ", "several."] {
            completion.say(text).await;
            events.extend(stream.until("token").await);
            assert_eq!(events.last().unwrap().data["text"], text);
        }
        completion.end().await;
        let events = stream.good(events).await;
        let metadata = &events.last().unwrap().data["metadata"];
        assert_eq!(
            (&metadata["model"], &metadata["usage"]["total_tokens"]),
            (&json!("small"), &json!(15))
        );

        let (mut stream, mut completion) = asked(&yard, name, &mut model).await;
        completion.begin().await;
        completion.say("One ").await;
        stream.until("token").await;
        drop(stream);
        completion.left().await;

        let (mut stream, mut completion) = asked(&yard, name, &mut model).await;
        completion.begin().await;
        completion.say("One ").await;
        stream.until("token").await;
        drop(completion);
        let (events, _) = stream.rest().await;
        let last = events.last().unwrap();
        keeps("error", &json!({"event": last.name, "data": last.data}));
        assert_eq!(last.data["code"], "model-broke-off");

        drop(model);
        let reply = yard.post(name, &json!({"input": "And now?"})).await;
        check_problem(reply, name, 502, "model-unreachable").await;
        assert_eq!(health(&yard, name).await.1["checks"], json!({"model": "down"}));
        yard.end().await;
    }
}

/// The process ids of its replicas.
fn pids(yard: &Yard, example: &Example) -> Vec<u32> {
    let is = |pid: &u32| processes::arguments(*pid).contains(&example.command[1]);
    processes::children(yard.pid()).into_iter().filter(is).collect()
}

#[tokio::test]
async fn sigterm_under_load_loses_nothing() {
    for example in examples().await {
        let name = example.name;
        let yard = started(&example, 2, "").await;
        let load = Load::start(&yard, name, 4);
        load.goes_on().await;
        load.goes_on().await;
        // Nobody tells the gateway, as when a node is drained: it learns it from the refusals.
        let victim = pids(&yard, &example)[0];
        kill_process(Pid::from_raw(victim.cast_signed()).unwrap(), Signal::TERM).unwrap();
        until_gone(&[victim]).await;
        yard.log.line("exited with status 0").await;
        yard.until_replicas(name, 2).await;
        load.goes_on().await;
        load.unharmed().await;
        yard.end().await;
    }
}

#[tokio::test]
async fn what_does_not_end_is_cut_by_the_drain_timeout_or_a_second_signal() {
    for example in examples().await {
        let name = example.name;
        for (limit, second, status) in [("0.1", false, 1), ("330", true, 143)] {
            let env = format!("AGENT_DRAIN_TIMEOUT = \"{limit}\"");
            let yard = started(&example, 1, &env).await;
            let replica = &addresses(&yard, name).await[0];
            let mut open = yard.open(name, &long()).await;
            open.until("token").await;
            let pid = Pid::from_raw(pids(&yard, &example)[0].cast_signed()).unwrap();
            kill_process(pid, Signal::TERM).unwrap();
            if second {
                let ready = async || yard.http.get(format!("{replica}/readyz")).send().await;
                until("it drains", async || ready().await.unwrap().status() == 503).await;
                kill_process(pid, Signal::TERM).unwrap();
            }
            yard.log.line(&format!("exited with status {status}")).await;
            let (events, end) = open.rest().await;
            assert_eq!((&*events.last().unwrap().name, end), ("error", End::Broken));
            yard.end().await;
        }
    }
}

#[tokio::test]
async fn they_are_replaced_one_at_a_time_under_load_and_finish_what_they_have_begun() {
    for example in examples().await {
        let name = example.name;
        let yard = started(&example, 2, "").await;
        let before = pids(&yard, &example);
        let load = Load::start(&yard, name, 4);
        load.goes_on().await;
        let mut open = yard.open(name, &"word ".repeat(100)).await;
        let events = open.until("token").await;
        yard.edit(|text| text.replace("1\", ", "1\", AGENT_NAME = \"changed\""));
        for replica in [1, 2] {
            let line = format!("up | {name}-{replica} stopped: it exited with status 0");
            yard.log.line(&line).await;
        }
        open.good(events).await;
        load.goes_on().await;
        yard.until_replicas(name, 2).await;
        assert!(pids(&yard, &example).iter().all(|pid| !before.contains(pid)));
        assert_eq!(yard.ask(name, "Who?").await["metadata"]["agent"], "changed");
        load.unharmed().await;
        yard.end().await;
    }
}
