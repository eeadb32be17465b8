//! Which text counts where there are two: that of an object, and the file that is a late copy of it.
//!
//! While the object is followed it alone counts: its copy can't be newer. While it is not, the file
//! counts, but never with a text that the object has left behind. Texts are told apart by marks
//! (hashes); nothing here looks at a clock, because nobody promises how late a copy is.

use std::collections::VecDeque;

/// Texts that the object has left behind and the file may still come to hold. An edit a second for
/// the minute and a half that a kubelet may be late are 90; people make fewer.
const OLDER_MAX: usize = 128;

/// What was last seen of either.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// What the object held when it was last heard of.
    object: Option<String>,
    /// Whether it would be heard of if it changed.
    followed: bool,
    /// What the file held when it was last looked at.
    file: String,
    /// What the object has left behind.
    older: VecDeque<String>,
}

impl Order {
    /// Of a file that holds this, with no object known.
    pub(super) fn of_file(mark: &str) -> Self {
        Self { file: mark.to_owned(), ..Self::default() }
    }

    /// Whether the object counts, and the file does not.
    pub(super) fn object_counts(&self) -> bool {
        self.followed && self.object.is_some()
    }

    /// The object holds this now.
    pub(super) fn object_is(&mut self, mark: &str) {
        self.followed = true;
        let before = self.object.replace(mark.to_owned());
        let file = self.file.clone();
        self.older.retain(|older| older != mark);
        before.into_iter().chain([file]).for_each(|older| self.leave_behind(older));
    }

    /// What happens to the object from now on is told.
    pub(super) fn follow(&mut self) {
        self.followed = true;
    }

    /// The object can't be asked, or there is none any more.
    pub(super) fn lose(&mut self) {
        self.followed = false;
    }

    /// The file holds this; whether it counts.
    pub(super) fn file_is(&mut self, mark: &str) -> bool {
        let moved = self.file != mark;
        mark.clone_into(&mut self.file);
        let Some(object) = &self.object else { return true };
        let caught_up = object == mark;
        if self.followed {
            if caught_up && moved {
                self.older.clear();
            }
            self.leave_behind(mark.to_owned());
            return false;
        }
        if self.older.iter().any(|older| older == mark) {
            return false;
        }
        // It has caught up, or is ahead of what is known: what comes now is newer.
        if moved {
            self.older.clear();
        }
        true
    }

    fn leave_behind(&mut self, mark: String) {
        let known = self.object.as_ref() == Some(&mark) || self.older.contains(&mark);
        if known {
            return;
        }
        if self.older.len() == OLDER_MAX {
            self.older.pop_front();
        }
        self.older.push_back(mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps: `api:X` the object holds X; `file:X` the file holds X, which must count (`file:X!`)
    /// or must not; `away` and `back`.
    fn check(first: &str, steps: &str) {
        let mut order = Order::of_file(first);
        for step in steps.split_whitespace() {
            match step.split_once(':') {
                Some(("api", mark)) => order.object_is(mark),
                Some(("file", mark)) => {
                    let counts = order.file_is(mark.trim_end_matches('!'));
                    assert_eq!(counts, mark.ends_with('!'), "{step} in {steps}");
                }
                _ if step == "away" => order.lose(),
                _ if step == "back" => order.follow(),
                _ => panic!("{step}?"),
            }
        }
    }

    #[test]
    fn a_file_alone_always_counts() {
        check("a", "file:a! file:b! file:a!");
        check("a", "away file:b! file:a!");
    }

    #[test]
    fn a_file_that_lags_behind_never_counts() {
        check("a", "api:b file:a file:b");
        check("a", "api:a api:b api:c file:b file:c");
        check("a", "file:a! api:b away file:a file:b!");
    }

    #[test]
    fn the_first_of_two_edits_does_not_come_back_by_the_file() {
        check("a", "api:a api:b api:c away file:a file:b file:c!");
        check("a", "api:b away file:a back api:c away file:b file:c!");
    }

    #[test]
    fn what_the_file_held_before_the_object_was_heard_of_is_older() {
        check("a", "api:c file:b away file:b file:a file:c!");
    }

    #[test]
    fn a_file_that_moves_on_while_the_object_is_away_counts() {
        check("a", "api:a away file:b! file:c! file:b!");
        check("a", "api:b file:b away file:c!");
        check("a", "api:b file:b away file:a!");
    }

    #[test]
    fn once_the_object_is_back_it_counts_again() {
        check("a", "api:a away file:b! back file:c api:c file:c");
        check("a", "api:a away file:b! api:a file:b away file:b file:a!");
    }

    #[test]
    fn an_edit_and_its_undoing_are_two_edits() {
        check("a", "api:a api:b api:a file:b file:a away file:b!");
        check("a", "api:a api:b api:a away file:b file:a! file:b!");
    }

    #[test]
    fn edits_without_end_are_not_kept_without_end() {
        let mut order = Order::of_file("a");
        (0..OLDER_MAX * 3).for_each(|n| order.object_is(&n.to_string()));
        assert_eq!(order.older.len(), OLDER_MAX);
    }
}
