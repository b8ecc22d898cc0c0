//! Whether a thread's own handles pay, by what they answered.
//!
//! A handle saves a lookup in the node's map; a miss costs the comparison and the keeping on top
//! of it. Below half of the questions answered the handles cost more than they save, as with
//! names asked at random out of many more than there are handles.

/// Questions of one judgement.
const WINDOW: u32 = 1024;
/// Windows without handles before they are tried again: the first time, and at most.
const REST_MIN: u32 = 8;
const REST_MAX: u32 = 1024;

/// The rule counts questions and knows no time, so the same questions give the same choice.
#[derive(Debug)]
pub(crate) struct Adapt {
    asked: u32,
    answered: u32,
    // Questions that are still asked without handles.
    resting: u32,
    rest: u32,
}

impl Adapt {
    pub(crate) fn new() -> Self {
        Self { asked: 0, answered: 0, resting: 0, rest: REST_MIN }
    }

    /// Whether the next question goes to the handles. Counts it.
    #[inline]
    pub(crate) fn ask(&mut self) -> bool {
        if self.resting == 0 {
            return true;
        }
        self.resting -= 1;
        false
    }

    /// What became of a question to the handles.
    #[inline]
    pub(crate) fn told(&mut self, answered: bool) {
        self.asked += 1;
        self.answered += u32::from(answered);
        if self.asked == WINDOW {
            self.judge();
        }
    }

    fn judge(&mut self) {
        let pays = self.answered * 2 >= WINDOW;
        (self.asked, self.answered) = (0, 0);
        if pays {
            self.rest = REST_MIN;
        } else {
            self.resting = self.rest * WINDOW;
            self.rest = (self.rest * 2).min(REST_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks `count` times with one answer of the handles in `every`; how many they were asked.
    fn asked(adapt: &mut Adapt, count: u32, every: u32) -> u32 {
        let ask = |n: u32| {
            let asked = adapt.ask();
            if asked {
                adapt.told(n.is_multiple_of(every));
            }
            u32::from(asked)
        };
        (0..count).map(ask).sum()
    }

    #[test]
    fn handles_that_answer_half_of_the_questions_are_always_asked() {
        let mut adapt = Adapt::new();
        assert_eq!(asked(&mut adapt, 100 * WINDOW, 2), 100 * WINDOW);
    }

    #[test]
    fn handles_that_do_not_pay_are_asked_less_and_less_but_tried_again() {
        let mut adapt = Adapt::new();
        assert_eq!(asked(&mut adapt, WINDOW, 3), WINDOW);
        assert_eq!(asked(&mut adapt, REST_MIN * WINDOW, 3), 0, "given up");
        assert_eq!(asked(&mut adapt, WINDOW, 3), WINDOW, "tried again");
        assert_eq!(asked(&mut adapt, 2 * REST_MIN * WINDOW, 3), 0, "for longer");
        let share = f64::from(asked(&mut adapt, 10_000 * WINDOW, 3)) / f64::from(10_000 * WINDOW);
        assert!((0.001..0.003).contains(&share), "{share}");
    }

    #[test]
    fn handles_that_begin_to_pay_are_kept() {
        let mut adapt = Adapt::new();
        asked(&mut adapt, 10_000 * WINDOW, 3);
        asked(&mut adapt, (REST_MAX + 1) * WINDOW, 1);
        assert_eq!(asked(&mut adapt, 10 * WINDOW, 1), 10 * WINDOW);
    }
}
