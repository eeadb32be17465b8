//! The cluster as a user sees it: by `kubectl`, as typed. And waiting for what it does.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::failure::{Failure, Outcome};

/// For a command that waits by itself (`rollout status`, a big apply).
const COMMAND: Duration = Duration::from_secs(300);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(400);
/// How long most conditions may take to hold: a loaded machine is slow, and no proof is about this.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// What `kubectl ARGS` prints.
///
/// # Errors
/// What it says on stderr, when it fails or takes longer than five minutes.
pub(crate) async fn kubectl(args: &[&str]) -> Outcome<String> {
    run("kubectl", args, "", &[]).await
}

/// The same, with something to read.
pub(crate) async fn kubectl_with(args: &[&str], input: &str) -> Outcome<String> {
    run("kubectl", args, input, &[]).await
}

/// `kubectl ARGS -o json`.
pub(crate) async fn json(args: &[&str]) -> Outcome<Value> {
    let text = kubectl(&[args, &["-o", "json"]].concat()).await?;
    Ok(serde_json::from_str(&text)?)
}

/// A user's own command, by the shell.
pub(crate) async fn shell(command: &str, args: &[&str]) -> Outcome<String> {
    let line = format!("{command} \"$@\"");
    run("sh", &[&["-c", &line, "sh"], args].concat(), "", &[]).await
}

/// What a program prints, given `input` and variables.
pub(crate) async fn run(
    program: &str,
    args: &[&str],
    input: &str,
    variables: &[(&str, &str)],
) -> Outcome<String> {
    let said = || format!("{program} {}", args.join(" "));
    let mut command = Command::new(program);
    command.args(args).envs(variables.iter().copied()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", said()))?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    let feed = async move {
        // A program that doesn't read to the end says so by its exit.
        let _ = stdin.write_all(input.as_bytes()).await;
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = tokio::time::timeout(COMMAND, both).await;
    let output = output.map_err(|_| format!("{}: no end in 5 minutes", said()))??;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let (out, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{}: {} {}", said(), error.trim(), out.trim()).into())
}

/// Asks again and again until there is something. An error is no end: an API may be away.
///
/// # Errors
/// When there is nothing by the deadline: with the last error, if the last look was one.
pub(crate) async fn until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Outcome<Option<T>>,
) -> Outcome<T> {
    let begun = Instant::now();
    loop {
        let seen = look().await;
        match seen {
            Ok(Some(found)) => return Ok(found),
            other if begun.elapsed() >= deadline => {
                let last = other.err().map_or_else(String::new, |why: Failure| format!(": {why}"));
                return Err(format!("not in {} s: {what}{last}", deadline.as_secs()).into());
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Seconds since 1970 of a time as the API writes it, `2026-11-23T23:19:35Z`.
pub(crate) fn epoch(time: &str) -> Option<i64> {
    let number = |range| time.get(range).and_then(|text: &str| text.parse::<i64>().ok());
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Days from a year that begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::epoch;

    #[test]
    fn a_time_is_what_date_says() {
        assert_eq!(epoch("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(epoch("2024-02-29T12:00:00Z"), Some(1_709_208_000));
        assert_eq!(epoch("2026-11-23T23:19:35Z"), Some(1_795_475_975));
        assert_eq!(epoch("soon"), None);
    }
}
