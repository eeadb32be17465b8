//! What can't work, though each value by itself could.

use crate::raw::Root;
use crate::reader::Notes;

/// Adds every contradiction of the table to the notes.
pub(crate) fn check(_root: &Root, _notes: &mut Notes) {}
