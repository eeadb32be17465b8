//! Values that are one of a few words.

use serde_json::json;
use toml::de::DeValue;

use crate::kinds::{Scalar, text};
use crate::reader::{Notes, Wrong, quoted};
use crate::section::Leaf;
use crate::table::{Discovery, OnDisconnect, Priority, Protocol};

/// One of a few words.
pub(crate) trait Choice {
    /// What a word stands for.
    type Value: Copy + PartialEq + 'static;
    /// Every word, what it stands for and what that means.
    const WORDS: &'static [(&'static str, Self::Value, &'static str)];
}

/// A value that is one of a [`Choice`]'s words.
pub(crate) struct OneOf<C>(std::marker::PhantomData<C>);

impl<C: Choice> Scalar for OneOf<C> {
    type Value = C::Value;

    fn leaf() -> Leaf {
        let words: Vec<&str> = C::WORDS.iter().map(|(word, ..)| *word).collect();
        let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let (last, rest) = quoted.split_last().map_or(("", &[][..]), |(l, r)| (l.as_str(), r));
        let noun = format!("{} or {last}", rest.join(", "));
        let example = quoted.first().cloned().unwrap_or_default();
        let mut leaf = Leaf::new(noun, example, json!({"type": "string", "enum": words}));
        leaf.words = C::WORDS.iter().map(|(word, _, meaning)| (*word, *meaning)).collect();
        leaf
    }

    fn parse(value: &DeValue<'_>) -> Result<Self::Value, Wrong> {
        let written = text(value)?;
        if let Some((_, choice, _)) = C::WORDS.iter().find(|(word, ..)| *word == written) {
            return Ok(*choice);
        }
        let mut notes = Notes::default();
        let near = notes.nearest(written, C::WORDS.iter().map(|(word, ..)| *word));
        let why = format!("takes {}, not `{}`", Self::leaf().noun, quoted(written));
        match near {
            Some(near) => Err(Wrong::Rather(why, format!("did you mean \"{near}\"?"))),
            None => Err(Wrong::Because(format!(
                "takes {}, not `{}`",
                Self::leaf().noun,
                quoted(written)
            ))),
        }
    }
}

/// The word for a value.
pub(crate) fn spelling<C: Choice<Value = C> + PartialEq + Copy>(value: C) -> &'static str {
    C::WORDS.iter().find(|(_, choice, _)| *choice == value).map_or("", |(word, ..)| word)
}

impl Choice for Discovery {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self, &'static str)] = &[
        ("auto", Self::Auto, "`kubernetes` in a pod, else `listed`"),
        ("kubernetes", Self::Kubernetes, "the EndpointSlices of each agent's `service`"),
        ("dns", Self::Dns, "what each agent's `service` resolves to"),
        ("listed", Self::Listed, "each agent's `endpoints`"),
    ];
}

impl Choice for Protocol {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self, &'static str)] =
        &[("http1", Self::Http1, "HTTP/1.1"), ("h2c", Self::H2c, "HTTP/2 with prior knowledge")];
}

impl Choice for OnDisconnect {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self, &'static str)] = &[
        ("cancel", Self::Cancel, "the exchange with the agent is cancelled"),
        ("continue", Self::Continue, "the agent finishes; its place is kept and counted as held"),
    ];
}

impl Choice for Priority {
    type Value = Self;
    const WORDS: &'static [(&'static str, Self, &'static str)] = &[
        ("high", Self::High, "served before all others"),
        ("normal", Self::Normal, "served when nobody of `high` waits, and from the reserve"),
        ("low", Self::Low, "served when nobody else waits, and from the reserve"),
    ];
}
