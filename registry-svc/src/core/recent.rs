//! Answers to writes that may come again: a client that got no answer repeats its request id.

use std::collections::{HashMap, VecDeque};

/// The answers to the last `limit` requests.
#[derive(Debug)]
pub(crate) struct Recent<A> {
    answers: HashMap<String, A>,
    order: VecDeque<String>,
    limit: usize,
}

impl<A: Clone> Recent<A> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { answers: HashMap::new(), order: VecDeque::new(), limit }
    }

    pub(crate) fn get(&self, request_id: &str) -> Option<A> {
        if request_id.is_empty() { None } else { self.answers.get(request_id).cloned() }
    }

    /// Keeps an answer. An empty id asks for none to be kept.
    pub(crate) fn keep(&mut self, request_id: &str, answer: A) {
        if request_id.is_empty() {
            return;
        }
        if self.answers.insert(request_id.to_owned(), answer).is_none() {
            self.order.push_back(request_id.to_owned());
        }
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_answer_is_forgotten_first_and_an_empty_id_is_never_kept() {
        let mut recent = Recent::new(2);
        for (id, answer) in [("a", 1), ("b", 2), ("c", 3), ("", 4)] {
            recent.keep(id, answer);
        }
        assert_eq!(["a", "b", "c", ""].map(|id| recent.get(id)), [None, Some(2), Some(3), None]);
    }
}
